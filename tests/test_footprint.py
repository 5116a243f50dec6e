"""The memory of a lesson's processes is found, all of it, and counted once."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.footprint import KERNEL, PeakFootprint, footprint, tree

MB = 1_000_000
# A process that holds `size` bytes of its own, or a mapped file, and says when it does.
HOLD = """
import mmap, subprocess, sys
size, path, inner = int(sys.argv[1]), sys.argv[2], sys.argv[4:]
own = b"x" * size
if path:
    with open(path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        sum(mapped[::4096])
if inner:
    child = subprocess.Popen([sys.executable, "-c", inner[0], *inner[1:]], stdin=0)
    child.wait()
else:
    print("ready", flush=True)
    sys.stdin.read()
"""


def hold(*chain: tuple[int, str, str]) -> subprocess.Popen[str]:
    """Start one that starts the next, and so on, and wait until they hold what they should.

    Args:
        *chain: of each the bytes of its own, a file to map, and a mark in its command line.
    """
    arguments = [part for size, path, mark in chain for part in (HOLD, str(size), path, mark)]
    started = subprocess.Popen(
        [sys.executable, "-c", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert started.stdout is not None and started.stdout.readline() == "ready\n"
    return started


def test_a_kernel_and_all_below_it_count() -> None:
    with PeakFootprint() as watched:
        other = hold((300 * MB, "", ""))  # started here, too, but no kernel
        kernel = hold((100 * MB, "", KERNEL), (200 * MB, "", ""), (50 * MB, "", ""))
        time.sleep(1)
        kernel.communicate()
        other.communicate()
    assert 350 * MB < watched.peak < 450 * MB
    own = [
        re.fullmatch(r"\d+ .*python.* -c import mmap.*: (\d+) MB", told)
        for told in watched.processes
    ]
    held = [int(found[1]) for found in own if found]
    assert len(held) == 3 and held[0] > 100 and held[1] > 200 and 50 < held[2] < 100


def test_nothing_is_there_to_count() -> None:
    with PeakFootprint() as watched:
        hold((50 * MB, "", "")).communicate()
    assert (watched.peak, watched.processes) == (0, [])


def test_shared_pages_count_once(tmp_path: Path) -> None:
    file = tmp_path / "mapped"
    file.write_bytes(b"x" * 200 * MB)
    pair = hold((10 * MB, str(file), ""), (10 * MB, str(file), ""))
    both = tree(psutil.Process(pair.pid))
    resident = sum(process.memory_info().rss for process in both)
    together = footprint(both)
    pair.communicate()
    assert len(both) == 2 and resident > 420 * MB
    assert 220 * MB < together < 300 * MB


def test_a_process_being_started_is_no_double_of_its_parent() -> None:
    code = "import subprocess\nown = b'x' * 300_000_000\n"
    code += "for _ in range(400): subprocess.run(['true'])"
    with PeakFootprint() as watched:
        subprocess.run([sys.executable, "-c", code, KERNEL], check=True)
    assert 300 * MB < watched.peak < 400 * MB
