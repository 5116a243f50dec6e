"""Which tokens a form allows: all that can follow and no others; what cannot be kept is refused.

Over HTTP, and with random schemas: `test_structure.py`.
"""

from __future__ import annotations

import copy
import json
import logging
import random
import re
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from helpers.models import locate
from serving.engine import grammar
from serving.engine.grammar import MAX_BYTES, Grammars, Guide, Structure, narrowed
from system.errors import ParameterError

END = 8191


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(locate("course-gpt-1m"))


@pytest.fixture(scope="module")
def grammars(tokenizer: PreTrainedTokenizerBase) -> Grammars:
    return Grammars(tokenizer, 8192, {END})


def guide_of(grammars: Grammars, kind: Any, source: Any) -> Guide:
    guide = grammars.guide(Structure(kind, source, "form"))
    assert guide is not None
    return guide


def allowed(guide: Guide) -> set[int]:
    return {token for token, on in enumerate(guide.mask()) if on}


# --- one text in its grammar


def test_all_that_can_follow_is_allowed_and_nothing_else(
    tokenizer: PreTrainedTokenizerBase, grammars: Grammars
) -> None:
    texts = ["no", "north", "nothing more", "not", "o"]
    begun, ids = "", []
    guide = guide_of(grammars, "choice", texts)
    while True:
        ways = [text[len(begun) :] for text in texts if text.startswith(begun)]
        words = {token: tokenizer.decode([token]) for token in range(END)}
        follow = {n for n, word in words.items() if any(way.startswith(word) for way in ways)}
        right = follow | {END} if "" in ways else follow
        # Where all is certain, one way to cut it into tokens is enough.
        assert allowed(guide) == right if len(ways) > 1 else allowed(guide) <= right, begun
        ids.append(min(allowed(guide) - {END}))
        begun = tokenizer.decode(ids)
        if guide.accept(ids[-1]):
            break
    assert begun in texts and guide.problem is None and len(ids) > 1


def test_copies_go_their_own_ways(tokenizer: PreTrainedTokenizerBase, grammars: Grammars) -> None:
    one, two = (tokenizer(word)["input_ids"][0] for word in "ab")
    guide = guide_of(grammars, "choice", ["ab", "ba"])
    before, other = allowed(guide), guide.copy()
    assert before >= {one, two}
    assert not guide.accept(one) and allowed(guide) == {two}
    assert allowed(other) == before and not other.accept(two) and allowed(other) == {one}
    third = guide.copy()
    assert third.accept(two) and guide.accept(two) and not (third.problem or guide.problem)
    assert other.accept(two), "no token of this form: nothing can follow"
    assert str(other.problem).startswith("form='…' is not allowed: form must be a form that can")
    assert str(other.problem).endswith("forced bytes: got 'a'; applying 'b'")


def test_a_form_with_too_many_ways_to_go_on_is_a_problem_of_the_text(grammars: Grammars) -> None:
    wide = {"type": "object", "properties": {f"property_{i}": {} for i in range(900)}}
    guide, steps = guide_of(grammars, "json", wide), 0
    while not guide.accept(min(allowed(guide))):
        assert guide.problem is None and (steps := steps + 1) < 20
    assert "Current row has" in str(guide.problem) and len(str(guide.problem)) < 400


def test_a_form_of_too_many_states_is_given_up_before_it_takes_much_memory(
    tokenizer: PreTrainedTokenizerBase, grammars: Grammars
) -> None:
    """The letter 14 places before the end is an a: all letters since have to be remembered."""
    one, two = (tokenizer(word)["input_ids"][0] for word in "ab")
    guide, chance = guide_of(grammars, "regex", ".*a.{14}"), random.Random(0)
    for _ in range(2000):
        if not guide.mask()[one] or guide.accept(chance.choice([one, two])):
            break
    assert str(guide.problem).endswith("lexer error: too many states: 10000 >= 10000")


# --- the vocabulary


