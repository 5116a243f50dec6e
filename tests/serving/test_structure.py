"""Structured output over real HTTP: whatever comes as complete is valid, and nothing is a 500."""

from __future__ import annotations

import json
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import jsonschema
import pytest

from serving.client import ServerProcess
from serving.client.sse import Parser
from serving.engine.grammar import MAX_BYTES
from tests.serving.random_schemas import random_schema

COMPLETION, CHAT = "/v1/completions", "/v1/chat/completions"
TICKET: dict[str, Any] = {
    "type": "object",
    "properties": {
        "team": {"enum": ["network", "storage"]},
        "urgent": {"type": "boolean"},
        "minutes": {"type": "integer", "minimum": 3, "maximum": 40},
    },
    "required": ["team", "urgent", "minutes"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def structured(chat_model):
    limits = {"slots": 8, "queue_length": 60, "max_length_limit": 400}
    with ServerProcess("structure", model=chat_model, **limits) as process:
        yield process
        assert "Traceback" not in process.log, process.log[-3000:]


@pytest.fixture(scope="module")
def http(structured: ServerProcess):
    with httpx.Client(base_url=structured.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def post(http: httpx.Client):
    model = http.get("/v1/models").json()["data"][0]["id"]

    def send(route: str = COMPLETION, **more: Any) -> httpx.Response:
        prompt: dict[str, Any] = {"prompt": "The server"}
        if route == CHAT:
            prompt = {"messages": [{"role": "user", "content": "The server"}]}
        body = {"model": model, "seed": 1, "max_tokens": 150} | prompt | more
        # Written here: httpx would not send half of a surrogate pair.
        return http.post(
            route, content=json.dumps(body), headers={"Content-Type": "application/json"}
        )

    return send


def schema_form(schema: Any, **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "it", "schema": schema} | more}


def texts(answer: httpx.Response) -> list[tuple[str, str]]:
    """Each text and why it ended."""
    assert answer.status_code == 200, answer.text
    found = answer.json()["choices"]
    return [
        (c["text"] if "text" in c else c["message"]["content"], c["finish_reason"]) for c in found
    ]


@pytest.mark.parametrize("route", [COMPLETION, CHAT])
@pytest.mark.parametrize(
    "sampling", [{"temperature": 0}, {"temperature": 2}, {"n": 4, "top_p": 0.5}]
)
def test_a_schema_is_kept_on_both_routes(post, route: str, sampling: dict[str, Any]) -> None:
    form = schema_form(TICKET, strict=True, description="A ticket.")
    for text, reason in texts(post(route, response_format=form, **sampling)):
        assert reason == "stop"
        jsonschema.validate(json.loads(text), TICKET)
        assert text == json.dumps(json.loads(text)), "one way to write it"


@pytest.mark.parametrize("route", [COMPLETION, CHAT])
def test_any_object(post, route: str) -> None:
    for seed in range(2):
        form = {"type": "json_object"}
        ended = texts(post(route, response_format=form, seed=seed, n=4, max_tokens=60))
        for text, reason in ended:
            assert text.startswith("{")
            if reason == "stop":
                assert isinstance(json.loads(text), dict)


def test_a_chat_may_use_all_the_room_and_a_cut_text_says_length(post) -> None:
    long = {"type": "array", "items": {"const": "again"}, "minItems": 60, "maxItems": 60}
    free = post(CHAT, response_format=schema_form(long), max_tokens=None)
    ((text, reason),) = texts(free)
    assert reason == "stop" and json.loads(text) == ["again"] * 60
    ((text, reason),) = texts(post(CHAT, response_format=schema_form(long), max_tokens=9))
    assert reason == "length" and text.startswith('["again"')
    used = free.json()["usage"]["completion_tokens"]
    exact = texts(post(CHAT, response_format=schema_form(long), max_tokens=used))
    assert exact[0][1] == "stop", "complete with its last token"


def test_expressions_and_choices(post) -> None:
    for text, reason in texts(post(structured_outputs={"regex": "[A-Z]{2}-[0-9]{4}"}, n=8)):
        assert re.fullmatch("[A-Z]{2}-[0-9]{4}", text) and reason == "stop"
    choices = ["a", "ab", 'say "no" \\ now', "two\nlines", "é🎉", "<|endoftext|>"]
    found = Counter(
        t
        for s in range(4)
        for t, _ in texts(post(structured_outputs={"choice": choices}, n=16, seed=s))
    )
    assert set(found) <= set(choices) and len(found) > 1
    for choice in choices:
        assert texts(post(structured_outputs={"choice": [choice]})) == [(choice, "stop")]
    assert texts(post(structured_outputs={"json": {"const": 5}})) == [("5", "stop")]
    assert texts(post(structured_outputs={"choice": ["yes"]}, max_tokens=0)) == [("", "length")]


def test_any_text_is_the_same_as_no_form(post) -> None:
    plain = texts(post(max_tokens=30))
    assert texts(post(max_tokens=30, response_format={"type": "text"})) == plain
    assert texts(post(max_tokens=30, response_format=None, structured_outputs=None)) == plain


@pytest.mark.parametrize(
    "more",
    [
        {"no_repeat_ngram_size": 1},
        {"no_repeat_ngram_size": 1, "temperature": 0},
        {"repetition_penalty": 2.0, "logit_bias": {str(t): -100 for t in range(300)}},
        {"logit_bias": {"8191": 100}, "temperature": 0},  # end-of-text, at once
        {"top_k": 1, "top_p": 0.01},
    ],
    ids=lambda more: ",".join(more),
)
def test_the_form_comes_before_other_parameters(post, more: dict[str, Any]) -> None:
    for text, reason in texts(post(structured_outputs={"json": TICKET}, **more)):
        assert reason == "stop"
        jsonschema.validate(json.loads(text), TICKET)


def test_pieces_of_a_stream_join_to_the_same_json(post) -> None:
    form = schema_form(
        {"type": "array", "items": {"enum": ["é🎉", "日本"]}, "minItems": 4, "maxItems": 4}
    )
    for route in (COMPLETION, CHAT):
        whole = texts(post(route, response_format=form))
        streamed = post(route, response_format=form, stream=True)
        blocks = [e.data for e in Parser().feed(streamed.content)]
        assert blocks.pop() == "[DONE]"
        choices = [json.loads(b)["choices"][0] for b in blocks]
        pieces = [c["text"] if "text" in c else c["delta"].get("content", "") for c in choices]
        assert len([p for p in pieces if p]) > 4, "piece by piece"
        assert ("".join(pieces), choices[-1]["finish_reason"]) == whole[0]
        jsonschema.validate(json.loads("".join(pieces)), form["json_schema"]["schema"])


def test_rows_beside_it_stay_as_they_are(post) -> None:
    def plain(seed: int) -> Any:
        return texts(post(seed=seed, temperature=seed % 2, max_tokens=60))

    alone = [plain(seed) for seed in range(6)]
    form = {"json": {"type": "string", "minLength": 100, "maxLength": 100}}
    with ThreadPoolExecutor(8) as pool:
        beside = pool.submit(post, structured_outputs=form, n=2, temperature=2)
        assert list(pool.map(plain, range(6))) == alone
        for text, _ in texts(beside.result()):
            assert text.startswith('"')


DEEP: dict[str, Any] = {"type": "integer"}
for _ in range(300):
    DEEP = {"type": "array", "items": DEEP}
WIDE = {f"property_{i}": {"type": "string"} for i in range(900)}
IMPOSSIBLE: list[Any] = [
    {"type": "string", "enum": []},
    {"type": "string", "enum": [1]},
    {"allOf": [{"type": "string"}, {"type": "number"}]},
    {"type": "integer", "minimum": 5, "maximum": 3},
    {"type": "string", "minLength": 5, "maxLength": 2},
    {"properties": {"a": False}, "required": ["a"], "type": "object"},
    {"$ref": "#"},
    {"$ref": "#/$defs/none"},
    {"$ref": "https://example.org/schema.json"},
    {"type": "unknown"},
    {"type": "string", "pattern": "("},
    {"type": "string", "format": "foo"},
    {"type": "string", "minLength": -1},
    {"type": "string", "minLength": 10**30},
    {"not": {"type": "string"}},
    {"oneOf": [{"type": "integer"}, {"type": "number"}]},
    {"if": {"type": "string"}, "then": {"minLength": 2}},
    {"type": "array", "uniqueItems": True},
    {"const": "\ud800"},
    {"x-guidance": {"lenient": True}, "not": {}},
    {"enum": ["x" * MAX_BYTES]},
    {"allOf": [{"anyOf": [{"pattern": f"a{i}"}, {"pattern": f"b{i}"}]} for i in range(40)]},
    {"type": "integer", "multipleOf": 999_999_937},
    DEEP,
]


@pytest.mark.parametrize("schema", IMPOSSIBLE, ids=lambda schema: json.dumps(schema)[:40])
def test_a_schema_that_cannot_be_kept_is_a_400(post, schema: Any) -> None:
    for route in (COMPLETION, CHAT):
        answer = post(route, response_format=schema_form(schema))
        assert answer.status_code == 400, answer.text
        error = answer.json()["error"]
        assert error["param"] == "response_format" and len(error["message"]) < 500, error
    assert (
        post(structured_outputs={"json": schema}).json()["error"]["param"] == "structured_outputs"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        {"response_format": "json_object"},
        {"response_format": {"type": "xml"}},
        {"response_format": {"type": "json_schema"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
        {"response_format": {"type": "json_object", "schema": {}}},
        {"response_format": schema_form(True)},
        {"response_format": schema_form({}, strict="yes")},
        {"structured_outputs": {}},
        {"structured_outputs": {"regex": "a", "choice": ["a"]}},
        {"structured_outputs": {"regex": "("}},
        {"structured_outputs": {"regex": "a(?=b)"}},
        {"structured_outputs": {"regex": "[^\\x00-\\U0010FFFF]"}},
        {"structured_outputs": {"regex": "(" * 15_000 + ")" * 15_000}},
        {"structured_outputs": {"regex": "\ud800"}},
        {"structured_outputs": {"grammar": 'root ::= "a"'}},
        {"structured_outputs": {"choice": []}},
        {"structured_outputs": {"choice": [""]}},
        {"structured_outputs": {"choice": ["\ud800"]}},
        {"structured_outputs": {"choice": ["a"]}, "response_format": {"type": "json_object"}},
        {"structured_outputs": {"choice": ["a"]}, "ignore_eos": True},
    ],
    ids=lambda body: json.dumps(body)[:60],
)
def test_what_is_written_wrongly_is_a_400(post, body: dict[str, Any]) -> None:
    answer = post(**body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] in body


def test_a_form_too_large_to_go_on_with_is_a_400_in_the_stream_too(post) -> None:
    """Compiling it works; its first property name has too many ways to go on."""
    form = schema_form({"type": "object", "properties": WIDE})
    answer = post(response_format=form, max_tokens=40)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "response_format"
    streamed = post(response_format=form, max_tokens=40, stream=True)
    last = json.loads([e.data for e in Parser().feed(streamed.content)][-1])
    assert last["error"]["type"] == "invalid_request_error"


def test_info_lists_the_forms(http: httpx.Client) -> None:
    kinds = ["json_object", "json_schema", "regex", "choice"]
    assert http.get("/info").json()["structured_outputs"] == kinds


def keep(post, numbers: range) -> Counter[str]:
    """Ask for each random schema; how the answers ended."""

    def one(number: int) -> list[str]:
        schema = random_schema(number)
        jsonschema.Draft202012Validator.check_schema(schema)
        route, seed = (COMPLETION, CHAT)[number % 2], number
        # Long enough that most texts are complete: only complete ones can be validated.
        sampling = {"temperature": (0, 0.8, 1.5)[number % 3], "max_tokens": 300}
        answer = post(route, response_format=schema_form(schema), seed=seed, **sampling)
        if answer.status_code == 400:
            assert answer.json()["error"]["param"] == "response_format", answer.text
            return [answer.json()["error"]["message"].partition("kept: ")[2].partition(":")[0]]
        ended = []
        for text, reason in texts(answer):
            ended.append(reason)
            if reason == "stop":
                jsonschema.Draft202012Validator(
                    schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
                ).validate(json.loads(text))
        return ended

    with ThreadPoolExecutor(8) as pool:
        return Counter(reason for found in pool.map(one, numbers) for reason in found)


@pytest.mark.slow
def test_forty_random_schemas(post) -> None:
    ended = keep(post, range(40))
    assert ended["stop"] >= 24, ended


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_thousand_random_schemas(post) -> None:
    ended = keep(post, range(1000, 2000))
    print(ended)
    assert ended["stop"] >= 600, ended
