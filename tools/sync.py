"""Carry notebooks/course.toml and the repository's name everywhere (`make sync`).

    python tools/sync.py            write, after one of them or a recap has changed
    python tools/sync.py --check    only say which files are behind (`make lint`)

Written are, in each lesson: heading, badges, navigation, study time, the cell that fetches the
course on Google Colab (folded, like the imports), and the recap's answers as text; the map in
lesson 00; the tables of lessons in the README and in the instructors' guide; every link to the
repository.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # this folder's course, whichever one is installed

from classroom import course, exercises  # noqa: E402
from classroom.course import CourseLesson  # noqa: E402
from system import startup  # noqa: E402

FILES = ["README.md", "CONTRIBUTING.md", "CITATION.cff", "notebooks/*.ipynb"]
OWNER_NAME = r"[\w.-]+/[\w-]+(?:\.[\w-]+)*"
# Launch links always lead to this repository; on github.com others are linked to, too.
LAUNCH = re.compile(
    rf"(mybinder\.org/v2/gh/|colab\.research\.google\.com/github/)({OWNER_NAME})(?=/)"
)
RECORD = re.compile(rf'(?m)^repository-code: "?https://github\.com/({OWNER_NAME})"?$')
# On Colab a lesson is alone: its first cell of code fetches the rest. Elsewhere it does nothing.
COLAB = """\
import sys

if "google.colab" in sys.modules:  # on Google Colab only: fetch what is missing
    course = "https://github.com/{repository}"
    get_ipython().system(f"test -d course || git clone -q --depth 1 {{course}} course")
    get_ipython().run_line_magic("run", "course/tools/colab.py")"""
SITE = re.compile(r"(?<=\[Read it in your browser\]\()[^)]+")
COLAB_LINE = '"google.colab" in sys.modules'
BADGES = (
    "[![Binder: run online](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/"
    "{repository}/main?urlpath=lab/tree/notebooks/{file}) [![Colab: run online]"
    "(https://colab.research.google.com/assets/colab-badge.svg)]"
    "(https://colab.research.google.com/github/{repository}/blob/main/notebooks/{file})"
)
NAVIGATION = re.compile(r"(?:\[?← .*|\[?contents\b.*)")
STUDY_TIME = re.compile(r"(\*\*Time:?\*\* )\d+(?= minutes)")
DETAILS = re.compile(r"<details>.*</details>", re.DOTALL)
MAP, README_TABLE = "| lesson | the question it answers |", "| | lesson | you learn |"
GUIDE, GUIDE_TABLE = "docs/instructors.md", "| lesson | study time |"

Cell = dict[str, Any]


def repository() -> str:
    """The setting: owner/name."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    name = str(settings["tool"]["course"]["repository"])
    if not re.fullmatch(OWNER_NAME, name):
        sys.exit(f"pyproject.toml: [tool.course] repository = {name!r} is not owner/name.")
    return name


def site() -> str:
    """The setting: the address where the course is read."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return str(settings["tool"]["course"]["site"])


def follow(text: str, old: str, new: str) -> str:
    """The text with every link to the repository leading to `new`."""
    text = LAUNCH.sub(rf"\g<1>{new}", text)
    return re.sub(rf"(?<=github\.com/){re.escape(old)}(?![\w-])", new, text)


# --- a lesson -----------------------------------------------------------------------------


def source(cell: Cell) -> str:
    """A cell's text."""
    return "".join(cell["source"])


def put(cell: Cell, text: str) -> None:
    """Write a cell's text as notebooks keep it, line by line."""
    cell["source"] = text.splitlines(keepends=True)


def navigation(lesson: CourseLesson) -> str:
    """The line with the lesson before, the contents and the lesson after."""
    lessons = course.read()
    place = lessons.index(lesson)
    contents = f"[contents]({lessons[0].notebook})" if place else "contents"
    parts = [contents]
    if place:
        before = lessons[place - 1]
        link = f"[← previous: {before.name}]({before.notebook})"
        parts.insert(0, f"← previous: {before.name}" if before.planned else link)
    if place + 1 < len(lessons):
        after = lessons[place + 1]
        link = f"[next: {after.name} →]({after.notebook})"
        parts.append(f"next: {after.name}" if after.planned else link)
    return " · ".join(parts)


def put_head(cell: Cell, lesson: CourseLesson, repository: str) -> None:
    """Heading, badges and navigation around what the lesson promises."""
    promise = [
        part
        for part in source(cell).split("\n\n")
        if not part.startswith(("# ", "[![")) and not NAVIGATION.fullmatch(part)
    ]
    badges = BADGES.format(repository=repository, file=lesson.notebook)
    heading = f"# {lesson.number} · {lesson.title}"
    put(cell, "\n\n".join([heading, *promise, badges, navigation(lesson)]))


def put_colab(cells: list[Cell], repository: str) -> None:
    """The cell for Colab: below the badges where there is none yet."""
    text = COLAB.format(repository=repository)
    for cell in cells:
        if cell["cell_type"] == "code" and COLAB_LINE in source(cell):
            return put(cell, text)
    new: Cell = {"cell_type": "code", "execution_count": None, "id": "colab", "metadata": {}}
    cells.insert(1, new | {"outputs": [], "source": text.splitlines(keepends=True)})


