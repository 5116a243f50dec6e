"""The API over real HTTP: every route, every error, streams, limits."""

from __future__ import annotations

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPResponse

import httpx
import openai
import pytest

from serving.client import Client, ServerProcess, events
from serving.engine.prefix_cache import BLOCK

MODEL = "course-gpt-1m"
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def http(server: ServerProcess):
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def client(server: ServerProcess):
    with Client(server.url) as found:
        yield found


@pytest.fixture(scope="module")
def ai(server: ServerProcess) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0)


def test_status_routes(http: httpx.Client) -> None:
    health = http.get("/health")
    assert health.status_code == 200
    assert health.json() == {
        "status": "healthy",
        "model": MODEL,
        "device": "CPU",
        "cuda_available": False,
    } or health.json()["device"].startswith("GPU:")
    assert http.get("/live").json() == {"status": "alive"}
    info = http.get("/info").json()
    assert info["max_length_limit"] == 200
    assert (info["default_max_length"], info["default_temperature"]) == (50, 0.7)
    temperature = info["supported_parameters"]["temperature"]
    assert (temperature["minimum"], temperature["maximum"], temperature["default"]) == (0, 2, 0.7)


def test_generate(http: httpx.Client) -> None:
    answer = http.post("/generate", json={"prompt": "  Machine learning \n", "seed": 4}).json()
    assert answer["success"] is True
    assert answer["prompt"] == "Machine learning"
    assert answer["generated_text"].startswith("Machine learning")
    assert 0 < answer["inference_time_seconds"] < 60
    assert (answer["parameters"]["max_length"], answer["parameters"]["seed"]) == (50, 4)
    meta = answer["metadata"]
    assert meta["model"] == MODEL
    assert meta["total_tokens"] == meta["prompt_tokens"] + meta["new_tokens"] <= 50
    assert 0 < meta["time_to_first_token_seconds"] <= answer["inference_time_seconds"]


def test_the_seed_that_was_used_is_told(client: Client) -> None:
    first = client.generate("Hello", max_new_tokens=12)
    again = client.generate("Hello", max_new_tokens=12, seed=first.parameters["seed"])
    assert first.text == again.text


def test_same_seed_same_text_whatever_else_runs(client: Client) -> None:
    alone = client.generate("The model", seed=11, max_new_tokens=30).text
    with ThreadPoolExecutor(12) as pool:
        noise = [
            pool.submit(client.generate, "Other words " * n, seed=n, max_new_tokens=20 + n)
            for n in range(1, 12)
        ]
        crowded = pool.submit(client.generate, "The model", seed=11, max_new_tokens=30)
        assert crowded.result().text == alone
        for future in noise:
            future.result()


def test_several_texts(client: Client) -> None:
    answer = client.generate("Hello", num_return_sequences=3, seed=5, max_new_tokens=8)
    assert len(answer.texts) == 3 and answer.text == answer.texts[0]
    assert answer.texts[2] == client.generate("Hello", seed=7, max_new_tokens=8).text


def test_long_prompt_without_a_length(client: Client) -> None:
    answer = client.generate("Hello " * 60)
    assert answer.metadata["prompt_tokens"] > 50
    assert answer.metadata["new_tokens"] >= 1


