"""`python -m classroom.grade`: run and mark notebooks. Exit status 0, 1 (problems), 2, 130."""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from classroom.exercises import lessons
from classroom.grade.gradebook import write_csv, write_page
from classroom.grade.marking import Marked, mark
from classroom.grade.submissions import Found, Submission, find_submissions
from classroom.report.options import add_output, below, ensure_home, new_folder
from system import startup
from system.environment import PACKAGES, ROOT

GOOD, PROBLEMS, WRONG_USAGE, STOPPED = 0, 1, 2, 130
CHANGED = (
    "The installed course was changed while notebooks ran. Do not trust these marks: put the "
    "course back (git status shows what changed) and mark again, suspicious notebooks one by one."
)


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m classroom.grade",
        description="Run learners' notebooks, each in a process of its own with limits, and mark "
        "their answers: gradebook.csv and gradebook.html. Exit status: 0 all ran to their end, "
        "1 some did not, 2 wrong usage, 130 stopped.",
        epilog="Notebooks are programs: mark those of strangers in a container "
        "(docs/instructors.md).",
    )
    parser.add_argument(
        "submissions", nargs="+", metavar="SUBMISSIONS",
        help="notebooks or folders: anna/01_tokenization.ipynb, anna_01_tokenization.ipynb",
    )  # fmt: skip
    add_output(parser, "gradebooks")
    parser.add_argument(
        "--timeout", type=below(1e9), default=600.0, metavar="SECONDS",
        help="how long a notebook may take (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--cell-timeout", type=below(1e9), default=120.0, metavar="SECONDS",
        help="how long a cell may take; it is then interrupted and the next one is run "
        "(default: %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--memory", type=below(1e9), default=3000.0, metavar="MB",
        help="memory that a notebook's processes may hold together (default: %(default)g)",
    )  # fmt: skip
    return parser


def fingerprint() -> str:
    """A checksum of the installed course: its code and its models."""
    found = hashlib.sha256()
    for folder in (ROOT / name for name in (*PACKAGES, "models")):
        for path in sorted(p for p in folder.rglob("*") if p.suffix != ".pyc" and p.is_file()):
            found.update(str(path).encode() + hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


def run_one(submission: Submission, target: Path, options: argparse.Namespace) -> Marked:
    """Run one notebook in an empty folder, and mark it."""
    from classroom.report.execute import execute

    began = time.perf_counter()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        problem = execute(
            submission.path, target, {}, f"{submission.learner} {submission.lesson}",
            timeout=options.timeout, memory=options.memory * 1e6, cwd=Path(folder),
            execution_timeout=options.cell_timeout, interrupt_on_timeout=True, allow_errors=True,
        )  # fmt: skip
    return mark(submission, target, problem, time.perf_counter() - began)


def grade(found: Found, folder: Path, options: argparse.Namespace) -> int:
    """Run and mark them all; the gradebook is written anew after each. Returns the exit status."""
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    submissions = found.submissions
    os.environ["HF_HUB_OFFLINE"] = "1"
    before, warning = fingerprint(), ""
    marked: list[Marked] = []
    for place, submission in enumerate(submissions, start=1):
        name = f"{submission.lesson}_{place:03d}.ipynb"
        one = run_one(submission, folder / "executed" / name, options)
        marked.append(one)
        if fingerprint() != before:
            warning = CHANGED
        write_csv(folder / "gradebook.csv", marked)
        write_page(folder / "gradebook.html", marked, warning, found.notes)
        asked = len(one.marks)
        said = f"  {one.problem}" if one.problem else ""
        print(
            f"[{place}/{len(submissions)}] {submission.learner}, lesson {submission.lesson}: "
            f"{one.right} of {asked} right, {one.seconds:.0f} s{said}",
            flush=True,
        )
        if warning:
            print(f"error: {warning}", file=sys.stderr)
            break
    print(f"gradebook: {folder / 'gradebook.html'}")
    return PROBLEMS if warning or any(one.problem for one in marked) else GOOD


def main() -> int:
    """Read the command line, mark; the exit status."""
    options = arguments().parse_args()
    ensure_home()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        lessons()  # read before anything of a learner's runs
        found = find_submissions(options.submissions)
        folder = new_folder(options.output, "gradebooks", "executed")
        return grade(found, folder, options)
    except KeyboardInterrupt:
        print("stopped; what was marked so far is in the gradebook", file=sys.stderr)
        return STOPPED


if __name__ == "__main__":
    startup.run(main)
