"""The monitor: what it samples, its phases, and what it costs."""

from __future__ import annotations

import mmap
import threading
import time

import psutil
import pytest

from classroom import figures
from helpers.monitor import (
    ResourceMonitor,
    get_memory_usage,
    get_peak_memory,
)
from system.errors import ParameterError


def fresh(size: int) -> mmap.mmap:
    """`size` bytes straight from the system, all touched.

    What malloc gives may be memory that this process freed before and still holds.
    """
    block = mmap.mmap(-1, size)
    for page in range(0, size, mmap.PAGESIZE):
        block[page] = 1
    return block


def work(seconds: float) -> None:
    """Keep one core busy."""
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def test_memory_is_the_resident_memory_in_mb():
    megabytes = psutil.Process().memory_info().rss / 1e6
    assert get_memory_usage() == pytest.approx(megabytes, rel=0.01)  # MiB would be 5 % less
    assert get_peak_memory() >= get_memory_usage() * 0.99


def test_the_peak_stays_when_memory_is_given_back() -> None:
    before = get_peak_memory()
    block = fresh(int(1e6 * (before - get_memory_usage() + 100)))
    held = get_memory_usage()
    block.close()
    assert held >= before + 90
    assert get_memory_usage() < held - 90 and get_peak_memory() == pytest.approx(held, rel=0.01)


def test_phases_see_memory_come_and_go():
    with ResourceMonitor(interval=0.02) as monitor:
        with monitor.phase("take"):
            block = fresh(60_000_000)
            time.sleep(0.1)
        with monitor.phase("give back"):
            block.close()
            time.sleep(0.1)
    take, give = monitor.phases().to_dict("records")
    assert (take["phase"], give["phase"]) == ("take", "give back")
    assert take["rss_end_mb"] - take["rss_start_mb"] == pytest.approx(60, abs=12)
    assert give["rss_start_mb"] - give["rss_end_mb"] == pytest.approx(60, abs=12)
    assert take["highest_mb"] >= take["rss_end_mb"]
    assert take["seconds"] >= 0.1


def until_seen(monitor: ResourceMonitor) -> None:
    """Wait until the monitor has looked twice more."""
    seen = len(monitor.samples)
    while len(monitor.samples) < seen + 2:
        time.sleep(0.01)


def test_cpu_per_cent_is_processor_time_over_time() -> None:
    """However busy the machine is: both are measured here as well."""

    def measured(name: str, seconds: float, threads: int) -> float:
        cpu, wall = time.process_time(), time.perf_counter()
        with monitor.phase(name):
            helpers = [threading.Thread(target=work, args=(seconds,)) for _ in range(threads)]
            for helper in helpers:
                helper.start()
            for helper in helpers:
                helper.join()
            time.sleep(0.3 if not threads else 0)
        return 100 * (time.process_time() - cpu) / (time.perf_counter() - wall)

    with ResourceMonitor(interval=0.02) as monitor:
        expected = [measured("rest", 0, 0), measured("one", 0.5, 1), measured("two", 0.5, 2)]
    found = list(monitor.phases()["cpu_percent"])
    assert found == pytest.approx(expected, rel=0.1, abs=2)
    assert found[0] < found[1]


def test_the_highest_memory_of_a_phase_is_not_that_of_its_end() -> None:
    with ResourceMonitor(interval=0.02) as monitor, monitor.phase("up and down"):
        block = fresh(80_000_000)
        until_seen(monitor)
        block.close()
        until_seen(monitor)
    (row,) = monitor.phases().to_dict("records")
    assert row["highest_mb"] == pytest.approx(row["rss_start_mb"] + 80, abs=12)
    assert row["rss_end_mb"] == pytest.approx(row["rss_start_mb"], abs=12)
    (name, began, ended), frame = monitor.spans()[0], monitor.frame()
    assert row["seconds"] == ended - began
    inside = frame[(frame["seconds"] >= began) & (frame["seconds"] <= ended)]
    assert set(inside["phase"]) == {"up and down"} == {name}
    assert row["highest_mb"] == inside["rss_mb"].max()


def test_threads_are_counted() -> None:
    stop = threading.Event()
    with ResourceMonitor(interval=0.02) as monitor:
        until_seen(monitor)
        before = monitor.samples[-1].threads
        waiting = [threading.Thread(target=stop.wait) for _ in range(3)]
        for thread in waiting:
            thread.start()
        until_seen(monitor)
        assert monitor.samples[-1].threads == before + 3
        stop.set()
        for thread in waiting:
            thread.join()


def test_samples_are_in_order_and_on_the_beat():
    began = time.perf_counter()
    with ResourceMonitor(interval=0.05) as monitor:
        while len(monitor.samples) < 12:  # a busy machine may come late, never early
            time.sleep(0.05)
    most = (time.perf_counter() - began) / 0.05 + 3  # all beats, the first and the last
    frame = monitor.frame()
    assert frame["seconds"].is_monotonic_increasing
    assert 12 <= len(frame) <= most
    assert {"rss_mb", "peak_mb", "cpu_percent", "threads", "phase"} <= set(frame.columns)
    assert (frame["peak_mb"] >= frame["rss_mb"] * 0.99).all()
    assert (frame["threads"] >= 2).all() or frame["threads"].max() >= 2


def test_nested_and_repeated_phases():
    with ResourceMonitor() as monitor:
        with monitor.phase("outer"), monitor.phase("inner"):
            pass
        for _ in range(2):
            with monitor.phase("again"):
                pass
    assert list(monitor.phases()["phase"]) == ["outer", "inner", "again", "again"]
    assert [name for name, _, _ in monitor.spans()] == ["outer", "inner", "again", "again"]


def test_an_error_ends_phase_and_monitor_and_goes_on_to_the_caller():
    monitor = ResourceMonitor()
    with pytest.raises(KeyError, match="mine"), monitor, monitor.phase("broken"):
        raise KeyError("mine")
    assert list(monitor.phases()["phase"]) == ["broken"]
    with pytest.raises(ParameterError, match="inside the monitor's own with block"):
        monitor.phase("late").__enter__()
    with pytest.raises(RuntimeError, match="make a new one"):
        monitor.__enter__()


def test_figure_carries_its_description():
    with ResourceMonitor() as monitor, monitor.phase("nothing"):
        time.sleep(0.02)
    assert 'alt="Memory and processor use over time. nothing: ' in figures.monitored(monitor).data
    assert 'alt="mine"' in figures.monitored(monitor, "mine").data


@pytest.mark.parametrize("interval", [0, -1, 0.001, 61, float("nan"), True, "1"])
def test_intervals_out_of_range(interval):
    with pytest.raises(ParameterError, match="interval"):
        ResourceMonitor(interval)


def test_watching_costs_less_than_one_per_cent():
    with ResourceMonitor(interval=0.1) as monitor:
        time.sleep(3)
    assert 0 < monitor.own_cpu_seconds < 0.01 * 3
