"""Lesson 09's own tools: slots watched, metrics watched under a load, the calculator of load."""

from __future__ import annotations

import html
import math
import random
import re
from collections.abc import Iterator

import pytest

from classroom.slots import watch_slots
from classroom.watching import Watch, histogram, quantile, read_metrics, until, value
from classroom.widgets import LoadCalculator
from serving.client import APIError, Client, ServerProcess, load_test
from system.errors import ParameterError

MODEL = "course-gpt-1m"
LENGTHS = [9, 3, 5, 4, 2, 7, 3]


@pytest.mark.parametrize("batching", ["continuous", "static"])
def test_every_text_is_written_in_one_slot(batching: str) -> None:
    seats = watch_slots(MODEL, LENGTHS, slots=3, batching=batching)
    written = seats[seats.works].groupby("request")
    assert dict(written.size()) == {n: length - 1 for n, length in enumerate(LENGTHS, 1)}
    assert (seats.groupby("request").slot.nunique() == 1).all()
    assert not seats.duplicated(["step", "slot"]).any() and set(seats.slot) == {1, 2, 3}
    if batching == "continuous":  # a free slot is taken at the next step, and no row is wasted
        assert seats.works.all()
        waiting = seats[seats.step < written.step.min().max()]
        assert (waiting.groupby("step").size() == 3).all()
    else:  # batches of three, as long as their longest
        ends = seats.groupby("request").step.agg(["min", "max"])
        for batch in ([1, 2, 3], [4, 5, 6]):
            assert ends.loc[batch].nunique().tolist() == [1, 1]
        assert len(seats) == 3 * 8 + 3 * 6 + 1 * 2


# --- metrics watched


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess("watched", model=MODEL, slots=4) as process:
        yield process


def test_a_phase_has_what_happened_in_it(server: ServerProcess) -> None:
    with Watch(server.url, every=0.02) as watch:
        load = load_test.Load(server.url, requests=24, clients=4, min_tokens=20, max_tokens=20,
                              ignore_end=True)  # fmt: skip
        with watch.phase("load"):
            report = load_test.run(load)
        with watch.phase("errors"), Client(server.url) as client, pytest.raises(APIError):
            client.generate("x", temperature=9)
    shown = watch.phases()
    busy = shown.loc["load"]
    seconds = 24 / busy.requests_per_s
    assert busy.tokens_per_s * seconds == pytest.approx(24 * 20)
    assert 1 < busy.rows_per_step <= 4 and 0 < busy.in_system <= 4
    assert 0 < busy.ttft_ms < busy.p95_ms <= busy.p99_ms
    assert 0 < busy.mean_s <= report.summary()["latency"]["mean"] * 1.01 + 0.001
    assert busy.errors == {} and shown.errors["errors"] == {"bad_request": 1}
    assert busy.rss_mb > 50 and busy.cpu_cores > 0
    moments = watch.over_time(window=1000)  # each looks back to the start
    assert list(moments.phase.dropna().unique()) == ["load", "errors"]
    assert moments.errors.iloc[0] == {} and moments.errors.iloc[-1] == {"bad_request": 1}
    last = moments.iloc[-1]
    assert last.tokens_per_s * last.name == pytest.approx(24 * 20, rel=0.2)
    assert last.in_system == 0 and moments[moments.phase == "load"].rows_per_step.max() > 1


def test_quantiles_of_a_histogram() -> None:
    """Against the values themselves: never further off than the bucket is wide."""
    draw = random.Random(3)
    values = sorted(draw.expovariate(1.0) for _ in range(5000))
    ends = [0.1 * n for n in range(1, 60)] + [math.inf]
    buckets = {end: float(sum(v <= end for v in values)) for end in ends}
    for share in (0.05, 0.5, 0.95, 0.99):
        assert abs(quantile(share, buckets) - values[int(share * 5000)]) <= 0.1
    assert quantile(0.5, {1.0: 0.0, 3.0: 10.0, math.inf: 10.0}) == 2.0
    assert quantile(0.9, {1.0: 0.0, math.inf: 10.0}) == 1.0
    assert math.isnan(quantile(0.5, {1.0: 0.0, math.inf: 0.0}))


def test_metrics_are_read_by_name_and_label() -> None:
    text = 'a_bucket{le="1.0",engine="0"} %d\na_bucket{le="+Inf",engine="0"} %d\nb{k="v"} 2\n'
    before, after = (
        read_metrics("# TYPE a histogram\n" + text % pair) for pair in ((1, 2), (4, 6))
    )
    assert histogram(before, after, "a") == {1.0: 3.0, math.inf: 4.0}
    assert value(after, "b", k="v") == 2 and math.isnan(value(after, "c"))


def test_waiting_has_an_end() -> None:
    until(lambda: True, 0)
    with pytest.raises(TimeoutError, match="0 s"):
        until(lambda: False, 0)


# --- the calculator


def words(markup: str) -> str:
    return html.unescape(re.sub(r"<style>.*?</style>|<[^>]+>", " ", markup, flags=re.S))


def test_the_calculator_follows_its_sliders() -> None:
    """One slot at half use: half of the requests wait, one service time on average."""
    shown = LoadCalculator(5.0, 0.1, 1)
    text = words(shown.shown.value)
    assert text.count("50%") == 2 and "0.100 s" in text
    shown.slots.value = 4
    assert "12%" in words(shown.shown.value) or "13%" in words(shown.shown.value)
    shown.slots.value, shown.arrivals.value = 1, 20.0
    assert words(shown.shown.value).count("grows without end") == 2
    with pytest.raises(ParameterError, match="service_s"):
        LoadCalculator(5.0, 0.0, 1)