def test_stop_strings_end_the_text(client: Client) -> None:
    full = client.generate("The", seed=1, max_new_tokens=30).text.removeprefix("The")
    stop = full[len(full) // 2 :][:2]
    cut = client.generate("The", seed=1, max_new_tokens=30, stop=[stop])
    assert cut.text.removeprefix("The") == full[: full.index(stop)]
    assert cut.metadata["finish_reason"] == "stop"


BAD = {
    "temperature high": '{"prompt": "x", "temperature": 2.1}',
    "temperature below": '{"prompt": "x", "temperature": -0.1}',
    "temperature true": '{"prompt": "x", "temperature": true}',
    "temperature text": '{"prompt": "x", "temperature": "0.7"}',
    "temperature nan": '{"prompt": "x", "temperature": NaN}',
    "temperature infinite": '{"prompt": "x", "temperature": 1e999}',
    "temperature null": '{"prompt": "x", "temperature": null}',
    "temperature list": '{"prompt": "x", "temperature": [1]}',
    "top_p zero": '{"prompt": "x", "top_p": 0}',
    "top_k half": '{"prompt": "x", "top_k": 1.5}',
    "seed huge": '{"prompt": "x", "seed": 1' + "0" * 40 + "}",
    "seed of 5000 digits": '{"prompt": "x", "seed": 1' + "0" * 5000 + "}",
    "length over the limit": '{"prompt": "x", "max_length": 201}',
    "new tokens over the limit": '{"prompt": "x", "max_new_tokens": 200}',
    "length within the prompt": '{"prompt": "one two three four five", "max_length": 2}',
    "two lengths": '{"prompt": "x", "max_length": 20, "max_new_tokens": 5}',
    "unknown": '{"prompt": "x", "temprature": 1}',
    "no prompt": "{}",
    "empty prompt": '{"prompt": ""}',
    "blank prompt": '{"prompt": " \\n\\t "}',
    "prompt null": '{"prompt": null}',
    "prompt number": '{"prompt": 7}',
    "prompt list": '{"prompt": ["x"]}',
    "prompt past the limit": json.dumps({"prompt": "word " * 300}),
    "prompt of 60 KB": json.dumps({"prompt": "word " * 12_000}),
    "null byte": '{"prompt": "a\\u0000b"}',
    "lone surrogate": '{"prompt": "a\\ud800b"}',
    "lone surrogate as a name": '{"prompt": "a", "\\ud800": 1}',
    "wrong UTF-8": b'{"prompt": "\xff\xfe"}',
    "stop too many": '{"prompt": "x", "stop": ["a", "b", "c", "d", "e"]}',
    "stop empty": '{"prompt": "x", "stop": [""]}',
    "not JSON": "prompt=x",
    "nothing": "",
    "JSON list": '["x"]',
    "JSON text": '"x"',
    "JSON null": "null",
    "deep": "[" * 60_000,
    "deep object": '{"prompt":' * 30_000,
}


@pytest.mark.parametrize("route", ["/generate", "/stream"])
@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
def test_bad_requests_are_told_what_is_wrong(http: httpx.Client, route: str, body: str) -> None:
    response = http.post(route, content=body, headers=JSON)
    assert response.status_code == 400
    assert response.json()["error"]
    assert response.elapsed.total_seconds() < 1


def test_a_wrong_parameter_is_named_with_its_range(http: httpx.Client) -> None:
    error = http.post("/generate", json={"prompt": "x", "temperature": 3}).json()
    assert error["parameter"] == "temperature"
    assert "from 0.0 to 2.0" in error["error"] and "from 0.0 to 2.0" in error["allowed"]
    counts = http.post("/generate", json={"prompt": "word " * 300}).json()["error"]
    assert "tokens" in counts and "200" in counts and "199" in counts


def test_usage_says_what_was_kept_of_a_prompt(http: httpx.Client) -> None:
    prompt = "What is kept of this prompt is told in the usage of the next one. " * 4
    body = {"prompt": prompt, "max_new_tokens": 2}
    first, second = (http.post("/generate", json=body).json()["metadata"] for _ in range(2))
    whole = (first["prompt_tokens"] - 1) // BLOCK * BLOCK
    assert whole >= 48 and (first["cached_tokens"], second["cached_tokens"]) == (0, whole)
    body = {"model": MODEL, "prompt": [prompt.strip()] * 2, "max_tokens": 2, "n": 2}
    usage = http.post("/v1/completions", json=body).json()["usage"]
    assert usage["prompt_tokens"] == 2 * first["prompt_tokens"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": 2 * whole}
    state = http.get("/info").json()["prefix_cache"]
    assert state["capacity_bytes"] == 64 * 2**20 >= state["used_bytes"] > 0
    assert state["prompt_tokens"] > state["cached_tokens"] >= 5 * whole


def test_large_bodies(http: httpx.Client) -> None:
    for size in (1_100_000, 3_000_000):
        response = http.post("/generate", content="x" * size, headers=JSON)
        assert response.status_code == 413
        assert "1048576 bytes" in response.json()["error"]


def test_other_errors_are_json(http: httpx.Client) -> None:
    missing = http.get("/nothing")
    assert missing.status_code == 404
    assert "POST /generate" in missing.json()["available_endpoints"]
    wrong = http.get("/generate")
    assert wrong.status_code == 405 and "POST" in wrong.headers["Allow"] and wrong.json()["error"]
    form = http.post("/generate", data={"prompt": "x"})
    assert form.status_code == 415 and "application/json" in form.json()["error"]
    assert http.delete("/health").status_code == 405
    assert "error" in http.get("/v1/nothing").json()


@pytest.mark.parametrize("wrong", ["x", "9" * 5000, "1\r\nno colon", "1\r\nA: " + "b" * 300_000])
def test_what_is_no_http_is_answered_as_json(server: ServerProcess, wrong: str) -> None:
    """In OpenAI's form where its path was read and is OpenAI's."""
    host, port = server.url.removeprefix("http://").split(":")
    for path in ("/generate", "/v1/completions"):
        with socket.create_connection((host, int(port)), 60) as line:
            line.sendall(f"POST {path} HTTP/1.1\r\nContent-Length: {wrong}\r\n\r\n".encode())
            answer = HTTPResponse(line)
            answer.begin()
            said = json.load(answer)["error"]
        assert answer.status == (431 if len(wrong) > 10_000 else 400)
        assert answer.headers["Content-Type"] == "application/json"
        assert isinstance(said, dict) == (path.startswith("/v1/") and "\r" not in wrong)
        assert (said["message"] if isinstance(said, dict) else said).startswith(answer.reason)


def test_streamed_text_is_the_text(http: httpx.Client, client: Client) -> None:
    request = {"prompt": "The network", "seed": 9, "max_new_tokens": 25}
    whole = http.post("/generate", json=request).json()
    plain = http.post("/stream", json=request)
    assert plain.headers["Content-Type"].startswith("text/plain")
    assert whole["generated_text"] == "The network" + plain.text
    stream = client.stream(**request)
    pieces = list(stream)
    assert "".join(pieces) == plain.text and len(pieces) > 5
    assert stream.metadata["new_tokens"] == whole["metadata"]["new_tokens"]
    assert stream.ttft > 0


def test_pieces_come_while_the_text_is_written(http: httpx.Client) -> None:
    times = []
    body = {"prompt": "The", "max_new_tokens": 150, "top_k": 0}
    headers = {"Accept": "text/event-stream"}
    with http.stream("POST", "/stream", json=body, headers=headers) as response:
        for name, data in events(response):
            times.append(time.perf_counter())
            if name == "done":
                assert json.loads(data)["metadata"]["finish_reason"] in ("length", "end_of_text")
    assert len(times) > 20
    assert times[0] < times[-1] - (times[-1] - times[0]) / 2


def test_streams_are_of_one_text(http: httpx.Client) -> None:
    response = http.post("/stream", json={"prompt": "x", "num_return_sequences": 2})
    assert response.status_code == 400 and response.json()["parameter"] == "num_return_sequences"


def test_documented(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    assert document["openapi"].startswith("3.")
    assert {"/health", "/live", "/info", "/generate", "/stream"} <= set(document["paths"])
    assert {"/v1/models", "/v1/completions", "/v1/chat/completions"} <= set(document["paths"])
    temperature = document["components"]["schemas"]["GenerateRequest"]["properties"]["temperature"]
    assert (temperature["minimum"], temperature["maximum"]) == (0, 2)


# The official openai client


def test_openai_models(ai: openai.OpenAI) -> None:
    assert [model.id for model in ai.models.list()] == [MODEL]


def test_openai_completion(ai: openai.OpenAI) -> None:
    answer = ai.completions.create(
        model=MODEL, prompt="Hello", max_tokens=6, seed=2, n=2, echo=True, logprobs=2
    )
    assert len(answer.choices) == 2
    assert answer.usage is not None and answer.usage.completion_tokens <= 12
    for choice in answer.choices:
        assert choice.text.startswith("Hello")
        assert choice.finish_reason in ("stop", "length")
        assert choice.logprobs is not None and choice.logprobs.tokens is not None
        assert "".join(choice.logprobs.tokens) == choice.text
        assert choice.logprobs.token_logprobs is not None
        assert choice.logprobs.token_logprobs[0] is None
        assert all(p is not None and p <= 0 for p in choice.logprobs.token_logprobs[1:])


def test_openai_stream_equals_the_whole(ai: openai.OpenAI) -> None:
    arguments = {"model": MODEL, "prompt": ["One", "Two"], "max_tokens": 12, "seed": 8}
    whole = ai.completions.create(**arguments)  # type: ignore[call-overload]
    texts, reasons, usage = ["", ""], {}, None
    for block in ai.completions.create(  # type: ignore[call-overload]
        **arguments, stream=True, stream_options={"include_usage": True}
    ):
        usage = block.usage or usage
        for choice in block.choices:
            texts[choice.index] += choice.text
            reasons[choice.index] = choice.finish_reason
    assert texts == [choice.text for choice in whole.choices]
    assert set(reasons.values()) <= {"stop", "length"}
    assert usage is not None and whole.usage is not None
    assert usage.total_tokens == whole.usage.total_tokens


def test_openai_token_ids_and_stop(ai: openai.OpenAI) -> None:
    ids = ai.completions.create(model=MODEL, prompt=[40, 50, 60], max_tokens=3, temperature=0)
    assert ids.usage is not None and ids.usage.prompt_tokens == 3
    several = ai.completions.create(model=MODEL, prompt=[[40], [50, 60]], max_tokens=3)
    assert len(several.choices) == 2
    stopped = ai.completions.create(
        model=MODEL, prompt="a", max_tokens=100, stop=["e", "a"], top_p=0.9, temperature=1.5
    )
    assert "e" not in stopped.choices[0].text


def test_openai_errors(ai: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="not here"):
        ai.completions.create(model="gpt-17", prompt="x")
    with pytest.raises(openai.BadRequestError, match="temperature"):
        ai.completions.create(model=MODEL, prompt="x", temperature=5)
    with pytest.raises(openai.BadRequestError, match="tokens"):
        ai.completions.create(model=MODEL, prompt="x", max_tokens=4000)
    with pytest.raises(openai.BadRequestError, match="token ids"):
        ai.completions.create(model=MODEL, prompt=[10**6])
    with pytest.raises(openai.BadRequestError, match="chat template"):
        ai.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "x"}])
    with pytest.raises(openai.BadRequestError, match="blank|prompt"):
        ai.completions.create(model=MODEL, prompt=["x", "  "])


