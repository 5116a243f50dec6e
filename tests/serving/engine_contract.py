"""What engines behind OpenAI's API have in common, asked one property at a time.

`ask(url)` asks a running engine everything and returns property → what it does; the table in
docs/engines.md holds these columns side by side.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import httpx

from serving.client import events
from system.environment import ROOT

PAGE = ROOT / "docs" / "engines.md"
START, END = "<!-- engines: start -->", "<!-- engines: end -->"
YES, NO = "yes", "no"
DONE = "[DONE]"
LISTS = "`/v1/models` names the model"
REFUSES = "a wrong value is answered with 400 and a message"
IGNORES_END = "`ignore_eos` writes the full length (for load tests)"
PROMPT, MODEL = "Machine learning is", "smollm2-135m"
MESSAGES = [{"role": "user", "content": "Say hello."}]


class Engine:
    """A running engine, asked by plain HTTP."""

    def __init__(self, url: str) -> None:
        # A connection each: an engine closes idle ones, on a busy machine as a request comes.
        alone = httpx.Limits(max_keepalive_connections=0)
        self.http = httpx.Client(base_url=url, timeout=300, trust_env=False, limits=alone)

    def complete(self, prompt: Any = PROMPT, **more: Any) -> httpx.Response:
        body = {"model": MODEL, "prompt": prompt, "max_tokens": 8, "temperature": 0}
        return self.http.post("/v1/completions", json=body | more)

    def chat(self, **more: Any) -> httpx.Response:
        body = {"model": MODEL, "messages": MESSAGES, "max_tokens": 8, "temperature": 0}
        return self.http.post("/v1/chat/completions", json=body | more)

    @cached_property
    def text(self) -> str:
        """The greedy completion that others are compared with."""
        return self.texts()[0]

    @cached_property
    def answer(self) -> str:
        """The greedy answer to the chat."""
        return str(self.chat().json()["choices"][0]["message"]["content"])

    def texts(self, **more: Any) -> list[str]:
        return [c["text"] for c in self.complete(**more).raise_for_status().json()["choices"]]

    def stream(self, path: str, **more: Any) -> list[str]:
        body = {"model": MODEL, "max_tokens": 8, "temperature": 0, "stream": True} | more
        with self.http.stream("POST", path, json=body) as response:
            response.raise_for_status()
            assert response.headers["content-type"].startswith("text/event-stream")
            return [data for _, data in events(response)]

    def blocks(self, path: str, **more: Any) -> list[dict[str, Any]]:
        """A stream's blocks, without the `[DONE]` after them."""
        return [json.loads(data) for data in self.stream(path, **more) if data != DONE]


Probe = Callable[[Engine], bool]
CORE: dict[str, Probe] = {}  # every engine must; a client may rely on it
MORE: dict[str, Probe] = {}  # here they differ


def probe(where: dict[str, Probe], title: str) -> Callable[[Probe], Probe]:
    def keep(function: Probe) -> Probe:
        where[title] = function
        return function

    return keep


def ask(url: str, probes: dict[str, Probe]) -> Iterator[tuple[str, str]]:
    """Each property of `probes` and whether this engine has it; an error counts as no."""
    engine = Engine(url)
    for title, function in probes.items():
        try:
            yield title, YES if function(engine) else NO
        except (httpx.HTTPStatusError, KeyError, TypeError, IndexError, ValueError):
            yield title, NO


# --- what all share -----------------------------------------------------------------------


@probe(CORE, "`/health` answers 200")
def _health(engine: Engine) -> bool:
    return engine.http.get("/health").status_code == 200


@probe(CORE, "a completion has OpenAI's form, usage that adds up")
def _completion(engine: Engine) -> bool:
    answer = engine.complete().json()
    (choice,) = answer["choices"]
    usage = answer["usage"]
    return (
        answer["object"] == "text_completion"
        and isinstance(answer["id"], str)
        and isinstance(answer["created"], int)
        and bool(choice["text"])
        and usage["prompt_tokens"] > 0
        and usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    )


@probe(CORE, "`max_tokens` is kept, `finish_reason` is `length`")
def _length(engine: Engine) -> bool:
    answer = engine.complete(max_tokens=5).json()
    reason = answer["choices"][0]["finish_reason"]
    return (answer["usage"]["completion_tokens"], reason) == (5, "length")


