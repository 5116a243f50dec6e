"""The capacity plan keeps its promise with as few replicas as possible; the widget shows it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from classroom.capacity import Demand, Replica, plan
from classroom.queueing import wait_quantile
from classroom.widgets import CapacityPlanner, plan_rows
from system.errors import ParameterError

DEMAND = Demand(users=100, requests_per_user_minute=2, tokens=150, wait_s=0.5)
REPLICA = Replica(slots=4, seconds_per_token=0.04, devices=2, price_hour=3)


@pytest.mark.parametrize("users", [0.5, 10, 100, 3000])
@pytest.mark.parametrize("slots", [1, 32])
def test_the_promise_is_kept_and_not_with_one_replica_less(users: float, slots: int) -> None:
    demand, replica = replace(DEMAND, users=users), replace(REPLICA, slots=slots)
    found = plan(demand, replica)
    service = demand.tokens * replica.seconds_per_token
    assert found.p95_wait_s <= demand.wait_s and found.use < 1
    fewer = (found.replicas - 1) * slots
    assert fewer == 0 or wait_quantile(fewer, demand.requests_per_s, service, 0.95) > demand.wait_s
    assert found.busy_slots == pytest.approx(demand.requests_per_s * service)  # Little's law
    assert found.use * found.replicas * slots == pytest.approx(found.busy_slots)
    assert found.tokens_per_s <= found.replicas * replica.tokens_per_s
    assert found.answer_s == pytest.approx(found.mean_wait_s + service)


def test_costs_add_up_and_spare_replicas_cost() -> None:
    found = plan(DEMAND, REPLICA)
    assert found.devices == 2 * found.replicas
    assert found.cost_month == found.devices * 3 * 730
    assert found.cost_per_million * found.tokens_per_s * 3600 * 730 / 1e6 == pytest.approx(
        found.cost_month
    )
    spare = plan(DEMAND, REPLICA, spare=1)
    assert spare.replicas == found.replicas + 1 and spare.p95_wait_s <= found.p95_wait_s


def test_many_slots_share_their_idle_ones() -> None:
    small, large = plan(DEMAND, REPLICA), plan(replace(DEMAND, users=1000), REPLICA)
    assert large.replicas < 10 * small.replicas and large.use > small.use
    assert large.cost_per_million < small.cost_per_million


@pytest.mark.parametrize("name", ["users", "requests_per_user_minute", "tokens", "wait_s"])
@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan, True, "many"])
def test_a_demand_out_of_range_is_named(name: str, value: float) -> None:
    with pytest.raises(ParameterError) as caught:
        replace(DEMAND, **{name: value})
    assert caught.value.parameter == name


def test_a_replica_and_a_plan_out_of_range_are_named() -> None:
    for call, name in (
        (lambda: replace(REPLICA, slots=1.5), "slots"),
        (lambda: replace(REPLICA, devices=0), "devices"),
        (lambda: plan(DEMAND, REPLICA, spare=-1), "spare"),
        (lambda: plan(replace(DEMAND, users=1e9), REPLICA), "users"),
    ):
        with pytest.raises(ParameterError) as caught:
            call()
        assert caught.value.parameter == name


def test_the_planner_shows_the_plan_of_its_sliders() -> None:
    shown = CapacityPlanner(DEMAND, REPLICA)
    for text in plan_rows(plan(DEMAND, REPLICA)).values():
        assert f">{text}<" in shown.shown.value
    shown.users.value, shown.spare.value, shown.price.value = 1000, 2, 5
    wanted = plan(replace(DEMAND, users=1000), replace(REPLICA, price_hour=5), spare=2)
    for text in plan_rows(wanted).values():
        assert f">{text}<" in shown.shown.value
    shown.tokens.value = 1e6
    shown.per_minute.value = 1e6
    assert "users=1000 is not allowed" in shown.shown.value
