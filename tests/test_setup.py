"""The set-up: pins, targets, paths, and tools/setup_env.py run for real on a small stand-in."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from importlib.metadata import packages_distributions, requires, version
from pathlib import Path

import psutil
import pytest
from packaging.requirements import Requirement

from system import installed
from tests.conftest import ROOT, skip_or_fail

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
LEARNERS = PROJECT["project"]["dependencies"] + EXTRAS["lab"] + EXTRAS["fast"]
DIRECT = LEARNERS + EXTRAS["dev"] + EXTRAS["site"]
FILES = ("requirements.txt", "requirements-dev.txt")


def pins(name: str) -> list[Requirement]:
    """What a requirements file pins itself."""
    lines = (ROOT / name).read_text().splitlines()
    return [Requirement(line) for line in lines if not line.startswith(("#", "-r "))]


PINS = [pin for name in FILES for pin in pins(name)]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# --- the pins -----------------------------------------------------------------------------


def test_every_requirement_is_one_exact_version() -> None:
    names = [normal(pin.name) for pin in PINS]
    assert len(names) == len(set(names)), "a package is pinned twice"
    for pin in PINS:
        assert [s.operator for s in pin.specifier] == ["=="] and "*" not in str(pin.specifier), pin
    text = "".join((ROOT / name).read_text() for name in FILES)
    assert "://" not in text and not re.search(r"(?m)^(nvidia|cuda|triton)\b", text)
    assert "\n-r requirements.txt\n" in (ROOT / "requirements-dev.txt").read_text()


def closure(asked: list[str]) -> set[str]:
    """The packages that these bring here, themselves included: what pip would install."""
    seen: set[tuple[str, str]] = set()
    new = {(line, "") for line in asked}
    while new:
        line, extra = new.pop()
        one = Requirement(line)
        if one.marker is not None and not one.marker.evaluate({"extra": extra}):
            continue
        for part in {(normal(one.name), more) for more in ("", *one.extras)} - seen:
            seen.add(part)
            new |= {(need, part[1]) for need in requires(part[0]) or []}
    return {name for name, _ in seen}


def test_learners_install_nothing_of_the_developers() -> None:
    here = {
        normal(pin.name)
        for pin in pins("requirements.txt")
        if pin.marker is None or pin.marker.evaluate()
    }
    # PyTorch's CUDA build brings these along, in the versions that it asks for itself.
    brought = {name for name in closure(LEARNERS) if name.startswith(("nvidia", "cuda", "triton"))}
    assert here == closure(LEARNERS) - brought, "run `make pins`"
    assert not {"pytest", "ruff", "mypy", "playwright", "schemathesis", "nbval"} & here


@pytest.mark.parametrize("dependency", DIRECT)
def test_direct_dependency_has_the_same_pin_everywhere(dependency: str) -> None:
    asked = Requirement(dependency)
    assert [s.operator for s in asked.specifier] == ["=="], "pyproject.toml names one version"
    pinned = [p for p in PINS if normal(p.name) == normal(asked.name)]
    assert len(pinned) == 1 and pinned[0].specifier == asked.specifier, "run `make pins`"


def test_installed_versions_are_the_pinned_ones() -> None:
    wrong = {
        pin.name: version(pin.name)
        for pin in PINS
        if (pin.marker is None or pin.marker.evaluate())
        and not pin.specifier.contains(version(pin.name), prereleases=True)
    }
    assert not wrong


@pytest.mark.slow
def test_every_direct_dependency_imports() -> None:
    wanted = {normal(Requirement(d).name) for d in DIRECT}
    modules = {
        module
        for module, owners in packages_distributions().items()
        if module.isidentifier()
        and not module.startswith("_")
        and wanted & {normal(owner) for owner in owners}
    }
    assert {"torch", "transformers", "jupyterlab", "dotenv", "nbval", "pandas"} <= modules
    # All of this one is in the browser: its Python module is not made to be imported.
    modules.discard("jupyterlab_execute_time")
    extension = Path(sys.prefix) / "share/jupyter/labextensions/jupyterlab-execute-time"
    assert (extension / "package.json").is_file()
    code = f"import importlib\nfor m in {sorted(modules)}: importlib.import_module(m)"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=300)


@pytest.mark.parametrize("file", ["environment.yml", "binder/postBuild"])
def test_other_installers_take_the_same_pins(file: str) -> None:
    text = (ROOT / file).read_text()
    assert "-r requirements.txt" in text and "--editable ." in text
    torch = next(str(pin) for pin in PINS if pin.name == "torch")
    assert set(re.findall(r"\b[\w-]+==[\w.]+", text)) <= {torch}, "a version of its own"


def test_python_versions_agree() -> None:
    assert PROJECT["project"]["requires-python"] == ">=3.11,<3.14"
    conda = re.search(r"python=(3\.\d+)", (ROOT / "environment.yml").read_text())
    binder = (ROOT / "binder/runtime.txt").read_text().strip()
    assert conda and binder == f"python-{conda[1]}"


# --- make ---------------------------------------------------------------------------------


def test_make_explains_itself(require_tool: Callable[..., str]) -> None:
    listed = subprocess.run([require_tool("make")], cwd=ROOT, capture_output=True, text=True)
    targets = re.findall(r"(?m)^  ([a-z-]+) +\S", listed.stdout)
    for target in (
        "setup",
        "lab",
        "test",
        "test-pythons",
        "soak",
        "outputs",
        "check",
        "lint",
        "train",
        "pins",
    ):
        assert target in targets
    texts = [(ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md")]
    mentioned = set(re.findall(r"`make ([a-z-]+)", " ".join(texts)))
    assert mentioned <= set(targets), "the documents name a target that does not exist"


@pytest.mark.slow
def test_train_without_a_corpus_says_what_to_give(require_tool: Callable[..., str]) -> None:
    if not (ROOT / ".venv/course-stamp").exists():
        skip_or_fail("the environment was not made by `make setup`")
    ran = subprocess.run(
        [require_tool("make"), "-s", "train"], cwd=ROOT, capture_output=True, text=True
    )
    assert ran.returncode != 0 and "CORPUS=" in ran.stderr.splitlines()[0]


@pytest.mark.slow
def test_second_set_up_has_nothing_to_do() -> None:
    if not (ROOT / ".venv/course-stamp").exists():
        skip_or_fail("the environment was not made by `make setup`")
    ran = subprocess.run(
        [sys.executable, "tools/setup_env.py"], cwd=ROOT, capture_output=True, text=True
    )
    assert ran.returncode == 0 and "up to date" in ran.stdout
    assert "[1/3]" not in ran.stdout, "pip was asked again"


# --- tools/setup_env.py on a stand-in project ---------------------------------------------


def make_wheel(
    folder: str,
    name: str,
    number: str,
    needs: tuple[str, ...] = (),
    more: tuple[tuple[str, str], ...] = (),
) -> str:
    """The smallest wheel that pip installs; `more` are files in it, as (path, content)."""
    file = f"{name}-{number}-py3-none-any.whl"
    info = f"{name}-{number}.dist-info"
    head = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {number}"]
    files = {
        **(dict(more) or {f"{name}.py": ""}),
        f"{info}/METADATA": "\n".join([*head, *(f"Requires-Dist: {n}" for n in needs), ""]),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    sizes = "".join(f"{path},,{len(content.encode())}\n" for path, content in files.items())
    files[f"{info}/RECORD"] = f"{sizes}{info}/RECORD,,\n"
    with zipfile.ZipFile(f"{folder}/{file}", "w") as wheel:
        for path, content in files.items():
            wheel.writestr(path, content)
    return file


BACKEND = f"""import zipfile

