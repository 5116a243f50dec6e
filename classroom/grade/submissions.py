"""Learners' notebooks: found in files and folders, each with its learner and its lesson."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from classroom import course
from classroom.exercises import lessons
from system.errors import ParameterError

_MARKS = " _-.()"
# Of macOS archives and Windows disks; those of Jupyter, editors and bins begin with a dot.
_SYSTEM = {"__macosx", "__pycache__", "$recycle.bin", "system volume information"}
_COPY_OF = re.compile(r"^copy[-_ ]+of[-_ ]+", re.IGNORECASE)
# "-Copy1" (Jupyter), " (2)" (browsers), " copy 2" (macOS), " - Copy (2)" (Windows)
_COPIED = re.compile(r"([-_. ]+copy[-_ ]?\d*|[-_. ]*\(\d+\))+$", re.IGNORECASE)


@dataclass(frozen=True)
class Submission:
    """One notebook of one learner.

    Attributes:
        learner: as the gradebook names them.
        lesson: "01".
        path: the notebook, as it was handed in.
        is_copy: whether its name says that it is a copy: "01_tokenization-Copy1.ipynb".
    """

    learner: str
    lesson: str
    path: Path
    is_copy: bool = False


@dataclass
class Found:
    """What is to be marked, and what the instructor should know about the rest.

    Attributes:
        submissions: one for each learner and lesson.
        notes: files left out, and why; each is one line.
    """

    submissions: list[Submission] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_submissions(given: Sequence[str]) -> Found:
    """The notebooks that are meant, by learner and lesson; nobody's files stop another's.

    A folder is searched with all folders in it, hidden ones and those of the system left out.
    The lesson is told by a file name that holds the lesson's own ("01_tokenization.ipynb",
    "anna_01_tokenization (2).ipynb"). The learner is what else the name holds, or, where that
    is nothing, the folder's name. Of several candidates the original is taken before copies,
    and the one that was changed last before older ones.

    Args:
        given: notebooks and folders.

    Raises:
        ParameterError: a place that is not there, or no lesson's notebook anywhere.
    """
    found = Found()
    paths = dict.fromkeys(path for name in given for path in _notebooks(Path(name), found.notes))
    candidates: dict[tuple[str, str], list[Submission]] = defaultdict(list)
    for one in _told(list(paths), found.notes):
        candidates[one.learner, one.lesson].append(one)
    for key in sorted(candidates):
        found.submissions.append(_choose(candidates[key], found.notes))
    if not found.submissions:
        known = ", ".join(one.file for one in course.written())
        raise ParameterError(
            "submission", " ".join(given), f"a notebook named like a lesson ({known}), or a folder "
            "with such notebooks"
        )  # fmt: skip
    return found


def _notebooks(place: Path, notes: list[str]) -> list[Path]:
    """A notebook itself, or all in a folder but those that nobody has written.

    Raises:
        ParameterError: neither.
    """
    if place.is_dir():
        inside = (path for path in sorted(place.rglob("*.ipynb")) if path.is_file())
        seen = [path for path in inside if not _is_hidden(path.relative_to(place).parts)]
        if not seen:
            notes.append(f"{place}: no notebook in it")
        return seen
    if not place.exists():
        raise ParameterError("submission", str(place), "a notebook, or a folder with notebooks")
    if place.suffix != ".ipynb":
        notes.append(f"{place}: left out, it is no notebook")
        return []
    return [] if _is_hidden((place.name,)) else [place]


def _is_hidden(parts: tuple[str, ...]) -> bool:
    """Whether a file or one of its folders belongs to Jupyter, an editor or the system."""
    return any(part.startswith(".") or part.lower() in _SYSTEM for part in parts)


def _told(paths: Sequence[Path], notes: list[str]) -> list[Submission]:
    """What the names tell: learner, lesson, whether it is a copy."""
    known = {one.file: one.number for one in course.written() if one.number in lessons()}
    told: list[tuple[Path, str, str, bool]] = []
    folders: dict[str, set[Path]] = defaultdict(set)  # named like a learner → which
    for path in paths:
        stem = next((stem for stem in known if stem in path.stem), None)
        if stem is None:
            notes.append(f"{path}: left out, its name holds no lesson's ({', '.join(known)})")
            continue
        before, _, after = unicodedata.normalize("NFC", path.stem).partition(stem)
        plain = _COPY_OF.sub("", before), _COPIED.sub("", after)
        person = "".join(plain).strip(_MARKS)
        if not person:
            folder = path.resolve().parent
            folders[unicodedata.normalize("NFC", folder.name)].add(folder)
        told.append((path, known[stem], person, plain != (before, after)))
    shown = {}  # folder → the learner's name; two people may have folders of one name
    for name, places in folders.items():
        for place in places:
            shown[place] = f"{place.parent.name}/{name}" if len(places) > 1 else name
        if len(places) > 1:
            names = " and ".join(sorted(shown[place] for place in places))
            notes.append(f"several folders are called {name}: marked apart, as {names}")
    return [
        Submission(person or shown[path.resolve().parent], lesson, path, is_copy)
        for path, lesson, person, is_copy in told
    ]


def _choose(candidates: list[Submission], notes: list[str]) -> Submission:
    """The one notebook that is marked of several for one learner and lesson."""
    by_age = sorted(candidates, key=lambda one: (-one.path.stat().st_mtime, str(one.path)))
    first, *others = sorted(by_age, key=lambda one: one.is_copy)
    for other in others:
        why = "the other one is a copy"
        if first.is_copy == other.is_copy:
            newer = first.path.stat().st_mtime > other.path.stat().st_mtime
            why = "it was changed last" if newer else "both are equally old; it is first by name"
        notes.append(
            f"{first.learner}, lesson {first.lesson}: {first.path} is marked, not {other.path} "
            f"({why})"
        )
    if first.is_copy and not others:
        notes.append(f"{first.learner}, lesson {first.lesson}: only a copy is there, {first.path}")
    return first