@probe(CORE, "a chat has OpenAI's form")
def _chat(engine: Engine) -> bool:
    answer = engine.chat().json()
    (choice,) = answer["choices"]
    message = choice["message"]
    return (answer["object"], message["role"]) == ("chat.completion", "assistant") and bool(
        message["content"]
    )


@probe(CORE, "temperature 0 writes the same text twice")
def _greedy(engine: Engine) -> bool:
    return engine.text == engine.texts()[0]


@probe(CORE, "a stream is the same text in pieces")
def _stream(engine: Engine) -> bool:
    blocks = engine.blocks("/v1/completions", prompt=PROMPT)
    pieces = [c["text"] for block in blocks for c in block["choices"]]
    return len(pieces) > 2 and "".join(pieces) == engine.text


@probe(CORE, "a chat's stream is the same text in pieces")
def _chat_stream(engine: Engine) -> bool:
    blocks = engine.blocks("/v1/chat/completions", messages=MESSAGES)
    deltas = [c["delta"] for block in blocks for c in block["choices"]]
    text = "".join(delta.get("content") or "" for delta in deltas)
    return deltas[0]["role"] == "assistant" and text == engine.answer


def usages(engine: Engine) -> list[Any]:
    """The blocks of a stream that count tokens."""
    more = {"prompt": PROMPT, "stream_options": {"include_usage": True}}
    return [block for block in engine.blocks("/v1/completions", **more) if block.get("usage")]


@probe(CORE, "`stream_options.include_usage` gets the token counts")
def _stream_usage(engine: Engine) -> bool:
    return bool(usages(engine)[-1]["usage"]["completion_tokens"] == 8)


# --- where they differ, or one of them ----------------------------------------------------


@probe(MORE, LISTS)
def _models(engine: Engine) -> bool:
    listed = engine.http.get("/v1/models").json()
    return listed["object"] == "list" and MODEL in [entry["id"] for entry in listed["data"]]


@probe(MORE, "a stream ends with `[DONE]`")
def _done(engine: Engine) -> bool:
    chat = engine.stream("/v1/chat/completions", messages=MESSAGES)
    return chat[-1] == engine.stream("/v1/completions", prompt=PROMPT)[-1] == DONE


@probe(MORE, "`stop` ends the text before the string, `finish_reason` is `stop`")
def _stop(engine: Engine) -> bool:
    whole = engine.text
    word = whole.split()[2]
    (choice,) = engine.complete(stop=[word]).json()["choices"]
    return choice["finish_reason"] == "stop" and choice["text"] == whole[: whole.index(word)]


@probe(MORE, "`seed` repeats a sampled text")
def _seed(engine: Engine) -> bool:
    once, again, other = (engine.texts(temperature=1.0, seed=s) for s in (7, 7, 8))
    return once == again != other


@probe(MORE, "`logit_bias` of -100 rules a token out")
def _bias(engine: Engine) -> bool:
    first = 253  # " a", which this model writes first
    free, ruled_out = engine.text, engine.texts(logit_bias={str(first): -100})[0]
    return free.startswith(" a") and not ruled_out.startswith(" a ")


@probe(MORE, "a prompt may be a list of token ids")
def _ids(engine: Engine) -> bool:
    ids = [19556, 28, 905, 17]  # "Hello, world!"
    return engine.texts(prompt=ids) == engine.texts(prompt="Hello, world!")


@probe(MORE, "a list of prompts gets as many texts")
def _prompts(engine: Engine) -> bool:
    # Not compared with single answers: rounding depends on what is computed together.
    return len(set(engine.texts(prompt=[PROMPT, "Hello, world!"], max_tokens=4))) == 2


@probe(MORE, "`n` gets as many different texts")
def _n(engine: Engine) -> bool:
    return len(set(engine.texts(n=3, temperature=1.0, seed=1))) == 3


@probe(MORE, "`response_format` `json_schema` writes JSON of that form")
def _schema(engine: Engine) -> bool:
    form: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "boolean"}}}
    form |= {"required": ["a"], "additionalProperties": False}
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": form}}
    answer = engine.chat(response_format=wanted, max_tokens=32).raise_for_status().json()
    return list(json.loads(answer["choices"][0]["message"]["content"])) == ["a"]


