"""A real cluster of Ray on this machine, and load that notes what became of every request."""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import psutil

from serving.client import APIError, Client
from system.environment import ROOT

STORE = 80 * 2**20  # bytes of an object store: the least that Ray takes, and more than is used
APP = "llm"
BODY: dict[str, Any] = {"temperature": 0, "max_new_tokens": 60}
PROMPTS = ("A server", "Machine learning is", "In computer networks, a packet", "Memory is")
RIGHT, REFUSED, WRONG, LOST = "answered", "refused, and said so", "a wrong text", "no answer at all"
# Before Ray is imported: nothing is reported, and autoscaling looks twice a second.
VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5",
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5",
    "PYTHONPATH": str(ROOT),
}


def until(what: str, condition: Callable[[], Any], seconds: float = 180) -> Any:
    """Wait until the condition holds, and return what it said."""
    end = time.monotonic() + seconds
    while not (said := condition()):
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.1)
    return said


class RayCluster:
    """Two nodes of one logical processor each, and Serve's proxy on the first.

    Attributes:
        url: where Serve answers.
        address: where other programs join the cluster, for RAY_ADDRESS.
        worker: the second node, as `ray.cluster_utils` knows it.
    """

    def __init__(self) -> None:
        import ray
        from ray import serve
        from ray.cluster_utils import Cluster

        self._folder = tempfile.mkdtemp(prefix="ray-")  # short: sockets lie in it
        head = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False}
        self._cluster = Cluster(
            initialize_head=True, head_node_args=head | {"temp_dir": self._folder}
        )
        self.worker = self.add_node()
        self.address: str = self._cluster.address
        ray.init(address=self.address, log_to_driver=False)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
        self.url = f"http://127.0.0.1:{port}"

    def add_node(self) -> Any:
        """Another node, once it is there."""
        self.worker = self._cluster.add_node(num_cpus=1, object_store_memory=STORE)
        return self.worker

    def kill_node(self) -> None:
        """End the second node as a power cut would."""
        self._cluster.remove_node(self.worker, allow_graceful=False)

    def deploy(self, application: Any, name: str = APP, route: str = "/") -> None:
        """Run an application, in place of the one of that name."""
        from ray import serve

        serve.run(application, name=name, route_prefix=route)

    def running(self) -> int:
        """Replicas that answer."""
        from ray import serve

        states = serve.status().applications[APP].deployments["llm"].replica_states
        return sum(count for state, count in states.items() if str(state).endswith("RUNNING"))

    def processes(self) -> list[psutil.Process]:
        """Every process of the cluster."""
        found = []
        for node in self._cluster.list_all_nodes():
            for started in node.live_processes():
                with suppress(psutil.NoSuchProcess):
                    process = psutil.Process(started[1].pid)
                    found += [process, *process.children(recursive=True)]
        return found

    def replicas(self) -> list[psutil.Process]:
        """The processes of the replicas."""
        found = []
        for process in self.processes():
            with suppress(psutil.Error):
                if f"ServeReplica:{APP}:" in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def close(self) -> list[psutil.Process]:
        """End all of it; returns what has not ended."""
        import ray
        from ray import serve

        mine = self.processes()
        try:
            serve.shutdown()
            ray.shutdown()
        finally:
            self._cluster.shutdown()
            left: list[psutil.Process] = psutil.wait_procs(mine, timeout=60)[1]
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            shutil.rmtree(self._folder, ignore_errors=True)
        return left


class Drill:
    """Clients that ask without a pause until they are stopped; every request has an outcome.

    Attributes:
        outcomes: how many requests ended in which way.
    """

    def __init__(self, url: str, expected: dict[str, str], clients: int = 4) -> None:
        """Clients that have not begun.

        Args:
            url: the server.
            expected: prompt → the text that it must be answered with.
            clients: how many ask at the same time; every second one streams.
        """
        self.url, self.expected, self.outcomes = url, expected, Counter[str]()
        self._sent, self._stop, self._lock = 0, threading.Event(), threading.Lock()
        self._threads = [
            threading.Thread(target=self._ask, args=(bool(n % 2),), daemon=True)
            for n in range(clients)
        ]

    def _ask(self, stream: bool) -> None:
        with Client(self.url, timeout=60, retries=0) as client:
            while not self._stop.is_set():
                for prompt, text in self.expected.items():
                    with self._lock:
                        self._sent += 1
                    outcome = _outcome(client, prompt, text, stream)
                    with self._lock:
                        self.outcomes[outcome] += 1
                    if outcome != RIGHT:
                        time.sleep(0.2)  # as a client would, before it comes again

    @property
    def right(self) -> int:
        """Requests answered so far, with the right text."""
        return self.outcomes[RIGHT]

    def more(self, count: int = 20) -> None:
        """Wait until that many more requests were answered."""
        enough = self.right + count
        until(f"{count} more answers", lambda: self.right >= enough)

    def __enter__(self) -> Drill:
        for thread in self._threads:
            thread.start()
        self.more()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(120)
        assert not any(thread.is_alive() for thread in self._threads), "a request never ended"
        assert sum(self.outcomes.values()) == self._sent


def _outcome(client: Client, prompt: str, text: str, stream: bool) -> str:
    """What becomes of one request."""
    try:
        if stream:
            said = prompt + "".join(client.stream(prompt, **BODY))
        else:
            said = client.generate(prompt, **BODY).text
    except httpx.TimeoutException:
        return LOST
    except (APIError, httpx.TransportError):  # a status that says so, or a connection cut off
        return REFUSED
    return RIGHT if said == text else WRONG
