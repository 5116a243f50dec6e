"""Which lessons are run with which values; every mistake is found before anything runs."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classroom import course
from classroom.report.model import Run, label
from helpers.errors import ParameterError

if TYPE_CHECKING:
    from nbformat import NotebookNode

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
MAX_NAME_CHARACTERS = 100
_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")  # 1e-3, which YAML 1.1 takes for text


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


def parse_parameters(given: list[str]) -> dict[str, list[Any]]:
    """Values by name, from NAME=VALUE pieces; a name given twice has two values.

    Values are YAML: 12, 0.5, true and [1, 2] are what they look like, all else is text.

    Raises:
        ParameterError: no NAME=VALUE, or a value that is not YAML.
    """
    import yaml
    from papermill.iorw import NoDatesSafeLoader

    parameters: dict[str, list[Any]] = {}
    for piece in given:
        name, equals, text = piece.partition("=")
        if not (equals and name.isidentifier()):
            raise ParameterError("-p", piece, "NAME=VALUE, with a NAME as in the lesson")
        try:
            value = yaml.load(text, Loader=NoDatesSafeLoader)
        except yaml.YAMLError:
            raise ParameterError("-p", piece, "NAME=VALUE, with a VALUE in YAML") from None
        if isinstance(value, str) and _EXPONENT.fullmatch(value):
            value = float(value)
        values = parameters.setdefault(name, [])
        if not any(type(value) is type(known) and value == known for known in values):
            values.append(value)
    return parameters


def combinations(parameters: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Every combination of the values: {"A": [1, 2]} gives [{"A": 1}, {"A": 2}]."""
    return [
        dict(zip(parameters, values, strict=True))
        for values in itertools.product(*parameters.values())
    ]


def plan(lessons: list[Path], parameters: dict[str, list[Any]]) -> list[Run]:
    """Every lesson with every combination of the parameters that it has.

    A parameter that some lessons have and others lack is set where it exists.

    Raises:
        ParameterError: a file that is not a notebook, or a parameter that no lesson has.
    """
    from papermill import inspect_notebook

    runs: list[Run] = []
    taken: set[str] = set()
    known: set[str] = set()
    for path in lessons:
        notebook = read_lesson(path)
        names = set(inspect_notebook(notebook))
        known |= names
        title = lesson_title(notebook, path)
        for values in combinations({k: v for k, v in parameters.items() if k in names}):
            name = _file_name(path.stem, values, taken)
            runs.append(Run(lesson=path.stem, title=title, values=values, name=name, source=path))
    unknown = [name for name in parameters if name not in known]
    if unknown:
        allowed = f"one of {', '.join(sorted(known))}" if known else "left out: there is none here"
        raise ParameterError("-p", unknown[0], f"a parameter of a chosen lesson: {allowed}")
    return runs


def read_lesson(path: Path) -> NotebookNode:
    """The notebook, with this environment's kernel whatever kernel it was saved with.

    Raises:
        ParameterError: not a notebook.
    """
    import nbformat

    try:
        notebook = nbformat.read(path, as_version=4)
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
