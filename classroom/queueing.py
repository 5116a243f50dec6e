"""How long requests wait where several servers share one queue: M/M/c. (Lessons 09, 10.)

Requests arrive at random (Poisson), their service times spread exponentially, c equal servers
take them in order of arrival. A *server* is whatever works on one request at a time: a slot of a
batch, a replica. With `load` = arrivals per second × seconds of service, measured in erlang (how
many servers would be busy on average), the use of each server is load / c, below 1.

Sources: A. K. Erlang, "Solution of some problems in the theory of probabilities of significance
in automatic telephone exchanges" (1917); L. Kleinrock, "Queueing Systems", vol. 1 (1975), ch. 3;
M. Harchol-Balter, "Performance Modeling and Design of Computer Systems" (2013), ch. 14.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

from classroom.limits import check_number
from system.errors import ParameterError


def erlang_c(servers: int, load: float) -> float:
    """The probability that a request finds every server busy, and waits.

    Computed from Erlang's B, which has a stable recursion: B(0) = 1,
    B(k) = load B(k-1) / (k + load B(k-1)), then C = B / (1 - use (1 - B)), use = load / servers.

    Args:
        servers: how many, from 1.
        load: in erlang, from 0; from `servers` on the queue grows without end, and C is 1.

    Raises:
        ParameterError: a value outside its range.
    """
    check_number("servers", servers, 1, whole=True)
    check_number("load", load, 0)
    if load >= servers:
        return 1.0
    blocked = 1.0
    for k in range(1, servers + 1):
        blocked = load * blocked / (k + load * blocked)
    return blocked / (1 - load / servers * (1 - blocked))


def mean_wait(servers: int, arrivals_per_s: float, service_s: float) -> float:
    """Seconds that a request waits on average before it is served: C / (c μ - λ).

    Args:
        servers: how many share the queue, from 1.
        arrivals_per_s: requests a second, λ.
        service_s: mean time of one request at a server, 1 / μ, above 0.

    Returns:
        seconds; infinite where requests come as fast as they can be served, or faster.

    Raises:
        ParameterError: a value outside its range.
    """
    free = _free_rate(servers, arrivals_per_s, service_s)
    return erlang_c(servers, arrivals_per_s * service_s) / free if free > 0 else math.inf


def wait_quantile(servers: int, arrivals_per_s: float, service_s: float, share: float) -> float:
    """Seconds that a share of all requests waits at most; 0.95 gives p95.

    Of those that wait, the time spreads exponentially: P(wait > t) = C exp(-(c μ - λ) t).

    Args:
        servers: how many share the queue, from 1.
        arrivals_per_s: requests a second, λ.
        service_s: mean time of one request at a server, 1 / μ, above 0.
        share: from 0 up to, not including, 1.

    Returns:
        seconds; 0 where that share does not wait at all, infinite where the queue grows.

    Raises:
        ParameterError: a value outside its range.
    """
    check_number("share", share, 0)
    if share >= 1:
        raise ParameterError("share", share, "a number from 0 to below 1")
    free = _free_rate(servers, arrivals_per_s, service_s)
    if free <= 0:
        return math.inf
    waits = erlang_c(servers, arrivals_per_s * service_s)
    return max(0.0, math.log(waits / (1 - share)) / free) if waits else 0.0


def played_waits(
    servers: int, arrivals_s: Sequence[float], services_s: Sequence[float]
) -> list[float]:
    """Seconds that each request waits when a queue is played through, in order of arrival.

    The formulas give the mean of endless traffic; this gives what one short sample of it must do.

    Args:
        servers: how many share the queue, from 1.
        arrivals_s: when each request comes, in seconds, the first one first.
        services_s: how many seconds each is served.

    Raises:
        ParameterError: no server.
    """
    check_number("servers", servers, 1, whole=True)
    free, waits = [0.0] * servers, []  # when each server is next free
    for arrival, service in zip(arrivals_s, services_s, strict=True):
        start = max(arrival, heapq.heappop(free))
        heapq.heappush(free, start + service)
        waits.append(start - arrival)
    return waits


def _free_rate(servers: int, arrivals_per_s: float, service_s: float) -> float:
    """Requests a second that the servers could take on top: c μ - λ."""
    check_number("servers", servers, 1, whole=True)
    check_number("arrivals_per_s", arrivals_per_s, 0)
    check_number("service_s", service_s, 0)
    if service_s == 0:
        raise ParameterError("service_s", service_s, "a number above 0")
    return servers / service_s - arrivals_per_s
