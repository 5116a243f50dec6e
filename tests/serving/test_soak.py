"""Five minutes of mixed load, clients killed at random: nothing leaks, every answer is right."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from serving.client import APIError, Client, ServerProcess

SECONDS = float(os.environ.get("SOAK_SECONDS", "300"))
PROMPTS = ["Machine learning is", "The", "A server " * 20, "Memory"]


def doomed(url: str, number: int) -> None:
    """A client process that sends requests until it is killed."""
    chance = random.Random(number)
    with httpx.Client(base_url=url, timeout=60) as http:
        while True:
            body = {"prompt": chance.choice(PROMPTS), "max_new_tokens": chance.randint(20, 120)}
            with http.stream("POST", chance.choice(["/stream", "/generate"]), json=body) as answer:
                for _ in answer.iter_raw():
                    pass


def check(url: str, until: float, number: int, right: dict[tuple[str, int], str]) -> int:
    """A client that compares every answer with the one given when the server was idle."""
    chance, answered = random.Random(number), 0
    with Client(url, retries=20) as client:
        while time.monotonic() < until:
            prompt, seed = chance.choice(list(right))
            try:
                if chance.random() < 0.5:
                    text = client.generate(prompt, seed=seed, max_new_tokens=40).text
                else:
                    stream = client.stream(prompt, seed=seed, max_new_tokens=40)
                    text = prompt.strip() + "".join(stream)
            except APIError as error:
                assert error.status == 503, error  # a full queue is an honest answer
                continue
            assert text == right[prompt, seed], (prompt, seed)
            answered += 1
    return answered


def state(process: psutil.Process) -> tuple[int, int, float]:
    """Threads, file descriptors, resident megabytes."""
    return process.num_threads(), process.num_fds(), process.memory_info().rss / 1e6


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + 600)
def test_nothing_leaks_and_every_answer_is_right() -> None:
    with ServerProcess("soak", model="course-gpt-1m", slots=8, queue_length=16) as server:
        assert server.process is not None
        process = psutil.Process(server.process.pid)
        with Client(server.url) as client:
            right = {
                (p, s): client.generate(p, seed=s, max_new_tokens=40).text
                for p in PROMPTS
                for s in range(6)
            }
        idle = state(process)
        started = time.monotonic()
        until = started + SECONDS
        chance, context = random.Random(0), multiprocessing.get_context("spawn")
        victims: list[multiprocessing.process.BaseProcess] = []
        settled: list[float] = []
        killed = 0
        with ThreadPoolExecutor(6) as pool:
            checks = [pool.submit(check, server.url, until, n, right) for n in range(6)]
            while time.monotonic() < until:
                victims = [v for v in victims if v.is_alive()]
                while len(victims) < 3:
                    victim = context.Process(
                        target=doomed, args=(server.url, chance.randrange(9999))
                    )
                    victim.start()
                    victims.append(victim)
                time.sleep(chance.uniform(0.5, 3.0))
                victim = chance.choice(victims)
                victim.kill()
                victim.join()
                killed += 1
                if time.monotonic() - started > SECONDS * 0.4:
                    settled.append(state(process)[2])
            for victim in victims:
                victim.kill()
                victim.join()
            answered = sum(c.result() for c in checks)
        assert answered > SECONDS / 5 and killed > SECONDS / 20

        # All slots and places are free: as many as there are, at once, none refused.
        time.sleep(3)
        with ThreadPoolExecutor(24) as pool, Client(server.url, retries=0) as client:
            calls = [pool.submit(client.generate, "x", max_new_tokens=3) for _ in range(24)]
            assert all(call.result().text for call in calls)
        time.sleep(1)
        threads, descriptors, memory = state(process)
        connections = len(process.net_connections())
        assert connections <= 2, "the listening socket, and perhaps one that is closing"
        assert threads <= idle[0] + 2
        assert descriptors <= idle[1] + 3
        quarter = len(settled) // 4
        early, late = sum(settled[:quarter]) / quarter, sum(settled[-quarter:]) / quarter
        print(
            f"{answered} right answers, {killed} clients killed, {threads} threads, "
            f"{descriptors} descriptors, memory {early:.0f} → {late:.0f} → {memory:.0f} MB"
        )
        assert late < early * 1.05
        client_error = server.log
        assert "Traceback" not in client_error, client_error[-3000:]
