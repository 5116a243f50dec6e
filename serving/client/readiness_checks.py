"""The boxes of the readiness checklist: each asks the running server. (Lesson 09.)

A check returns what it saw, or raises `Unticked` with what it saw instead.
`serving.client.readiness` goes through them.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx

from serving.client.readiness_probe import (
    SHORT,
    Probe,
    Unticked,
    as_object,
    expect,
    soon,
    status,
)

# --- the usual twelve


def loaded_at_start(ask: Probe) -> str:
    """The model named by /health writes the texts."""
    health, answer = ask.bare.get("/health"), ask.generate()
    status(health, 200)
    status(answer, 200)
    named, wrote = (
        as_object(health).get("model"),
        as_object(answer).get("metadata", {}).get("model"),
    )
    expect(named, "/health names no model: is one loaded?")
    expect(named == wrote, f"/health names {named}, but {wrote} wrote the text")
    return f"/health names {named} before a text is asked for"


def health_endpoint(ask: Probe) -> str:
    """A load balancer can ask, without a key."""
    health = ask.bare.get("/health")
    status(health, 200)
    expect(as_object(health).get("status") == "healthy", "/health does not say that it is healthy")
    return "GET /health: 200, healthy"


def validation(ask: Probe) -> str:
    """A wrong parameter is refused by name."""
    answer = ask.generate(temperature=9)
    status(answer, 400)
    expect("temperature" in str(as_object(answer)), "the error does not name the wrong parameter")
    return "temperature 9: 400, which names it"


def error_handling(ask: Probe) -> str:
    """Errors have the right status, are JSON, and show nothing of the inside."""
    as_json = {"Content-Type": "application/json"}
    broken = ask.http.post("/generate", content="{", headers=as_json)
    missing = ask.http.get("/no-such-route")
    status(broken, 400)
    status(missing, 404)
    for answer in (broken, missing):
        expect(as_object(answer).get("error"), "an error without a message")
        expect("Traceback" not in answer.text, "an error shows the inside of the program")
    return "broken JSON: 400, unknown route: 404, both as JSON"


def structured_logs(ask: Probe) -> str:
    """Each request leaves a line that a machine reads."""
    request_id = f"ready-{secrets.token_hex(8)}"
    new = SHORT | {"seed": secrets.randbits(30)}  # no answer from the cache: the model writes
    ask.http.post("/generate", json=new, headers={"X-Request-ID": request_id})
    line = ask.line(request_id)
    try:
        said = json.loads(line)
    except ValueError:
        raise Unticked("a log line is no JSON") from None
    missing = {"status", "total_seconds", "output_tokens"} - set(said)
    expect(not missing, f"the log line lacks {', '.join(sorted(missing))}")
    return "a JSON line with the request's id, status, times, tokens"


def metrics(ask: Probe) -> str:
    """The four kinds are there."""
    answer = ask.http.get("/metrics")
    status(answer, 200)
    kinds = {
        "latency": "request_latency_seconds_bucket",
        "first token": "time_to_first_token_seconds_bucket",
        "throughput": "generation_tokens_total",
        "resources": "process_resident_memory_bytes",
        "errors": "llm_errors_total",
    }
    missing = [kind for kind, name in kinds.items() if name not in answer.text]
    expect(not missing, f"/metrics shows nothing of {', '.join(missing)}")
    return "latency, throughput, resources, errors"


def size_limits(ask: Probe) -> str:
    """Nobody can ask for any length, or send any body."""
    status(ask.generate(max_new_tokens=10**6), 400)
    status(ask.generate(prompt="x" * (2 * 2**20)), 413)
    return "a million tokens: 400, two megabytes: 413"


def time_limits(ask: Probe) -> str:
    """No request lasts for ever (that it is kept, a drill shows)."""
    seconds = as_object(ask.http.get("/info")).get("request_timeout_seconds", 0)
    expect(0 < seconds <= 600, "/info tells no time limit of at most ten minutes")
    return f"a request ends after {seconds:g} s at the latest"


def rate_limits(ask: Probe) -> str:
    """One client cannot take everything."""
    headers = ask.generate().headers
    names = [n for n in ("X-RateLimit-Limit", "X-RateLimit-Limit-Tokens") if n in headers]
    expect(names, "an answer tells no limit: any number of requests is taken")
    return f"{names[0]}: {headers[names[0]]} a minute"


def documentation(ask: Probe) -> str:
    """The API describes itself."""
    answer = ask.http.get("/openapi.json")
    status(answer, 200)
    described = as_object(answer)
    expect("/generate" in described.get("paths", {}), "/openapi.json does not describe /generate")
    ranges = described["components"]["schemas"]["GenerateRequest"]["properties"]
    expect("temperature" in ranges, "/openapi.json names no parameters")
    return "/openapi.json describes /generate and its parameters"


def smoke_test(ask: Probe) -> str:
    """A test that runs against the server in production: it writes, and repeatably."""
    first, second, other = (as_object(ask.generate(seed=s, max_new_tokens=8)) for s in (1, 1, 2))
    text = first.get("generated_text")
    expect(text, "no text comes back")
    expect(text == second.get("generated_text"), "the same request gets two different texts")
    expect(text != other.get("generated_text"), "another seed gets the same text")
    return "the same seed the same text, another seed another"


def load_test(ask: Probe) -> str:
    """Several at once are answered, or told to come back."""
    with ThreadPoolExecutor(8) as crowd:
        sent = [crowd.submit(ask.generate, seed=n) for n in range(8)]
        codes = [one.result().status_code for one in sent]
    wrong = sorted({code for code in codes if code not in (200, 429, 503)})
    expect(not wrong, f"eight requests at once: status {', '.join(map(str, wrong))}")
    expect(200 in codes, "eight requests at once: none was answered")
    return f"eight requests at once: {codes.count(200)} answered, {8 - codes.count(200)} put off"


# --- what they leave out


def bounded_queue(ask: Probe) -> str:
    """Waiting has an end (that it is kept, the drill of overload shows)."""
    places = ask.metric("llm_queue_places")
    if places is None:
        raise Unticked("/metrics does not say how many requests may wait")
    expect(places < 10_000, f"{places:g} requests may wait: that is no bound")
    return f"{places:g} requests may wait, the next hears 503"


def client_gone(ask: Probe) -> str:
    """Nobody computes for a client that has left."""
    body = SHORT | {"max_new_tokens": 150}
    with ask.http.stream("POST", "/stream", json=body) as answer:
        status(answer, 200)
        next(answer.iter_bytes())  # then hang up
    taken = "a client has left, and a slot is still taken"
    soon(lambda: ask.metric("vllm:num_requests_running") == 0, taken)
    return "a client that hangs up frees its slot"


def liveness(ask: Probe) -> str:
    """Restart me, and send me nothing, are two questions."""
    status(ask.bare.get("/live"), 200)
    status(ask.bare.get("/health"), 200, 503)
    return "/live: the process answers; /health: it takes requests"


def api_keys(ask: Probe) -> str:
    """Strangers are refused."""
    expect(ask.bare.post("/generate", json=SHORT).status_code == 401, "no key is asked for")
    wrong = {"Authorization": "Bearer " + secrets.token_urlsafe(24)}
    expect(ask.bare.get("/info", headers=wrong).status_code == 401, "any key will do")
    return "without a key, or with a wrong one: 401"


def request_ids(ask: Probe) -> str:
    """A client's complaint can be found in the log."""
    sent = secrets.token_hex(8)
    headers = ask.http.get("/health", headers={"X-Request-ID": sent}).headers
    expect(headers.get("X-Request-ID") == sent, "X-Request-ID does not come back")
    return "X-Request-ID comes back"


