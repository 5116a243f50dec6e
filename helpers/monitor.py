"""Watching this process: memory, processor, threads and GPU, over time. (Lesson 04.)

    with ResourceMonitor() as monitor:
        with monitor.phase("load"):
            generator = helpers.load("course-gpt-4m")
    monitor.phases()      # one row a phase
    figures.monitored(monitor)      # memory and processor over time, phases shaded

Memory is *resident* memory (RSS): what this process holds in physical memory now,
pages of mapped files that it touched included. MB are 10⁶ bytes everywhere.
"""

from __future__ import annotations

import math
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import psutil

from system.errors import ParameterError

if TYPE_CHECKING:
    import pandas as pd

_STATUS = Path("/proc/self/status")
_FIELDS = re.compile(rb"(VmHWM|VmRSS|Threads):\s*(\d+)")
MIN_INTERVAL, MAX_INTERVAL = 0.01, 60.0
NAN = math.nan


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at the process.

    Attributes:
        seconds: since the monitor started.
        phase: the innermost named phase at this moment, "" between phases.
        rss_mb: resident memory now.
        peak_mb: the most resident memory since the process started (not the monitor).
        cpu_percent: processor time since the sample before, per cent of one core: two
            busy threads make 200.
        threads: threads of the process.
        gpu_mb: memory that torch's tensors use on the current GPU; NaN without one.
        gpu_reserved_mb: memory that torch took from the GPU, unused blocks included.
        gpu_percent: share of time in which the GPU was busy; NaN where it is unknown.
    """

    seconds: float
    phase: str
    rss_mb: float
    peak_mb: float
    cpu_percent: float
    threads: int
    gpu_mb: float
    gpu_reserved_mb: float
    gpu_percent: float


class ResourceMonitor:
    """Samples this process in the background, from `with` to the end of its block.

    A sample is also taken wherever a phase begins or ends, so that no phase is too short
    to be seen. Overhead: about 0.2 % of one core at ten samples a second
    (`python -m benchmarks.monitor`).

    Args:
        interval: seconds between samples.

    Raises:
        ParameterError: an interval that is not from 0.01 to 60 seconds.
    """

    def __init__(self, interval: float = 0.1) -> None:
        if isinstance(interval, bool) or not isinstance(interval, int | float):
            raise ParameterError("interval", interval, "a number of seconds")
        if not MIN_INTERVAL <= interval <= MAX_INTERVAL:
            raise ParameterError(
                "interval", interval, f"from {MIN_INTERVAL} to {MAX_INTERVAL:.0f} seconds"
            )
        self.interval = float(interval)
        self.samples: list[Sample] = []
        self.own_cpu_seconds = 0.0  # what the background thread itself cost
        self._spans: list[tuple[str, float, float]] = []
        self._open: list[str] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._start = self._last_wall = self._last_cpu = 0.0

    def __enter__(self) -> ResourceMonitor:
        if self._thread is not None:
            raise RuntimeError("a ResourceMonitor watches once: make a new one for the next block")
        self._start = self._last_wall = time.perf_counter()
        self._last_cpu = time.process_time()
        self._take()
        self._thread = threading.Thread(target=self._work, daemon=True, name="resource-monitor")
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._take()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Name what happens in this block; phases may follow each other or nest.

        Args:
            name: shown in the tables and the figure.

        Raises:
            ParameterError: a blank name, or a monitor that is not running.
        """
        if not name.strip():
            raise ParameterError("name", name, "some text")
        if self._thread is None or self._stop.is_set():
            raise ParameterError("phase", name, "inside the monitor's own with block")
        began = time.perf_counter() - self._start
        self._open.append(name)
        self._take()
        try:
            yield
        finally:
            self._take()
            self._open.pop()
            self._spans.append((name, began, time.perf_counter() - self._start))

    def frame(self) -> pd.DataFrame:
        """All samples so far, one row each; columns as in `Sample`.

        GPU columns are left out where nothing was measured. Before its first use of the GPU
        a process holds none of its memory: 0 MB.
        """
        import pandas as pd

        names = [field.name for field in fields(Sample)]
        table = pd.DataFrame([astuple(s) for s in self.samples], columns=names)
        table = table.drop(columns=[c for c in names[-3:] if table[c].isna().all()])
        return table.fillna(dict.fromkeys(names[-3:-1], 0.0))

    def phases(self) -> pd.DataFrame:
        """One row a phase, in the order of their beginnings.

        Columns: phase, seconds, rss_start_mb, rss_end_mb, highest_mb (of the samples in
        the phase), cpu_percent (mean over the phase, of one core).
        """
        import pandas as pd

        rows = []
        for name, began, ended in sorted(self._spans, key=lambda span: span[1]):
            inside = [s for s in self.samples if began <= s.seconds <= ended]
            after_first = [(s, s.seconds - p.seconds) for p, s in zip(inside, inside[1:])]  # noqa: B905
            busy = sum(s.cpu_percent * length for s, length in after_first)
            watched = sum(length for _, length in after_first)
            rows.append(
                {
                    "phase": name,
                    "seconds": ended - began,
                    "rss_start_mb": inside[0].rss_mb,
                    "rss_end_mb": inside[-1].rss_mb,
                    "highest_mb": max(s.rss_mb for s in inside),
                    "cpu_percent": busy / watched if watched else inside[-1].cpu_percent,
                }
            )
        return pd.DataFrame(rows)

    def spans(self) -> list[tuple[str, float, float]]:
        """The finished phases: (name, beginning, end) in seconds since the monitor started."""
        return sorted(self._spans, key=lambda span: span[1])

    def _work(self) -> None:
        """The background thread: a sample every interval, on a fixed beat."""
        due = self._start + self.interval
        while not self._stop.wait(max(0.0, due - time.perf_counter())):
            self._take()
            due = max(due + self.interval, time.perf_counter())
        self.own_cpu_seconds = time.thread_time()

    def _take(self) -> None:
        """One sample; the lock keeps the samples in the order of their times."""
        with self._lock:
            wall, cpu = time.perf_counter(), time.process_time()
            elapsed, used = wall - self._last_wall, cpu - self._last_cpu
            if elapsed > 0.001:  # over less, the processor's clock is too coarse
                percent = 100 * used / elapsed
                self._last_wall, self._last_cpu = wall, cpu
            else:
                percent = self.samples[-1].cpu_percent if self.samples else 0.0
            rss, peak, threads = read_process()
            phase = self._open[-1] if self._open else ""
            self.samples.append(
                Sample(wall - self._start, phase, rss, peak, percent, threads, *read_gpu())
            )


