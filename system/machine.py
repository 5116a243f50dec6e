"""The machine, and what a container leaves of it: its processors and memory. (Lesson 04.)

Inside a container the machine's own figures stay visible, where they mean little: control
groups limit what the processes in it may take. What goes beyond the memory's limit is killed,
what goes beyond the processors' has to wait.
"""

from __future__ import annotations

import math
import os
import platform
import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_GROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
# The files of version 2, and of version 1, where every kind of limit has its own folder.
_MEMORY_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


class Memory(NamedTuple):
    """Physical memory for this process and those that it shares a limit with, in bytes."""

    total: int
    available: int


def physical_memory(groups: Path = _GROUPS, own: Path = _OWN) -> Memory:
    """The machine's memory, or what control groups leave of it where that is less.

    Args:
        groups: where control groups are mounted.
        own: the file that names this process's groups.
    """
    import psutil

    machine = psutil.virtual_memory()
    total, free = machine.total, machine.available
    for folder in _folders("memory", groups, own):
        for limit_file, used_file, cache in _MEMORY_FILES:
            limit = _number(folder / limit_file)
            if limit < math.inf:
                used = _number(folder / used_file, 0.0)
                used -= _field(folder / "memory.stat", cache)  # given back when it is needed
                # Version 1 writes "no limit" as a number beyond every machine.
                total, free = min(total, int(limit)), min(free, max(0, int(limit - used)))
    return Memory(total, min(free, total))


def processors(groups: Path = _GROUPS, own: Path = _OWN) -> float:
    """How many processors this process may keep busy: whole ones, or a share such as 0.5.

    Args:
        groups: where control groups are mounted.
        own: the file that names this process's groups.
    """
    if hasattr(os, "sched_getaffinity"):
        count = float(len(os.sched_getaffinity(0)))
    else:
        count = float(os.cpu_count() or 1)
    for folder in _folders("cpu", groups, own):
        quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        if (folder / "cpu.max").is_file():  # version 2: "50000 100000", or "max 100000"
            words = [*_words(folder / "cpu.max"), "", ""]
            quota, period = _as_number(words[0]), _as_number(words[1])
        if 0 < quota < math.inf and 0 < period < math.inf:  # version 1: -1 is no limit
            count = min(count, quota / period)
    return count


def processor_name() -> str:
    """The processor's name as its maker writes it, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine() or "unknown")


def _folders(kind: str, groups: Path, own: Path) -> list[Path]:
    """This process's group for a kind of limit and all above it: each one's limit holds.

    Inside a container the path may be the host's, while only the container's own groups are
    mounted: then the top of what is there is its group.
    """
    try:
        lines = own.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return []  # not Linux
    found = []
    for line in lines:  # "4:cpu,cpuacct:/path" in version 1, "0::/path" in version 2
        number, _, rest = line.partition(":")
        kinds, _, path = rest.partition(":")
        if kind in kinds.split(","):
            top = groups / (kinds if (groups / kinds).is_dir() else kind)
        elif number == "0":
            top = groups
        else:
            continue
        parts = Path(path.lstrip("/")).parts
        found += [top.joinpath(*parts[:n]) for n in range(len(parts) + 1)]
    return [folder for folder in found if folder.is_dir()]


def _words(file: Path) -> list[str]:
    try:
        return file.read_text("ascii").split()
    except (OSError, ValueError):
        return []


def _as_number(word: str) -> float:
    """The number; infinity where it is none, as in "max"."""
    try:
        return float(int(word))
    except ValueError:
        return math.inf


def _number(file: Path, otherwise: float = math.inf) -> float:
    """The number in a file of one number; `otherwise` where there is none."""
    number = _as_number("".join(_words(file)))
    return number if number < math.inf else otherwise


def _field(file: Path, name: str) -> float:
    """One number of a file that lists names and numbers, else 0."""
    words = _words(file)
    return _as_number(words[words.index(name) + 1]) if name in words[:-1] else 0.0


def peak_bytes(pid: int) -> int:
    """The most memory that a process held so far; where the system does not count it, now.

    Raises:
        psutil.Error: there is no such process.
    """
    import psutil

    with suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        if found := re.search(r"VmHWM:\s*(\d+) kB", status):
            return int(found[1]) * 1024
    memory = psutil.Process(pid).memory_info()
    return int(getattr(memory, "peak_wset", memory.rss))