{inspect.getsource(make_wheel)}

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    return make_wheel(wheel_directory, "course", "1.0")
"""

PYPROJECT = """[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "course"
version = "1.0"
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A project like this one, with three tiny packages in place of 190."""
    project = tmp_path / "a project with spaces"
    (project / "wheels").mkdir(parents=True)
    needed = ("tools/setup_env.py", "tools/startup.py", "system/startup.py")
    for name in (*needed, "system/installed.py"):
        (project / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, project / name)
    (project / "pyproject.toml").write_text(PYPROJECT)
    (project / "backend.py").write_text(BACKEND)
    (project / "requirements.txt").write_text("tiny==1.0\ntorch==0.1\n")
    (project / "requirements-dev.txt").write_text("-r requirements.txt\nchecker==1.0\n")
    make_torch(project, "0.1+cpu", "None")
    return project


def make_torch(project: Path, number: str, cuda: str) -> None:
    """A stand-in for a build of PyTorch: what matters is the line on CUDA in its version.py."""
    said = f"from typing import Optional\n__version__ = '{number}'\ncuda: Optional[str] = {cuda}\n"
    content = (("torch/__init__.py", ""), ("torch/version.py", said))
    make_wheel(str(project / "wheels"), "torch", number, more=content)


def set_up(project: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the stand-in's set-up; pip knows its folder of wheels and nothing else."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
    env |= {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": (project / "wheels").as_uri()}
    env |= {"TORCH": "", "PYTHON": "", "PIP_NO_INDEX": "1", "PATH": "/usr/bin:/bin"} | settings
    command = [sys.executable, "tools/setup_env.py", *arguments]
    return subprocess.run(command, cwd=project, env=env, capture_output=True, text=True)


def run_python(project: Path, code: str, venv: str = ".venv") -> str:
    """What code prints in the stand-in's environment."""
    python = project / venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    return subprocess.check_output([str(python), "-c", code], text=True).strip()


UP_TO_DATE = "The environment in .venv is up to date.\n"


def one_line(ran: subprocess.CompletedProcess[str]) -> str:
    """The single line in which a failed set-up says what to do."""
    assert ran.returncode == 1
    lines = ran.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("Set-up stopped: "), ran.stderr
    return lines[0]


@pytest.mark.slow
def test_half_finished_set_up_is_resumed(stand_in: Path) -> None:
    assert "The packages" in one_line(set_up(stand_in))  # tiny's wheel is not there yet
    make_wheel(str(stand_in / "wheels"), "tiny", "1.0")
    ran = set_up(stand_in)
    assert ran.returncode == 0, ran.stderr
    assert [line[:5] for line in ran.stdout.splitlines() if line[0] == "["] == [
        f"[{step}/3]" for step in range(1, 4)
    ]
    assert set_up(stand_in).stdout == UP_TO_DATE
    run_python(stand_in, "import tiny, torch, course")

    # Another version pinned: the set-up follows.
    make_wheel(str(stand_in / "wheels"), "tiny", "2.0")
    (stand_in / "requirements.txt").write_text("tiny==2.0\ntorch==0.1\n")
    assert set_up(stand_in, "--quiet").returncode == 0
    ask = "from importlib.metadata import version; print(version('tiny'))"
    assert run_python(stand_in, ask) == "2.0"
    assert set_up(stand_in, "--quiet").stdout == ""

    # An environment without its Python is made anew.
    shutil.rmtree(stand_in / (".venv/Scripts" if os.name == "nt" else ".venv/bin"))
    assert set_up(stand_in).returncode == 0 and run_python(stand_in, "import tiny") == ""


@pytest.mark.slow
def test_developers_packages_come_on_top(stand_in: Path) -> None:
    """Both in one environment; each ends at once when it is there."""
    for name in ("tiny", "checker"):
        make_wheel(str(stand_in / "wheels"), name, "1.0")
    assert set_up(stand_in, "--quiet").returncode == 0
    there = "from importlib.util import find_spec as f; print(bool(f('tiny')), bool(f('checker')))"
    assert run_python(stand_in, there) == "True False"
    assert "checker" in set_up(stand_in, "--quiet", "--dev").stdout
    assert run_python(stand_in, there) == "True True"
    for arguments in (["--quiet"], ["--quiet", "--dev"]):
        assert set_up(stand_in, *arguments).stdout == ""

    # Other pins, and one of the developers' packages not whole: a learner's target mends it, too.
    (stand_in / "requirements.txt").write_text("torch==0.1\ntiny==1.0\n")
    Path(run_python(stand_in, "import checker; print(checker.__file__)")).unlink()
    assert "checker has lost checker.py" in set_up(stand_in, "--quiet").stdout
    assert run_python(stand_in, there) == "True True"
    assert set_up(stand_in, "--quiet", "--dev").stdout == ""

    # Another environment beside it.
    ran = set_up(stand_in, "--venv", ".venv-other")
    assert ran.returncode == 0 and "[1/3] Environment in .venv-other" in ran.stdout
    assert run_python(stand_in, there, ".venv-other") == "True False"


def half_unpacked(site: Path) -> None:
    """As pip leaves a package when it is killed: INSTALLER is written after the files."""
    (site / "tiny-1.0.dist-info/INSTALLER").unlink()
    (site / "tiny.py").unlink()


def lost_file(site: Path) -> None:
    (site / "tiny.py").unlink()


def cut_short(site: Path) -> None:
    (site / "tiny.py").write_text("")


def lost_list(site: Path) -> None:
    (site / "tiny-1.0.dist-info/RECORD").unlink()
    (site / "~iny").mkdir()


@pytest.mark.slow
def test_what_is_not_whole_is_installed_again(stand_in: Path) -> None:
    """By the next set-up after a killed one, and by `make setup`; nothing else is touched."""
    content = (("tiny.py", "whole = True\n"),)
    make_wheel(str(stand_in / "wheels"), "tiny", "1.0", more=content)
    assert set_up(stand_in).returncode == 0
    site = Path(run_python(stand_in, "import tiny; print(tiny.__file__)")).parent
    others = {p: p.stat().st_mtime_ns for p in site.glob("torch*/*") if p.is_file()}
    for damage in (half_unpacked, lost_file, cut_short, lost_list):
        assert installed.damaged(site) == {}
        damage(site)
        assert [info.name for info in installed.damaged(site)] == ["tiny-1.0.dist-info"], damage
        if damage is half_unpacked:  # killed before the end: even --quiet looks
            (stand_in / ".venv/course-stamp").unlink()
            ran = set_up(stand_in, "--quiet")
        else:
            assert set_up(stand_in, "--quiet").stdout == "", "quick, and so it does not look"
            ran = set_up(stand_in)
        assert ran.returncode == 0 and "tiny" in ran.stdout and "again" in ran.stdout, ran.stderr
        assert run_python(stand_in, "import tiny; print(tiny.whole)") == "True"
    assert installed.damaged(site) == {} and not list(site.glob("~*"))
    assert {p: p.stat().st_mtime_ns for p in site.glob("torch*/*") if p.is_file()} == others


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere there is one build")
def test_pytorchs_build_is_said_as_it_is(stand_in: Path) -> None:
    """A choice holds until another is made, and no line names a build that is not there."""
    make_wheel(str(stand_in / "wheels"), "tiny", "1.0")
    make_torch(stand_in, "0.1", "'13.0'")
    version = "from torch.version import __version__ as v; print(v)"

    def chosen(**settings: str) -> str:
        ran = set_up(stand_in, **settings)
        assert ran.returncode == 0, ran.stderr
        said = re.findall(r"(CPU|CUDA) build", ran.stdout)
        assert len(set(said)) == 1 and len(said) == 2, ran.stdout
        return f"{said[0]} {run_python(stand_in, version)}"

    stamp = stand_in / ".venv/course-stamp"
    code = "from typing import Optional\n"
    assert code  # the stand-in's version.py is read, never imported
    assert chosen() == "CPU 0.1+cpu"
    assert chosen(TORCH="cuda") == "CUDA 0.1"
    assert set_up(stand_in).stdout == UP_TO_DATE, "a plain set-up keeps what was chosen"
    stamp.unlink()
    assert chosen() == "CUDA 0.1"
    assert chosen(TORCH="cpu") == "CPU 0.1+cpu"


@pytest.mark.slow
def test_unreachable_index_is_named(stand_in: Path) -> None:
    index = "http://127.0.0.1:9/simple"
    line = one_line(set_up(stand_in, PIP_NO_INDEX="0", PIP_INDEX_URL=index, TORCH="cuda"))
    assert index in line and "PIP_INDEX_URL" in line and "again" in line


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for Python is a shell script")
@pytest.mark.parametrize("answer", ["3 9", "3 14", "2 7"])
def test_wrong_python_gives_one_line(stand_in: Path, answer: str) -> None:
    fake = stand_in / "python-of-another-age"
    fake.write_text(f"#!/bin/sh\necho {answer}\n")
    fake.chmod(0o755)
    line = one_line(set_up(stand_in, PYTHON=str(fake)))
    assert "3.11 to 3.13" in line and answer.replace(" ", ".") in line


def test_missing_python_and_unknown_torch_give_one_line(stand_in: Path) -> None:
    assert "3.11 to 3.13" in one_line(set_up(stand_in, PYTHON="no-such-python"))
    assert "TORCH=cpu" in one_line(set_up(stand_in, TORCH="tpu"))


def test_full_disk_gives_one_line(stand_in: Path) -> None:
    script = stand_in / "tools/setup_env.py"
    script.write_text(script.read_text().replace('"cpu": 4,', '"cpu": 4_000_000,'))
    line = one_line(set_up(stand_in))
    assert "GB free" in line and "make room" in line


# --- other Pythons ------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="the stand-ins for Pythons are shell scripts")
def test_pythons_of_this_machine_are_found_and_missing_ones_said(tmp_path: Path) -> None:
    """In pyenv's folder; a shim that refuses, and a Python of another version, do not count."""
    answers = {
        "pyenv/versions/3.12.1/bin/python": "echo 3 12",
        "pyenv/versions/3.13.0/bin/python": "echo 3 9",
        "path/python3.12": "echo 'command not found' >&2; exit 127",
    }
    for name, answer in answers.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"#!/bin/sh\n{answer}\n")
        (tmp_path / name).chmod(0o755)
    env = os.environ | {"PYENV_ROOT": str(tmp_path / "pyenv"), "PATH": str(tmp_path / "path")}
    env |= {"HOME": str(tmp_path)}
    command = [sys.executable, "tools/pythons.py", "--list"]
    listed = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert listed.stdout.splitlines() == [
        "Python 3.11: not on this machine, so not tested.",
        f"Python 3.12: {tmp_path / 'pyenv/versions/3.12.1/bin/python'}",
        "Python 3.13: not on this machine, so not tested.",
    ]
    wrong = subprocess.run([*command, "3.9"], cwd=ROOT, env=env, capture_output=True, text=True)
    assert wrong.returncode == 2 and "3.11, 3.12, 3.13" in wrong.stderr


