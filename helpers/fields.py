"""What the fields of `GenerationSettings` are made of: marks, and values that are no numbers."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, NamedTuple

from system.errors import ParameterError

MAX_PROMPT_CHARACTERS = 50_000
PROMPT = f"text of 1 to {MAX_PROMPT_CHARACTERS} characters, not blank, without null characters"
MAX_STOP_STRINGS, MAX_STOP_CHARACTERS = 4, 100
MAX_BIASES, LARGEST_BIAS = 300, 100.0


class Range(NamedTuple):
    """What a numeric parameter may be: for sliders, error messages and the API's /info."""

    minimum: float
    maximum: float
    default: float | None
    meaning: str


@dataclass(frozen=True)
class Allowed:
    """Marks a field that is no number: what it may be, in words."""

    words: str


@dataclass(frozen=True)
class OpenAI:
    """Marks a field that OpenAI's API calls or sets otherwise. (Lesson 06.)

    Attributes:
        name: the name there; "" where the API has nothing of the kind and takes nothing.
        default: the default there; None is the field's own.
        extra: whether OpenAI's own service lacks it: clients pass it in `extra_body`.
    """

    name: str
    default: Any = None
    extra: bool = False


_STRING = {"type": "string", "minLength": 1, "maxLength": MAX_STOP_CHARACTERS}
STOP_SCHEMA = {
    "anyOf": [
        _STRING,
        {"type": "array", "items": _STRING, "maxItems": MAX_STOP_STRINGS},
        {"type": "null"},
    ]
}
BIAS_SCHEMA = {
    "anyOf": [
        {
            "type": "object",
            "maxProperties": MAX_BIASES,
            "propertyNames": {"pattern": "^[0-9]{1,9}$"},
            "additionalProperties": {
                "type": "number",
                "minimum": -LARGEST_BIAS,
                "maximum": LARGEST_BIAS,
            },
        },
        {"type": "null"},
    ]
}


def check_prompt(prompt: object) -> str:
    """The prompt itself, if a tokenizer can read it.

    Raises:
        ParameterError: no text, blank, too long, or with characters that are no text.
    """
    if not isinstance(prompt, str) or not (
        prompt.strip()
        and len(prompt) <= MAX_PROMPT_CHARACTERS
        and "\x00" not in prompt
        and _is_utf8(prompt)
    ):
        raise ParameterError("prompt", prompt, PROMPT)
    return prompt


def _is_utf8(text: str) -> bool:
    """Whether it can be encoded: half a surrogate pair cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def number(value: object) -> object:
    """True is not 1 and "0.7" is not 0.7: guessing what was meant hides mistakes.

    Raises:
        ValueError: one of these given for a number.
    """
    if isinstance(value, bool | str | bytes):
        raise ValueError(f"{type(value).__name__} given for a number")
    return value


def stop_strings(stop: object) -> tuple[str, ...]:
    """One string, a list of some, or None for none, as a tuple.

    Raises:
        ValueError: something else, too many, or one that is empty or too long.
    """
    if stop is None:
        return ()
    strings = (stop,) if isinstance(stop, str) else stop
    if not isinstance(strings, list | tuple) or not all(isinstance(s, str) for s in strings):
        raise ValueError("not strings")
    if len(strings) > MAX_STOP_STRINGS:
        raise ValueError("too many")
    if any(not 0 < len(s) <= MAX_STOP_CHARACTERS for s in strings):
        raise ValueError("empty or too long")
    return tuple(strings)


def token_biases(biases: object) -> dict[int, float]:
    """Token id → number; ids may be strings of digits, since JSON has no other keys.

    Raises:
        ValueError: something else, too many, or a number out of range.
    """
    if biases is None:
        return {}
    if not isinstance(biases, dict) or len(biases) > MAX_BIASES:
        raise ValueError("not token ids with numbers, or too many")
    found = {}
    for token, bias in biases.items():
        if isinstance(token, str) and token.isascii() and token.isdigit() and len(token) < 10:
            token = int(token)
        if not isinstance(token, Integral) or isinstance(token, bool) or token < 0:
            raise ValueError("no token id")
        if not isinstance(bias, Real) or isinstance(bias, bool):
            raise ValueError("no number")
        if not -LARGEST_BIAS <= float(bias) <= LARGEST_BIAS:
            raise ValueError("out of range")
        found[int(token)] = float(bias)
    return found