@pytest.mark.slow
def test_openai_chat_with_a_template(small: ServerProcess) -> None:
    ai = openai.OpenAI(base_url=f"{small.url}/v1", api_key="-", max_retries=0)
    model = ai.models.list().data[0].id
    messages = [{"role": "user", "content": "Hello"}]
    arguments = {"model": model, "messages": messages, "max_tokens": 10, "seed": 1}
    whole = ai.chat.completions.create(**arguments)  # type: ignore[call-overload]
    pieces = [
        block.choices[0].delta.content or ""
        for block in ai.chat.completions.create(**arguments, stream=True)  # type: ignore[call-overload]
    ]
    assert "".join(pieces) == whole.choices[0].message.content
    assert whole.choices[0].message.role == "assistant"


# Limits


def fill(url: str, count: int, tokens: int, stop: threading.Event, pool: ThreadPoolExecutor):
    """Streams that hold a slot or a place in the queue each, until `stop` is set."""
    http = httpx.Client(base_url=url, timeout=60)
    model = http.get("/v1/models").json()["data"][0]["id"]
    body = {"model": model, "prompt": "Hello", "max_tokens": tokens, "stream": True}

    def hold() -> int:
        with http.stream("POST", "/v1/completions", json=body | {"ignore_eos": True}) as response:
            for _ in response.iter_lines():
                if stop.is_set():
                    break
            return response.status_code

    return [pool.submit(hold) for _ in range(count)]


