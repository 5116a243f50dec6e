"""Server-sent events, read by the rules of the WHATWG's HTML standard, section 9.2.6.

A line ends with CR, LF or both, and with nothing else: text may hold U+2028 or U+0085,
at which `str.splitlines` and most HTTP libraries would cut an event in two. (Lesson 06.)
"""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

_LINE_END = re.compile(r"\r\n|\r|\n")


class Event(NamedTuple):
    """One event.

    Attributes:
        name: its type; "message" where the server names none.
        data: its lines of data, joined by line feeds.
        id: the last one that the server has sent in this stream, "" before it.
    """

    name: str
    data: str
    id: str = ""


class Parser:
    """Takes a stream's bytes as they come, however they are cut, and gives its events.

    What stands after the last blank line when a stream ends is no event: it may be cut short.

    Attributes:
        retry: milliseconds that the server asks its clients to wait before they connect
            anew; None where it has not said.
    """

    def __init__(self) -> None:
        self.retry: int | None = None
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self._text = ""  # the beginning of a line that has not ended yet
        self._started = self._after_cr = False
        self._name, self._id = "", ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that end within these bytes."""
        text = self._decode(chunk)
        if not text:
            return []
        if not self._started:
            text, self._started = text.removeprefix("\ufeff"), True
        if self._after_cr:  # the pair's other half: the line has ended already
            text = text.removeprefix("\n")
        self._after_cr = text.endswith("\r")
        *lines, self._text = _LINE_END.split(self._text + text)
        return [event for line in lines if (event := self._line(line))]

    def _line(self, line: str) -> Event | None:
        """Take one line; a blank one ends an event, which is none without data."""
        if not line:
            event = Event(self._name or "message", "\n".join(self._data), self._id)
            known, self._name, self._data = bool(self._data), "", []
            return event if known else None
        field, _, value = line.partition(":")  # a comment is a field without a name
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._name = value
        elif field == "id" and "\0" not in value:
            self._id = value
        elif field == "retry" and value.isascii() and value.isdecimal():
            self.retry = int(value)
        return None
