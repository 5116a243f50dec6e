"""How many replicas, devices and how much money a number of users needs. (Lesson 10.)

    users × requests a user → requests a second → slots → replicas → devices → cost

A slot writes one text at a time; the slots of all replicas share one queue (M/M/c, see
`classroom.queueing`), which a load balancer that knows the replicas' queues comes near. Prices
are what the caller gives: none is known here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from classroom.limits import check_number
from classroom.queueing import mean_wait, wait_quantile
from system.errors import ParameterError

MOST_SLOTS = 100_000  # a plan beyond it is a mistake in its inputs
HOURS_A_MONTH = 730


@dataclass(frozen=True)
class Demand:
    """What users ask for, at the busiest time.

    Attributes:
        users: active at the same time.
        requests_per_user_minute: each of them sends so many.
        tokens: written in an answer, on average.
        wait_s: 95 % of requests get a slot within so many seconds.
    """

    users: float
    requests_per_user_minute: float
    tokens: float
    wait_s: float

    def __post_init__(self) -> None:
        _above_zero(self)

    @property
    def requests_per_s(self) -> float:
        """Arrivals a second."""
        return self.users * self.requests_per_user_minute / 60


@dataclass(frozen=True)
class Replica:
    """One copy of the service, as a load test found it, and what it costs.

    Attributes:
        slots: texts that it writes at the same time.
        seconds_per_token: of one text while all slots are busy (TPOT).
        devices: it runs on so many.
        price_hour: of one device, in dollars.
    """

    slots: int
    seconds_per_token: float
    devices: int = 1
    price_hour: float = 1.0

    def __post_init__(self) -> None:
        _above_zero(self)

    @property
    def tokens_per_s(self) -> float:
        """The most that it writes, all slots busy."""
        return self.slots / self.seconds_per_token


@dataclass(frozen=True)
class Plan:
    """What is needed, and what it does.

    Attributes:
        tokens_per_s: that users ask for.
        busy_slots: on average: arrivals × seconds an answer, in erlang.
        replicas, devices: how many.
        use: share of the slots that is busy on average, 0 to 1.
        mean_wait_s, p95_wait_s: until a slot is free.
        answer_s: mean time of a whole answer, waiting included.
        cost_month: 730 hours of all devices.
        cost_per_million: of a million tokens written at this load.
    """

    tokens_per_s: float
    busy_slots: float
    replicas: int
    devices: int
    use: float
    mean_wait_s: float
    p95_wait_s: float
    answer_s: float
    cost_month: float
    cost_per_million: float


def plan(demand: Demand, replica: Replica, spare: int = 0) -> Plan:
    """The fewest replicas that keep the promise, and `spare` ones beside them.

    Args:
        demand: what users ask for.
        replica: what one replica gives.
        spare: replicas that may fail, or be replaced, without breaking the promise.

    Raises:
        ParameterError: a value out of its range, or a load beyond 100,000 slots.
    """
    check_number("spare", spare, 0, whole=True)
    rate, service = demand.requests_per_s, demand.tokens * replica.seconds_per_token
    busy = rate * service
    if not busy < MOST_SLOTS - replica.slots:
        raise ParameterError("users", demand.users, f"few enough for {MOST_SLOTS:,} slots")
    needed = max(1, math.ceil(busy / replica.slots))
    while wait_quantile(needed * replica.slots, rate, service, 0.95) > demand.wait_s:
        needed += 1
    count = needed + spare
    slots = count * replica.slots
    wait, tokens = mean_wait(slots, rate, service), rate * demand.tokens
    hourly = count * replica.devices * replica.price_hour
    return Plan(
        tokens_per_s=tokens,
        busy_slots=busy,
        replicas=count,
        devices=count * replica.devices,
        use=busy / slots,
        mean_wait_s=wait,
        p95_wait_s=wait_quantile(slots, rate, service, 0.95),
        answer_s=wait + service,
        cost_month=hourly * HOURS_A_MONTH,
        cost_per_million=hourly / (tokens * 3600) * 1e6,
    )


def _above_zero(inputs: Demand | Replica) -> None:
    """Refuse a value that is no number above 0, by its name."""
    for field in fields(inputs):
        whole = field.type == "int"
        value = getattr(inputs, field.name)
        check_number(field.name, value, int(whole), whole=whole, above=not whole)
