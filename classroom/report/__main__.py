"""`python -m classroom.report`: run lessons, write a report. Exit status 0, 1 (failed), 2, 130."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from datetime import datetime
from pathlib import Path

from classroom.report.machine import machine, versions
from classroom.report.model import Report, Run, read_report
from classroom.report.options import add_output, below, ensure_home, new_folder
from classroom.report.parameters import parse_parameters
from classroom.report.plan import find_lessons, plan
from system import startup

TIMEOUT_SECONDS = 900.0
PASSED, FAILED, WRONG_USAGE, STOPPED = 0, 1, 2, 130


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m classroom.report",
        description="Run lessons and write a report: what passed, how long it took, what was "
        "measured. Exit status: 0 all passed, 1 a lesson failed, 2 wrong usage, 130 stopped.",
        epilog="example: python -m classroom.report 02 05 -p MODEL_NAME=course-gpt-1m "
        "-p MODEL_NAME=course-gpt-4m -p SEED=1",
    )
    parser.add_argument(
        "lessons", nargs="*", metavar="LESSON", help="number or path of a notebook; default: all"
    )
    parser.add_argument(
        "-p", "--parameter", action="append", default=[], metavar="NAME=VALUE", dest="parameters",
        help="set a parameter of the lessons that have it; the same NAME with several values "
        "runs every combination; VALUE is a number, true, [a, list] or text, like the lesson's own",
    )  # fmt: skip
    add_output(parser, "reports")
    parser.add_argument(
        "--timeout", type=below(1e6), default=TIMEOUT_SECONDS, metavar="SECONDS",
        help="how long a lesson may take (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--compare", type=Path, metavar="OLD", help="an earlier report, to show what changed"
    )
    return parser


def run_all(report: Report, folder: Path, old: Report | None) -> None:
    """Run what is planned; the index is written anew after each lesson.

    Raises:
        KeyboardInterrupt: stopped by Ctrl+C or SIGTERM; the index is written.
    """
    from classroom.report.page import write_index

    write_index(report, folder, old)
    for place, run in enumerate(report.runs, start=1):
        try:
            run_one(run, folder, f"[{place}/{len(report.runs)}]", report)
            write_index(report, folder, old)
        except KeyboardInterrupt:
            run.reason = run.reason or ("stopped while it ran" if run.status == "not run" else "")
            report.stopped = "It was stopped by hand."
            write_index(report, folder, old)
            raise


def run_one(run: Run, folder: Path, place: str, report: Report) -> None:
    """Run one lesson, write its page and say in one line how it went."""
    from classroom.report.collect import collect, read_notebook
    from classroom.report.execute import execute
    from classroom.report.page import lesson_page

    caption = f"{place} {run.lesson}" + (f" ({run.label})" if run.values else "")
    target = folder / "lessons" / f"{run.name}.ipynb"
    began = time.perf_counter()
    problem = execute(run.source, target, run.values, caption, report.timeout)
    notebook = read_notebook(target)
    collect(run, notebook, problem, time.perf_counter() - began)
    page = target.with_suffix(".html")
    if notebook is None:
        page.write_text(f"<!DOCTYPE html><title>{run.lesson}</title><p>Nothing was written.")
    else:
        pages = {other.name for other in report.runs}
        page.write_text(lesson_page(notebook, run, pages), encoding="utf-8")
    mark, reason = ("✓", "") if run.status == "passed" else ("✗", f"  {run.reason}")
    print(f"{mark} {caption}  {run.seconds:.1f} s{reason}", flush=True)


def make_report(options: argparse.Namespace) -> int:
    """Check everything, then run everything; the exit status.

    Raises:
        ParameterError: wrong usage; nothing was run.
        KeyboardInterrupt: stopped before anything ran.
    """
    runs, parameters = plan(find_lessons(options.lessons), parse_parameters(options.parameters))
    old = read_report(options.compare) if options.compare else None
    folder = new_folder(options.output, "reports", "lessons")
    report = Report(
        started=datetime.now().astimezone().isoformat(timespec="seconds"),
        machine=machine(),
        versions=versions(),
        parameters=parameters,
        timeout=options.timeout,
        runs=runs,
    )
    index = folder / "index.html"
    try:
        run_all(report, folder, old)
    except KeyboardInterrupt:
        ended = len(runs) - report.count("not run")
        print(f"stopped: {ended} of {len(runs)} ran, see {index}", file=sys.stderr)
        return STOPPED
    failed = report.count("failed")
    print(f"{report.count('passed')} passed, {failed} failed: {index}")
    return FAILED if failed else PASSED


def main() -> int:
    """Read the command line, make the report; the exit status."""
    options = arguments().parse_args()
    ensure_home()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return make_report(options)
    except KeyboardInterrupt:
        print("stopped before anything ran", file=sys.stderr)
        return STOPPED


if __name__ == "__main__":
    startup.run(main)
