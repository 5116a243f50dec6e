"""Make the frame of a lesson that passes its tests, to be filled (`make new-lesson`).

    python tools/new_lesson.py 11 evaluation "Evaluation"

Written from tools/frame/ are the notebook, its questions in classroom/exercises/ and the answers
that tests try; course.toml lists the lesson. Then everything that stands in other files is
brought up to date, and the notebook and its solutions are run.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path
from string import Template

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # this folder's course, whichever one is installed

from classroom import course  # noqa: E402
from system import startup  # noqa: E402

FRAME = Path(__file__).resolve().parent / "frame"
MANIFEST = course.NOTEBOOKS / course.MANIFEST
MINUTES = 30  # until the lesson is tried
BLOCK = re.compile(r"\[\[lesson\]\]\n(?:.+\n)*")
CODE = re.compile(r"^```python ?(.*)\n((?:.*\n)*?)^```$", re.MULTILINE)


class Refused(Exception):
    """What was asked for cannot be made; the message says why."""


def listed(number: str, slug: str, title: str) -> tuple[str, str, int]:
    """The manifest's text with the lesson written down, its title, and its minutes.

    Args:
        number: two digits; planned, or the one after the last.
        slug: the rest of the file name.
        title: left empty, a planned lesson keeps its own.

    Raises:
        Refused: a number that is taken or leaves a gap, or a slug or title that cannot be.
    """
    lessons = course.read()
    free = [lesson.number for lesson in lessons if lesson.planned] + [f"{len(lessons):02d}"]
    if number not in free:
        raise Refused(f"NUMBER={number} is not free. These are: {', '.join(free)}.")
    if not re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", slug):
        raise Refused(f"SLUG={slug!r} must be small letters and digits, joined by _.")
    planned = next((lesson for lesson in lessons if lesson.number == number), None)
    title = title or (planned.title if planned else "")
    if not title or re.search(r'["\\|\n$]', title):
        raise Refused(f'TITLE={title!r} must be a text of one line without ", \\, | and $.')
    text = MANIFEST.read_text(encoding="utf-8")
    if planned is None:
        block = (
            f'\n[[lesson]]\nfile = "{number}_{slug}"\ntitle = "{title}"\nminutes = {MINUTES}\n'
            'aims = "what one learns"\nquestion = "which question does it answer?"\n'
        )
        return text + block, title, MINUTES
    old = next(b for b in BLOCK.findall(text) if f'file = "{planned.file}"' in b)
    new = old.replace("planned = true\n", "").replace(planned.file, f"{number}_{slug}")
    new = new.replace(f'"{planned.title}"', f'"{title}"')
    return text.replace(old, new), title, planned.minutes


def frame(name: str, values: dict[str, str]) -> str:
    """A file of tools/frame/ with its values put in."""
    return Template((FRAME / name).read_text(encoding="utf-8")).substitute(values)


def write_notebook(text: str, path: Path) -> None:
    """Write the notebook that a frame in Markdown describes.

    A block of Python is a cell of code, with the tags that its first line names; what stands
    between two is a cell of prose, or several, parted by a line `---`.
    """
    import nbformat  # takes seconds, and a refusal needs it not
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

    cells = []
    pieces = CODE.split(text)  # prose, tags, code, prose, …
    for place in range(0, len(pieces), 3):
        prose = re.split(r"^---$", pieces[place], flags=re.MULTILINE)
        cells += [new_markdown_cell(part.strip()) for part in prose if part.strip()]
        if place + 2 < len(pieces):
            tags = pieces[place + 1].split()
            metadata = {"tags": tags} if tags else {}
            cells.append(new_code_cell(pieces[place + 2].strip(), metadata=metadata))
    nbformat.write(new_notebook(cells=cells), path)


def run(tool: str, *arguments: str) -> None:
    """Run one of the tools on this folder's course."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, str(ROOT / "tools" / tool), *arguments]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, check=True)


def make(number: str, slug: str, title: str) -> list[Path]:
    """Write the files of the lesson and run it; returns them.

    Raises:
        Refused: see `listed`; or one of the files is there.
    """
    manifest, title, minutes = listed(number, slug, title)
    values = {"NUMBER": number, "TITLE": title, "MINUTES": str(minutes)}
    exercises = ROOT / "classroom" / "exercises" / f"lesson_{number}.py"
    answers = ROOT / "tests" / "classroom" / "exercises" / f"answers_{number}.py"
    lesson = course.NOTEBOOKS / f"{number}_{slug}.ipynb"
    for path in (exercises, answers, lesson):
        if path.exists():
            raise Refused(f"{path.relative_to(ROOT)} is there already.")
    exercises.write_text(frame("lesson.py.txt", values), encoding="utf-8")
    answers.write_text(frame("answers.py.txt", values), encoding="utf-8")
    write_notebook(frame("notebook.md", values), lesson)
    MANIFEST.write_text(manifest, encoding="utf-8")
    for tool in ("exercises.py", "sync.py", "outputs.py", "solutions.py"):
        run(tool, *([] if tool == "sync.py" else [number]))
    return [lesson, exercises, answers]


def main() -> int:
    """Exit status: 0 made, 1 a tool failed, 2 refused."""
    parser = argparse.ArgumentParser(description="Make the frame of a lesson.")
    parser.add_argument("number", metavar="NN", help="planned in course.toml, or the next one")
    parser.add_argument("slug", help="the rest of the file name, as in NN_slug.ipynb")
    parser.add_argument("title", nargs="?", default="", help="default: as planned in course.toml")
    given = parser.parse_args()
    try:
        made = make(given.number, given.slug, given.title)
    except Refused as refused:
        print(refused, file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        print(f"{Path(error.cmd[1]).name} failed; see above.", file=sys.stderr)
        return 1
    names = ", ".join(str(path.relative_to(ROOT)) for path in made)
    print(f"Made {names}. Fill them; `make sync outputs solutions LESSONS={given.number}`.")
    return 0


if __name__ == "__main__":
    startup.run(main)
