"""The smallest values that a lesson works with; others are refused before anything runs.

In a lesson's import cell, below its parameters:

    require(globals(), MAX_NEW_TOKENS=2, PROMPT=str, MODEL_NAMES=list)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from system.errors import ParameterError


def require(given: Mapping[str, Any], **least: float | type) -> None:
    """Refuse parameters that the lesson cannot work with, by name.

    Args:
        given: where they stand: `globals()`.
        **least: the smallest value of each; a whole one asks for whole numbers, `str` for
            text that is not blank, `list` for a list of such texts that is not empty.

    Raises:
        ParameterError: the first that is too small or of another kind.
    """
    for name, smallest in least.items():
        value = given[name]
        if smallest is str:
            good, allowed = _is_text(value), "text that is not blank"
        elif smallest is list:
            good = isinstance(value, list) and bool(value) and all(map(_is_text, value))
            allowed = "a list of one text or more"
        else:
            kind = int if isinstance(smallest, int) else int | float
            good = isinstance(value, kind) and not isinstance(value, bool)
            good = good and smallest <= value < math.inf
            allowed = f"a {'whole ' * (kind is int)}number of at least {smallest}"
        if not good:
            raise ParameterError(name, value, allowed)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
