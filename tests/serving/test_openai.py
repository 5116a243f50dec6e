"""The OpenAI-compatible routes, parameter by parameter; limits; special tokens; no 500 ever."""

from __future__ import annotations

import itertools
import json
from typing import Any
from urllib.parse import quote

import httpx
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.models import load_model
from helpers.settings import parameter_ranges
from serving.api.openai.chat import ChatRequest
from serving.api.openai.requests import CompletionRequest
from serving.client import ServerProcess
from serving.tokenizer import SharedTokenizer
from tests.conftest import ROOT
from tools.openai_table import PAGE, page

COMPLETION, CHAT = "/v1/completions", "/v1/chat/completions"


@pytest.fixture(scope="module")
def chat_server(chat_model):
    """A chat model whose configured limit is above its context of 512."""
    limits = {"slots": 8, "queue_length": 40, "max_length_limit": 1000, "default_max_length": 600}
    with ServerProcess("openai", model=chat_model, **limits) as process:
        yield process


@pytest.fixture(scope="module")
def http(chat_server):
    with httpx.Client(base_url=chat_server.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def model(http: httpx.Client) -> str:
    return http.get("/v1/models").json()["data"][0]["id"]


@pytest.fixture(scope="module")
def completion(http: httpx.Client, model: str):
    def post(prompt: Any = "Hello", **more: Any) -> httpx.Response:
        return http.post(COMPLETION, json={"model": model, "prompt": prompt, "seed": 1} | more)

    return post


@pytest.fixture(scope="module")
def chat(http: httpx.Client, model: str):
    def post(content: Any = "Hello", **more: Any) -> httpx.Response:
        messages = [{"role": "user", "content": content}]
        body = {"model": model, "messages": messages, "seed": 1, "max_tokens": 4}
        return http.post(CHAT, json=body | more)

    return post


# Limits: the smaller of configuration and context, everywhere


@pytest.mark.slow
def test_limits_are_the_smaller_of_configuration_and_context(http: httpx.Client, model) -> None:
    info = http.get("/info").json()
    assert (info["max_length_limit"], info["default_max_length"]) == (512, 512)
    parameters = info["supported_parameters"]
    assert (parameters["max_length"]["maximum"], parameters["max_length"]["default"]) == (512, 512)
    assert parameters["max_new_tokens"]["maximum"] == 511
    schemas = http.get("/openapi.json").json()["components"]["schemas"]
    for name, field, most in (
        ("GenerateRequest", "max_length", 512),
        ("GenerateRequest", "max_new_tokens", 511),
        ("CompletionRequest", "max_tokens", 511),
        ("ChatRequest", "max_tokens", 511),
        ("ChatRequest", "max_completion_tokens", 511),
    ):
        assert schemas[name]["properties"][field]["anyOf"][0]["maximum"] == most, (name, field)
    assert http.post("/generate", json={"prompt": "x"}).json()["metadata"]["total_tokens"] <= 512
    too_long = http.post("/generate", json={"prompt": "x", "max_length": 513})
    assert too_long.status_code == 400 and "512" in too_long.json()["error"]


@pytest.mark.parametrize("words", [505, 511])
def test_a_prompt_that_nearly_fills_the_context_needs_no_length(
    http: httpx.Client, completion, words: int
) -> None:
    prompt = " ".join(["word"] * words)
    native = http.post("/generate", json={"prompt": prompt}).json()
    assert native["parameters"]["max_new_tokens"] == 512 - words
    assert native["metadata"]["prompt_tokens"] == words
    usage = completion(prompt).json()["usage"]
    assert usage["prompt_tokens"] == words and usage["completion_tokens"] <= 512 - words
    assert completion(prompt, max_tokens=512 - words).status_code == 200
    refused = completion(prompt, max_tokens=513 - words)
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "max_tokens"


# Parameter by parameter


@pytest.mark.parametrize(
    "change",
    [
        {"n": None},
        {"best_of": 1},
        {"n": 2, "best_of": 2},
        {"logit_bias": None},
        {"logit_bias": {}},
        {"suffix": None},
        {"suffix": ""},
        {"max_tokens": None},
        {"temperature": None, "top_p": None, "stop": None, "stream": None, "echo": None},
        {"frequency_penalty": 0, "presence_penalty": 0.0, "user": "me"},
        {"stream": True, "stream_options": {"include_usage": None, "include_obfuscation": False}},
        {"stream": True, "stream_options": None},
    ],
    ids=str,
)
def test_completions_take_what_changes_nothing(completion, change: dict[str, Any]) -> None:
    assert completion(**change).status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        {"response_format": {"type": "text"}},
        {"n": None, "logit_bias": None, "max_tokens": None, "tools": [], "tool_choice": "none"},
        {"max_completion_tokens": 3, "modalities": ["text"], "store": False},
        {"metadata": {"a": "b"}, "safety_identifier": "x", "service_tier": "auto"},
        {"content": ""},
        {"content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]},
    ],
    ids=str,
)
def test_chats_take_what_changes_nothing(chat, change: dict[str, Any]) -> None:
    answer = chat(**change)
    assert answer.status_code == 200, answer.text


