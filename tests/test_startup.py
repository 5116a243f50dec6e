"""What every command line does first and last: encodings, closed pipes, errors in one line."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from system.environment import PACKAGES
from tests.conftest import ROOT

NAME = "Łukasz ✓ 東京"
FOLDERS = (*PACKAGES, "tools", "benchmarks", "training")
# Not for people: a child that answers in JSON, and a cell on Colab, where a kernel must go on.
OTHER = {"helpers/isolated.py", "tools/colab.py", "benchmarks/tutorial_server.py"}


def program(folder: Path, body: str, **settings: str) -> subprocess.Popen[bytes]:
    """A program whose main function has this body, started; its streams are pipes."""
    lines = "\n    ".join(body.splitlines())
    file = folder / "program.py"
    file.write_text(
        "import sys\nfrom system import startup\nfrom system.errors import ParameterError\n"
        f"def main():\n    {lines}\nstartup.run(main)\n",
        encoding="utf-8",
    )
    return subprocess.Popen(
        [sys.executable, str(file)], env=os.environ | {"PYTHONPATH": str(ROOT)} | settings,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("cp1252", r"\u0141ukasz \u2713 \u6771\u4eac"),
        ("ascii:strict", r"\u0141ukasz \u2713 \u6771\u4eac"),
        ("utf-8", NAME),
        ("", NAME),
    ],
)
def test_characters_that_an_encoding_lacks_are_replaced(
    tmp_path: Path, encoding: str, shown: str
) -> None:
    settings = {"PYTHONIOENCODING": encoding} if encoding else {"LC_ALL": "C", "PYTHONUTF8": "0"}
    ran = program(tmp_path, f"print({NAME!r}); print({NAME!r}, file=sys.stderr)", **settings)
    for output in ran.communicate(timeout=60):
        assert output.decode(encoding.partition(":")[0] or "utf-8").strip() == shown
    assert ran.returncode == 0


@pytest.mark.parametrize("flush", [True, False])
@pytest.mark.parametrize("lines", [1, 200_000])
def test_a_closed_pipe_ends_the_program_quietly(tmp_path: Path, lines: int, flush: bool) -> None:
    body = f"sys.stdin.read()\nfor n in range({lines}):\n    print('line', n, flush={flush})"
    ran = program(tmp_path, body)
    assert ran.stdout and ran.stdin and ran.stderr
    ran.stdout.close()  # as head does, before a line is written
    ran.stdin.close()
    assert ran.wait(60) == 141
    assert ran.stderr.read() == b""
    ran.stderr.close()


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ("return 3", 3, ""),
        ("pass", 0, ""),
        ("raise ParameterError('size', 3, 'at most 2')", 2, "error: size=3 is not allowed: "),
        ("raise SystemExit('no port')", 1, "no port\n"),
        ("raise SystemExit(4)", 4, ""),
        ("raise KeyboardInterrupt", 130, ""),
        ("raise ValueError('a fault of ours')", 1, "Traceback"),
        ("raise BrokenPipeError(32, 'of a socket')", 1, "Traceback"),
    ],
)
def test_how_a_program_ends(tmp_path: Path, body: str, status: int, said: str) -> None:
    ran = program(tmp_path, body)
    _, errors = ran.communicate(timeout=60)
    assert ran.returncode == status
    assert errors.decode().strip().startswith(said.strip()) and bool(errors) == bool(said)
    assert "error: " not in said or errors.count(b"\n") == 1


def test_every_command_line_uses_it() -> None:
    """Each module that can be run as a program, but those that are no command lines."""
    found = set()
    for path in (p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'":
                name = path.relative_to(ROOT).as_posix()
                found.add(name)
                used = "startup.run(main)" in ast.unparse(node)
                used |= "startup.exit_status(main)" in ast.unparse(node)
                assert used or name in OTHER, name
    assert found > OTHER and len(found) > 15


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["-m", "classroom.grade", "Łukasz"],
        ["-m", "classroom.report", "Łukasz"],
        ["-m", "serving.client.load_test", "http://127.0.0.1:1", "--tokens", "Ł"],
        ["tools/reset.py", "Ł"],
    ],
)
def test_real_command_lines_survive_a_narrow_encoding(command: list[str]) -> None:
    ran = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT, env=os.environ | {"PYTHONIOENCODING": "cp1252:strict"}, capture_output=True,
    )  # fmt: skip
    text = ran.stderr.decode("cp1252")
    assert ran.returncode == 2 and r"\u0141" in text and "Traceback" not in text


def test_check_into_a_pipe_that_closes_early() -> None:
    ran = subprocess.Popen(
        [sys.executable, "-m", "helpers.check"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert ran.stdout and ran.stderr
    assert ran.stdout.readline().startswith("✓ Python".encode())
    ran.stdout.close()
    assert ran.wait(120) == 141
    assert ran.stderr.read() == b""
    ran.stderr.close()
