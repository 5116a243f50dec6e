"""What was measured so far, kept piece by piece: an interrupted run loses nothing.

A file holds one piece a line, with its date and what it was measured on. Pieces of another
machine or of other versions are passed over.
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks import tables
from system.environment import ROOT
from system.machine import physical_memory, processor_name, processors

FOLDER = ROOT / "build" / "benchmarks"
README = Path(__file__).with_name("README.md")
Key = tuple[str | int, ...]


def machine(*packages: str) -> str:
    """What figures are measured on: processor, memory, versions; nothing that names the machine.

    Args:
        packages: whose versions count; those that are not installed are left out.
    """
    import torch

    facts = [
        f"{processors():.3g} CPUs ({processor_name()}, {torch.backends.cpu.get_cpu_capability()})",
        f"{physical_memory().total / 2**30:.0f} GiB of memory",
        platform.system(),
        f"Python {platform.python_version()}",
    ]
    for name in ("torch", "transformers", *packages):
        try:
            facts.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(facts) + f"; {torch.get_num_threads()} threads"


class Store:
    """Pieces by their keys, in a file that only grows; of one key the newest counts."""

    def __init__(self, file: Path, facts: str) -> None:
        """Read what is there.

        Args:
            file: one JSON object a line; made with the first piece.
            facts: as `machine` says them; pieces with others do not count.
        """
        self.file, self.facts = file, facts
        self._pieces: dict[Key, tuple[str, Any]] = {}
        lines = file.read_text("utf-8").splitlines() if file.is_file() else []
        for line in lines:
            try:
                piece = json.loads(line)
            except ValueError:  # the run was killed while it wrote this line
                continue
            if piece["facts"] == facts:
                self._pieces[tuple(piece["key"])] = piece["date"], piece["value"]

    def put(self, key: Key, value: Any) -> None:
        """Keep a piece, on disk as well."""
        date = time.strftime("%Y-%m-%d")
        self._pieces[key] = date, value
        self.file.parent.mkdir(parents=True, exist_ok=True)
        piece = {"key": key, "date": date, "facts": self.facts, "value": value}
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(piece) + "\n")

    def __contains__(self, key: Key) -> bool:
        return key in self._pieces

    def __getitem__(self, key: Key) -> Any:
        return self._pieces[key][1]

    def under(self, *start: str | int) -> dict[Key, Any]:
        """The pieces whose keys begin so: the rest of each key → its value, in order."""
        found = {
            k[len(start) :]: v for k, (_, v) in self._pieces.items() if k[: len(start)] == start
        }
        return dict(sorted(found.items(), key=lambda item: str(item[0])))

    def measured(self, *start: str | int) -> str:
        """The line over the tables: when, and on what."""
        dates = {date for key, (date, _) in self._pieces.items() if key[: len(start)] == start}
        span = " to ".join(sorted({min(dates), max(dates)})) if dates else "no day"
        return f"Measured on {span}: {self.facts}."


def run(
    name: str,
    facts: str,
    measure: Callable[[Store], None],
    report: Callable[[Store], str],
    *,
    quick: bool,
) -> int:
    """Measure, print, and (unless it is quick) write into the README; 1 where it had to stop.

    Args:
        name: of the file of pieces, and of the README's part.
        facts: as `machine` says them.
        measure: puts what is missing into the store; a RuntimeError stops it.
        report: the text from what the store holds.
        quick: to see that all works; nothing is kept or written.
    """
    with tempfile.TemporaryDirectory() as place:
        keep = Store((Path(place) if quick else FOLDER) / f"{name}.jsonl", facts)
        try:
            measure(keep)
        except RuntimeError as error:
            print(f"Stopped, what was finished is kept: {error}", file=sys.stderr)
            return 1
        text = report(keep)
    print(text)
    if not quick:
        tables.replace(README, name, text)
    return 0
