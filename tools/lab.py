"""Start JupyterLab on lesson 00 with the course's settings (`make lab`).

PORT chooses the port (default 8888), BROWSER the browser (`none`: open none). Ctrl+C
ends it.
"""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import startup

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # this folder's course, whichever one is installed

from system.child import end_with_parent, own_session  # noqa: E402

STOP_SECONDS = 3  # for a polite end; nothing of the learner's is lost after it
FIRST_LESSON = "notebooks/00_start_here.ipynb"
OURS = ("PORT", "PYTHON", "TORCH")  # said to make; the kernels' programs would take them as theirs


def port_from(text: str) -> int:
    """The port from the PORT setting; a number that cannot be used ends the program."""
    if not text.isdecimal() or not 1024 <= int(text) <= 65535:
        sys.exit(f"PORT={text} is no port: choose a number from 1024 to 65535.")
    return int(text)


def need_free(port: int) -> None:
    """End the program if another one listens on the port."""
    with socket.socket() as probe:
        if os.name != "nt":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            other = port + 2 if port < 65534 else 8890
            sys.exit(f"Port {port} is taken: choose another, as in make lab PORT={other}.")


def take_terminal() -> None:
    """Receive Ctrl+C alone: `make` would report the end of a server as an error."""
    if os.name == "nt" or not sys.stdin.isatty():
        return
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    os.setpgid(0, 0)
    os.tcsetpgrp(sys.stdin.fileno(), os.getpgrp())


def serve(command: list[str], env: dict[str, str]) -> int:
    """Run the server; Ctrl+C ends it, with status 0; it ends itself where we are killed."""
    # Ctrl+C (a shell may have left it ignored), stopped from outside, the terminal was closed.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.default_int_handler)
    # In a session of its own the server does not see Ctrl+C, which it would ask about.
    watched = own_session(env)["env"]
    server = subprocess.Popen(command, env=watched, cwd=ROOT, start_new_session=True)
    try:
        return server.wait()
    except KeyboardInterrupt:
        print("\nJupyterLab ends.", flush=True)
    server.terminate()
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
    return 0


def environment() -> dict[str, str]:
    """The environment of JupyterLab and its kernels: the course's settings, none of make's."""
    settings = [str(ROOT / "jupyter"), os.environ.get("JUPYTER_CONFIG_PATH", "")]
    env = os.environ | {"JUPYTER_CONFIG_PATH": os.pathsep.join(filter(None, settings))}
    return {name: value for name, value in env.items() if name not in OURS}


def main() -> int:
    """Run JupyterLab until it ends; the exit status is its own."""
    parent = psutil.Process().parent()
    if parent is not None and "make" in parent.name():  # a shell may end before us: nohup
        end_with_parent(parent.pid)
    port = port_from(os.environ.get("PORT") or "8888")
    need_free(port)
    env = environment()
    command = [sys.executable, "-m", "system.child", "jupyterlab", "--log-level=ERROR"]
    command += ["--LabApp.log_level=ERROR"]
    command += [f"--ServerApp.root_dir={ROOT}", f"--ServerApp.port={port}"]
    # Never quietly another port than the one that was said.
    command += ["--ServerApp.port_retries=0"]
    command += [f"--LabApp.default_url=/lab/tree/{FIRST_LESSON}"]
    if env.get("BROWSER") == "none":
        del env["BROWSER"]
        command.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    print(f"JupyterLab starts on port {port}. Ctrl+C ends it.", flush=True)
    terminal = os.tcgetpgrp(0) if os.name != "nt" and sys.stdin.isatty() else None
    take_terminal()
    status = serve(command, env)
    if terminal is not None:
        os.tcsetpgrp(0, terminal)
    if status:
        need_free(port)  # another one may have taken it in the meantime
    return status


if __name__ == "__main__":
    startup.run(main)
