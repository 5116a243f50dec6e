"""Put lessons back as they were shipped; the learner's copies are kept (`make reset LESSON=03`).

    python tools/reset.py 03         one lesson; several can be named

A changed lesson is first copied to notebooks/mine/, under a name that is not taken. Nothing
there is ever overwritten. Needs git and nothing else.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import startup

ROOT = Path(__file__).resolve().parent.parent
LESSON = re.compile(r"notebooks/(\d\d)_\w+\.ipynb")
MINE = "notebooks/mine"  # of the learner: not in git, and no lesson for the tests and tools


class Problem(Exception):
    """What stops the work, in one line that says what to do. Nothing was changed.

    Attributes:
        status: the program's exit status; 2 where the command was wrong.
    """

    def __init__(self, line: str, status: int = 1) -> None:
        super().__init__(line)
        self.status = status


def git(*arguments: str) -> str:
    """What git answers, in the course's folder.

    Raises:
        Problem: git is missing or refuses.
    """
    command = ["git", "-c", "core.quotePath=false", *arguments]
    try:
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8")
    except FileNotFoundError:
        raise Problem("git is missing: install it first (git-scm.com).") from None
    if ran.returncode != 0:
        raise Problem(f"git {arguments[0]}: {' '.join(ran.stderr.split())}")
    return ran.stdout


def shipped_lessons() -> dict[str, str]:
    """Number → path of every lesson in the version of the course that is checked out.

    Raises:
        Problem: this folder was not made by git.
    """
    listed: list[str] = []
    if (ROOT / ".git").exists():
        listed = git("ls-tree", "--name-only", "HEAD", "notebooks/").splitlines()
    found = {match[1]: name for name in listed if (match := LESSON.fullmatch(name))}
    if not found:
        raise Problem(
            "This folder does not come from `git clone`, so the lessons as shipped are not in it: "
            "download the course again into another folder, and keep your notebooks here."
        )
    return found


def changed_files() -> set[str]:
    """Files of the course that differ from the version that is checked out."""
    return set(filter(None, git("diff", "--name-only", "--no-renames", "-z", "HEAD").split("\0")))


def keep(lesson: str) -> str:
    """Copy the learner's version to notebooks/mine/: the copy's path, "" if it was deleted."""
    source = ROOT / lesson
    if not source.exists():
        return ""
    (ROOT / MINE).mkdir(exist_ok=True)
    content, number = source.read_bytes(), 1
    while True:
        name = source.stem + (f" ({number})" if number > 1 else "") + source.suffix
        try:
            with open(ROOT / MINE / name, "xb") as copy:  # fails where there is one already
                copy.write(content)
                copy.flush()
                os.fsync(copy.fileno())
        except FileExistsError:
            number += 1
            continue
        return f"{MINE}/{name}"


def restore(lessons: list[str]) -> None:
    """Keep the learner's version of each, put the shipped one in its place, and say so."""
    for lesson in lessons:
        kept = keep(lesson)
        git("checkout", "HEAD", "--", lesson)
        where = f"; yours is kept as {kept}" if kept else ""
        print(f"{lesson} is as shipped again{where}.")
    if lessons:
        print("If it is open in JupyterLab: File > Reload Notebook from Disk.")


def reset(numbers: list[str]) -> None:
    """Put these lessons back as shipped.

    Raises:
        Problem: not from git, no lesson named, or one that is not there.
    """
    if not numbers:
        raise Problem("Name a lesson: make reset LESSON=03", status=2)
    known = shipped_lessons()
    unknown = [number for number in numbers if number.zfill(2) not in known]
    if unknown:
        line = f"There is no lesson {', '.join(unknown)}; there are: {', '.join(known)}."
        raise Problem(line, status=2)
    lessons = [known[number.zfill(2)] for number in dict.fromkeys(numbers)]
    changed = changed_files()
    for lesson in lessons:
        if lesson not in changed:
            print(f"{lesson} is as shipped already.")
    restore([lesson for lesson in lessons if lesson in changed])


def finish(work: Callable[[], None]) -> int:
    """Do the work; what stops it is said in one line. Returns the exit status."""
    try:
        work()
    except Problem as problem:
        print(problem, file=sys.stderr)
        return problem.status
    except OSError as error:
        print(f"{error.strerror}: {error.filename}", file=sys.stderr)
        return 1
    return 0


def main() -> int:
    """Exit status: 0 done, 1 not possible here, 2 an unknown lesson."""
    return finish(lambda: reset(sys.argv[1:]))


if __name__ == "__main__":
    startup.run(main)
