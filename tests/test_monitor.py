"""The monitor: what it samples, its phases, and what it costs."""

from __future__ import annotations

import functools
import math
import mmap
import sys
import threading
import time
import types

import psutil
import pytest

from classroom import figures
from helpers import monitor as monitoring
from helpers.monitor import (
    NAN,
    ResourceMonitor,
    Sample,
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
        expected = [measured("rest", 0, 0), measured("one", 0.3, 1), measured("two", 0.3, 2)]
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
    with pytest.raises(ParameterError) as caught:
        ResourceMonitor(interval)
    allowed = "from 0.01 to 60 seconds" if type(interval) in (int, float) else "a number of seconds"
    assert (caught.value.parameter, caught.value.allowed) == ("interval", allowed)
    assert caught.value.value is interval
    assert [ResourceMonitor(edge).interval for edge in (0.01, 60)] == [0.01, 60.0]


def test_a_blank_phase_and_one_before_the_block_are_refused():
    monitor = ResourceMonitor()
    for name, wrong, value in ((" ", "name", " "), ("early", "phase", "early")):
        with pytest.raises(ParameterError) as caught:
            monitor.phase(name).__enter__()
        assert (caught.value.parameter, caught.value.value) == (wrong, value)
    assert monitor.spans() == [] and monitor.own_cpu_seconds == 0


class Planned:
    """A clock that moves only while the monitor waits, and then as planned."""

    def __init__(self, late: list[float]) -> None:
        self.now, self.late, self.waits = 100.0, late, []

    def wait(self, seconds: float) -> bool:
        self.now += seconds + self.late[len(self.waits)]
        self.waits.append(seconds)
        return len(self.waits) == len(self.late)


def test_the_beat_is_fixed_and_what_was_missed_is_not_made_up_for(monkeypatch):
    plan = Planned([0, 0.125, 0, 1.375, 0, 0, 0])  # so late is each look
    monitor = ResourceMonitor(0.5)
    monitor._stop = plan
    monkeypatch.setattr(time, "perf_counter", lambda: plan.now)
    monitor._start = plan.now
    monitor._work()
    assert [s.seconds for s in monitor.samples] == [0.5, 1.125, 1.5, 3.375, 3.375, 3.875]
    assert plan.waits == [0.5, 0.5, 0.375, 0.5, 0, 0.5, 0.5]
    assert 0 < monitor.own_cpu_seconds <= time.thread_time()


def test_processor_per_cent_of_each_look(monkeypatch):
    """On a planned clock: over less than a millisecond the look before stands."""
    wall, cpu = [50.0], [7.0]
    monkeypatch.setattr(time, "perf_counter", lambda: wall[0])
    monkeypatch.setattr(time, "process_time", lambda: cpu[0])
    with ResourceMonitor(60) as monitor:
        for elapsed, used in ((2.0, 3.0), (2**-11, 2**-10), (2**-12, 0), (0.5, 0.125)):
            wall[0] += elapsed
            cpu[0] += used
            monitor._take()
    found = [s.cpu_percent for s in monitor.samples]
    assert found == pytest.approx(
        [0, 150, 150, 150, *[100 * (0.125 + 2**-10) / (0.5 + 3 * 2**-12)] * 2]
    )
    assert [s.seconds for s in monitor.samples[:2]] == [0, 2]


def test_the_mean_of_a_phase_weighs_each_look_by_its_length():
    monitor = ResourceMonitor()
    looks = [(0, 5, 90.0), (1, 10, 20.0), (2, 30, 80.0), (5, 20, 10.0), (9, 40, 70.0)]
    for seconds, rss, percent in looks:
        monitor.samples.append(Sample(seconds, "", rss, 50.0, percent, 1, NAN, NAN, NAN))
    monitor._spans = [("late", 9.0, 9.5), ("all", 1.0, 5.0)]
    rows = monitor.phases().to_dict("records")
    names = ("phase", "seconds", "rss_start_mb", "rss_end_mb", "highest_mb", "cpu_percent")
    mean = (1 * 80.0 + 3 * 10.0) / 4
    assert rows[0] == dict(zip(names, ("all", 4.0, 10, 20, 30, mean), strict=True))
    assert rows[1] == dict(zip(names, ("late", 0.5, 40, 40, 40, 70.0), strict=True))
    assert monitor.spans() == [("all", 1.0, 5.0), ("late", 9.0, 9.5)]


def test_where_the_system_has_no_proc_the_numbers_are_the_same(monkeypatch, tmp_path):
    resident, peak, threads = monitoring.read_process()
    monkeypatch.setattr(monitoring, "_STATUS", tmp_path / "nothing")
    found = monitoring.read_process()
    assert found[:2] == pytest.approx((resident, peak), rel=0.02) and found[2] == threads
    (tmp_path / "nothing").write_text("VmRSS: 1 kB\n")  # of a system that says less
    assert monitoring.read_process()[0] == pytest.approx(resident, rel=0.02)
    windows = types.SimpleNamespace(peak_wset=3_500_000)
    assert monitoring._peak_elsewhere(windows) == 3.5
    monkeypatch.setattr(sys, "platform", "darwin")  # counts bytes, not KiB
    assert monitoring._peak_elsewhere(None) * 1024 == pytest.approx(found[1], rel=0.02)


def graphics(**changed: object) -> types.SimpleNamespace:
    """A torch with a graphics card in use, as far as the monitor asks it."""
    answers: dict = {"is_initialized": True, "utilization": 40, "memory_allocated": 2_500_000}
    answers |= {"memory_reserved": 8_000_000} | changed

    def answer(value: object) -> object:
        if isinstance(value, Exception):
            raise value
        return value

    cuda = {name: functools.partial(answer, value) for name, value in answers.items()}
    return types.SimpleNamespace(cuda=types.SimpleNamespace(**cuda))


def test_a_graphics_card_is_asked_through_torch_and_only_where_it_is_in_use(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", graphics())
    assert monitoring.read_gpu() == (2.5, 8.0, 40.0)
    monkeypatch.setitem(sys.modules, "torch", graphics(utilization=ModuleNotFoundError("pynvml")))
    assert monitoring.read_gpu() == pytest.approx((2.5, 8.0, NAN), nan_ok=True)
    unused = [None, types.SimpleNamespace(), graphics(is_initialized=False)]
    for torch in unused:  # not imported, without a card's support, not used yet
        monkeypatch.setitem(sys.modules, "torch", torch)
        assert all(math.isnan(number) for number in monitoring.read_gpu())


def test_columns_of_a_card_begin_with_zero_and_are_left_out_where_there_is_none(monkeypatch):
    with ResourceMonitor(60) as monitor:
        pass
    columns = ["seconds", "phase", "rss_mb", "peak_mb", "cpu_percent", "threads"]
    assert list(monitor.frame().columns) == columns
    monkeypatch.setitem(sys.modules, "torch", graphics(utilization=RuntimeError("silent")))
    monitor._take()
    frame = monitor.frame()
    assert list(frame.columns) == [*columns, "gpu_mb", "gpu_reserved_mb"]
    assert list(frame["gpu_mb"]) == [0, 0, 2.5] and list(frame["gpu_reserved_mb"]) == [0, 0, 8.0]
    monkeypatch.setitem(sys.modules, "torch", graphics())
    monitor._take()
    busy = monitor.frame()["gpu_percent"]
    assert busy.isna().tolist() == [True] * 3 + [False] and busy.iloc[3] == 40


def test_watching_costs_less_than_one_per_cent():
    with ResourceMonitor(interval=0.1) as monitor:
        time.sleep(1.5)
    assert 0 < monitor.own_cpu_seconds < 0.01 * 1.5
