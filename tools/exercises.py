"""Put the exercises and the recap of classroom/exercises/ into the lessons' notebooks.

    python tools/exercises.py          all lessons that have some
    python tools/exercises.py 01 03    some

Only the sections *Exercises* and *Recap* and two lines of the import cell are written; run
`make outputs` afterwards. A second run changes nothing.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys

import nbformat
import startup
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell
from outputs import choose, tidy

from classroom.exercises import Lesson, lessons

HEADING, END = "## Exercises", "## Recap"
INTRO = (
    "Replace the three dots, run the cell: it answers at once. Stuck? `q1.hint()` helps on, "
    "`q1.solution()` shows code and why."
)
RECAP = "Choose an answer. The same questions stand below as text."


def names(lesson: Lesson) -> str:
    """The line that names the questions: "q1, q2 = lesson_01.questions"."""
    left = ", ".join(f"q{question.number}" for question in lesson.questions)
    return f"{left} = lesson_{lesson.number}.questions"


def find(cells: list[NotebookNode], heading: str) -> int:
    """The place of the Markdown cell with this heading."""
    pattern = rf"(?m)^{heading}$"
    found = [
        n for n, c in enumerate(cells) if c.cell_type == "markdown" and re.search(pattern, c.source)
    ]
    if len(found) != 1:
        sys.exit(f"{len(found)} cells with the heading {heading!r}; there must be one.")
    return found[0]


def import_questions(cells: list[NotebookNode], lesson: Lesson) -> None:
    """The import cell imports the lesson's exercises and names its questions."""
    cell = next(c for c in cells if c.cell_type == "code" and "\nimport helpers\n" in c.source)
    lines = [
        line
        for line in cell.source.splitlines()
        if "classroom.exercises" not in line and f"lesson_{lesson.number}.questions" not in line
    ]
    before = ("import helpers", "from classroom import")
    place = max(n for n, line in enumerate(lines) if line.startswith(before))
    lines.insert(place + 1, f"from classroom.exercises import lesson_{lesson.number}")
    while not lines[-1]:
        lines.pop()
    gap = [""] if re.match(r"from |import ", lines[-1]) else []
    cell.source = "\n".join([*lines, *gap, names(lesson)])


def place(notebook: NotebookNode, lesson: Lesson) -> None:
    """Write the lesson's sections *Exercises* and *Recap* anew; what follows the recap stays."""
    cells = notebook.cells
    import_questions(cells, lesson)
    start, recap = find(cells, HEADING), find(cells, END)
    before = cells[start].source.partition(HEADING)[0]
    section: list[NotebookNode] = []
    for question in lesson.questions:
        above = f"{before}{HEADING}\n\n{INTRO}\n\n" if question.number == 1 else ""
        section.append(new_markdown_cell(f"{above}**{question.name}.** {question.task}"))
        section.append(new_code_cell(question.cell(question.start)))
    section.append(new_markdown_cell(f"{END}\n\n{RECAP}"))
    section.append(new_code_cell(f"lesson_{lesson.number}.recap.show()"))
    rest = cells[recap + 1 :]
    below = cells[recap].source.partition(END)[2].strip()
    if below != RECAP:  # the first time, heading and text stand in one cell
        section.append(new_markdown_cell(below))
    else:
        rest = rest[1:]  # the widget's old cell
    notebook.cells = [*cells[:start], *section, *rest]


def main() -> None:
    """Write the notebooks of the chosen lessons."""
    parser = argparse.ArgumentParser(description="Put the exercises into the notebooks.")
    parser.add_argument("lessons", nargs="*", metavar="NN", help="lesson numbers; default: all")
    known = lessons()
    for path in choose(parser.parse_args().lessons or list(known)):
        notebook = nbformat.read(path, as_version=4)
        place(notebook, known[path.name[:2]])
        tidy(notebook)
        nbformat.write(notebook, path)
        for tidying in (["check", "--select", "I", "--fix"], ["format"]):
            subprocess.run([sys.executable, "-m", "ruff", *tidying, "-q", str(path)], check=True)
        print(f"{path.name}: {len(notebook.cells)} cells")


if __name__ == "__main__":
    startup.run(main)