# --- make lab -----------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def lab(require_tool: Callable[..., str]) -> Iterator[tuple[int, int, int]]:
    """`make lab` on a terminal of its own: process id, the terminal, and the port."""
    pty = pytest.importorskip("pty", reason="needs a Unix terminal")
    make = require_tool("make")
    if not (ROOT / ".venv/course-stamp").exists():
        skip_or_fail("the environment was not made by `make setup`")
    port = free_port()
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.environ["JUPYTER_TOKEN"] = "course"
        os.execv(make, [make, "lab", f"PORT={port}", "BROWSER=none"])
    yield pid, terminal, port
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass
    os.close(terminal)


def read_terminal(terminal: int) -> str:
    """What the terminal shows by now."""
    shown = b""
    while select.select([terminal], [], [], 0)[0]:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # the other end is closed
            break
        shown += piece
    return shown.decode(errors="replace")


@pytest.mark.slow
def test_lab_serves_lesson_00_with_our_settings_and_ends_on_ctrl_c(
    lab: tuple[int, int, int],
) -> None:
    pid, terminal, port = lab
    addresses: list[str] = []

    def get(path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}?token=course") as answer:
            addresses.append(answer.url)
            return str(answer.read().decode())

    shown, page, deadline = "", "", time.monotonic() + 60
    while "JupyterLab" not in page:
        assert time.monotonic() < deadline, shown
        time.sleep(0.2)
        shown += read_terminal(terminal)
        with contextlib.suppress(OSError):  # not listening yet
            page = get("")
    assert "/lab/tree/notebooks/00_start_here.ipynb" in addresses[-1]
    news = json.loads(get("lab/api/settings/@jupyterlab/apputils-extension:notification"))
    assert news["schema"]["properties"]["fetchNews"]["default"] == "false"
    timing = json.loads(get("lab/api/settings/@jupyterlab/notebook-extension:tracker"))
    assert timing["schema"]["properties"]["recordTiming"]["default"] is True
    assert json.loads(get("api/metrics/v1"))["rss"] > 0

    os.write(terminal, b"\x03")
    deadline = time.monotonic() + 10
    status = None
    while status is None and time.monotonic() < deadline:
        read_terminal(terminal)
        ended, code = os.waitpid(pid, os.WNOHANG)
        status = os.waitstatus_to_exitcode(code) if ended else None
        time.sleep(0.1)
    assert status == 0


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="ends the servers by a Unix signal")
def test_two_labs_on_one_port_do_not_both_claim_it(tmp_path: Path) -> None:
    """Started at the same moment, before either listens: one serves, the other says so and ends."""
    env = os.environ | {"PORT": str(free_port()), "BROWSER": "none", "JUPYTER_TOKEN": "course"}
    env |= {"JUPYTER_RUNTIME_DIR": str(tmp_path)}
    command = [sys.executable, "tools/lab.py"]
    both = [
        subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        deadline = time.monotonic() + 120
        while all(lab.poll() is None for lab in both):
            assert time.monotonic() < deadline, "both go on"
            time.sleep(0.2)
        second = next(lab for lab in both if lab.poll() is not None)
        (first,) = (lab for lab in both if lab is not second)
        assert second.returncode == 1 and second.stderr is not None
        assert f"Port {env['PORT']} is taken" in second.stderr.read()
        while not list(tmp_path.glob("jpserver-*.json")):
            assert first.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        for lab in both:
            lab.terminate()
            lab.communicate()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="kills by a Unix signal")