def private_logs(ask: Probe) -> str:
    """What users write stays out of the log."""
    request_id, secret = f"ready-{secrets.token_hex(8)}", f"word{secrets.token_hex(8)}"
    named = {"X-Request-ID": request_id}
    ask.http.post("/generate", json=SHORT | {"prompt": f"My {secret}"}, headers=named)
    line = ask.line(request_id)
    expect(secret not in ask.logged(), "the prompt stands in the log")
    expect(not ask.key or ask.key not in line, "the API key stands in the log")
    return "neither prompt nor key stands in the log"


def graceful_drain(ask: Probe) -> str:
    """A new version can be rolled out without losing a text."""
    expect(ask.stop is not None, "not tried: it would end this server")
    assert ask.stop is not None
    with ask.http.stream("POST", "/stream", json=SHORT | {"max_new_tokens": 150}) as answer:
        status(answer, 200)
        pieces = answer.iter_bytes()
        next(pieces)
        ask.stop()
        try:
            for _ in pieces:
                pass
        except httpx.TransportError:
            raise Unticked("a running text was cut off") from None
    return "told to end, it finished the running text"


CHECKS: dict[str, Callable[[Probe], str]] = {
    "model loaded at the start": loaded_at_start,
    "health endpoint": health_endpoint,
    "validation": validation,
    "error handling": error_handling,
    "structured logs": structured_logs,
    "metrics": metrics,
    "limits of size": size_limits,
    "time limit": time_limits,
    "rate limits": rate_limits,
    "documentation": documentation,
    "tests": smoke_test,
    "load test": load_test,
    "bounded queue": bounded_queue,
    "hung-up clients": client_gone,
    "liveness apart": liveness,
    "API keys": api_keys,
    "request ids": request_ids,
    "no prompts in logs": private_logs,
    "graceful shutdown": graceful_drain,  # the last one: it ends the server
}
USUAL = tuple(CHECKS)[:12]  # what tutorials list
