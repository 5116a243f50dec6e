"""What the command lines of the report and of marking share: an output folder, limits."""

from __future__ import annotations

import argparse
import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from system.environment import ROOT
from system.errors import ParameterError


def add_output(parser: argparse.ArgumentParser, kind: str) -> None:
    """Add `--output`; `new_folder` makes what it names."""
    parser.add_argument(
        "--output", type=Path, metavar="DIR",
        help=f"a new or empty folder; default: {kind}/ and the time",
    )  # fmt: skip


def below(most: float) -> Callable[[str], float]:
    """How argparse reads a limit in whatever unit: above 0 and below `most`."""

    def limit(text: str) -> float:
        value = float(text)
        if not 0 < value < most:
            raise ValueError
        return value

    return limit


def ensure_home() -> None:
    """Give Jupyter an empty home folder where there is none: a user that the system lacks."""
    try:
        Path.home()
    except RuntimeError:
        home = tempfile.mkdtemp(prefix="home-")
        atexit.register(shutil.rmtree, home, ignore_errors=True)
        os.environ["HOME"] = home


def new_folder(asked: Path | None, kind: str, inner: str) -> Path:
    """Make the folder that results are written to.

    Args:
        asked: what `--output` says; None: a folder of the course, named by the time.
        kind: where that one lies, "reports" or "gradebooks".
        inner: a folder to make inside.

    Raises:
        ParameterError: it holds files already, or cannot be made.
    """
    folder = asked or ROOT / kind / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ParameterError("output", str(folder), "a new or an empty folder")
        (folder / inner).mkdir()
    except OSError as error:
        raise ParameterError("output", str(folder), f"a folder to write in ({error})") from error
    return folder
