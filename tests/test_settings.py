"""GenerationSettings: bounds, messages, lengths, and OpenAI's names. No model is needed."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydantic import ConfigDict, ValidationError, create_model

from helpers.fields import PROMPT, Range, number, stop_strings, token_biases
from helpers.settings import (
    DEFAULT_NEW_TOKENS,
    MAX_PROMPT_CHARACTERS,
    GenerationSettings,
    allowed,
    check_prompt,
    from_openai,
    openai_fields,
    openai_names,
    parameter_error,
    parameter_ranges,
)
from system.errors import ParameterError, PromptTooLongError

# name → smallest and largest allowed, just below and just above.
BOUNDS: dict[str, tuple[Any, Any, Any, Any]] = {
    "temperature": (0.0, 2.0, -sys.float_info.min, math.nextafter(2.0, 3.0)),
    "top_k": (0, 1000, -1, 1001),
    "top_p": (sys.float_info.min, 1.0, 0.0, math.nextafter(1.0, 2.0)),
    "repetition_penalty": (0.5, 2.0, math.nextafter(0.5, 0.0), math.nextafter(2.0, 3.0)),
    "no_repeat_ngram_size": (0, 10, -1, 11),
    "num_return_sequences": (1, 16, 0, 17),
    "max_new_tokens": (1, 4096, 0, 4097),
    "max_length": (1, 8192, 0, 8193),
    "seed": (0, 2**63 - 1, -1, 2**63),
}
WHOLE = [n for n in BOUNDS if n not in ("temperature", "top_p", "repetition_penalty")]
CONTEXT = 512


def settings(**parameters: Any) -> GenerationSettings:
    return GenerationSettings(**parameters)


def refused(**parameters: Any) -> ParameterError:
    """The error for exactly one parameter, checked to name it, its value and its range."""
    ((name, value),) = parameters.items()
    with pytest.raises(ParameterError) as caught:
        settings(**parameters)
    error = caught.value
    assert isinstance(error, ValueError)
    assert error.parameter == name
    assert str(error).startswith(f"{name}=")
    assert error.allowed in str(error)
    return error


def test_every_number_is_in_the_table() -> None:
    assert set(BOUNDS) == set(parameter_ranges())


@pytest.mark.parametrize("name", BOUNDS)
def test_edges(name: str) -> None:
    low, high, below, above = BOUNDS[name]
    assert getattr(settings(**{name: low}), name) == low
    assert getattr(settings(**{name: high}), name) == high
    for value in (below, above):
        error = refused(**{name: value})
        assert error.value == value
        assert repr(value)[:50] in str(error)
        assert str(high) in error.allowed


def test_range_in_words() -> None:
    assert refused(temperature=3).allowed == "a number from 0.0 to 2.0"
    assert refused(top_p=0.0).allowed == "a number above 0.0 to 1.0"
    assert refused(top_k=-1).allowed == "a whole number from 0 to 1000"


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, -math.inf, True, False, "1", "", b"1", [1], {}, 1j, 10**30, -(10**400)],
    ids=repr,
)
def test_what_is_no_number_in_range(name: str, value: Any) -> None:
    refused(**{name: value})


def test_a_number_too_long_to_print() -> None:
    assert "beyond every limit" in str(refused(top_k=10**5000))


@pytest.mark.parametrize("name", WHOLE)
def test_whole_numbers_only(name: str) -> None:
    refused(**{name: 3.5})
    assert getattr(settings(**{name: np.int64(1)}), name) == 1


def test_none_only_where_it_means_something() -> None:
    for name in ("max_new_tokens", "max_length", "seed"):
        assert getattr(settings(**{name: None}), name) is None
    for name in ("temperature", "top_k", "top_p", "num_return_sequences"):
        refused(**{name: None})


def refused_prompt(prompt: Any) -> ParameterError:
    with pytest.raises(ParameterError) as caught:
        check_prompt(prompt)
    assert caught.value.parameter == "prompt" and caught.value.value == prompt
    assert caught.value.allowed == PROMPT and "not blank" in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    "prompt", ["", " \n\t", "a\x00b", "\ud800", "x\udfffy", 3, None, b"a", ["a"]], ids=repr
)
def test_refused_prompts(prompt: Any) -> None:
    refused_prompt(prompt)


def test_prompt_length_and_odd_characters() -> None:
    assert check_prompt("a" * MAX_PROMPT_CHARACTERS)
    error = refused_prompt("a" * (MAX_PROMPT_CHARACTERS + 1))
    assert len(str(error)) < 300, "the message repeats the whole prompt"
    assert check_prompt(" 😀 ") == " 😀 "


def test_the_prompt_is_no_parameter() -> None:
    assert "prompt" not in GenerationSettings.model_fields
    refused(prompt="Hello")


def test_unknown_name_lists_the_known_ones() -> None:
    error = refused(tempertaure=0.5)
    assert all(name in error.allowed for name in GenerationSettings.model_fields)


def test_stop_strings() -> None:
    assert settings().stop == settings(stop=None).stop == ()
    assert settings(stop="\n").stop == ("\n",)
    assert settings(stop=["a", "b"]).stop == ("a", "b")
    assert settings(stop=["x" * 100] * 4)
    for bad in (["x"] * 5, ["x" * 101], [""], "", [1], 7, {"a": 1}):
        refused(stop=bad)


@pytest.mark.parametrize(
    ("read", "value", "why"),
    [
        (number, True, "bool given for a number"),
        (number, "1", "str given for a number"),
        (stop_strings, 7, "not strings"),
        (stop_strings, ["a", 1], "not strings"),
        (stop_strings, ["x"] * 5, "too many"),
        (stop_strings, [""], "empty or too long"),
        (stop_strings, ["x" * 101], "empty or too long"),
        (token_biases, [1], "not token ids with numbers, or too many"),
        (token_biases, dict.fromkeys(range(301), 1), "not token ids with numbers, or too many"),
        (token_biases, {-1: 1}, "no token id"),
        (token_biases, {"1" * 10: 1}, "no token id"),
        (token_biases, {True: 1}, "no token id"),
        (token_biases, {1: "1"}, "no number"),
        (token_biases, {1: True}, "no number"),
        (token_biases, {1: 100.1}, "out of range"),
    ],
)  # fmt: skip
def test_a_reader_says_why(read: Callable[[Any], Any], value: Any, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{why}$"):
        read(value)


def test_a_reader_gives_what_it_takes() -> None:
    assert number(3) == 3 and number(None) is None
    assert stop_strings(None) == () == stop_strings([]) and stop_strings("ab") == ("ab",)
    assert stop_strings(["a", "x" * 100]) == ("a", "x" * 100)
    assert token_biases(None) == {} == token_biases({})
    taken = token_biases({"0": -100, "9" * 9: 100, 7: 1})
    assert taken == {0: -100.0, 999_999_999: 100.0, 7: 1.0}
    assert {type(bias) for bias in taken.values()} == {float}


def test_openai_names_cover_every_parameter_but_one() -> None:
    """`max_length` counts the prompt: OpenAI's API has nothing of the kind."""
    assert set(openai_names().values()) == set(GenerationSettings.model_fields) - {"max_length"}
    renamed = {theirs: ours for theirs, ours in openai_names().items() if theirs != ours}
    assert renamed == {"max_tokens": "max_new_tokens", "n": "num_return_sequences"}


