"""The environment and `.env`: MODEL_NAME, DEVICE and HF_HOME, read before anything loads."""

from __future__ import annotations

import ipaddress
import os
import sys
import tempfile
from io import StringIO
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

from system.errors import warn
from system.textfiles import TextFileError, read_text

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("system", "helpers", "serving", "classroom")  # the course's own, from the ground up
DEFAULT_MODEL = "course-gpt-4m"
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def load_environment(root: Path = ROOT) -> None:
    """Take what `.env` beside the README sets; a variable that is already set wins.

    Model libraries read their variables when they are imported, so this runs first. The
    older TRANSFORMERS_CACHE, which transformers 5 ignores, is said to be ignored.

    Args:
        root: the folder of `.env`.

    Raises:
        TextFileError: `.env` is no text; names the file and the line.
    """
    env_file = root / ".env"
    if env_file.is_file():
        from dotenv import load_dotenv

        try:
            load_dotenv(stream=StringIO(read_text(env_file)), override=False)
        except TextFileError:
            sys.excepthook = _in_one_line  # of a program; notebooks show errors their own way
            raise
    bypass_proxies()
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    old = os.environ.get("TRANSFORMERS_CACHE")
    if old and "HF_HOME" not in os.environ:
        os.environ["HF_HOME"] = old
        warn(
            f"TRANSFORMERS_CACHE is the older name of this setting; HF_HOME={old} is used "
            "instead. Set HF_HOME (downloads then lie in its folder hub/)."
        )
    if os.path.expanduser("~") == "~" and not os.environ.get("XDG_CACHE_HOME"):
        # A container's user without a home: the hub's library would make a folder named "~".
        os.environ.setdefault("HF_HOME", os.path.join(tempfile.gettempdir(), "huggingface"))


def _in_one_line(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if isinstance(error, TextFileError):
        print(f"error: {error}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def is_loopback(url: str) -> bool:
    """Whether a web address leads to this very machine, where no proxy may come between.

    Args:
        url: such as http://127.0.0.1:5000/v1 or http://localhost:8080.
    """
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def bypass_proxies() -> None:
    """Let no proxy of the environment come between programs and this very machine.

    Only where one is set: on macOS and Windows NO_PROXY alone would put the system's own
    settings out of force.
    """
    if not any(os.environ.get(n.upper()) or os.environ.get(n) for n in _PROXIES):
        return
    listed = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    names = [name.strip() for name in listed.split(",") if name.strip()]
    if "*" not in names:
        names += [name for name in _LOOPBACK if name not in names]
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(names)


def default_model() -> str:
    """The model that is used when none is named: MODEL_NAME, else the course's default."""
    return os.environ.get("MODEL_NAME", "").strip() or DEFAULT_MODEL
