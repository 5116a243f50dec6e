"""The environment and `.env`: MODEL_NAME, DEVICE and HF_HOME, read before anything loads."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from urllib.parse import urlsplit

from helpers.errors import warn

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_MODEL = "course-gpt-4m"
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def load_environment(root: Path = ROOT) -> None:
    """Take what `.env` beside the README sets; a variable that is already set wins.

    Model libraries read their variables when they are imported, so this runs first. The
    older TRANSFORMERS_CACHE, which transformers 5 ignores, is said to be ignored.
    """
    env_file = root / ".env"
    if env_file.is_file():
        from dotenv import load_dotenv

        load_dotenv(env_file, override=False)
    bypass_proxies()
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    old = os.environ.get("TRANSFORMERS_CACHE")
    if old and "HF_HOME" not in os.environ:
        os.environ["HF_HOME"] = old
        warn(
            f"TRANSFORMERS_CACHE is the older name of this setting; HF_HOME={old} is used "
            "instead. Set HF_HOME (downloads then lie in its folder hub/)."
        )


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
