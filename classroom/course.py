"""The lessons of the course, as `notebooks/course.toml` lists them: the one place that says which.

from classroom import course
course.written()        # the lessons that are there, in order
course.notebooks()      # their files
course.lesson("03").title
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
MANIFEST = "course.toml"


class CourseLesson(BaseModel):
    """One lesson, as the manifest has it.

    Attributes:
        file: its notebook, without the ending: "03_parameter_sliders".
        title: "Parameter sliders".
        minutes: study time.
        aims: what one learns, for the README.
        question: what it answers, for the map in lesson 00.
        planned: it has no notebook yet.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str = Field(pattern=r"^\d\d_[a-z0-9_]+$")
    title: str = Field(min_length=1)
    minutes: int = Field(ge=1, le=240)
    aims: str = Field(min_length=1)
    question: str = Field(min_length=1)
    planned: bool = False

    @property
    def number(self) -> str:
        """Two digits: "03"."""
        return self.file[:2]

    @property
    def name(self) -> str:
        """Number and title: "03 Parameter sliders"."""
        return f"{self.number} {self.title}"

    @property
    def notebook(self) -> str:
        """The notebook's file name: "03_parameter_sliders.ipynb"."""
        return f"{self.file}.ipynb"


class _Manifest(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid")

    lesson: list[CourseLesson] = Field(min_length=1)

    @model_validator(mode="after")
    def _in_order(self) -> _Manifest:
        numbers = [lesson.number for lesson in self.lesson]
        if numbers != [f"{n:02d}" for n in range(len(numbers))]:
            raise ValueError(f"numbers must go 00, 01, … without a gap, not {', '.join(numbers)}")
        return self


def read(folder: Path = NOTEBOOKS) -> tuple[CourseLesson, ...]:
    """Every lesson in order, the planned ones too.

    Args:
        folder: where the lessons and their manifest lie.

    Raises:
        ValueError: the manifest does not say what it must; the message names the place.
        FileNotFoundError: there is none in this folder.
    """
    path = folder / MANIFEST
    text = path.read_text(encoding="utf-8")
    try:
        return tuple(_Manifest.model_validate(tomllib.loads(text)).lesson)
    except ValidationError as error:
        first = error.errors()[0]
        place = " ".join(str(part) for part in first["loc"])
        raise ValueError(f"{path.name}, {place or 'all lessons'}: {first['msg']}") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path.name}: {error}") from None


def written(folder: Path = NOTEBOOKS) -> tuple[CourseLesson, ...]:
    """The lessons whose notebooks are there."""
    return tuple(lesson for lesson in read(folder) if not lesson.planned)


def notebooks(folder: Path = NOTEBOOKS) -> list[Path]:
    """The lessons' notebooks, in order; a learner's own notebooks beside them are none."""
    return [folder / lesson.notebook for lesson in written(folder)]


def lesson(number: str) -> CourseLesson:
    """The lesson with this number.

    Raises:
        KeyError: no lesson has it.
    """
    return {lesson.number: lesson for lesson in read()}[number]
