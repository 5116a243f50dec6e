from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .cases import Case

Request = dict[str, Any]


def by_parts(kept: Request, asked: Request) -> bool:
    """Every parameter for itself, the random ones first."""
    if asked["temperature"] > 0 and asked.get("seed") is None:
        return False
    return all(kept.get(name) == asked.get(name) for name in {*kept, *asked})


def same(*names: str) -> Any:
    return lambda kept, asked: [kept.get(n) for n in names] == [asked.get(n) for n in names]


CASES = (
    Case(
        "09.1",
        right=(lambda: (24,), lambda: (12 * 1.5 / 0.75,), lambda: (torch.tensor(24.0),)),
        wrong=(
            (lambda: (18,), "busy on average"),
            (lambda: (13.5,), "Divide by 0.75"),
            (lambda: (8,), "Multiply"),
            (lambda: (6,), "then divide by the use"),
            (lambda: (16,), "upside down"),
            (lambda: (9,), "leaves the 1.5 s out"),
            (lambda: (25,), "off by one"),
            (lambda: ("24",), "is text"),
        ),
    ),
    Case(
        "09.2",
        right=(lambda: (by_parts,),),
        wrong=(
            (lambda: (same("prompt", "max_length", "temperature"),), "the tutorial's key"),
            (
                lambda: (same("prompt", "max_length", "temperature", "seed"),),
                "Compare the whole requests",
            ),
            (lambda: (lambda kept, asked: kept == asked,), "want two texts"),
            (
                lambda: (lambda kept, asked: "seed" in asked or asked["temperature"] == 0,),
                "looks at one request alone",
            ),
            (
                lambda: (lambda kept, asked: "seed" in asked and kept == asked,),
                "nothing is drawn",
            ),
            (
                lambda: (lambda kept, asked: asked["temperature"] == 0 and kept == asked,),
                "the draw is always the same",
            ),
            (lambda: (lambda kept, asked: None,), "gave None"),
            (lambda: (lambda kept, asked: False,), r"may_answer\(.*gave False"),
            (lambda: (lambda kept, asked: kept["seed"] == asked["seed"],), "raised KeyError"),
            (lambda: (True,), "the function itself"),
        ),
    ),
    Case(
        "09.3",
        right=(lambda: (3, 4), lambda: (0, np.int64(4)), lambda: (torch.tensor([3.0, 4.0]),)),
        wrong=(
            (lambda: (3, 0), "None was refused"),
            (lambda: (3, 8), "All eight"),
            (lambda: (3, 429), "429 is the status code"),
            (lambda: (3, 3), "The prompt's three"),
            (lambda: (9, 4), "from 0 to 8"),
            (lambda: (3, 4.5), "no whole number"),
            (lambda: (3,), "2 values"),
        ),
    ),
)
