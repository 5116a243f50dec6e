"""Hostile requests on a real server: each gets a right answer, and nothing of them stays."""

from __future__ import annotations

import time
from operator import le
from pathlib import Path

import psutil
import pytest

from classroom.watching import until
from serving.client import Client, ServerProcess
from tests.serving.hostile import Sent, attack

ROUND, ROUNDS = 2600, (0, 1, 0, 1)  # requests, and which: the first ones come again
MOST = 40  # MB that they may take then: others write at the same time, in other batches


def greedy(server: ServerProcess) -> str:
    with Client(server.url) as client:
        return client.generate("The computer", temperature=0, max_new_tokens=40).text


def survived(server: ServerProcess, requests: int, number: int) -> Sent:
    """Attack it: afterwards it writes the same text, and nothing has gone wrong inside."""
    before, known = greedy(server), len(server.log)
    sent = attack(server.url, requests, number)
    assert greedy(server) == before
    assert "Traceback" not in (said := server.log[known:]), said[-3000:]
    assert sent.total >= requests
    return sent


def held(process: psutil.Process) -> tuple[int, int]:
    """Threads and descriptors."""
    return process.num_threads(), process.num_fds()


@pytest.mark.slow
def test_hostile_requests(server: ServerProcess) -> None:
    survived(server, 200, 0)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_ten_thousand_hostile_requests(chat_model: Path) -> None:
    """None fails inside, none hangs, none keeps a thread, a descriptor or memory.

    Texts of new shapes take memory, for what torch's libraries compile for each and keep: so only
    requests that come again show whether something is lost.
    """
    settings = {"slots": 8, "queue_length": 40, "max_length_limit": 64, "response_cache_mb": 4}
    settings |= {"requests_per_minute": 1_000_000, "tokens_per_minute": 10**9}  # both are counted
    with ServerProcess("hostile", model=chat_model, **settings) as server:
        assert server.process is not None
        process = psutil.Process(server.process.pid)
        warm, memory, total = (0, 0), [], 0
        for number in ROUNDS:
            began = time.monotonic()
            sent = survived(server, ROUND, number)
            total += sent.total
            warm = warm if memory else (held(process)[0] + 2, held(process)[1] + 3)
            until(lambda limit=warm: all(map(le, held(process), limit)))
            memory.append(process.memory_info().rss / 1e6)
            print(
                f"round {number}: {sent.total} requests in {time.monotonic() - began:.0f} s, "
                f"{sent.shown}, the slowest {sent.slowest:.1f} s; threads and descriptors "
                f"{held(process)}, {memory[-1]:.0f} MB"
            )
        assert total >= 10_000
        assert memory[3] < memory[1] + MOST, memory
