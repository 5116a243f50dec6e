"""Write the notebooks of solutions from classroom/exercises/, with outputs (`make solutions`).

python tools/solutions.py          all lessons that have exercises
python tools/solutions.py 01 03    some
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import nbformat
import startup
from exercises import names
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from outputs import CELL_SECONDS, ENVIRONMENT, choose, tidy

from classroom import course
from classroom.exercises import ANSWER_TYPE, Lesson, judge, lessons

FOLDER = course.NOTEBOOKS / "solutions"


def build(lesson: Lesson, name: str) -> NotebookNode:
    """The notebook of a lesson's solutions, not yet run.

    Args:
        lesson: whose questions.
        name: the lesson's file name, for the link back.
    """
    module = f"lesson_{lesson.number}"
    cells = [
        new_markdown_cell(
            f"# {lesson.number} · {lesson.title}: solutions\n\nOne way each; others are right, "
            f"too. Written by `make solutions` from `classroom/exercises/{module}.py`.\n\n"
            f"[← the lesson](../{name})"
        ),
        new_code_cell(
            f"import helpers\nfrom classroom.exercises import {module}\n\n{names(lesson)}"
        ),
    ]
    for question in lesson.questions:
        cells += [
            new_markdown_cell(f"## {question.name}\n\n{question.task}"),
            new_code_cell(question.cell(question.code)),
            new_markdown_cell(f"**Why.** {question.why}"),
        ]
    notebook = new_notebook(cells=cells)
    tidy(notebook)
    return notebook


def run(notebook: NotebookNode, folder: Path) -> None:
    """Run it, and make sure that every solution is marked right."""
    NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        store_widget_state=False,
    ).execute()
    tidy(notebook)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            answer = output.get("data", {}).get(ANSWER_TYPE)
            verdict = judge(answer["question"], answer["answer"]) if answer else None
            if verdict and verdict.status != "right":
                sys.exit(f"The solution of {answer['question']} is not right: {verdict.message}")


def main() -> None:
    """Write the notebooks of the chosen lessons."""
    parser = argparse.ArgumentParser(description="Write the notebooks of solutions.")
    parser.add_argument("lessons", nargs="*", metavar="NN", help="lesson numbers; default: all")
    os.environ.update(ENVIRONMENT)
    known = lessons()
    FOLDER.mkdir(exist_ok=True)
    for lesson in choose(parser.parse_args().lessons or list(known)):
        notebook = build(known[lesson.name[:2]], lesson.name)
        run(notebook, FOLDER)
        nbformat.write(notebook, FOLDER / lesson.name)
        print(f"solutions/{lesson.name}: every one marked right")


if __name__ == "__main__":
    startup.run(main)