def test_openai_fields_have_our_ranges_and_their_defaults() -> None:
    model = create_model("Request", **openai_fields())  # type: ignore[call-overload]
    defaults = {"max_tokens": 16, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "n": 1}
    assert defaults.items() <= model().model_dump().items()
    assert model(stop="x").stop == ("x",) and model(logit_bias={"5": 1}).logit_bias == {5: 1.0}
    for theirs, ours in openai_names().items():
        assert not getattr(model(**{theirs: None}), theirs), "null is allowed"
        if ours in BOUNDS:
            low, high, below, above = BOUNDS[ours]
            for good in (low, high):
                assert getattr(model(**{theirs: good}), theirs) == good
            for bad in (below, above, True, str(low)):
                with pytest.raises(ValidationError):
                    model(**{theirs: bad})
    properties = model.model_json_schema()["properties"]
    for theirs, ours in openai_names().items():
        extra = theirs in ("top_k", "repetition_penalty", "no_repeat_ngram_size")
        meaning = GenerationSettings.model_fields[ours].description
        assert properties[theirs]["description"] == extra * "Beyond OpenAI's: " + str(meaning)


def test_ranges_hold_bounds_default_and_meaning() -> None:
    ranges = parameter_ranges()
    for name, found in ranges.items():
        field = GenerationSettings.model_fields[name]
        low = 0.0 if name == "top_p" else BOUNDS[name][0]
        assert found == Range(low, BOUNDS[name][1], field.default, field.description or "")
    assert ranges["seed"].meaning.startswith("Same seed, same text")


def test_every_parameter_in_words() -> None:
    assert allowed("prompt") == PROMPT
    assert allowed("stop") == "at most 4 strings of 1 to 100 characters (or one string)"
    assert allowed("seed") == f"a whole number from 0 to {2**63 - 1}"
    every = ", ".join(GenerationSettings.model_fields)
    assert allowed("heat") == f"one of the known parameters: {every}"
    request = create_model("Request", prompt=(str, ...), n=(int, 1))
    assert allowed("heat", request) == "one of the known parameters: prompt, n"


