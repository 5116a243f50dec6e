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
            check_number(name, value, smallest, whole=isinstance(smallest, int))
            continue
        if not good:
            raise ParameterError(name, value, allowed)


def check_number(
    name: str, value: Any, least: Any, *, whole: bool = False, above: bool = False
) -> None:
    """Refuse what is no finite number of at least so much.

    Args:
        name: the parameter's, for the error.
        value: what was given.
        least: the smallest that is allowed.
        whole: only whole numbers are.
        above: `least` itself is not allowed.

    Raises:
        ParameterError: another kind of value, or one out of the range.
    """
    good = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not good or not least <= value < math.inf or (above and value == least):
        bound = f"{'above' if above else 'of at least'} {least}"
        raise ParameterError(name, value, f"a {'whole ' * whole}number {bound}")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
