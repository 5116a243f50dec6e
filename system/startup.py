"""What every command line of the course does first and last.

    if __name__ == "__main__":
        run(main)

Imports the standard library only: the set-up uses it before any package is installed.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable
from typing import NoReturn

WRONG_USAGE, INTERRUPTED = 2, 130
CLOSED_ERRORS = (errno.EPIPE, errno.EINVAL)  # the second on Windows
CLOSED_PIPE = 141  # as the shell says of programs that end so: 128 + SIGPIPE


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a command line, and end the program with its exit status; see `exit_status`."""
    sys.exit(exit_status(main))


def exit_status(main: Callable[[], int | None]) -> int:
    """Run a command line: its exit status, for `sys.exit`.

    Characters that the output cannot show are written as their code instead of stopping the
    program. A reader that closes the pipe (`… | head -1`) ends it quietly with status 141,
    Ctrl+C with 130. A `ParameterError` is one line and status 2.

    Args:
        main: the program; it returns its exit status, None for 0.
    """
    for stream in _streams():
        # What goes to a file or a pipe is UTF-8 everywhere, unless another encoding is asked for.
        asked = stream.isatty() or "PYTHONIOENCODING" in os.environ
        encoding = stream.encoding if asked else "utf-8"
        stream.reconfigure(encoding=encoding, errors="backslashreplace")
    try:
        status = _status(main)
        for stream in _streams():
            stream.flush()
        return status
    except OSError as error:
        if error.errno not in CLOSED_ERRORS:
            raise
        closed = next((stream for stream in _streams() if _is_closed(stream)), None)
        if closed is None:  # another pipe than ours
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), closed.fileno())  # Python flushes once more
        return CLOSED_PIPE


def _status(main: Callable[[], int | None]) -> int:
    try:
        return main() or 0
    except SystemExit as end:  # argparse's; its text may still meet a closed pipe
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except ValueError as error:
        errors = sys.modules.get("system.errors")  # not imported: then it is none of those
        if errors is None or not isinstance(error, errors.ParameterError):
            raise
        print(f"error: {error}", file=sys.stderr)
        return WRONG_USAGE


def _streams() -> list[io.TextIOWrapper]:
    """Standard output and error, where the program has them."""
    return [s for s in (sys.stdout, sys.stderr) if isinstance(s, io.TextIOWrapper)]


def _is_closed(stream: io.TextIOWrapper) -> bool:
    """Whether nobody reads any more what is written here."""
    try:
        stream.write("\n")
        stream.flush()
    except OSError as error:
        return error.errno in CLOSED_ERRORS
    return False
