"""What a lesson takes from the machine: its kernel, and all processes that this starts."""

from __future__ import annotations

import time
from collections.abc import Sequence

import psutil

from system.machine import peak_bytes
from system.polling import Polling

INTERVAL_S = 0.05
KERNEL = "ipykernel_launcher"


def footprint(processes: Sequence[psutil.Process]) -> int:
    """Bytes that these processes hold together: pages that they share (libraries) count once.

    That is each one's own pages, and once the most that any of them shares. The sum of
    their proportional sets (PSS) would be less on a machine where others, such as the
    tests themselves, have mapped the same libraries; a learner's machine has no such others.
    """
    own, shared = 0, 0
    for process in processes:
        try:
            memory = process.memory_full_info()
        except psutil.Error:  # it has ended
            continue
        own += memory.uss
        shared = max(shared, memory.rss - memory.uss)
    return own + shared


def tree(process: psutil.Process) -> list[psutil.Process]:
    """The process and everything below it; nothing if it has ended."""
    try:
        below = process.children(recursive=True)
    except psutil.Error:
        return []
    return [process, *(child for child in below if not _being_started(child))]


def _being_started(process: psutil.Process) -> bool:
    """Whether it still is a double of its parent, whose memory the system shows for both.

    That is so between vfork and exec: for milliseconds, on a loaded machine for longer.
    """
    try:
        parent = process.parent()
        young = time.time() - process.create_time() < 10
        return young and parent is not None and parent.cmdline() == process.cmdline()
    except psutil.Error:
        return True


def kernels() -> list[psutil.Process]:
    """The kernels that this process started, at any depth."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if any(KERNEL in part for part in process.cmdline()) and not _being_started(process):
                found.append(process)
        except psutil.Error:  # it has ended
            continue
    return found


class PeakFootprint(Polling):
    """Watches the kernels started inside a `with` block, about every 50 ms.

    Attributes:
        peak: the most bytes that kernels and their children held at the same time.
        processes: those at that moment, each in a line: id, command, megabytes in memory (RSS).
        kernel: the most bytes that one kernel alone held.
    """

    def __init__(self) -> None:
        super().__init__(INTERVAL_S)
        self.peak, self.processes, self.kernel = 0, list[str](), 0

    def look(self) -> None:
        """Compare what is held now with the most so far."""
        found = kernels()
        self.kernel = max([self.kernel, *map(_most_resident, found)])
        # Each once, also where a kernel starts another.
        processes = list(dict.fromkeys(p for kernel in found for p in tree(kernel)))
        # A cheap upper bound first: shared pages are costly to tell from others.
        if sum(map(_resident, processes)) > self.peak:
            now = footprint(processes)
            if now > self.peak:
                self.peak, self.processes = now, [*filter(None, map(_described, processes))]


def _described(process: psutil.Process) -> str:
    """A line about it; empty where it has ended."""
    try:
        command, held = " ".join(process.cmdline()), process.memory_info().rss / 1e6
    except psutil.Error:
        return ""
    return f"{process.pid} {' '.join(command.split())[:100]}: {held:.0f} MB"


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:  # it has ended
        return 0


def _most_resident(process: psutil.Process) -> int:
    """The most bytes that it held so far; 0 where it has ended."""
    try:
        return peak_bytes(process.pid)
    except psutil.Error:
        return 0
