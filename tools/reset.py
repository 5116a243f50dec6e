"""Put lessons back as they were shipped; the learner's copies are kept (`make reset LESSON=03`).

    python tools/reset.py 03         one lesson; several can be named

A changed lesson is first copied to notebooks/mine/, under a name that is not taken. Nothing
there is ever overwritten. What stands in the way is looked for first; if git fails all the same,
every file is put back as it was. Needs git and nothing else.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
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
        # A file's name may be any bytes: what is not UTF-8 comes and goes as it is.
        ran = subprocess.run(
            command, cwd=ROOT, capture_output=True, encoding="utf-8", errors="surrogateescape"
        )
    except FileNotFoundError:
        raise Problem("git is missing: install it first (git-scm.com).") from None
    if ran.returncode != 0:
        raise Problem(f"git {arguments[0]}: {' '.join(ran.stderr.split())}")
    return ran.stdout


def names(*arguments: str) -> set[str]:
    """What git lists, a file a piece, under `-z`."""
    return set(filter(None, git(*arguments).split("\0")))


def stop_if_busy(states: tuple[str, ...] = ()) -> None:
    """Look, before anything is touched, whether git is in the middle of something.

    Args:
        states: files of git's own that stand for work which must be finished first.

    Raises:
        Problem: another git works here, or such work is not finished.
    """
    for name in ("index.lock", *states):
        file = ROOT / git("rev-parse", "--git-path", name).strip()
        if file.exists() and name == "index.lock":
            raise Problem(
                f"{file} is there: another git works in this folder, or one was killed. Wait for "
                "it; if none runs, delete that file. Then run this again. Nothing was changed."
            )
        if file.exists():
            raise Problem(
                f"git has not finished what {name} stands for: finish it, or give it up (git "
                "status says how), then run this again. Nothing was changed."
            )


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


def hidden() -> set[str]:
    """Files that git was told not to look at: `--assume-unchanged` or `--skip-worktree`."""
    listed = names("ls-files", "-v", "-z")
    # The first letter is H as a rule, in lower case or S for these.
    return {line[2:] for line in listed if line[0].islower() or line[0] == "S"}


def differs(name: str) -> bool:
    """Whether a file is not the one of the version that is checked out, by its content."""
    if not (ROOT / name).exists():
        return False  # of a sparse checkout, most likely
    try:
        return git("rev-parse", f"HEAD:{name}") != git("hash-object", "--", name)
    except Problem:
        return True


def changed_files() -> set[str]:
    """Files of the course that differ from the version that is checked out."""
    changed = names("diff", "--name-only", "--no-renames", "-z", "HEAD")
    return changed | {name for name in hidden() if differs(name)}


def keep(lesson: str) -> tuple[str, bool]:
    """Copy the learner's version to notebooks/mine/: the copy's path, and whether it is new."""
    source, folder = ROOT / lesson, ROOT / MINE
    folder.mkdir(exist_ok=True)
    content, number = source.read_bytes(), 1
    for copy in sorted(folder.glob(f"{source.stem}*{source.suffix}")):
        if copy.is_file() and copy.read_bytes() == content:
            return f"{MINE}/{copy.name}", False
    while True:
        name = source.stem + (f" ({number})" if number > 1 else "") + source.suffix
        try:
            with open(folder / name, "xb") as file:  # fails where there is one already
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except FileExistsError:
            number += 1
            continue
        return f"{MINE}/{name}", True


def restore(lessons: list[str], then: Callable[[], object] = lambda: None) -> None:
    """Keep the learner's version of each, put the shipped one in its place, and say so.

    Args:
        lessons: paths of changed ones.
        then: what is to be done next. If that fails, or anything before it, every lesson is put
            back as it was, and no copy is left behind.
    """
    mine = {name: (ROOT / name).read_bytes() for name in lessons if (ROOT / name).exists()}
    kept: dict[str, tuple[str, bool]] = {}
    try:
        for lesson in mine:
            kept[lesson] = keep(lesson)
        if lessons:
            unhide(lessons)
            git("checkout", "HEAD", "--", *lessons)
        then()
    except BaseException:
        for lesson in lessons:
            if lesson in mine:
                (ROOT / lesson).write_bytes(mine[lesson])
            else:
                (ROOT / lesson).unlink(missing_ok=True)
        for copy, new in kept.values():
            if new:
                (ROOT / copy).unlink()
        raise
    for lesson in lessons:
        where = f"; yours is kept as {kept[lesson][0]}" if lesson in kept else ""
        print(f"{lesson} is as shipped again{where}.")
    if lessons:
        print("If it is open in JupyterLab: File > Reload Notebook from Disk.")


def unhide(files: Iterable[str]) -> None:
    """Let git look at these again: else it would not write them."""
    if files := sorted(hidden() & set(files)):
        git("update-index", "--no-assume-unchanged", "--", *files)
        git("update-index", "--no-skip-worktree", "--", *files)


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
    stop_if_busy()
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