def test_the_first_mistake_in_a_request_is_told() -> None:
    request = create_model("Request", prompt=(str, ...), **openai_fields())  # type: ignore[call-overload]
    for given, name, value, words in (
        ({}, "prompt", None, f"given: {PROMPT}"),
        ({"prompt": "a", "top_p": 2}, "top_p", 2, "a number above 0.0 to 1.0"),
    ):
        with pytest.raises(ValidationError) as caught:
            request(**given)
        error = parameter_error(caught.value, request)
        assert isinstance(error, ParameterError)
        assert (error.parameter, error.value, error.allowed) == (name, value, words)
    closed = create_model("Closed", __config__=ConfigDict(extra="forbid"), prompt=(str, "a"))
    with pytest.raises(ValidationError) as caught:
        closed(heat=1)
    assert "one of the known parameters: prompt" in str(parameter_error(caught.value, closed))


def test_from_openai() -> None:
    plain = from_openai({})
    assert plain == settings(max_new_tokens=16, temperature=1.0, top_k=0)
    assert from_openai(dict.fromkeys(openai_names())) == plain, "null is as good as left out"
    assert from_openai({}, defaults={"max_tokens": None}).max_new_tokens is None
    given = from_openai({"n": 2, "max_tokens": 7, "stop": "x", "no_repeat_ngram_size": 3})
    assert given == settings(
        num_return_sequences=2, max_new_tokens=7, stop="x", no_repeat_ngram_size=3,
        temperature=1.0, top_k=0,
    )  # fmt: skip
    for name, value in {"n": 17, "max_tokens": 0, "top_p": 0.0, "what": 1}.items():
        with pytest.raises(ParameterError, match=f"^{name}={value} is not") as caught:
            from_openai({name: value})
        assert caught.value.parameter == name and caught.value.value == value
        assert caught.value.allowed == allowed(openai_names().get(name, name))


def test_logit_bias() -> None:
    assert settings().logit_bias == settings(logit_bias=None).logit_bias == {}
    given = settings(logit_bias={"7": -100, 8: 100.0, np.int64(9): np.float32(0.5)}).logit_bias
    assert given == {7: -100.0, 8: 100.0, 9: 0.5}
    assert settings(logit_bias=dict.fromkeys(range(300), 1))
    for bad in ({-1: 1}, {1: 100.1}, {1: -100.1}, {1: math.nan}, {1: True}, {1: "1"}, {True: 1},
                {"a": 1}, {"": 1}, {"-1": 1}, {"²": 1}, {1.5: 1}, [1], 7, "x",
                dict.fromkeys(range(301), 1)):  # fmt: skip
        assert "300 token ids" in refused(logit_bias=bad).allowed
    settings(logit_bias={99: 1}).check_tokens(100)
    settings().check_tokens(1)
    with pytest.raises(ParameterError, match="logit_bias=100 .*from 0 to 99"):
        settings(logit_bias={100: 1}).check_tokens(100)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        settings().temperature = 1.0  # type: ignore[misc]


def test_both_lengths() -> None:
    words = "^max_length and max_new_tokens: pass one of the two, not both$"
    with pytest.raises(ValueError, match=words):
        settings(max_length=20, max_new_tokens=10)


def test_greedy_has_one_answer() -> None:
    words = "^num_return_sequences=2: must be 1 with temperature 0, since greedy decoding writes"
    with pytest.raises(ValueError, match=f"{words} the same text every time$"):
        settings(temperature=0, num_return_sequences=2)
    assert settings(temperature=0).greedy and settings(temperature=5e-324).greedy
    assert not settings(temperature=0.01).greedy


def test_how_many_new_tokens() -> None:
    assert settings().new_tokens(5, CONTEXT) == DEFAULT_NEW_TOKENS
    assert settings().new_tokens(CONTEXT - 3, CONTEXT) == 3
    assert settings(max_new_tokens=7).new_tokens(5, CONTEXT) == 7
    assert settings(max_new_tokens=CONTEXT - 5).new_tokens(5, CONTEXT) == CONTEXT - 5
    assert settings(max_length=6).new_tokens(5, CONTEXT) == 1
    assert settings().new_tokens(CONTEXT - 1, CONTEXT) == 1
    assert settings(max_length=CONTEXT).new_tokens(5, CONTEXT) == CONTEXT - 5


def test_lengths_that_do_not_fit() -> None:
    with pytest.raises(ParameterError, match=rf"max_new_tokens=508 .*from 1 to {CONTEXT - 5}:"):
        settings(max_new_tokens=CONTEXT - 4).new_tokens(5, CONTEXT)
    for length in (5, CONTEXT + 1):
        with pytest.raises(ParameterError, match=rf"max_length={length} .*from 6 .*to {CONTEXT}"):
            settings(max_length=length).new_tokens(5, CONTEXT)
    for parameters in ({}, {"max_new_tokens": 1}, {"max_length": CONTEXT}):
        for length in (CONTEXT, CONTEXT + 9):
            with pytest.raises(PromptTooLongError, match="truncate=True") as caught:
                settings(**parameters).new_tokens(length, CONTEXT)
            assert str(caught.value) == str(PromptTooLongError(length, CONTEXT - 1, CONTEXT))
