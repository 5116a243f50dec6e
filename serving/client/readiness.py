"""Is a server ready for production? A checklist, each box ticked by asking the server. (Lesson 09.)

    python -m serving.client.readiness http://127.0.0.1:5000 --key-file KEY --log requests.log

Nothing is taken from settings or documents: a box is ticked where the running server shows the
property now (`serving.client.readiness_checks`). It takes about thirty small requests.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from serving.client.keys import bearer
from serving.client.readiness_checks import CHECKS
from serving.client.readiness_probe import Probe, Unticked
from system import startup
from system.environment import is_loopback


@dataclass(frozen=True)
class Box:
    """One line of the checklist.

    Attributes:
        name: the property.
        ticked: whether it was seen.
        why: what was seen.
    """

    name: str
    ticked: bool
    why: str


def check(
    url: str,
    key: str = "",
    log: Path | str | None = None,
    stop: Callable[[], object] | None = None,
    only: tuple[str, ...] = tuple(CHECKS),
) -> list[Box]:
    """Go through the checklist.

    Args:
        url: the server.
        key: one of its API keys.
        log: the file of its log lines.
        stop: ends it as SIGTERM does; the last box is not ticked without.
        only: the boxes to look at.

    Raises:
        ParameterError: the key can stand in no header.
    """
    settings: dict[str, Any] = {"base_url": url, "timeout": 60, "trust_env": not is_loopback(url)}
    found = []
    with httpx.Client(**settings, headers=bearer(key)) as http, httpx.Client(**settings) as bare:
        ask = Probe(http, bare, key, None if log is None else Path(log), stop)
        for name in only:
            try:
                found.append(Box(name, True, CHECKS[name](ask)))
            except Unticked as unticked:
                found.append(Box(name, False, str(unticked)))
            except (httpx.HTTPError, KeyError, TypeError, ValueError) as error:
                found.append(Box(name, False, f"{type(error).__name__}: {error}"[:100]))
    return found


def main(argv: list[str] | None = None) -> int:
    """The command line; exit status 1 where a box stays empty."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.client.readiness", description="Go through the checklist."
    )
    parser.add_argument("url", help="the server, such as http://127.0.0.1:5000")
    parser.add_argument("--key-file", type=Path, help="a file that holds an API key")
    parser.add_argument("--log", type=Path, help="the server's LLM_LOG_FILE")
    given = parser.parse_args(argv)
    key = given.key_file.read_text("utf-8").strip() if given.key_file else ""
    boxes = check(given.url, key, given.log)
    for box in boxes:
        print(f"{'✓' if box.ticked else '✗'} {box.name:<26}{box.why}")
    return 0 if all(box.ticked for box in boxes) else 1


if __name__ == "__main__":
    startup.run(main)