def get_memory_usage() -> float:
    """Resident memory of this process now, in MB (10⁶ bytes)."""
    return read_process()[0]


def get_peak_memory() -> float:
    """The most resident memory of this process since it started, in MB (10⁶ bytes)."""
    return read_process()[1]


def read_process() -> tuple[float, float, int]:
    """(resident MB, peak resident MB, threads): one small file on Linux, psutil elsewhere."""
    try:
        found = dict(_FIELDS.findall(_STATUS.read_bytes()))
        return (
            int(found[b"VmRSS"]) * 1024 / 1e6,
            int(found[b"VmHWM"]) * 1024 / 1e6,
            int(found[b"Threads"]),
        )
    except (OSError, KeyError):
        process = psutil.Process()
        memory = process.memory_info()
        return memory.rss / 1e6, _peak_elsewhere(memory), process.num_threads()


def _peak_elsewhere(memory: Any) -> float:
    """Peak resident MB where there is no /proc: Windows counts it, macOS through getrusage."""
    if hasattr(memory, "peak_wset"):
        return memory.peak_wset / 1e6
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def read_gpu() -> tuple[float, float, float]:
    """(tensors' MB, reserved MB, busy per cent) of torch's current GPU; NaN where unknown.

    torch is never imported here, and a GPU that torch has not used yet is left alone.
    """
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "cuda") or not torch.cuda.is_initialized():
        return NAN, NAN, NAN
    try:
        busy = float(torch.cuda.utilization())  # needs the package nvidia-ml-py
    except Exception:  # not installed, or a driver that does not say
        busy = NAN
    return torch.cuda.memory_allocated() / 1e6, torch.cuda.memory_reserved() / 1e6, busy
