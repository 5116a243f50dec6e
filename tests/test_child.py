"""Interrupting a cell leaves its server running; killing the kernel leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import nbformat
import psutil
import pytest
from jupyter_client.manager import KernelManager

from system.child import own_session, start_child
from tests.conftest import ROOT

pytestmark = [
    pytest.mark.slow,  # most tests start processes
    pytest.mark.skipif(os.name == "nt", reason="signals and process groups"),
]
LIMIT = 120  # seconds that nothing should need: an event is waited for

START = """
from serving.client import ServerProcess
server = ServerProcess(model="course-gpt-1m").start()
print(server.url, server.process.pid, flush=True)
"""
MEASURE = """
from helpers.isolated import run_isolated
def measure(file):
    import os, pathlib, time
    pathlib.Path(file).write_text(str(os.getpid()))
    time.sleep(600)
run_isolated(measure, file={file!r})
"""


class Notebook:
    """A real kernel, as JupyterLab starts one."""

    def __init__(self) -> None:
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(cwd=str(ROOT))
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=LIMIT)

    @property
    def pid(self) -> int:
        return int(self.manager.provisioner.pid)

    def run(self, code: str) -> None:
        """Start a cell; one that was interrupted just now must not take this one with it."""
        self.client.execute(code, stop_on_error=False)

    def printed(self, code: str) -> str:
        """What a cell prints first; it may still be running."""
        self.run(code)
        while True:
            message = self.client.get_iopub_msg(timeout=LIMIT)
            if message["msg_type"] == "stream":
                return str(message["content"]["text"])
            assert message["msg_type"] != "error", message["content"]

    def interrupted(self) -> str:
        """The name of the error with which the running cell ends after the ■."""
        self.manager.interrupt_kernel()
        while True:
            message: dict[str, Any] = self.client.get_iopub_msg(timeout=LIMIT)
            if message["msg_type"] == "error":
                return str(message["content"]["ename"])

    def end(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def notebook() -> Iterator[Notebook]:
    kernel = Notebook()
    yield kernel
    kernel.end()


def wait_for(file: Path) -> int:
    """The process number that a process writes into the file."""
    end = time.monotonic() + LIMIT
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return int(file.read_text())


def ended(process: psutil.Process) -> bool:
    """Whether it ends by itself; else it is ended here. Nobody need have fetched its status."""
    end = time.monotonic() + LIMIT / 4
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > end:
            process.kill()
            return False
        time.sleep(0.05)
    return True


def healthy(url: str) -> bool:
    return httpx.get(f"{url}/health", trust_env=False, timeout=30).status_code == 200


def test_a_cell_is_interrupted_and_its_server_is_not(notebook: Notebook, tmp_path: Path) -> None:
    url, pid = notebook.printed(START).split()
    server = psutil.Process(int(pid))
    assert notebook.printed("import time; print('running', flush=True); time.sleep(600)")
    assert notebook.interrupted() == "KeyboardInterrupt"
    assert healthy(url)
    go_on = "from serving.client import Client\nprint(Client(server.url).generate('A server').text)"
    assert notebook.printed(go_on).startswith("A server")

    file = tmp_path / "first"
    notebook.run(MEASURE.format(file=str(file)))
    measuring = psutil.Process(wait_for(file))
    assert notebook.interrupted() == "KeyboardInterrupt"
    assert ended(measuring), "what an interrupted cell measured is of no use to anybody"
    assert healthy(url)

    file = tmp_path / "second"
    notebook.run(MEASURE.format(file=str(file)))
    measuring = psutil.Process(wait_for(file))
    os.kill(notebook.pid, signal.SIGKILL)
    assert ended(server) and ended(measuring)


def test_interrupting_the_start_leaves_no_server(notebook: Notebook) -> None:
    begun = "print('starting', flush=True)\n" + START
    assert notebook.printed(begun) == "starting\n"
    kernel, server = psutil.Process(notebook.pid), None
    deadline = time.monotonic() + LIMIT
    while server is None:
        assert time.monotonic() < deadline, "no server was started"
        for child in kernel.children():
            with suppress(psutil.Error):  # one that has ended meanwhile
                server = child if "serving" in child.cmdline() else server
    assert notebook.interrupted() == "KeyboardInterrupt"
    assert ended(server)


def test_an_interrupt_while_a_child_is_started_ends_it(monkeypatch, tmp_path: Path) -> None:
    """In the moment between its start and the moment in which its parent knows of it."""
    real, begun = subprocess.Popen, []

    def slow(*arguments: Any, **named: Any) -> Any:
        begun.append(real(*arguments, **named))
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
        return begun[0]

    monkeypatch.setattr(subprocess, "Popen", slow)
    with pytest.raises(KeyboardInterrupt):
        start_child([sys.executable, "-c", "import time; time.sleep(600)"])
    assert begun[0].returncode == -signal.SIGKILL
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError):
        start_child([str(tmp_path / "nothing")])
    assert start_child([sys.executable, "-c", "raise SystemExit(7)"]).wait(LIMIT) == 7


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP], ids=["killed", "hung up"])
def test_a_report_that_is_ended_leaves_no_kernel(number: signal.Signals, tmp_path: Path) -> None:
    """SIGHUP is what a closed terminal sends to all processes that it controls."""
    file = tmp_path / "kernel"
    cell = f"import os, pathlib, time\npathlib.Path({str(file)!r}).write_text(str(os.getpid()))"
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(f"{cell}\ntime.sleep(600)")])
    nbformat.write(book, tmp_path / "waits.ipynb")
    run = (
        "from pathlib import Path; from classroom.report.execute import execute\n"
        f"execute(Path({str(tmp_path / 'waits.ipynb')!r}), Path({str(tmp_path / 'out.ipynb')!r}),"
        " {}, '', 600)"
    )
    # Whoever started the tests may ignore SIGHUP (nohup does), and children inherit that.
    if number == signal.SIGHUP:
        run = f"import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)\n{run}"
    report = subprocess.Popen([sys.executable, "-c", run], cwd=ROOT, start_new_session=True)
    kernel = psutil.Process(wait_for(file))
    between = psutil.Process(report.pid).children(recursive=True)
    os.killpg(report.pid, number)
    report.wait(LIMIT)
    assert ended(kernel)
    assert all(ended(process) for process in between)


def test_ctrl_c_at_a_terminal_ends_a_server_started_there() -> None:
    """`make serve`: nobody passed a parent, and the group's signal arrives."""
    environment = os.environ | {"PORT": "0", "LLM_PORT": "0", "MODEL_NAME": "course-gpt-1m"}
    server = subprocess.Popen(
        [sys.executable, "-m", "serving"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert server.stdout is not None
    assert "Ctrl+C ends it" in next(line for line in server.stdout if "Ctrl+C" in line)
    os.killpg(server.pid, signal.SIGINT)
    assert server.wait(LIMIT) == 0


def test_a_parent_that_is_gone_already_and_one_that_never_was(tmp_path: Path) -> None:
    code = (
        "from system.child import end_with_parent; import os, time\n"
        "end_with_parent(); assert 'LLM_BASICS_PARENT' not in os.environ\n"
        "time.sleep({}); print('alive')"
    )
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    environment = own_session(dict(os.environ))["env"] | {"LLM_BASICS_PARENT": str(gone.pid)}
    command = [sys.executable, "-c", code.format(600)]
    assert subprocess.run(command, env=environment, cwd=ROOT, timeout=LIMIT).returncode == 1
    command = [sys.executable, "-c", code.format(1)]
    free = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert free.stdout == "alive\n"
