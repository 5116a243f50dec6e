"""deploy/ray_app.py: the same application on an ASGI server, then in a real cluster of Ray.

What needs no cluster is part of every run; the cluster, of two nodes, of `make test-scale`. Its
drills print what they measured (`make test-scale ARGS="-s tests/test_ray.py"`).
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import httpx
import psutil
import pytest

from serving.api.app import create_app
from serving.client import Client, ServerProcess
from serving.config import load_config
from serving.models import Models
from serving.service import Service
from system.environment import ROOT
from tests.ray_cluster import (
    BODY,
    LOST,
    PROMPTS,
    REFUSED,
    RIGHT,
    VARIABLES,
    WRONG,
    Drill,
    RayCluster,
    until,
)
from tests.serving import engine_contract as contract

uvicorn = pytest.importorskip("uvicorn", reason="Ray Serve is not installed (the extra `ray`)")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`"),  # Ray's own
]

MODEL = "course-gpt-1m"
SETTINGS: dict[str, Any] = {"model_name": MODEL, "slots": 8, "queue_length": 40}
LONG = {"prompt": "A server", "max_new_tokens": 190, "temperature": 2, "top_k": 0}


# --- without a cluster --------------------------------------------------------------------


class Alone(NamedTuple):
    """The application of a replica on a plain ASGI server."""

    http: httpx.Client
    service: Service


@pytest.fixture(scope="module")
def alone() -> Iterator[Alone]:
    from deploy.ray_app import WatchedWSGI

    config = load_config(model_name=MODEL, slots=2, queue_length=4, max_body_bytes=2048)
    service, ready = Service(config), threading.Event()
    service.load(ready.set, print)
    assert ready.wait(120)
    application = WatchedWSGI(create_app(Models(service)), 8, config.max_body_bytes)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(application, log_level="error"))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        until("uvicorn listens", lambda: server.started)
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
            yield Alone(http, service)
        server.should_exit = True
        thread.join(60)
    service.close()


def test_a_stream_comes_in_pieces_while_it_is_written(alone: Alone) -> None:
    with alone.http.stream("POST", "/stream", json=LONG) as response:
        pieces = response.iter_raw()
        assert next(pieces)
        assert alone.service.engine.unanswered == 1  # the rest is still to be written
        assert sum(1 for _ in pieces) > 20
    until("the slot is free", lambda: alone.service.engine.unanswered == 0)


def hang_up(url: str, path: str, body: dict[str, Any], started: Callable[[], Any]) -> None:
    """Send a request, wait until it is being answered, and close the connection."""
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    address = httpx.URL(url)
    with socket.create_connection((address.host, address.port), timeout=60) as client:
        client.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)

        def begun() -> Any:
            if select.select([client], [], [], 0)[0]:  # an answer: of a stream, or a refusal
                said = client.recv(500, socket.MSG_PEEK)
                assert said.startswith(b"HTTP/1.1 200"), said.decode()
            return started()

        until(f"{path} has begun", begun)


def figure(http: httpx.Client, name: str) -> float:
    """What /metrics says of a name, with its labels or without."""
    found = [x for x in http.get("/metrics").text.splitlines() if x.startswith(name)]
    assert found, name
    return sum(float(x.split()[-1]) for x in found)


GONE = 'llm_errors_total{error_type="client_gone"}'


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", LONG | {"num_return_sequences": 6}),
        ("/stream", LONG),
        ("/v1/completions", {"model": MODEL, "prompt": "A", "max_tokens": 190, "n": 6}),
    ],
)
def test_a_client_that_hangs_up_frees_its_slot(
    alone: Alone, path: str, body: dict[str, Any]
) -> None:
    before, engine = figure(alone.http, GONE), alone.service.engine
    hang_up(str(alone.http.base_url), path, body, lambda: engine.unanswered)
    until("the slots are free", lambda: engine.unanswered == 0)
    until("it counts as broken off", lambda: figure(alone.http, GONE) == before + 1)


def test_bodies_arrive_whole_or_are_refused(alone: Alone) -> None:
    as_json: dict[str, Any] = {"headers": {"Content-Type": "application/json"}}
    halves = iter([b'{"prompt": "A server", ', b'"max_new_tokens": 2}'])  # of no stated length
    assert alone.http.post("/generate", content=halves, **as_json).status_code == 200
    assert alone.http.post("/generate", content=b"", **as_json).status_code == 400
    for content in (b"x" * 5000, iter([b"x" * 1000] * 20)):
        answer = alone.http.post("/generate", content=content, **as_json)
        assert (answer.status_code, answer.json()) == (
            413,
            {"error": "the body is larger than 2048 bytes"},
        )


def test_a_wrong_setting_is_one_line() -> None:
    from deploy.ray_app import build

    with pytest.raises(click.ClickException, match=r"--slots='many' is not allowed") as caught:
        build({"slots": "many"})
    assert len(caught.value.message.splitlines()) == 1


# --- a cluster ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """One replica that may become two, and nothing left of it afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in VARIABLES.items():
            patch.setenv(name, value)
        started = RayCluster()
        try:
            began = time.perf_counter()
            started.deploy(scaled())
            print(f"\nfirst replica ready after {time.perf_counter() - began:.1f} s")
            yield started
        finally:
            left = started.close()
        assert left == []