def test_a_full_queue_is_a_503_and_hanging_up_frees_it(small: ServerProcess) -> None:
    request = {"prompt": "x", "max_new_tokens": 2}
    refused = None
    for _ in range(10):  # the three may end before a slow machine asks for a fourth
        stop = threading.Event()
        with ThreadPoolExecutor(3) as pool, httpx.Client(base_url=small.url, timeout=60) as http:
            held = fill(small.url, 3, 480, stop, pool)
            time.sleep(0.15)
            answer = http.post("/generate", json=request)
            stop.set()
            start = time.perf_counter()
            with Client(small.url) as patient:  # waits as Retry-After says
                assert patient.generate(**request).metadata["new_tokens"] <= 2
            waited = time.perf_counter() - start
            assert {future.result() for future in held} <= {200, 503}
        if answer.status_code == 503:
            refused = answer
            break
    assert refused is not None
    assert int(refused.headers["Retry-After"]) >= 1 and "queue" in refused.json()["error"]
    assert waited < 20


def test_health_answers_while_everything_is_full(server: ServerProcess) -> None:
    """Every slot, the whole queue, and most of them streams."""
    stop = threading.Event()
    with ThreadPoolExecutor(48) as pool:
        held = fill(server.url, 48, 190, stop, pool)
        time.sleep(0.5)
        times = []
        with httpx.Client(base_url=server.url) as probe:
            for _ in range(20):
                start = time.perf_counter()
                assert probe.get("/health").status_code == 200
                times.append(time.perf_counter() - start)
        stop.set()
        assert {future.result() for future in held} <= {200, 503}
    assert sorted(times)[len(times) // 2] < 0.1
