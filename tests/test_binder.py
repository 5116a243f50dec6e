"""Binder: what repo2docker makes of binder/, and its steps run in a clean environment."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from tests.conftest import ROOT, skip_or_fail

BINDER = ROOT / "binder"
POST_BUILD = (BINDER / "postBuild").read_text(encoding="utf-8")
CPU_INDEX = "https://download.pytorch.org/whl/cpu"

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Binder's scripts are for Linux")


def copy_course(folder: Path) -> None:
    """The files that a clone would have, with the changes made here."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode != 0:
        skip_or_fail("not a git repository")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


# --- the files ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["postBuild", "start"])
def test_scripts_can_run(name: str) -> None:
    assert os.access(BINDER / name, os.X_OK)
    subprocess.run(["bash", "-n", str(BINDER / name)], check=True)
    assert "set -euo pipefail" in (BINDER / name).read_text(), "a failed step must end the build"


def test_python_is_a_supported_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = (BINDER / "runtime.txt").read_text().strip().removeprefix("python-")
    assert named in SpecifierSet(project["requires-python"])


def test_torch_is_the_pinned_one_without_cuda() -> None:
    installs = re.findall(r"(?m)^pip install (.*)$", POST_BUILD)
    assert len(installs) == 3 and f"--index-url {CPU_INDEX} " in installs[0]
    assert "index" not in installs[1] + installs[2] and "==" not in " ".join(installs)
    script = re.search(r"(?m)^torch=.*$", POST_BUILD)
    assert script is not None
    shown = subprocess.check_output(
        ["bash", "-c", f'{script[0]}; echo "$torch"'], cwd=ROOT, text=True
    )
    assert re.fullmatch(r"torch==[\d.]+\n", shown)


@pytest.mark.parametrize(
    ("limit", "threads"),
    [("1.0", "1"), ("0.5", "1"), ("2", "2"), ("16", "unset"), ("", "unset"), ("much", "unset")],
)
def test_start_takes_the_processors_that_it_may(limit: str, threads: str) -> None:
    env = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"} | {"CPU_LIMIT": limit}
    command = [
        str(BINDER / "start"),
        "bash",
        "-c",
        'echo "${OMP_NUM_THREADS-unset} $1"',
        "-",
        "a b",
    ]
    assert subprocess.check_output(command, env=env, text=True) == f"{threads} a b\n"
    kept = subprocess.check_output(command, env=env | {"OMP_NUM_THREADS": "3"}, text=True)
    assert kept == "3 a b\n", "what is set stays"


# --- the image ----------------------------------------------------------------------------


def test_repo2docker_makes_a_dockerfile(tmp_path: Path) -> None:
    """Read from a copy without an environment in it, as Binder clones it."""
    copy_course(tmp_path)
    command = [str(Path(sys.executable).parent / "jupyter-repo2docker")]
    command += ["--no-build", "--debug", "--user-id=1000", "--user-name=jovyan", "."]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr[-2000:]
    dockerfile = ran.stdout
    assert re.search(r"(?m)^FROM docker\.io/library/buildpack-deps:", dockerfile)
    named = (BINDER / "runtime.txt").read_text().strip().removeprefix("python-")
    assert f"Building conda environment for python={named}" in ran.stderr
    assert re.search(rf"environment-2epy-2d{named.replace('.', '-2e')}-2dlinux", dockerfile)

    # Everything is installed by postBuild, once the course is there; nothing beside it.
    copied = re.search(r"(?m)^COPY --chown=\S+ src/ ", dockerfile)
    run_there = [found.start() for found in re.finditer("RUN ./binder/postBuild", dockerfile)]
    assert copied is not None and len(run_there) == 1 and run_there[0] > copied.start()
    assert not re.search(r"pip install|conda env update|requirements\.txt", dockerfile)
    assert re.search(r'R2D_ENTRYPOINT="?\S*binder/start', dockerfile)


@pytest.fixture
def clean(tmp_path: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """A clone, a fresh environment and an empty home; removed again, because it is large."""
    course, home, venv = tmp_path / "course", tmp_path / "home", tmp_path / "venv"
    course.mkdir()
    home.mkdir()
    copy_course(course)
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    kept = ("PIP_", "SSL_", "REQUESTS_", "HTTP", "http", "NO_PROXY", "no_proxy")
    env = {k: v for k, v in os.environ.items() if k.startswith(kept)}
    env |= {"HOME": str(home), "PATH": f"{venv}/bin:/usr/local/bin:/usr/bin:/bin"}
    env |= {"LANG": "C.UTF-8", "PIP_RETRIES": "1", "PYTHONUNBUFFERED": "1", "CPU_LIMIT": "1.0"}
    yield course, env
    shutil.rmtree(tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_every_step_in_a_clean_environment(clean: tuple[Path, dict[str, str]]) -> None:
    """postBuild as Binder runs it, then a server as Binder starts it (without the container)."""
    course, env = clean
    command = ["bash", "-c", "./binder/postBuild"]
    built = subprocess.run(command, cwd=course, env=env, capture_output=True, text=True)
    said = built.stdout[-4000:] + built.stderr[-4000:]
    assert built.returncode == 0, said
    assert "✓ Packages" in built.stdout and "✓ Generation" in built.stdout, said
    assert list(Path(env["HOME"]).glob(".cache/matplotlib/fontlist*.json"))
    ask = "import torch; print(torch.__version__, torch.get_num_threads(), torch.version.cuda)"
    python = ["./binder/start", "python", "-c", f"import helpers; {ask}"]
    answer = subprocess.check_output(python, cwd=course, env=env, text=True).split()
    assert "+cpu" in answer[0] and answer[1:] == ["1", "None"]

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["./binder/start", "jupyter", "lab", "--no-browser", f"--port={port}"]
    command += ["--allow-root", "--IdentityProvider.token=course"]
    server = subprocess.Popen(command, cwd=course, env=env)
    try:
        address = f"http://127.0.0.1:{port}/lab/api/settings/"
        address += "@jupyterlab/apputils-extension:notification?token=course"
        deadline, news = time.monotonic() + 60, None
        while news is None:
            assert server.poll() is None and time.monotonic() < deadline, "JupyterLab did not start"
            time.sleep(0.3)
            with contextlib.suppress(OSError), urllib.request.urlopen(address) as reply:
                news = json.loads(reply.read())
        assert news["schema"]["properties"]["fetchNews"]["default"] == "false"
    finally:
        server.terminate()
        server.wait(20)
