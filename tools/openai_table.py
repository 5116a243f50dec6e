"""Write docs/openai.md: every parameter of the OpenAI-compatible routes, from their schemas.

    python tools/openai_table.py

A test says when the page is stale.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from serving.api.openai.chat import ChatRequest, Message
from serving.api.openai.fields import IGNORED, NOT_SUPPORTED
from serving.api.openai.requests import CompletionRequest, StreamOptions
from serving.api.openai.structure import JSONSchema, StructuredOutputs
from system import startup

ROOT = Path(__file__).resolve().parent.parent
PAGE = "docs/openai.md"
BEYOND = "Beyond OpenAI's: "
INTRODUCTION = """\
# What the service takes of OpenAI's API

Written by `tools/openai_table.py` from the schemas that validate the requests.

The routes `/v1/models`, `/v1/models/NAME`, `/v1/completions` and `/v1/chat/completions` work with
OpenAI's own client. Every parameter of its reference is *served*; or *taken and ignored*; or *not
supported here*: then null and values that change nothing are taken, and anything else is answered
with status 400 and a message that says so. `null` means the same as leaving a parameter out.
Parameters marked *extra* are this course's: OpenAI's client passes them in `extra_body`.

Two answers say more than OpenAI's: `logprobs` of completions has `bytes`, each token's bytes of
UTF-8. A token that is no whole character reads `bytes:\\xe6`, and `text_offset` counts characters
of the returned text. What looks like a special token in a prompt or a message is text.

With `response_format` or `structured_outputs` a text has the form asked for: tokens that would
break it are not chosen, whatever the other parameters say. JSON is written in one way, `", "` and
`": "` between its parts; `json_object` goes eight levels deep at most. `finish_reason` is
`"length"` where the tokens did not suffice: such a text is cut, and no valid JSON. A stop string
cuts it, too. A schema that no value meets, of keywords that cannot be kept (`not`, `oneOf` that
overlaps, `if`, `uniqueItems`, `contains`), or of more than 32,768 bytes is answered with status
400; `strict` is always on.
"""


def _kind(schema: dict[str, Any]) -> str:
    """Of what values a parameter may be, in a few words."""
    if "enum" in schema:
        return " or ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    shapes = [s for s in schema.get("anyOf", [schema]) if s.get("type") != "null"]
    words = []
    for shape in shapes:
        low = shape.get("minimum", shape.get("exclusiveMinimum"))
        name = {"array": "list"}.get(shape.get("type", "object"), shape.get("type", "object"))
        if low is not None and shape.get("maximum", 2**63) < 2**62:
            above = "above " if "exclusiveMinimum" in shape else ""
            name += f" {above}{low:g} to {shape['maximum']:g}"
        if name not in words:
            words.append(name)
    return " or ".join(words)


def _rows(properties: dict[str, Any]) -> list[str]:
    rows = ["| parameter | here | values | what it is |", "|---|---|---|---|"]
    for name, schema in properties.items():
        meaning = schema.get("description", "")
        here = "served"
        for mark, word in ((NOT_SUPPORTED, "not supported"), (IGNORED, "ignored")):
            if meaning.startswith(mark):
                here, meaning = word, meaning.removeprefix(mark).lstrip(":. ")
        if meaning.startswith(BEYOND):
            here, meaning = "served, extra", meaning.removeprefix(BEYOND)
        rows.append(f"| `{name}` | {here} | {_kind(schema)} | {meaning} |")
    return rows


def page() -> str:
    """The whole page."""
    lines = [INTRODUCTION]
    for title, model in (
        ("`/v1/completions`", CompletionRequest),
        ("`/v1/chat/completions`", ChatRequest),
        ("A message of a chat", Message),
        ("`stream_options`", StreamOptions),
        ("`structured_outputs`", StructuredOutputs),
        ("`json_schema` of a `response_format`", JSONSchema),
    ):
        properties = model.model_json_schema()["properties"]
        lines += [f"## {title}", "", *_rows(dict(sorted(properties.items()))), ""]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Write the page."""
    (ROOT / PAGE).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    startup.run(main)