def hide_setup(cells: list[Cell]) -> None:
    """Fold the cells that teach nothing: the one for Colab and the one with the imports."""
    for cell in cells:
        setup = COLAB_LINE in source(cell) or "require(globals()" in source(cell)
        if setup and cell["cell_type"] == "code":
            cell["metadata"]["jupyter"] = {"source_hidden": True}


def put_recap(cells: list[Cell], lesson: CourseLesson) -> None:
    """The recap's questions with their answers as text, for readers without a kernel."""
    if lesson.number not in exercises.lessons():
        return
    answers = exercises.lessons()[lesson.number].recap.as_text()
    for cell in cells:
        if cell["cell_type"] == "markdown" and DETAILS.search(source(cell)):
            return put(cell, DETAILS.sub(lambda _: answers, source(cell)))


def synced(text: str, lesson: CourseLesson, repository: str) -> str:
    """A lesson's file with everything in place; a cell that is up to date keeps its bytes."""
    notebook = json.loads(text)
    cells = notebook["cells"]
    put_head(cells[0], lesson, repository)
    put_colab(cells, repository)
    hide_setup(cells)
    put_recap(cells, lesson)
    for cell in cells:
        if cell["cell_type"] != "markdown":
            continue
        new = STUDY_TIME.sub(rf"\g<1>{lesson.minutes}", source(cell))
        if MAP in new:
            new = with_table(new, MAP, map_rows())
        if new != source(cell):
            put(cell, new)
    last = source(cells[-1]).split("\n\n")
    if NAVIGATION.fullmatch(last[-1]):
        last.pop()
    put(cells[-1], "\n\n".join([*last, navigation(lesson)]))
    if notebook == json.loads(text):
        return text
    return json.dumps(notebook, ensure_ascii=False, indent=1) + "\n"  # as nbformat writes it


# --- the tables ---------------------------------------------------------------------------


def with_table(text: str, header: str, rows: list[str]) -> str:
    """The text with new rows in the table whose first line begins with `header`."""
    lines = text.split("\n")
    start = next(n for n, line in enumerate(lines) if line.startswith(header)) + 2
    end = next((n for n in range(start, len(lines)) if not lines[n].startswith("|")), len(lines))
    return "\n".join([*lines[:start], *rows, *lines[end:]])


def map_rows() -> list[str]:
    """The map of lesson 00: it links to every lesson but itself."""
    rows = []
    for place, lesson in enumerate(course.read()):
        name = f"[{lesson.name}]({lesson.notebook})" if place else f"**{lesson.name}**"
        question = lesson.question
        if lesson.planned:
            name, question = lesson.name, f"{question} *(to come)*"
        rows.append(f"| {name} | {question} | {lesson.minutes} |")
    return rows


def readme_rows() -> list[str]:
    """The README's table of lessons."""
    return [
        f"| {lesson.number} | {lesson.title} | coming: {lesson.aims} |"
        if lesson.planned
        else f"| {lesson.number} | [{lesson.title}](notebooks/{lesson.notebook}) | {lesson.aims} |"
        for lesson in course.read()
    ]


def guide_rows(text: str) -> list[str]:
    """The instructors' table: what was measured stays, a lesson not yet measured has dashes."""
    measured = dict(re.findall(r"(?m)^\| (\d\d) [^|]*\| \d+ min \|(.*)$", text))
    return [
        f"| {lesson.name} | {lesson.minutes} min |{measured.get(lesson.number, ' – |' * 4)}"
        for lesson in course.written()
    ]


# --- the command --------------------------------------------------------------------------


def write(path: Path, text: str) -> None:
    """Replace the file at once: whoever reads it meanwhile sees the old or the new one."""
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(text.encode("utf-8"))
    os.replace(new, path)


def wanted(repository: str) -> dict[Path, tuple[str, str]]:
    """Every file concerned: its text now, and as it must be."""
    found = RECORD.search((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    old = found[1] if found else repository  # what the links say now
    lessons = {lesson.notebook: lesson for lesson in course.written()}
    texts = {}
    for path in sorted(p for pattern in [*FILES, GUIDE] for p in ROOT.glob(pattern)):
        before = path.read_bytes().decode("utf-8")
        after = follow(before, old, repository)
        if path.name in lessons:
            after = synced(after, lessons[path.name], repository)
        elif path.name == "README.md":
            after = SITE.sub(lambda _: site(), with_table(after, README_TABLE, readme_rows()))
        elif path == ROOT / GUIDE:
            after = with_table(after, GUIDE_TABLE, guide_rows(after))
        texts[path] = before, after
    missing = [name for name in lessons if ROOT / "notebooks" / name not in texts]
    if missing:
        sys.exit(f"notebooks/{course.MANIFEST} lists {', '.join(missing)}, which is not there.")
    return texts


def main() -> int:
    """Rewrite or check; exit status 1 when --check finds a file behind."""
    parser = argparse.ArgumentParser(description="Carry course.toml into every file.")
    parser.add_argument("--check", action="store_true", help="change nothing")
    check = parser.parse_args().check
    try:
        texts = wanted(repository())
    except ValueError as error:
        sys.exit(str(error))
    behind = [path for path, (before, after) in texts.items() if before != after]
    for path in behind:
        if not check:
            write(path, texts[path][1])
    if behind:
        names = ", ".join(path.relative_to(ROOT).as_posix() for path in behind)
        print(f"Behind (make sync): {names}" if check else f"Written: {names}")
    return 1 if behind and check else 0


if __name__ == "__main__":
    startup.run(main)