def test_end_of_text_is_what_the_model_says_else_what_the_tokenizer_says(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    for ends, expected in (({7, END, None}, {7, END}), ({9}, {9}), ({None}, {END})):
        guide = guide_of(Grammars(tokenizer, 8192, ends), "regex", "a*")
        others = {token for token in allowed(guide) if set(tokenizer.decode([token])) != {"a"}}
        assert others == expected
    for vocabulary, size in ((9000, 9000), (10, 8192)):
        made = Grammars(tokenizer, vocabulary, {END})
        assert len(guide_of(made, "regex", "a*").mask()) == size, "every token has its place"
    assert made._pool._max_workers == grammar.WORKERS
    assert {thread.name for thread in made._pool._threads} <= {"masks_0", "masks_1"}


def test_a_text_that_reads_like_a_special_token_is_text(
    tokenizer: PreTrainedTokenizerBase, grammars: Grammars
) -> None:
    guide = guide_of(grammars, "choice", ["<|endoftext|>"])
    assert END not in allowed(guide) and allowed(guide)
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    added = [{"id": 8191, "content": "<|endoftext|>", "special": True}]
    added += [{"id": 8192, "content": "<pad>", "special": True}]
    added += [{"id": 8193, "content": "<tool>", "special": False}]
    marks = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    content["added_tokens"] = [one | marks for one in added]
    content["model"]["vocab"] |= {"<|endoftext|>": 8191, "<pad>": 8192}  # as in many models
    whole = Tokenizer.from_str(json.dumps(content))
    whole.enable_truncation(3)
    whole.enable_padding(length=9)
    made = Tokenizer.from_str(grammar._renamed(SimpleNamespace(backend_tokenizer=whole)))
    for word, token in (("<|endoftext|>", 8191), ("<pad>", 8192)):
        ids = made.encode(word).ids
        assert token not in ids and len(ids) > 3 and made.decode(ids) == word
        assert made.token_to_id(word) is None and made.id_to_token(token) == f"\ufdd0{token}"
    assert made.encode("<tool>").ids == [8193], "no special one: it may be written"
    assert made.truncation is None and made.padding is None and made.post_processor is None


def test_a_tokenizer_of_another_kind_has_no_forms(caplog: pytest.LogCaptureFixture) -> None:
    words = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    made = Grammars(PreTrainedTokenizerFast(tokenizer_object=words, eos_token="b"), 2, {1})
    assert made.kinds == [] and made.guide(None) is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert re.match("no structured output with this tokenizer: .{9}", record.getMessage())
    with pytest.raises(ParameterError) as refused:
        made.guide(Structure("regex", "a", "form"))
    words = "form='…' is not allowed: form must be left out: not with this tokenizer"
    assert str(refused.value) == words


# --- what is refused


@pytest.mark.parametrize(
    ("kind", "source", "why"),
    [
        ("regex", "(", r"at 1\(8\): invalid regex .*: unclosed group 1 \| start: /\(/ \^$"),
        ("regex", "(" * 500, r"\($"),
        ("choice", ["\ud800"], "surrogates not allowed"),
        ("json", {"x-guidance": {}}, "x-guidance is no keyword of JSON Schema$"),
        ("json", {"type": "integer", "minimum": 5, "maximum": 3}, r"greater than maximum \(3\)$"),
        ("json", {"oneOf": [{"type": "integer"}, {"type": "number"}]}, "not supported"),
        ("json", {"type": "integer", "multipleOf": 999_999_937}, r"lexemes \(1000000\)$"),
        ("json", {"enum": ["x" * MAX_BYTES]}, None),
        ("regex", "[^\\x00-\\U0010FFFF]", "no text has this form$"),
    ],
)
def test_a_form_that_cannot_be_kept_is_refused_in_a_line(
    grammars: Grammars, kind: Any, source: Any, why: str | None
) -> None:
    with pytest.raises(ParameterError) as refused:
        grammars.guide(Structure(kind, source, "form"))
    said, begins = (
        str(refused.value),
        "form='…' is not allowed: form must be a form that can be kept: ",
    )
    if why is None:
        begins = f"form='… ({MAX_BYTES + 14} bytes)' is not allowed: form must be at most "
        why = f"{MAX_BYTES} bytes of JSON$"
    assert said.startswith(begins) and re.search(why, said), said
    assert "\n" not in said and "non-verbose" not in said
    assert len(said) <= len(begins) + 300 and (len(source) < 500 or len(said) == len(begins) + 300)


def test_how_large_and_how_deep_a_form_may_be(grammars: Grammars) -> None:
    schema = {"type": "integer", "description": ""}
    schema["description"] = "x" * (MAX_BYTES - len(json.dumps(schema)))
    guide_of(grammars, "json", schema)
    schema["description"] += "x"
    with pytest.raises(ParameterError, match="at most"):
        guide_of(grammars, "json", schema)
    deep: dict[str, Any] = {"type": "integer"}
    for _ in range(9000):
        deep = {"not": deep}
    with pytest.raises(ParameterError, match="recursion"):
        guide_of(grammars, "json", deep)


def test_there_is_one_way_to_write_json(accepts) -> None:
    form = {"type": "object", "properties": {"é🎉": {"type": "array"}}, "required": ["é🎉"]}
    assert accepts(form, {"é🎉": [1, "a"]})
    assert not accepts(form, {"é🎉": [1, "a"]}, separators=(",", ":"))
    assert not accepts(form, {"é🎉": [1, "a"]}, indent=1)


@pytest.mark.parametrize("word", ['say "no" \\ now', "two\nlines", "é🎉", "日本"])
def test_choices_are_texts_of_any_signs(
    tokenizer: PreTrainedTokenizerBase, grammars: Grammars, word: str
) -> None:
    guide = guide_of(grammars, "choice", ["another", word])
    ids = tokenizer(word)["input_ids"]
    for token in ids[:-1]:
        assert token in allowed(guide) and not guide.accept(token)
    assert ids[-1] in allowed(guide) and guide.accept(ids[-1])


# --- formats


REFUSED = {
    "date": ["0000-10-13", "2023-02-29", "1900-02-29", "2023-04-31", "2023-13-01"],
    "date-time": ["2016-12-31T23:59:60Z", "0000-01-01T00:00:00Z", "2729-02-29T01:02:03Z"],
    "time": ["23:59:60Z", "16:19:60+01:00", "24:00:00Z"],
    "hostname": [".".join(["a" * 60] * 5)],
}
TAKEN = {
    "date": ["2024-02-29", "2000-02-29", "0001-01-01", "9999-12-31", "1000-10-30", "2023-02-10"],
    "date-time": ["2016-12-31T23:59:59Z", "2024-02-29t00:00:00.25+13:50", "0999-11-20T09:08:50Z"],
    "time": ["23:59:59Z", "00:00:00.125-07:36"],
    "hostname": ["example.org", "a" * 60],
}


@pytest.fixture
def accepts(tokenizer: PreTrainedTokenizerBase, grammars: Grammars):
    """Whether a grammar lets a text through to its end, token by token."""

    def walk(schema: Any, value: Any, **written: Any) -> bool:
        guide = guide_of(grammars, "json", schema)
        ids = tokenizer(json.dumps(value, **{"ensure_ascii": False} | written))["input_ids"]
        for token in ids:
            if not guide.mask()[token]:
                return False
            if guide.accept(token):
                return token == ids[-1]
        return bool(guide.mask()[END])

    return walk


@pytest.mark.parametrize("form", TAKEN)
def test_a_format_lets_through_what_validators_take(accepts, form: str) -> None:
    """Also within other schemas, and beside a pattern and an allOf of the schema's own."""
    schema: dict[str, Any] = {"type": "string", "format": form}
    checker = jsonschema.Draft202012Validator(
        schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    around: list[tuple[Any, Any]] = [
        (schema, lambda text: text),
        (schema | {"pattern": "^.", "allOf": [{"minLength": 2}]}, lambda text: text),
        ({"type": "array", "items": schema, "maxItems": 1}, lambda text: [text]),
        ({"$ref": "#/$defs/it", "$defs": {"it": schema}}, lambda text: text),
        (
            {"type": "object", "properties": {"format": schema}, "additionalProperties": False},
            lambda text: {"format": text},
        ),
    ]
    for whole, wrap in around:
        for text in TAKEN[form]:
            assert checker.is_valid(text) and accepts(whole, wrap(text)), (whole, text)
        for text in REFUSED[form]:
            assert not checker.is_valid(text) and not accepts(whole, wrap(text)), (whole, text)


def test_what_only_looks_like_a_format_stays(accepts) -> None:
    """A constant, or a property's name."""
    assert accepts({"const": {"format": "time"}}, {"format": "time"})
    assert accepts(
        {"type": "object", "properties": {"format": {"const": "time"}}}, {"format": "time"}
    )


TIME: dict[str, Any] = {"format": "time"}
AROUND = [{key: TIME} for key in grammar._ONE]
AROUND += [{key: [TIME, True, TIME]} for key in grammar._LISTS]
AROUND += [{key: {"a": TIME, "time": TIME, "b": False}} for key in grammar._NAMED]


@pytest.mark.parametrize("schema", AROUND, ids=lambda schema: next(iter(schema)))
def test_formats_are_narrowed_wherever_schemas_stand(schema: dict[str, Any]) -> None:
    """Each inner one as it is alone, at any depth; what was given stays as it was."""
    time = narrowed(TIME)
    assert time == TIME | {"allOf": [{"pattern": "^.{6}[0-5]"}]}
    assert narrowed(TIME | {"allOf": [1]}) == TIME | {"allOf": [1, *time["allOf"]]}
    text = json.dumps(schema)
    whole = text.replace(json.dumps(TIME), json.dumps(time))
    assert text != whole
    kept = copy.deepcopy(schema)
    assert json.dumps(narrowed(schema | {"title": "it"})) == json.dumps(
        json.loads(whole) | {"title": "it"}
    )
    assert json.dumps(narrowed({"not": schema})) == json.dumps({"not": json.loads(whole)})
    assert schema == kept


@pytest.mark.parametrize(
    "schema",
    [True, {}, {"format": "uuid"}, {"format": ["time"]}, {"const": TIME}, {"enum": [TIME]}]
    + [{"items": True}, {"allOf": 5}, {"allOf": {}, "format": "time"}, {"properties": [TIME]}]
    + [{"anyOf": TIME}, {"not": [TIME]}, {"$defs": 1}],
    ids=json.dumps,
)
def test_what_is_no_schema_or_has_no_narrower_format_stays(schema: Any) -> None:
    assert narrowed(schema) == schema
