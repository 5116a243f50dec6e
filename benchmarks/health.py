"""How fast /health answers while every slot and place in the queue is taken. (Lesson 09.)"""

from __future__ import annotations

import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path

import httpx
from tqdm import tqdm

from benchmarks import servers
from serving.client import ServerProcess
from serving.client.load_test import spread

LIMIT = 0.1  # seconds
PROMPT = "Machine learning is"


def times(model: Path, probes: int) -> list[float]:
    """Seconds that /health takes with every slot and place in the queue taken by a stream.

    The load runs in a process of its own: the probes must not wait for it. Every probe
    is a new connection, as an orchestrator's is.
    """
    full = str(servers.SLOTS + servers.QUEUE)
    with servers.ours(model) as server:
        command = [sys.executable, "-m", "serving.client.load_test", server.url]
        command += ["--clients", full, "--requests", "100000", "--tokens", "64-128"]
        load = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            time.sleep(3)  # until every client is connected
            _must_be_full(server)
            found = [_probe(server) for _ in tqdm(range(probes), "/health", file=sys.stderr)]
            _must_be_full(server)
            return found
        finally:
            load.kill()
            load.wait()


def _must_be_full(server: ServerProcess) -> None:
    body = {"prompt": PROMPT, "max_new_tokens": 1}
    for _ in range(20):  # a place is free for a moment when a client has its answer
        answer = httpx.post(f"{server.url}/generate", json=body, timeout=120, trust_env=False)
        if answer.status_code == 503:
            return
    raise RuntimeError("the server had places left: /health was not measured under full load")


def _probe(server: ServerProcess) -> float:
    # Not httpx: it prepares for TLS with every new client, which takes longer than /health.
    connection = HTTPConnection(server.url.removeprefix("http://"), timeout=10)
    began = time.perf_counter()
    connection.request("GET", "/health")
    answer = connection.getresponse()
    answer.read()
    seconds = time.perf_counter() - began
    connection.close()
    if answer.status != 200:
        raise RuntimeError(f"/health answered {answer.status} on a full server")
    time.sleep(0.1)
    return seconds


def text(measured: list[float]) -> str:
    """The line about /health."""
    found, worst = spread(measured), max(measured)
    return (
        f"**/health** with {servers.SLOTS} slots and a queue of {servers.QUEUE} full of streams, "
        f"{len(measured)} times: p50 {1000 * (found['p50'] or 0):.0f} ms, "
        f"p99 {1000 * (found['p99'] or 0):.0f} ms, longest {1000 * worst:.0f} ms "
        f"(at most {1000 * LIMIT:.0f}) {'✓' if worst <= LIMIT else '✗'}"
    )
