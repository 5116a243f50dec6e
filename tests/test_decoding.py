"""Pieces of text that never cut a character in half, and the one way in which a text ends."""

from __future__ import annotations

import math
import random

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from helpers.decoding import Ending, Follower, PieceDecoder
from helpers.models import locate
from tests.odd_texts import ODD, TEXTS


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(locate("course-gpt-1m"))


def decoded(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def pieces_of(decoder: PieceDecoder, ids: list[int]) -> list[str]:
    return [*map(decoder.push, ids), decoder.finish()]


def ending_of(tokenizer: PreTrainedTokenizerBase, text: str, *stop: str) -> Ending:
    """The text pushed token by token into an ending without a length, then end-of-text."""
    ending = Ending(tokenizer, {tokenizer.eos_token_id}, 10_000, stop)
    for token in [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]:
        ending.push(token)
    return ending


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_of_known_texts(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    ids = tokenizer(text)["input_ids"]
    pieces = pieces_of(PieceDecoder(tokenizer), ids)
    assert "".join(pieces) == text
    if "�" not in text:
        assert not any("�" in piece for piece in pieces)


def test_pieces_of_random_texts(tokenizer: PreTrainedTokenizerBase) -> None:
    rng = random.Random(0)
    for _ in range(300):
        text = "".join(rng.choices(ODD, k=rng.choice([3, 20, 60])))
        ids = tokenizer(text)["input_ids"]
        assert "".join(pieces_of(PieceDecoder(tokenizer), ids)) == text


def test_pieces_of_random_bytes(tokenizer: PreTrainedTokenizerBase) -> None:
    """A model may write anything, also bytes that are no text, and end-of-text in between."""
    rng = random.Random(1)
    for _ in range(300):
        ids = [rng.randrange(rng.choice([256, 8192])) for _ in range(rng.choice([3, 20, 60]))]
        assert "".join(pieces_of(PieceDecoder(tokenizer), ids)) == decoded(tokenizer, ids)


def test_pieces_come_soon_and_stay_cheap(tokenizer: PreTrainedTokenizerBase) -> None:
    """Plain words are not held back, and a long text is not decoded from its beginning."""
    ids = tokenizer("the model reads one token after another. " * 200)["input_ids"]
    longest = 0

    class Counting:
        def decode(self, window: list[int], **options: bool) -> str:
            nonlocal longest
            longest = max(longest, len(window))
            return str(tokenizer.decode(window, **options))

    decoder = PieceDecoder(Counting())  # type: ignore[arg-type]
    pieces = [decoder.push(i) for i in ids]
    assert all(pieces)
    assert "".join(pieces) == "the model reads one token after another. " * 200
    assert longest < 32 < len(ids)


def test_stop_string_within_and_across_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    text = "one two three four five"
    for stop in ("three", "e t", "wo th", "ee fo", "o", "one", " five"):
        ending = ending_of(tokenizer, text, stop)
        assert ending.text == text[: text.index(stop)]
        assert ending.reason == "stop"
        whole = tokenizer(text)["input_ids"]
        assert ending.ids == whole[: len(ending.ids)]
        assert stop in decoded(tokenizer, ending.ids)
        assert stop not in decoded(tokenizer, ending.ids[:-1]), "ends with the token that told"


def test_stop_strings_random(tokenizer: PreTrainedTokenizerBase) -> None:
    """Whatever the strings, the text ends before the first one that is complete."""
    rng = random.Random(2)
    for _ in range(500):
        text = "".join(rng.choices(["a", "b", "ab", " ", "é", "the "], k=rng.randrange(2, 30)))
        stops = tuple(
            "".join(rng.choices("ab é", k=rng.randrange(1, 5))) for _ in range(rng.randrange(1, 4))
        )
        ending = ending_of(tokenizer, text, *stops)
        found = ending.text
        assert not any(s in found for s in stops)
        assert (ending.reason == "stop") == any(s in text for s in stops)
        assert text.startswith(found)
        assert ending.reason == "stop" or found == text
        if ending.reason == "stop":
            assert text[len(found) :].startswith(stops)


def test_beginning_of_a_stop_string_is_given_out_after_all(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """At the length and at end-of-text alike."""
    text = "so far and no"
    ids = tokenizer(text)["input_ids"]
    for length in (len(ids), len(ids) + 1):
        ending = Ending(tokenizer, {tokenizer.eos_token_id}, length, ("no further",))
        pieces = [ending.push(i) for i in ids[:-1]]
        last = ending.push(ids[-1])
        if length > len(ids):
            assert "no" not in last and not ending.reason, "it could be the beginning"
            last += ending.push(tokenizer.eos_token_id)
        assert "".join(pieces) + last == ending.text == text
        assert ending.reason == ("length" if length == len(ids) else "end_of_text")


def test_half_a_character_is_given_out_at_the_end(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = tokenizer("a 😀")["input_ids"][:-1]
    ending = Ending(tokenizer, (), len(ids))
    assert "".join(ending.push(i) for i in ids) == decoded(tokenizer, ids)
    assert ending.text.endswith("�") and ending.reason == "length"


def test_end_of_text_and_length(tokenizer: PreTrainedTokenizerBase) -> None:
    ids, end = tokenizer("one two three four")["input_ids"], tokenizer.eos_token_id
    ending = Ending(tokenizer, {end}, 3)
    for n, token in enumerate(ids[:3]):
        assert not ending.reason and len(ending.ids) == n
        ending.push(token)
    assert (ending.reason, ending.ids) == ("length", ids[:3])
    for late in (ids[3], end):
        assert ending.push(late) == "" and ending.end("closed") == ""
    assert (ending.reason, ending.ids, ending.text) == (
        "length",
        ids[:3],
        decoded(tokenizer, ids[:3]),
    )
    early = Ending(tokenizer, {end}, 3)
    early.push(ids[0])
    early.push(end)
    assert (early.reason, early.ids) == ("end_of_text", ids[:1])
    through = Ending(tokenizer, (), 2)
    through.push(end)
    assert (through.reason, through.ids, through.text) == ("", [end], "")
    nothing = Ending(tokenizer, {end}, 0)
    nothing.push(ids[0])
    assert (nothing.reason, nothing.ids, nothing.text) == ("length", [], "")
    given_up = Ending(tokenizer, {end}, 3)
    given_up.push(ids[0])
    given_up.end("closed")
    assert given_up.reason == "closed" and given_up.push(ids[1]) == ""


def test_a_follower_pushes_rows_and_notes_the_time_of_each_step(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter([10.0, 12.0, 13.0])
    monkeypatch.setattr("helpers.decoding.time.perf_counter", lambda: next(now))
    one, two, three = tokenizer("one two three")["input_ids"][:3]
    endings = [Ending(tokenizer, {tokenizer.eos_token_id}, length) for length in (3, 1)]
    pieces: list[str] = []
    follower = Follower(endings, pieces.append)
    assert math.isnan(follower.tokens_per_second)
    steps = [[[0, one], [0, two]], [[one, two], [two, 0]], [[two, three], [0, 0]]]
    done = [follower(torch.tensor(ids), None).tolist() for ids in steps[:1]]
    assert math.isnan(follower.tokens_per_second), "one token has no time after the first"
    done += [follower(torch.tensor(ids), None).tolist() for ids in steps[1:]]
    assert done == [[False, True], [False, True], [True, True]]
    assert [e.ids for e in endings] == [[one, two, three], [two]]
    first, second, third = (decoded(tokenizer, [token]) for token in (one, two, three))
    assert pieces == [first, second, second, "", third, ""]
    assert follower.times == [10.0, 12.0, 13.0] and follower.ttft(9.5) == 0.5
    assert follower.tokens_per_second == 2 / 3
    with pytest.raises(ValueError, match="shorter|longer"):
        silent = Follower(endings)
        monkeypatch.setattr("helpers.decoding.time.perf_counter", lambda: 0.0)
        silent(torch.tensor([[one]]), None)
