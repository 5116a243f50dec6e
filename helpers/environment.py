"""The environment and `.env`: MODEL_NAME, DEVICE and HF_HOME, read before anything loads."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_MODEL = "course-gpt-4m"


def load_environment(root: Path = ROOT) -> None:
    """Take what `.env` beside the README sets; a variable that is already set wins.

    Model libraries read their variables when they are imported, so this runs first. The
    older TRANSFORMERS_CACHE, which transformers 5 ignores, is said to be ignored.
    """
    env_file = root / ".env"
    if env_file.is_file():
        from dotenv import load_dotenv

        load_dotenv(env_file, override=False)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    old = os.environ.get("TRANSFORMERS_CACHE")
    if old and "HF_HOME" not in os.environ:
        os.environ["HF_HOME"] = old
        warnings.warn(
            f"TRANSFORMERS_CACHE is the older name of this setting; HF_HOME={old} is used "
            "instead. Set HF_HOME (downloads then lie in its folder hub/).",
            stacklevel=2,
        )


def default_model() -> str:
    """The model that is used when none is named: MODEL_NAME, else the course's default."""
    return os.environ.get("MODEL_NAME", "").strip() or DEFAULT_MODEL
