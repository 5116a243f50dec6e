"""Server-sent events, rule by rule of the WHATWG's standard, and however a stream is cut."""

from __future__ import annotations

import random

import pytest

from serving.client.sse import Event, Parser


def read(*chunks: bytes | str) -> list[Event]:
    parser = Parser()
    found = []
    for chunk in chunks:
        found += parser.feed(chunk.encode() if isinstance(chunk, str) else chunk)
    return found


RULES = {
    "a blank line ends an event": ("data: a\n\ndata: b\n\n", ["a", "b"]),
    "several lines of data are joined": ("data: a\ndata\ndata: b\n\n", ["a\n\nb"]),
    "an empty data line is data": ("data\n\ndata:\n\ndata\ndata\n\n", ["", "", "\n"]),
    "without data there is no event": ("event: x\nid: 1\n\n\n\n: only this\n\n", []),
    "one space is dropped": ("data:a\n\ndata:  a \n\ndata:\ta\n\n", ["a", " a ", "\ta"]),
    "the first colon separates": ("data: a: b:c\n\n", ["a: b:c"]),
    "comments are skipped": (": hello\n:data: no\ndata: a\n:\n\n", ["a"]),
    "unknown fields are skipped": ("dat: no\n data: no\nData: no\nanything\ndata: a\n\n", ["a"]),
    "an end without a blank line is cut off": ("data: a\n\ndata: b\n", ["a"]),
    "so is an end within a line": ("data: a\n\ndata: b", ["a"]),
    "a byte-order mark may stand first": ("\ufeffdata: a\n\n", ["a"]),
    "only one, and only there": ("\ufeff\ufeffdata: no\ndata: a\n\n\ufeffdata: no\n\n", ["a"]),
    "carriage returns end lines": ("data: a\r\rdata: b\r\r", ["a", "b"]),
    "pairs end one line": ("data: a\r\ndata: b\r\n\r\n", ["a\nb"]),
    "kinds of line ends mix": ("data: a\rdata: b\ndata: c\r\n\ndata: d\n\r", ["a\nb\nc", "d"]),
}


@pytest.mark.parametrize("rule", RULES)
def test_rules(rule: str) -> None:
    stream, data = RULES[rule]
    assert [event.data for event in read(stream)] == data


def test_nothing_else_ends_a_line() -> None:
    """All that `str.splitlines` cuts at, and U+FEFF within the text."""
    text = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\x1dh\x1ei\ufeffj\0k"
    assert read(f"data: {text}\n\n") == [Event("message", text)]


def test_names_last_for_one_event() -> None:
    stream = "event: done\ndata: a\n\ndata: b\n\nevent: lost\n\ndata: c\n\nevent:\ndata: d\n\n"
    assert [event.name for event in read(stream)] == ["done", "message", "message", "message"]
    assert read("event: a\nevent: b\ndata\n\n")[0].name == "b"


def test_ids_last_until_the_next() -> None:
    stream = "data\n\nid: 1\ndata\n\ndata\n\nid: 2\n\ndata\n\nid: \0\ndata\n\nid\ndata\n\n"
    assert [event.id for event in read(stream)] == ["", "1", "1", "2", "2", ""]


@pytest.mark.parametrize(
    ("value", "kept"),
    [("10", 10), ("0", 0), ("1.5", None), ("-1", None), ("٣", None), ("", None), ("5 ", None)],
)
def test_retry_is_digits_only(value: str, kept: int | None) -> None:
    parser = Parser()
    assert parser.feed(f"retry: {value}\n".encode()) == [] and parser.retry == kept


def test_bytes_that_are_no_text_do_not_end_the_stream() -> None:
    assert read(b"data: a\xff\xe2\x82b\n\n") == [Event("message", "a\ufffd\ufffdb")]


STREAM = "\ufeff: é\r\nevent: a\rdata: 日\u2028€\r\n\r\nid: 😀\n\ndata:\r\rdata: x\n\r\n".encode()
EVENTS = [Event("a", "日\u2028€"), Event("message", "", "😀"), Event("message", "x", "😀")]


def test_a_stream_cut_at_any_two_bytes_or_at_every_one() -> None:
    assert read(STREAM) == EVENTS
    for first in range(len(STREAM) + 1):
        for second in range(first, len(STREAM) + 1):
            cut = STREAM[:first], STREAM[first:second], STREAM[second:]
            assert read(*cut) == EVENTS, cut
    assert read(*(STREAM[n : n + 1] for n in range(len(STREAM)))) == EVENTS


def test_any_stream_cut_anywhere_gives_the_same_events_as_soon_as_they_end() -> None:
    chance = random.Random(0)
    parts = [
        "data",
        "event",
        "id",
        "retry",
        ":",
        ": ",
        "\r",
        "\n",
        "\r\n",
        "\n\n",
        "é",
        "\u2028",
        "",
    ]
    parts += ["", "\ufeff", "\0", "1", "😀"]
    some = 0
    for _ in range(2000):
        stream = "".join(chance.choices(parts, k=30)).encode()
        whole = read(stream)
        some += bool(whole)
        places = sorted(chance.choices(range(len(stream) + 1), k=4))
        chunks = [stream[a:b] for a, b in zip([0, *places], [*places, None], strict=True)]
        assert read(*chunks) == whole, chunks
        start = read(*chunks[:2])
        assert whole[: len(start)] == start == read(b"".join(chunks[:2]))
    assert some > 200