def scaled(**changes: Any) -> Any:
    """The application with one replica, or two where many requests wait."""
    from deploy.ray_app import application

    quickly = {"look_back_period_s": 2, "upscale_delay_s": 1, "downscale_delay_s": 3}
    scaling = quickly | {"min_replicas": 1, "max_replicas": 2, "target_ongoing_requests": 2}
    return application(load_config(**SETTINGS | changes), autoscaling_config=scaling)


@pytest.fixture(scope="module")
def expected() -> Iterator[dict[str, str]]:
    """Prompt → what the plain server answers."""
    with ServerProcess("plain", model=MODEL, slots=8) as plain, Client(plain.url) as client:
        texts = {prompt: client.generate(prompt, **BODY).text for prompt in PROMPTS}
        sampled = {"temperature": 1.0, "seed": 7, "max_new_tokens": 60}
        texts |= {f"seed 7: {p}": client.generate(p, **sampled).text for p in PROMPTS}
        yield texts


@pytest.fixture
def greedy(expected: dict[str, str]) -> dict[str, str]:
    return {prompt: expected[prompt] for prompt in PROMPTS}


scale = pytest.mark.scale


@scale
def test_texts_are_those_of_the_plain_server(cluster: RayCluster, expected: dict[str, str]) -> None:
    sampled = {"temperature": 1.0, "seed": 7, "max_new_tokens": 60}
    with Client(cluster.url) as client:
        assert client.wait_until_ready(60)["model"] == MODEL
        for prompt in PROMPTS:
            assert client.generate(prompt, **BODY).text == expected[prompt]
            assert prompt + "".join(client.stream(prompt, **BODY)) == expected[prompt]
            seeded = client.generate(prompt, **sampled).text
            assert seeded == expected[f"seed 7: {prompt}"] != expected[prompt]
            assert prompt + "".join(client.stream(prompt, **sampled)) == seeded


@scale
def test_every_route_is_there_and_headers_are_the_services(cluster: RayCluster) -> None:
    with httpx.Client(base_url=cluster.url, timeout=60, trust_env=False) as http:
        for path in ("/", "/health", "/live", "/info", "/metrics", "/openapi.json", "/v1/models"):
            assert http.get(path).status_code == 200, path
        assert "/generate" in str(http.get("/nothing").json()["available_endpoints"])
        answer = http.get("/health", headers={"X-Request-ID": "mine-1"})
        assert answer.headers.get_list("X-Request-ID") == ["mine-1"]
        assert http.get("/health", headers={"Host": "elsewhere.example"}).status_code == 421
        wrong = http.post("/generate", json={"prompt": "x", "max_new_tokens": 0})
        assert wrong.status_code == 400 and wrong.json()["parameter"] == "max_new_tokens"


@scale
def test_a_client_of_the_cluster_that_hangs_up_frees_its_slot(cluster: RayCluster) -> None:
    with httpx.Client(base_url=cluster.url, timeout=60, trust_env=False) as http:
        running, before = "vllm:num_requests_running{", figure(http, GONE)
        with http.stream("POST", "/stream", json=LONG) as response:
            next(response.iter_raw())
        until("the stream is given up", lambda: figure(http, GONE) == before + 1)
        body = LONG | {"num_return_sequences": 16}  # the most that a request may ask for
        hang_up(cluster.url, "/generate", body, lambda: figure(http, running))
        until("no slot is in use", lambda: figure(http, running) == 0)
        until("it is given up, too", lambda: figure(http, GONE) == before + 2)


@scale
def test_an_update_under_load_fails_no_request(cluster: RayCluster, greedy: dict[str, str]) -> None:
    with Client(cluster.url) as client, Drill(cluster.url, greedy, clients=2) as drill:
        began = time.perf_counter()
        cluster.deploy(scaled(default_temperature=0.25))
        seconds = time.perf_counter() - began
        until("the new settings", lambda: client.info()["default_temperature"] == 0.25)
        drill.more()
    print(f"\nupdate: {seconds:.1f} s, {dict(drill.outcomes)}")
    assert set(drill.outcomes) == {RIGHT}