def test_parts_of_a_message_are_one_text(chat) -> None:
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    texts = {chat(c).json()["choices"][0]["message"]["content"] for c in ("Hello", parts)}
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("route", "change"),
    [
        (COMPLETION, {"suffix": "x"}),
        (COMPLETION, {"best_of": 3}),
        (COMPLETION, {"frequency_penalty": 0.5}),
        (COMPLETION, {"presence_penalty": -1}),
        (COMPLETION, {"functions": []}),
        (COMPLETION, {"stream": True, "stream_options": {"include_obfuscation": True}}),
        (CHAT, {"tools": [{"type": "function"}]}),
        (CHAT, {"store": True}),
        (CHAT, {"modalities": ["audio"]}),
        (CHAT, {"reasoning_effort": "high"}),
        (CHAT, {"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
        (CHAT, {"messages": [{"role": "assistant", "content": None}]}),
    ],
    ids=str,
)
def test_what_is_not_offered_says_so(completion, chat, route: str, change: dict[str, Any]) -> None:
    answer = (completion if route == COMPLETION else chat)(**change)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert "not supported here" in error["message"], error


def test_null_is_as_good_as_left_out(completion) -> None:
    texts = {
        completion(ignore_eos=True, **more).json()["choices"][0]["text"]
        for more in ({}, {"max_tokens": None}, {"max_tokens": 16}, {"temperature": None})
    }
    assert len(texts) == 1


def test_logit_bias_forces_and_forbids(completion, chat_model) -> None:
    _, tokenizer = load_model(str(chat_model), "cpu")
    token = tokenizer(" network")["input_ids"][0]
    forced = completion(max_tokens=4, ignore_eos=True, logit_bias={str(token): 100})
    assert forced.json()["choices"][0]["text"] == " network" * 4
    unknown = completion(logit_bias={"999999": 1})
    assert unknown.status_code == 400 and unknown.json()["error"]["param"] == "logit_bias"
    greedy = {"max_tokens": 1, "temperature": 0, "logprobs": 1}
    first = completion(**greedy).json()["choices"][0]["text"]
    banned = tokenizer(first)["input_ids"][0]
    assert (
        completion(**greedy, logit_bias={str(banned): -100}).json()["choices"][0]["text"] != first
    )


@pytest.mark.slow
def test_models_by_name(http: httpx.Client, model: str, server: ServerProcess) -> None:
    """Also a folder's, which begins with a slash, as a client quotes it and as it is."""
    assert model.startswith("/")
    for path in (quote(model, safe=""), model):
        found = http.get(f"/v1/models/{path}")
        assert (found.status_code, found.json()["id"]) == (200, model)
    assert http.get("/info", params={"model": model}).json()["model"] == model
    doubled = http.get("/v1//models")
    assert doubled.status_code == 404 and doubled.json()["error"]["message"]
    ai = openai.OpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0)
    assert ai.models.retrieve("course-gpt-1m").id == "course-gpt-1m"
    for name in ("other", "org/other"):
        with pytest.raises(openai.NotFoundError, match="not here"):
            ai.models.retrieve(name)


def test_a_clients_mistake_is_no_500(completion, chat, http: httpx.Client) -> None:
    for low, stream in itertools.product((0, 1e-6), (False, True)):
        for post in (completion, chat):
            answer = post(n=2, temperature=low, stream=stream)
            assert answer.status_code == 400
            assert answer.json()["error"]["param"] == "n"
    for path in ("/generate", "/stream"):
        body = {"prompt": "x", "num_return_sequences": 2, "temperature": 0}
        assert http.post(path, json=body).status_code == 400