@probe(MORE, "a chat's `logprobs` list each token and the best others")
def _chat_logprobs(engine: Engine) -> bool:
    answer = engine.chat(logprobs=True, top_logprobs=2).raise_for_status().json()
    tokens = answer["choices"][0]["logprobs"]["content"]
    joined = "".join(t["token"] for t in tokens)
    said = answer["choices"][0]["message"]["content"]
    return joined == said and all(len(t["top_logprobs"]) == 2 for t in tokens)


@probe(MORE, REFUSES)
def _wrong(engine: Engine) -> bool:
    answer = engine.complete(max_tokens="many")
    return answer.status_code == 400 and bool(answer.json()["error"]["message"])


@probe(MORE, "a prompt that does not fit is refused, not cut")
def _too_long(engine: Engine) -> bool:
    return engine.complete(prompt="word " * 1100).status_code == 400


@probe(MORE, IGNORES_END)
def _ignore(engine: Engine) -> bool:
    ended, full = (engine.chat(ignore_eos=on, max_tokens=40).json() for on in (False, True))
    return bool(ended["usage"]["completion_tokens"] < full["usage"]["completion_tokens"] == 40)


@probe(MORE, "a completion's `logprobs` in OpenAI's form (`tokens`, `token_logprobs`)")
def _logprobs(engine: Engine) -> bool:
    found = engine.complete(logprobs=2).raise_for_status().json()["choices"][0]["logprobs"]
    return len(found["tokens"]) == len(found["token_logprobs"]) == 8


@probe(MORE, "a stream's token counts come in a last block of `choices: []`, as OpenAI's do")
def _last_block(engine: Engine) -> bool:
    return bool(usages(engine)[-1]["choices"] == [])


@probe(MORE, "`echo` gives the prompt back, too")
def _echo(engine: Engine) -> bool:
    return engine.texts(echo=True)[0].startswith(PROMPT)


@probe(MORE, "`structured_outputs` with a `regex`, as vLLM names it")
def _regex(engine: Engine) -> bool:
    return engine.texts(structured_outputs={"regex": "(yes|no)"})[0] in ("yes", "no")


@probe(MORE, "`frequency_penalty` changes the text")
def _frequency(engine: Engine) -> bool:
    asked = {"prompt": "one two one two one two", "max_tokens": 12}
    return engine.texts(**asked) != engine.texts(frequency_penalty=2, **asked)


@probe(MORE, "an unknown parameter is refused, not passed over")
def _unknown(engine: Engine) -> bool:
    return engine.complete(temprature=0.5).status_code in (400, 422)


@probe(MORE, "an unknown model is refused with 404")
def _other_model(engine: Engine) -> bool:
    return engine.complete(model="another").status_code == 404


@probe(MORE, "a temperature below 0 is refused")
def _temperature(engine: Engine) -> bool:
    return engine.complete(temperature=-1).status_code == 400


@probe(MORE, "`/generate` and `/stream`, this course's own routes")
def _native(engine: Engine) -> bool:
    body = {"prompt": PROMPT, "max_new_tokens": 2}
    return engine.http.post("/generate", json=body).status_code == 200


# --- the table ----------------------------------------------------------------------------


def read() -> dict[str, dict[str, str]]:
    """The page's table: engine → property → yes or no."""
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in PAGE.read_text(encoding="utf-8")
        .partition(START)[2]
        .partition(END)[0]
        .splitlines()
        if line.startswith("|") and not line.startswith("|---")
    ]
    (_, *engines), *body = rows
    return {name: {row[0]: row[i + 1] for row in body} for i, name in enumerate(engines)}


def write(engine: str, column: dict[str, str]) -> None:
    """Put one engine's column into the page's table; the others' stay as they are."""
    try:
        columns = read()
    except ValueError:  # no table yet
        columns = {}
    columns[engine] = column
    titles = [*CORE, *MORE]
    lines = [f"| what | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    for title in titles:
        cells = [columns[name].get(title, "?") for name in columns]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    after = rest.partition(END)[2]
    text = before + START + "\n\n" + "\n".join(lines) + "\n\n" + END + after
    PAGE.write_text(text, encoding="utf-8")