@scale
def test_replicas_follow_the_load(cluster: RayCluster, greedy: dict[str, str]) -> None:
    until("one replica", lambda: cluster.running() == 1)
    with Drill(cluster.url, greedy, clients=8) as drill:
        began = time.perf_counter()
        until("two replicas under load", lambda: cluster.running() == 2)
        up = time.perf_counter() - began
        drill.more()
    with Drill(cluster.url, greedy, clients=1) as quiet:
        began = time.perf_counter()
        until("one replica again", lambda: cluster.running() == 1)
        down = time.perf_counter() - began
        quiet.more()
    print(f"\n1 to 2: {up:.1f} s, 2 to 1: {down:.1f} s, {dict(drill.outcomes + quiet.outcomes)}")
    assert set(drill.outcomes + quiet.outcomes) == {RIGHT}


@scale
def test_the_contract_of_all_engines_holds(cluster: RayCluster, smollm2: str) -> None:
    """Behind a path of its own, which clients put before each route."""
    from ray import serve

    from deploy.ray_app import application

    config = load_config(model_name=smollm2, slots=8, max_length_limit=1024)
    cluster.deploy(application(config, num_replicas=1), name="contract", route="/contract")
    try:
        found = dict(contract.ask(f"{cluster.url}/contract", contract.CORE | contract.MORE))
    finally:
        serve.delete("contract")
    assert found == contract.read()["this course's"]


def drilled(
    cluster: RayCluster, greedy: dict[str, str], kill: Callable[[], object], title: str
) -> None:
    """Two replicas under load, one of which dies: nothing is lost, and it comes back by itself."""
    began = 0.0
    with Drill(cluster.url, greedy) as drill:
        kill()
        began = time.perf_counter()
        drill.more()
        seconds = time.perf_counter() - began
        until("two replicas again", lambda: cluster.running() == len(cluster.replicas()) == 2)
        back = time.perf_counter() - began
        drill.more()
    print(f"\n{title}: 20 answers after {seconds:.1f} s, two replicas after {back:.1f} s,"
          f" {dict(drill.outcomes)}")  # fmt: skip
    assert set(drill.outcomes) <= {RIGHT, REFUSED}, f"{WRONG} or {LOST}"


@pytest.fixture(scope="module")
def doubled(cluster: RayCluster) -> RayCluster:
    """Two replicas, one a node."""
    from ray import serve

    from deploy.ray_app import application

    serve.delete("llm")  # an update would start two new ones first, for which there is no room
    cluster.deploy(application(load_config(**SETTINGS), num_replicas=2))
    until("two replicas", lambda: cluster.running() == len(cluster.replicas()) == 2)
    return cluster


@scale
def test_a_killed_replica_loses_nothing_and_comes_back(
    doubled: RayCluster, greedy: dict[str, str]
) -> None:
    victim = doubled.replicas()[0]

    def kill() -> None:
        victim.kill()
        psutil.wait_procs([victim], timeout=60)

    drilled(doubled, greedy, kill, "replica killed")


@scale
def test_a_killed_node_loses_nothing_and_a_new_one_gets_its_replica(
    doubled: RayCluster, greedy: dict[str, str]
) -> None:
    def kill() -> None:
        doubled.kill_node()
        until("one replica is left", lambda: doubled.running() == 1)
        doubled.add_node()  # as KubeRay would: nobody tells Serve

    drilled(doubled, greedy, kill, "node killed")


# Last: Ctrl+C at `serve run` ends all that Serve runs.


@scale
def test_serve_run_from_the_command_line(
    cluster: RayCluster, expected: dict[str, str], tmp_path: Path
) -> None:
    """The guide's own words, on this cluster: it answers, Ctrl+C ends it, a mistake is a line."""
    from ray import serve

    serve.delete("llm")
    guide = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
    words = "serve run deploy.ray_app:build"
    assert f"\n{words}\n" in guide and f"\n{words} model_name=" in guide
    command = [str(Path(sys.executable).parent / "serve"), *words.split()[1:]]
    variables = os.environ | {"RAY_ADDRESS": cluster.address}

    ran = subprocess.run([*command, "slots=many"], cwd=ROOT, env=variables, capture_output=True)
    assert ran.returncode == 1
    assert ran.stderr.decode().strip().splitlines()[-1].startswith("Error: --slots='many'")

    command += [f"model_name={MODEL}", "slots=8"]
    with (tmp_path / "log").open("w+") as log:
        running = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=log, stderr=log)
        try:
            with Client(cluster.url) as client:
                until("it serves", lambda: running.poll() is not None or answers(cluster.url))
                assert running.poll() is None, (tmp_path / "log").read_text()
                assert client.info()["model"] == MODEL
                for prompt in PROMPTS[:2]:
                    assert client.generate(prompt, **BODY).text == expected[prompt]
            running.send_signal(signal.SIGINT)
            assert running.wait(120) == 0, (tmp_path / "log").read_text()
        finally:
            running.kill()
            running.wait()
    assert not answers(cluster.url)


def answers(url: str) -> bool:
    """Whether /health says 200."""
    try:
        return httpx.get(f"{url}/health", timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