@pytest.mark.slow
def test_a_default_temperature_of_0_refuses_several_texts_by_name(chat_model) -> None:
    with ServerProcess("cold", model=chat_model, default_temperature=0) as cold:
        body = {"prompt": "x", "num_return_sequences": 2}
        answer = httpx.post(cold.url + "/generate", json=body, timeout=60)
        assert answer.status_code == 400
        assert answer.json()["parameter"] == "num_return_sequences"


# Log-probabilities


TEXTS = ["Hello world", "日本", "é", "a 🙂 b", "日", " leading", "\n\n", "x<|endoftext|>y"]


@pytest.mark.parametrize("text", [t for t in TEXTS if t.strip()])
@pytest.mark.parametrize("new", [0, 3])
def test_pieces_and_offsets_are_those_of_the_text(completion, text: str, new: int) -> None:
    whole = completion(text, echo=True, logprobs=2, max_tokens=new).json()["choices"][0]
    found = whole["logprobs"]
    assert whole["text"].startswith(text) and (new or whole["text"] == text)
    content = b"".join(map(bytes, found["bytes"]))
    assert content.decode("utf-8", "replace") == whole["text"]
    before = 0
    for token, offset, piece in zip(
        found["tokens"], found["text_offset"], found["bytes"], strict=True
    ):
        so_far = content[:before].decode("utf-8", "ignore")
        assert offset == len(so_far) < len(whole["text"]), (token, offset)
        if token.startswith("bytes:"):
            assert token == "bytes:" + "".join(f"\\x{b:02x}" for b in piece)
        else:
            assert token.encode() == bytes(piece)
            assert whole["text"][offset:].startswith(token)
        before += len(piece)
    assert "�" not in "".join(found["tokens"])


def test_streamed_pieces_are_the_same(completion, http: httpx.Client, model: str) -> None:
    arguments = {"echo": True, "logprobs": 1, "max_tokens": 12, "temperature": 1.5}
    whole = completion("日本 é", **arguments).json()["choices"][0]
    tokens, offsets, text = [], [], ""
    answer = completion("日本 é", **arguments, stream=True)
    for line in answer.text.splitlines():
        if line.startswith("data: {"):
            for choice in json.loads(line[6:])["choices"]:
                text += choice["text"]
                if choice["logprobs"]:
                    tokens += choice["logprobs"]["tokens"]
                    offsets += choice["logprobs"]["text_offset"]
    assert text == whole["text"]
    assert (tokens, offsets) == (whole["logprobs"]["tokens"], whole["logprobs"]["text_offset"])


def test_chats_tell_log_probabilities(chat) -> None:
    choice = chat(logprobs=True, top_logprobs=2, max_tokens=5).json()["choices"][0]
    content = choice["logprobs"]["content"]
    joined = b"".join(bytes(entry["bytes"]) for entry in content)
    assert joined.decode("utf-8", "replace") == choice["message"]["content"]
    assert all(len(e["top_logprobs"]) == 2 and e["logprob"] <= 0 for e in content)
    assert chat(top_logprobs=2).status_code == 400


# Special tokens


def test_special_tokens_in_prompts_are_text(http: httpx.Client, completion, chat) -> None:
    special = "<|endoftext|>"
    native = http.post("/generate", json={"prompt": f"a {special} b", "max_new_tokens": 1}).json()
    assert native["metadata"]["prompt_tokens"] > 6
    plain = completion(special, echo=True, logprobs=0, max_tokens=0).json()["choices"][0]
    assert plain["text"] == special and len(plain["logprobs"]["tokens"]) > 3
    counts = [chat(text, max_tokens=1).json()["usage"]["prompt_tokens"] for text in ("", special)]
    assert counts[1] - counts[0] > 3


def test_encoding_is_safe_and_otherwise_the_tokenizers_own() -> None:
    _, tokenizer = load_model("course-gpt-1m", "cpu")
    shared = SharedTokenizer(tokenizer)
    end = tokenizer.eos_token_id
    assert end in tokenizer("a <|endoftext|> b")["input_ids"]
    assert end not in shared.encode("a <|endoftext|> b")
    assert shared.decode(shared.encode("a <|endoftext|> b")) == "a <|endoftext|> b"
    for text in ("Hello world", "日本 é 🙂", " \n x"):
        assert shared.encode(text) == tokenizer(text)["input_ids"]


# No combination of parameters is a 500


def near(low: float, high: float) -> st.SearchStrategy[Any]:
    """Values at and past a range, and what is no number at all."""
    edges = [low, high, low - 1, high + 1, (low + high) / 2, int((low + high) / 2), 1e-6]
    return st.sampled_from([*edges, None, True, "1", [], {}, -0.0, 10**30])


