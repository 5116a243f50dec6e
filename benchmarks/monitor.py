"""What watching costs: the ResourceMonitor's own share of the processor.

    python -m benchmarks.monitor [SECONDS]

The process holds a loaded model, as a lesson's does, and rests; the whole process's
processor time is compared with and without the monitor, and the monitor's thread is
timed by itself.
"""

from __future__ import annotations

import statistics
import sys
import time

import helpers
from helpers.monitor import ResourceMonitor
from system import startup

SAMPLES_PER_SECOND = 10
ROUNDS = 3


def resting_share(seconds: float) -> float:
    """Per cent of one core that this process uses while it rests."""
    began, used = time.perf_counter(), time.process_time()
    time.sleep(seconds)
    return 100 * (time.process_time() - used) / (time.perf_counter() - began)


def watched_shares(seconds: float) -> tuple[float, float, int]:
    """The same under the monitor: (whole process, monitor's thread alone, samples)."""
    monitor = ResourceMonitor(interval=1 / SAMPLES_PER_SECOND)
    with monitor:
        whole = resting_share(seconds)
    return whole, 100 * monitor.own_cpu_seconds / seconds, len(monitor.samples)


def main() -> int:
    """Measure, print, and end with 1 if the monitor costs 1 % or more."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    helpers.load("course-gpt-1m", "cpu").warm_up()
    rounds = [(resting_share(seconds), *watched_shares(seconds)) for _ in range(ROUNDS)]
    without, watched, thread = (statistics.median(r[i] for r in rounds) for i in range(3))
    print(f"rounds of {seconds:g} s at {SAMPLES_PER_SECOND} samples/s, median of {ROUNDS}:")
    print(f"  process at rest       {without:6.3f} % of one core")
    print(f"  process, watched      {watched:6.3f} %")
    print(f"  the monitor's thread  {thread:6.3f} %")
    print(f"  samples taken         {rounds[0][3]}")
    return int(max(thread, watched - without) >= 1.0)


if __name__ == "__main__":
    startup.run(main)
