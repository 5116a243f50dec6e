from __future__ import annotations

import json
import re
from collections.abc import Callable

import numpy as np
import torch

from .cases import Case

DRAWN, TEXT = 3_141_592_653, "A server is a program that answers."


def by_event(lines: list[str]) -> str:
    """As a browser reads it: an event ends at an empty line."""
    text, name, data = "", "", ""
    for line in lines:
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            data = value
        elif not line:
            text += "" if name else json.loads(data)["text"]
            name = data = ""
    return text


def by_pattern(lines: list[str]) -> str:
    found = re.findall(r'^data: \{"text": (".*")\}$', "\n".join(lines), re.MULTILINE)
    return "".join(map(json.loads, found))


def pieces(lines: list[str]) -> list[str]:
    """The pieces, read without looking for the event `done`."""
    sent = (json.loads(line[6:]) for line in lines if line[:6] == "data: ")
    return [content["text"] for content in sent if content.keys() == {"text"}]


def joined(glue: str, change: Callable[[str], str] = str) -> Callable[[list[str]], str]:
    return lambda lines: glue.join(map(change, pieces(lines)))


CASES = (
    Case(
        "06.1",
        right=(
            lambda: (DRAWN, TEXT, TEXT),
            lambda: (np.int64(DRAWN), " a program.", " a program."),
            lambda: ([torch.tensor(DRAWN), TEXT, TEXT],),
        ),
        wrong=(
            (lambda: (None, TEXT, TEXT), "None is what you sent"),
            (lambda: (7, TEXT, TEXT), "7 looks chosen"),
            (lambda: (-DRAWN, TEXT, TEXT), "never negative"),
            (lambda: (DRAWN, TEXT, TEXT + " Always."), "Two different texts"),
            (lambda: (DRAWN, TEXT, " a program that answers."), "Take both alike"),
            (lambda: (DRAWN, TEXT, None), "`second` is no text"),
            (lambda: (DRAWN, [TEXT], TEXT), "`first` is no text"),
            (lambda: (DRAWN, "A server is", "A server is"), "prompt alone"),
            (lambda: (str(DRAWN), TEXT, TEXT), "is text"),
            (lambda: (0.5, TEXT, TEXT), "no whole number"),
            (lambda: (DRAWN, TEXT), "3 values"),
        ),
    ),
    Case(
        "06.2",
        right=(lambda: (by_event,), lambda: (by_pattern,), lambda: (joined(""),)),
        wrong=(
            (lambda: (joined("", str.strip),), "strips the pieces"),
            (lambda: (joined(" ", str.strip),), "strips the pieces"),
            (lambda: (lambda lines: joined("")(lines).strip(),), "strips the text"),
            (lambda: (joined(" "),), "spaces between the pieces"),
            (lambda: (joined("\n"),), "line breaks between"),
            (lambda: (pieces,), "a list of pieces"),
            (lambda: (lambda lines: "".join(pieces(lines)[:1]),), "first piece alone"),
            (lambda: (lambda lines: "".join(pieces(lines)[-1:]),), "last piece alone"),
            (lambda: (lambda lines: "".join(pieces(lines)[:-1]),), "last piece is missing"),
            (
                lambda: (lambda lines: "".join(x[6:] for x in lines if x.startswith("data")),),
                "is JSON. Read it",
            ),
            (
                lambda: (
                    lambda lines: "".join(
                        json.loads(x[6:])["text"] for x in lines if x.startswith("data")
                    ),
                ),
                "after `event: done` has no text",
            ),
            (
                lambda: (lambda lines: "".join(json.loads(x)["text"] for x in lines),),
                "Not every line is JSON",
            ),
            (lambda: (lambda lines: print(end=""),), "gave None"),
            (lambda: (lambda lines: "a program",), r"read_stream\(.*gave 'a program'"),
            (lambda: (" a program.\n",), "the function itself"),
        ),
    ),
    Case(
        "06.3",
        right=(lambda: (6, 3), lambda: (0, np.int64(3)), lambda: (torch.tensor([3.0, 3.0]),)),
        wrong=(
            (lambda: (6, 0), "None was refused"),
            (lambda: (6, 5), "Count the others"),
            (lambda: (6, 6), "without a queue"),
            (lambda: (6, 8), "All eight"),
            (lambda: (6, 503), "503 is the status code"),
            (lambda: (6, 2), "Only 2: a text had ended"),
            (lambda: (6, 4), "off by one"),
            (lambda: (6, 2.5), "no whole number"),
            (lambda: (9, 3), "from 0 to 8"),
            (lambda: (6, [200, 503]), "several values"),
            (lambda: ("six", 3), "is text"),
            (lambda: (3,), "2 values"),
        ),
    ),
)