RANGES = {name: near(r.minimum, r.maximum) for name, r in parameter_ranges().items()}
RANGES["stop"] = st.sampled_from([None, "", "e", ["a", ""], ["x"] * 5, 3, ["\ud800"], {}])
RANGES["logit_bias"] = st.sampled_from(
    [None, {}, {"5": 1}, {"5": 101}, {"99999": 1}, {"x": 1}, {"-1": 1}, [], 3]
)
OPENAI = {
    {"max_new_tokens": "max_tokens", "num_return_sequences": "n"}.get(name, name): value
    for name, value in RANGES.items()
    if name != "max_length"
}
ODD = st.sampled_from([None, 0, 1, True, False, "", "x", [], {}, {"type": "text"}, -1, 5, 21])


def bodies(required: dict[str, Any], known: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """What is required, and up to three of the known parameters: so that some are right."""
    fixed = {name: st.sampled_from(values) for name, values in required.items()}
    names = st.lists(st.sampled_from(sorted(known)), max_size=3, unique=True)
    return names.flatmap(
        lambda chosen: st.fixed_dictionaries(fixed | {name: known[name] for name in chosen})
    )


def others(request: type[Any], known: dict[str, Any], required: set[str]) -> dict[str, Any]:
    names = set(request.model_fields) - set(known) - required - {"stream", "ignore_eos"}
    streamed = {"stream": st.booleans()}
    return known | dict.fromkeys(sorted(names), ODD) | streamed


MESSAGES = [
    [{"role": "user", "content": c}]
    for c in ("Hi", "", "\ud800", "a\x00", None, 3, [], [{"type": "text", "text": "<|endoftext|>"}])
] + [[], [{"role": "tool", "content": "x"}], [{"role": "system", "content": "x"}] * 3]
PROMPTS = ["x", "", " ", "\ud800", ["a", "b"], [1, 2], [[1], [2]], [10**9], [], None, [["x"]], 3]


def routes(model: str) -> dict[str, st.SearchStrategy[dict[str, Any]]]:
    short = [2] * 9 + [None]
    native = bodies({"prompt": PROMPTS[:4] + ["Hello"] * 6, "max_new_tokens": short}, dict(RANGES))
    completion = bodies(
        {"model": [model], "prompt": ["Hello"] * 8 + PROMPTS, "max_tokens": short},
        others(CompletionRequest, OPENAI, {"model", "prompt"}),
    )
    chat = bodies(
        {"model": [model], "messages": [MESSAGES[0]] * 8 + MESSAGES, "max_tokens": short},
        others(ChatRequest, OPENAI, {"model", "messages"}),
    )
    return {"/generate": native, "/stream": native, COMPLETION: completion, CHAT: chat}


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/generate", "/stream", COMPLETION, CHAT])
def test_no_combination_of_parameters_is_a_500(http: httpx.Client, model: str, path: str) -> None:
    seen: set[int] = set()

    @settings(
        max_examples=50,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(routes(model)[path])
    def check(body: dict[str, Any]) -> None:
        answer = http.post(
            path, content=json.dumps(body), headers={"Content-Type": "application/json"}
        )
        assert answer.status_code in (200, 400), (answer.status_code, answer.text, body)
        if answer.status_code == 400:
            assert answer.json()["error"]
        else:
            assert '"server_error"' not in answer.text and "event: error" not in answer.text
        seen.add(answer.status_code)

    check()
    assert seen == {200, 400}


# The table in the docs


def test_the_table_in_the_docs_is_fresh() -> None:
    assert (ROOT / PAGE).read_text(encoding="utf-8") == page(), "run tools/openai_table.py"


def test_every_parameter_of_the_reference_is_in_the_table() -> None:
    text = page()
    reference = (
        "model prompt best_of echo frequency_penalty logit_bias logprobs max_tokens n "
        "presence_penalty seed stop stream stream_options suffix temperature top_p user "
        "messages audio function_call functions max_completion_tokens metadata modalities "
        "parallel_tool_calls prediction prompt_cache_key reasoning_effort response_format "
        "safety_identifier service_tier store tool_choice tools top_logprobs verbosity "
        "web_search_options"
    )
    for name in reference.split():
        assert f"`{name}`" in text, name
    assert "| `suffix` | not supported |" in text and "| `logit_bias` | served |" in text
