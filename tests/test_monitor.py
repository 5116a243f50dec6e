"""The monitor: what it samples, its phases, and what it costs."""

from __future__ import annotations

import os
import time

import psutil
import pytest

from helpers.errors import ParameterError
from helpers.monitor import (
    ResourceMonitor,
    get_cpu_percent,
    get_memory_usage,
    get_peak_memory,
    get_system_info,
)


def work(seconds: float) -> None:
    """Keep one core busy."""
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def test_memory_is_the_resident_memory_in_mb():
    assert get_memory_usage() == pytest.approx(psutil.Process().memory_info().rss / 1e6, rel=0.05)
    assert get_peak_memory() >= get_memory_usage() * 0.99


def test_one_off_reads():
    assert get_cpu_percent(0.05) >= 0
    info = get_system_info()
    assert info["memory_mb"] == round(psutil.virtual_memory().total / 1e6)
    assert info["cpus"] >= 1 and info["processor"]


def test_phases_see_memory_come_and_go():
    with ResourceMonitor(interval=0.02) as monitor:
        with monitor.phase("take"):
            block = bytearray(os.urandom(1) * 60_000_000)
            time.sleep(0.1)
        with monitor.phase("give back"):
            del block
            time.sleep(0.1)
    take, give = monitor.phases().to_dict("records")
    assert (take["phase"], give["phase"]) == ("take", "give back")
    assert take["rss_end_mb"] - take["rss_start_mb"] == pytest.approx(60, abs=12)
    assert give["rss_start_mb"] - give["rss_end_mb"] == pytest.approx(60, abs=12)
    assert take["highest_mb"] >= take["rss_end_mb"]
    assert take["seconds"] >= 0.1


def test_cpu_per_cent_tells_work_from_rest():
    with ResourceMonitor(interval=0.02) as monitor:
        with monitor.phase("rest"):
            time.sleep(0.3)
        with monitor.phase("work"):
            work(0.3)
    rest, busy = monitor.phases()["cpu_percent"]
    assert rest < 20 < busy


def test_samples_are_in_order_and_on_the_beat():
    with ResourceMonitor(interval=0.05) as monitor:
        time.sleep(1.0)
    frame = monitor.frame()
    assert frame["seconds"].is_monotonic_increasing
    assert 12 <= len(frame) <= 23  # 20 beats, the first and the last
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
    assert 'alt="Memory and processor use over time. nothing: ' in monitor.figure().data
    assert 'alt="mine"' in monitor.figure("mine").data


@pytest.mark.parametrize("interval", [0, -1, 0.001, 61, float("nan"), True, "1"])
def test_intervals_out_of_range(interval):
    with pytest.raises(ParameterError, match="interval"):
        ResourceMonitor(interval)


def test_watching_costs_less_than_one_per_cent():
    with ResourceMonitor(interval=0.1) as monitor:
        time.sleep(3)
    assert 0 < monitor.own_cpu_seconds < 0.01 * 3
