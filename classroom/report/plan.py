"""Which lessons are run with which values; every mistake is found before anything runs."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classroom import course
from classroom.report.model import Run, label
from classroom.report.parameters import combinations, defaults, typed
from system.errors import ParameterError
from system.textfiles import TextFileError, read_text

if TYPE_CHECKING:
    from nbformat import NotebookNode

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
MAX_NAME_CHARACTERS = 100


def find_lessons(names: list[str], lessons: list[Path] | None = None) -> list[Path]:
    """The notebooks that are meant, in the order given; all lessons if none is named.

    Args:
        names: lesson numbers (1 or 01), file names with or without .ipynb, or paths.
        lessons: all that there are; the course's if left out.

    Raises:
        ParameterError: no such lesson.
    """
    lessons = course.notebooks() if lessons is None else lessons
    known = {key: path for path in lessons for key in (path.stem[:2], path.stem, path.name)}
    chosen = []
    for name in names:
        path = known.get(name.zfill(2) if name else name) or Path(name)
        if path.suffix != ".ipynb" or not path.is_file():
            numbers = ", ".join(lesson.stem[:2] for lesson in lessons)
            raise ParameterError("lesson", name, f"one of {numbers}, or a notebook's path")
        chosen.append(path)
    return list(dict.fromkeys(chosen)) or lessons


def plan(
    lessons: list[Path], parameters: dict[str, list[str]]
) -> tuple[list[Run], dict[str, list[Any]]]:
    """Every lesson with every combination of the parameters that it has.

    A parameter that some lessons have and others lack is set where it exists.

    Args:
        lessons: their notebooks.
        parameters: values by name, as they were typed.

    Returns:
        (the runs, the values as the lessons take them).

    Raises:
        ParameterError: a file that is not a notebook, a parameter that no lesson has, or a
            value of another kind than the lesson's own.
    """
    notebooks = {path: read_lesson(path) for path in lessons}
    known = {path: defaults(notebook) for path, notebook in notebooks.items()}
    values = typed(parameters, known)
    runs: list[Run] = []
    taken: set[str] = set()
    for path, notebook in notebooks.items():
        title = lesson_title(notebook, path)
        for chosen in combinations({k: v for k, v in values.items() if k in known[path]}):
            name = _file_name(path.stem, chosen, taken)
            runs.append(Run(lesson=path.stem, title=title, values=chosen, name=name, source=path))
    return runs, values


def read_lesson(path: Path) -> NotebookNode:
    """The notebook, with this environment's kernel whatever kernel it was saved with.

    Raises:
        TextFileError: neither UTF-8 nor with a byte-order mark; names the line and the byte.
        ParameterError: not a notebook.
    """
    import nbformat

    try:
        notebook = nbformat.reads(read_text(path), as_version=4)
    except TextFileError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ParameterError("lesson", str(path), "a Jupyter notebook") from error
    notebook.metadata.kernelspec = {**KERNEL}
    return notebook


def lesson_title(notebook: NotebookNode, path: Path) -> str:
    """The notebook's first heading, or its file name."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    heading = re.search(r"^# +(.+)$", text, re.MULTILINE)
    return heading[1].strip() if heading else path.stem


def _file_name(lesson: str, values: dict[str, Any], taken: set[str]) -> str:
    """A file name that says which lesson and which values, used by no other run."""
    text = f"{lesson}--{label(values)}" if values else lesson
    base = re.sub(r"[^\w.-]+", "-", text)[:MAX_NAME_CHARACTERS].strip("-.")
    name = next(
        n for i in itertools.count(1) if (n := base if i == 1 else f"{base}-{i}") not in taken
    )
    taken.add(name)
    return name
