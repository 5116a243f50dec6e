"""Tokens made visible."""

from __future__ import annotations

import html
import re

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from helpers.models import locate
from helpers.tokens import (
    merges,
    strip_html,
    token_bytes,
    token_strip,
    token_text,
)
from tests.lessons import contrast
from tests.odd_texts import TEXTS


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(locate("course-gpt-1m"))


@pytest.mark.parametrize("text", TEXTS)
def test_round_trip_and_bytes(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
    assert b"".join(token_bytes(tokenizer, i) for i in ids) == text.encode()


def test_every_byte_is_a_token_and_is_told_apart(tokenizer: PreTrainedTokenizerBase) -> None:
    """Byte-level BPE can write anything: all 256 bytes are in the vocabulary."""
    single = {
        token_bytes(tokenizer, i)
        for i in range(len(tokenizer))
        if len(token_bytes(tokenizer, i)) == 1
    }
    assert single == {bytes([b]) for b in range(256)}


def test_part_of_a_character_shows_its_bytes(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = tokenizer("𝔘")["input_ids"]
    assert len(ids) > 1, "choose a character that is more than one token"
    shown = [token_text(tokenizer, i) for i in ids]
    assert all(re.fullmatch(r"bytes:(\\x[0-9a-f]{2})+", s) for s in shown), shown
    assert bytes.fromhex("".join(re.findall(r"x(..)", "".join(shown)))) == "𝔘".encode()
    assert "\ufffd" not in html.unescape(token_strip(tokenizer, "𝔘 日本 é 😀").data)
    assert token_text(tokenizer, tokenizer.eos_token_id) == "<|endoftext|>"
    assert token_bytes(tokenizer, tokenizer.eos_token_id) == b"<|endoftext|>"


def test_strip_shows_each_token_and_escapes(tokenizer: PreTrainedTokenizerBase) -> None:
    text = "<b> &amp; 'x' \"y\"\n\tend"
    ids = tokenizer(text)["input_ids"]
    plain, numbered = (token_strip(tokenizer, text, ids=i).data for i in (False, True))
    assert plain.count("<span ") == numbered.count("<span ") == len(ids)
    assert "<b>" not in plain
    boxes = re.findall(r"<span [^>]*>(.*?)</span>", plain, flags=re.S)
    shown = html.unescape("".join(boxes))
    assert shown == text.replace(" ", "·").replace("\n", "⏎").replace("\t", "⇥")
    numbers = re.findall(r"<small [^>]*>(\d+)</small>", numbered)
    assert [int(n) for n in numbers] == ids
    label = re.search(r"aria-label='([^']*)'", plain)
    assert label and html.unescape(label[1]).startswith(f"{len(ids)} tokens: ")


def test_neighbours_in_a_strip_differ_in_colour() -> None:
    colours = re.findall(r"background:(rgba\([^)]*\))", strip_html([(i, "x") for i in range(12)]))
    assert len(colours) == 12
    assert all(a != b for a, b in zip(colours, colours[1:], strict=False))


def test_a_strip_can_be_read_in_both_themes() -> None:
    """Text and ids, on each colour over JupyterLab's light and dark ground."""
    markup = strip_html([(i, "x") for i in range(5)], ids=True)
    assert "opacity" not in markup and ";color" not in markup  # both are the theme's
    for found in re.findall(r"background:rgba\(([^)]*)\)", markup):
        *tint, share = map(float, found.split(","))
        for text, ground in (("#212121", 0xFF), ("#ffffff", 0x11)):
            mixed = [round(share * c + (1 - share) * ground) for c in tint]
            assert contrast(text, "#" + "".join(f"{c:02x}" for c in mixed)) >= 4.5, found


def test_merges_rebuild_a_word(tokenizer: PreTrainedTokenizerBase) -> None:
    """The lowest rank first, by hand, gives what the tokenizer gives."""
    ranks = merges(tokenizer)
    assert sorted(ranks.values()) == list(range(len(ranks)))
    for word in ("Ġmachine", "Ġlearning", "tokenization", "Ġparameters"):
        parts = list(word)
        while True:
            pairs = [(ranks[p], p) for p in zip(parts, parts[1:], strict=False) if p in ranks]
            if not pairs:
                break
            left, right = min(pairs)[1]
            merged, n = [], 0
            while n < len(parts):
                both = parts[n : n + 2] == [left, right]
                merged.append(left + right if both else parts[n])
                n += 2 if both else 1
            parts = merged
        ids = tokenizer(word.replace("Ġ", " "))["input_ids"]
        assert tokenizer.convert_ids_to_tokens(ids) == parts
