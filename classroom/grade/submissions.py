"""Learners' notebooks: found in files and folders, each with its learner and its lesson."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from classroom import course
from classroom.exercises import lessons
from helpers.errors import ParameterError

_MARKS = " _-.()"


@dataclass(frozen=True)
class Submission:
    """One notebook of one learner.

    Attributes:
        learner: as the gradebook names them.
        lesson: "01".
        path: the notebook, as it was handed in.
    """

    learner: str
    lesson: str
    path: Path


def find_submissions(given: Sequence[str]) -> list[Submission]:
    """The notebooks that are meant, by learner and lesson.

    A folder is searched with all folders in it. The lesson is told by a file name that
    holds the lesson's own ("01_tokenization.ipynb", "anna_01_tokenization (2).ipynb"). The
    learner is what else the name holds, or, where that is nothing, the folder's name.

    Args:
        given: notebooks and folders.

    Raises:
        ParameterError: nothing there, no lesson's notebook, or one learner's lesson twice.
    """
    known = {one.file: one.number for one in course.written() if one.number in lessons()}
    found: dict[tuple[str, str], Submission] = {}
    for name in given:
        for path in _notebooks(Path(name)):
            stem = next((stem for stem in known if stem in path.stem), None)
            if stem is None:
                raise ParameterError(
                    "submission", str(path), f"a notebook named like a lesson: {', '.join(known)}"
                )
            rest = re.sub(r"[-_. ]*\(\d+\)$", "", path.stem.replace(stem, "")).strip(_MARKS)
            one = Submission(rest or path.resolve().parent.name, known[stem], path)
            if (other := found.setdefault((one.learner, one.lesson), one)) != one:
                raise ParameterError(
                    "submission", str(path), f"the only lesson {one.lesson} of {one.learner!r}: "
                    f"{other.path} is there, too"
                )  # fmt: skip
    return [found[key] for key in sorted(found)]


def _notebooks(place: Path) -> list[Path]:
    """A notebook itself, or all in a folder but those that Jupyter keeps for itself."""
    if place.is_dir():
        inside = [p for p in sorted(place.rglob("*.ipynb")) if ".ipynb_checkpoints" not in p.parts]
        if inside:
            return inside
    elif place.is_file() and place.suffix == ".ipynb":
        return [place]
    raise ParameterError("submission", str(place), "a notebook, or a folder with notebooks")
