"""Rate limits: by key or address, of requests and tokens, in memory and in a real Redis."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from serving.config import ConfigError, load_config
from serving.guard.limits import limit
from serving.service import Service
from serving.tokenizer import SharedTokenizer
from tests.serving.guard.conftest import MODEL, Client, Serve, samples

ASKED = {"prompt": "A server", "max_new_tokens": 3}
KEYS = ("sk-first-of-all-keys", "sk-another-of-the-keys")


def statuses(client: Client, count: int, **more: object) -> list[int]:
    return [client.post("/generate", json=ASKED, **more).status_code for _ in range(count)]


def test_requests_a_minute(serve: Serve) -> None:
    client = serve(requests_per_minute=3)
    answers = [client.get("/info") for _ in range(4)]
    assert [a.status_code for a in answers] == [200, 200, 200, 429]
    assert [a.headers["X-RateLimit-Remaining"] for a in answers] == ["2", "1", "0", "0"]
    assert answers[0].headers["X-RateLimit-Limit"] == "3"
    assert "Retry-After" not in answers[0].headers
    last = answers[-1]
    assert 1 <= int(last.headers["Retry-After"]) <= 60
    reset = int(last.headers["X-RateLimit-Reset"])
    assert reset - 62 < time.time() < reset + 2
    assert last.json["error"].startswith("more than 3 requests a minute")
    error = client.get("/v1/models").json["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    paths = client.get("/openapi.json").json["paths"]
    assert "429" in paths["/generate"]["post"]["responses"]
    assert "429" not in paths["/health"]["get"]["responses"]
    for path in ("/health", "/live", "/metrics", "/", "/openapi.json"):
        assert client.get(path).status_code == 200
    assert samples(client)['llm_errors_total{error_type="rate_limited"}'] == 2


def test_tokens_a_minute(serve: Serve) -> None:
    client = serve(tokens_per_minute=40)
    asked = ASKED | {"max_new_tokens": 15}
    first = client.post("/generate", json=asked)
    left = 40 - first.json["metadata"]["prompt_tokens"] - 15
    assert first.headers["X-RateLimit-Limit-Tokens"] == "40"
    assert first.headers["X-RateLimit-Remaining-Tokens"] == str(left)
    assert client.post("/generate", json=asked).status_code == 200
    third = client.post("/generate", json=asked)
    assert third.status_code == 429 and third.json["error"].startswith("more than 40 tokens")
    assert 1 <= int(third.headers["Retry-After"]) <= 61
    assert client.post("/generate", json=ASKED | {"max_new_tokens": 2}).status_code == 200
    assert client.get("/info").status_code == 200
    never = client.post("/v1/completions", json={"model": MODEL, "prompt": "A", "max_tokens": 60})
    assert never.status_code == 400 and "40 a minute" in never.json["error"]["message"]
    assert never.json["error"]["param"] == "max_tokens"


def test_each_key_and_each_address_has_its_own(serve: Serve) -> None:
    client = serve(requests_per_minute=2, api_keys=",".join(KEYS))
    for key in KEYS:
        headers = {"Authorization": f"Bearer {key}"}
        assert statuses(client, 3, headers=headers) == [200, 200, 429]
    without = serve(requests_per_minute=2)
    for address, again in (("10.0.0.1", "10.0.0.1"), ("2001:db8::1", "2001:db8::2")):
        assert statuses(without, 2, environ_base={"REMOTE_ADDR": address}) == [200, 200]
        assert statuses(without, 1, environ_base={"REMOTE_ADDR": again}) == [429]
    forged = {"X-Forwarded-For": "10.9.9.9"}
    assert statuses(without, 1, headers=forged, environ_base={"REMOTE_ADDR": "10.0.0.1"}) == [429]


@pytest.mark.parametrize("route", ["/generate", "/stream", "/v1/completions"])
def test_a_full_server_refuses_before_it_reads_the_prompt(
    serve: Serve, loaded: Service, route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says to come back soon, whatever a limit would say; what is wrong is told as ever."""
    client, read = serve(requests_per_minute=100), []
    monkeypatch.setattr(SharedTokenizer, "encode", lambda *given: read.append(given))
    assert loaded.loaded is not None
    monkeypatch.setattr(loaded.loaded._scheduler, "_unanswered", 10**6)
    answer = client.post(route, json={"prompt": "A server", "model": MODEL})
    assert (answer.status_code, answer.headers["Retry-After"], read) == (503, "1", [])
    wrong = client.post(route, json={"prompt": "A server", "model": MODEL, "temperature": 9})
    assert wrong.status_code == 400


def test_off_on_this_machine_unless_set(serve: Serve) -> None:
    assert limit(load_config(), "requests_per_minute") == 0
    assert limit(load_config(host="0.0.0.0"), "requests_per_minute") == 6000
    assert limit(load_config(host="0.0.0.0", tokens_per_minute=0), "tokens_per_minute") == 0
    assert limit(load_config(tokens_per_minute=5), "tokens_per_minute") == 5
    answer = serve().get("/info")
    assert not [name for name, _ in answer.headers if "RateLimit" in name or name == "Retry-After"]


@pytest.mark.parametrize("storage", ["nothing://here", "x"])
def test_a_storage_that_cannot_be_is_told(serve: Serve, storage: str) -> None:
    with pytest.raises(ConfigError, match=f"^LLM_LIMITS_STORAGE={storage}: ") as caught:
        serve(requests_per_minute=2, limits_storage=storage)
    assert len(str(caught.value).splitlines()) == 1


@pytest.fixture
def redis(require_tool: Callable[..., str], tmp_path: Path) -> Iterator[tuple[str, object]]:
    tool = require_tool("redis-server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [tool, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", tmp_path]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        for _ in range(500):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        yield f"redis://127.0.0.1:{port}/0", process
        process.terminate()


def test_servers_share_a_redis_and_outlive_it(serve: Serve, redis: tuple[str, object]) -> None:
    where, process = redis
    settings = {"requests_per_minute": 4, "tokens_per_minute": 1000, "limits_storage": where}
    one, other = serve(**settings), serve(**settings)
    assert statuses(one, 2) + statuses(other, 3) == [200, 200, 200, 200, 429]
    left = one.get("/health").status_code
    assert left == 200
    process.kill()
    process.wait()
    assert statuses(other, 5) == [200, 200, 200, 200, 429]  # counted in memory meanwhile


@pytest.mark.slow
def test_behind_a_proxy_the_client_counts(tmp_path: Path) -> None:
    """A real server: waitress reads X-Forwarded-For of the proxy that is named, and of no other."""
    from serving.client import ServerProcess

    for proxy, second in (("127.0.0.1", 200), ("10.1.1.1", 429)):
        settings = {"requests_per_minute": 1, "trusted_proxy": proxy, "model": MODEL}
        with ServerProcess("proxied", **settings) as process, httpx.Client() as http:
            for address, expected in (("10.0.0.1", 200), ("10.0.0.2", second)):
                headers = {"X-Forwarded-For": address}
                answer = http.get(f"{process.url}/info", headers=headers)
                assert answer.status_code == expected, json.dumps(dict(answer.headers))
