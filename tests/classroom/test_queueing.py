"""M/M/c: against closed forms, and against a queue that is played through."""

from __future__ import annotations

import math
import random
from itertools import accumulate

import pytest

from classroom.queueing import erlang_c, mean_wait, played_waits, wait_quantile
from system.errors import ParameterError


def play(servers: int, arrivals_per_s: float, service_s: float, requests: int) -> list[float]:
    """Seconds that each request waited, with random arrivals and service times."""
    draw = random.Random(7)
    arrivals = accumulate(draw.expovariate(arrivals_per_s) for _ in range(requests))
    services = [draw.expovariate(1 / service_s) for _ in range(requests)]
    return played_waits(servers, list(arrivals), services)


def test_a_queue_of_three_requests() -> None:
    assert played_waits(1, [0, 1, 1], [2, 2, 2]) == [0, 1, 3]
    assert played_waits(2, [0, 1, 1], [2, 2, 2]) == [0, 0, 1]


def test_closed_forms() -> None:
    """One server waits with probability ρ; two with ρ² · 2 / (1 + ρ)."""
    for use in (0.0, 0.1, 0.5, 0.9, 0.999):
        assert erlang_c(1, use) == pytest.approx(use)
        assert erlang_c(2, 2 * use) == pytest.approx(2 * use**2 / (1 + use))
        assert mean_wait(1, use / 3, 3) == pytest.approx(3 * use / (1 - use))


@pytest.mark.parametrize("servers", [1, 3, 16])
def test_a_queue_that_is_played_waits_as_computed(servers: int) -> None:
    service, arrivals = 2.0, 0.8 * servers / 2.0
    waits = sorted(play(servers, arrivals, service, 100_000))
    part = sum(wait > 0 for wait in waits) / len(waits)
    assert part == pytest.approx(erlang_c(servers, arrivals * service), abs=0.03)
    assert sum(waits) / len(waits) == pytest.approx(mean_wait(servers, arrivals, service), rel=0.15)
    p95 = waits[int(0.95 * len(waits))]
    assert p95 == pytest.approx(wait_quantile(servers, arrivals, service, 0.95), rel=0.15)


def test_from_full_use_on_the_queue_grows_without_end() -> None:
    assert erlang_c(4, 4) == erlang_c(4, 9.5) == 1
    assert mean_wait(4, 2, 2) == wait_quantile(4, 3, 2, 0.5) == math.inf
    assert mean_wait(4, 0, 2) == wait_quantile(4, 0, 2, 0.99) == 0
    assert 0 < erlang_c(500, 490) < 1  # no factorial of 500 anywhere


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ((0, 1.0, 1.0, 0.5), "servers"),
        ((1.5, 1.0, 1.0, 0.5), "servers"),
        ((1, -1.0, 1.0, 0.5), "arrivals_per_s"),
        ((1, 1.0, 0.0, 0.5), "service_s"),
        ((1, math.nan, 1.0, 0.5), "arrivals_per_s"),
        ((1, 0.5, 1.0, 1.0), "share"),
    ],
)
def test_values_out_of_range_are_named(values: tuple[int, float, float, float], name: str) -> None:
    with pytest.raises(ParameterError) as caught:
        wait_quantile(*values)
    assert caught.value.parameter == name