def test_jupyterlab_ends_where_make_lab_was_killed(
    tmp_path: Path, require_tool: Callable[..., str]
) -> None:
    """A killed `make lab` can end nothing itself; what it started sees that it is gone."""
    env = os.environ | {"PORT": str(free_port()), "BROWSER": "none", "JUPYTER_TOKEN": "course"}
    env |= {"JUPYTER_RUNTIME_DIR": str(tmp_path)}
    makefile = tmp_path / "Makefile"
    makefile.write_text(f"lab:\n\t@{sys.executable} tools/lab.py\n")
    made = [require_tool("make"), "--no-print-directory", "-f", str(makefile), "lab"]
    for command in ([sys.executable, "tools/lab.py"], made):
        with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL) as started:
            deadline = time.monotonic() + 120
            while not (files := list(tmp_path.glob("jpserver-*.json"))):
                assert started.poll() is None and time.monotonic() < deadline
                time.sleep(0.1)
            below = psutil.Process(started.pid).children(recursive=True)
            server = int(files[0].stem.partition("-")[2])
            assert server in {process.pid for process in below}
            started.kill()
        assert not psutil.wait_procs(below, timeout=60)[1], "JupyterLab goes on"
        files[0].unlink()


def test_what_is_said_to_make_does_not_reach_the_kernels() -> None:
    """PORT, above all: a program in a notebook would take JupyterLab's port as its own."""
    code = "import json, lab; print(json.dumps(lab.environment()))"
    env = os.environ | {"PORT": "8890", "TORCH": "cpu", "PYTHON": "python3", "ANOTHER": "stays"}
    said = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT / "tools", env=env)
    kept = json.loads(said)
    assert kept["ANOTHER"] == "stays" and not {"PORT", "TORCH", "PYTHON"} & set(kept)
    assert kept["JUPYTER_CONFIG_PATH"].split(os.pathsep)[0] == str(ROOT / "jupyter")


@pytest.mark.parametrize("port", ["abc", "80", "70000"])
def test_lab_refuses_a_port_that_is_none(port: str) -> None:
    command = [sys.executable, "tools/lab.py"]
    env = os.environ | {"PORT": port}
    ran = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert ran.returncode == 1 and ran.stderr.count("\n") == 1 and "1024 to 65535" in ran.stderr


def test_lab_names_a_taken_port() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        command, env = [sys.executable, "tools/lab.py"], os.environ | {"PORT": port}
        ran = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert ran.returncode == 1 and ran.stderr.count("\n") == 1 and "taken" in ran.stderr


# --- paths --------------------------------------------------------------------------------


def test_no_file_names_a_folder_of_one_machine() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode != 0:
        skip_or_fail("not a git repository")
    private = re.compile(
        rf"(?<![\w.~-])(?:{re.escape(str(ROOT))}|/(?:home|Users|root|work|opt)/[\w.-]+)/"
    )
    found = []
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if name == "tests/test_setup.py" or not path.is_file():
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{name}: {match[0]}" for match in private.finditer(text)]
    assert not found
