"""The progress file: which questions are solved, hints used, recaps answered.

It lies in the user's data folder, or where the environment variable LLM_BASICS_PROGRESS
says; "off" keeps progress in memory only, until the kernel ends. Nothing that goes wrong
with the file stops a lesson: it is said once (`notes`), and progress stays in memory.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

VARIABLE = "LLM_BASICS_PROGRESS"
LOCK_SECONDS = 3  # another notebook holds the file for a few milliseconds at most
LARGEST_FILE = 1_000_000  # bytes; ours has a few thousand


class QuestionProgress(BaseModel):
    """What happened with one question."""

    model_config = ConfigDict(extra="allow")

    attempts: int = 0  # answers checked
    solved: bool = False  # an answer was right, if only once
    hints: int = 0  # the most shown
    solution: bool = False  # looked at


class RecapProgress(BaseModel):
    """What happened with one recap question."""

    model_config = ConfigDict(extra="allow")

    right: bool = False  # the right option was found, if only in the end


class Progress(BaseModel):
    """The whole file. What a later version of the course adds is kept."""

    model_config = ConfigDict(extra="allow")

    format: Literal["llm-basics progress 1"]
    questions: dict[str, QuestionProgress] = Field(default_factory=dict)
    recaps: dict[str, RecapProgress] = Field(default_factory=dict)


def _empty() -> Progress:
    return Progress(format="llm-basics progress 1")


Edit = Callable[[Progress], None]
_unkept: list[Edit] = []  # what this kernel could not write, or not yet
_said: set[str] = set()
_notes: list[str] = []


def location() -> Path | None:
    """Where the file is, or will be; None if it is switched off."""
    value = os.environ.get(VARIABLE, "").strip()
    if value.lower() == "off":
        return None
    if value:
        return Path(os.path.realpath(os.path.expanduser(value)))
    import platformdirs

    try:
        return platformdirs.user_data_path("llm-basics", appauthor=False) / "progress.json"
    except RuntimeError:  # a container's user that the system does not know
        _say(f"Your progress is not kept: no home folder is known. {VARIABLE}=FILE keeps it.")
        return None


def notes() -> list[str]:
    """What there is to say about the file since the last call, for showing it."""
    found, _notes[:] = _notes[:], []
    return found


def current() -> Progress:
    """The learner's progress: the file's, or this kernel's where there is none."""
    path = location()
    progress = (_read(path) if path else None) or _empty()
    for edit in _unkept:
        edit(progress)
    return progress


def note_answer(question: str, right: bool) -> None:
    """An answer was checked."""

    def edit(progress: Progress) -> None:
        entry = progress.questions.setdefault(question, QuestionProgress())
        entry.attempts += 1
        entry.solved |= right

    _change(edit)


def note_hint(question: str, number: int) -> None:
    """Hint `number` (from 1) was shown."""

    def edit(progress: Progress) -> None:
        entry = progress.questions.setdefault(question, QuestionProgress())
        entry.hints = max(entry.hints, number)

    _change(edit)


def note_solution(question: str) -> None:
    """The solution was shown."""

    def edit(progress: Progress) -> None:
        progress.questions.setdefault(question, QuestionProgress()).solution = True

    _change(edit)


def note_recap(question: str, right: bool) -> None:
    """An option of a recap question was chosen."""

    def edit(progress: Progress) -> None:
        progress.recaps.setdefault(question, RecapProgress()).right |= right

    _change(edit)


def forget() -> str:
    """Delete the learner's progress, and say what was done. A foreign file is only set aside."""
    _unkept.clear()
    path = location()
    if path is None:
        return f"No progress is kept here ({VARIABLE}=off, or no home folder)."
    if _read(path) is None:
        return f"Not deleted: {path} cannot be read."
    try:
        existed = path.exists()
        path.unlink(missing_ok=True)
        with suppress(OSError):
            _lock_path(path).unlink(missing_ok=True)
    except OSError as error:
        return f"Not deleted: {path} ({error.strerror})."
    return f"Deleted: {path}" if existed else f"There was no progress in {path}"


def _change(edit: Edit) -> None:
    """Change the progress, in the file where possible; else keep it in mind until it is."""
    _unkept.append(edit)
    path = location()
    if path is None:
        return
    from filelock import FileLock

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(_lock_path(path), timeout=LOCK_SECONDS):  # several notebooks, one file
            progress = _read(path)
            if progress is not None:
                for waiting in _unkept:
                    waiting(progress)
                _write(path, progress)
                _unkept.clear()
    except (OSError, NotImplementedError) as error:  # the second: no locks on this file system
        _say(f"Your progress cannot be kept in {path} ({error or type(error).__name__}).")


def _read(path: Path) -> Progress | None:
    """The file's content, empty if there is none; None if it must not be touched."""
    try:
        if not path.exists():
            return _empty()
        if not path.is_file():
            _say(f"Your progress cannot be kept in {path}: this is no file.")
            return None
        with path.open("rb") as stream:
            content = stream.read(LARGEST_FILE + 1)
    except OSError as error:
        _say(f"Your progress in {path} cannot be read ({error.strerror}).")
        return None
    try:
        if len(content) > LARGEST_FILE:
            raise ValueError("too large")
        return Progress.model_validate_json(content)
    except (ValidationError, ValueError):
        return _set_aside(path)


def _set_aside(path: Path) -> Progress | None:
    """Give a damaged or foreign file another name, so that nothing in it is lost."""
    number = 1
    while (aside := path.with_name(f"{path.stem}.set-aside-{number}{path.suffix}")).exists():
        number += 1
    try:
        path.rename(aside)
    except FileNotFoundError:  # another notebook did it just now
        return _empty()
    except OSError as error:
        _say(f"{path} holds no progress of this course and cannot be renamed ({error.strerror}).")
        return None
    _say(
        f"{path} was damaged, or not this course's. It was kept as {aside.name}; yours begins anew."
    )
    return _empty()


def _write(path: Path, progress: Progress) -> None:
    """Write beside the file, then put it in its place: no reader ever sees half of it."""
    handle, name = tempfile.mkstemp(prefix=path.name, suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(progress.model_dump_json(indent=1) + "\n")
        os.replace(name, path)
    except OSError:
        with suppress(OSError):
            os.unlink(name)
        raise


def _lock_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _say(text: str) -> None:
    """Keep a message for the next output; each one is said once."""
    if text not in _said:
        _said.add(text)
        _notes.append(text)
