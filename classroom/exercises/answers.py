"""A learner's answer as JSON, so that it can be marked again from a stored notebook.

A recorded answer is one of

    {"value": 12.5}                    a number, text, list, dict, …
    {"calls": [{"value": true}, {"raised": "TypeError: …"}]}
                                       a function: its result for each fixed input
    {"missing": true}                  three dots, or some of them
    {"unusable": "why"}                nothing that can be marked
"""

from __future__ import annotations

import copy
import json
import math
import numbers
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

ANSWER_TYPE = "application/vnd.llm-basics.answer+json"
LONGEST_ANSWER = 20_000  # characters of JSON
LONGEST_NUMBER = 1024  # bits


class Missing(Exception):
    """Three dots somewhere in an answer."""


class Unusable(Exception):
    """An answer that cannot be written as JSON; the message says why."""


def record_answer(
    answer: Sequence[Any], inputs: Callable[[], Sequence[tuple[Any, ...]]] | None
) -> dict[str, Any]:
    """What a learner handed to check(), as JSON; nothing that an answer holds raises.

    Args:
        answer: the arguments of check().
        inputs: for a question whose answer is a function, the arguments of each call.
    """
    try:
        value = answer[0] if len(answer) == 1 else list(answer)
        if not answer or value is ...:
            return {"missing": True}
        if callable(value) and not hasattr(value, "tolist"):
            if inputs is None:
                name = getattr(value, "__name__", type(value).__name__)
                raise Unusable(
                    f"The answer is the function `{name}` itself. Call it, and give what it returns"
                )
            recorded: dict[str, Any] = {"calls": [_call(value, given) for given in inputs()]}
        else:
            recorded = {"value": plain(value)}
        if len(json.dumps(recorded)) > LONGEST_ANSWER:
            raise Unusable("The answer is far too long to be marked")
        return recorded
    except Missing:
        return {"missing": True}
    except Unusable as error:
        return {"unusable": str(error)}
    except Exception as error:  # an object of the learner's that fails when looked at
        return {"unusable": f"The answer could not be read: {_line(error)}"}


def plain(value: Any) -> Any:
    """A value as JSON: numbers of numpy and torch become Python's, tuples become lists.

    Raises:
        Missing: three dots in it.
        Unusable: neither a number, text, list nor dict.
    """
    if value is ...:
        raise Missing
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, numbers.Integral):
        if int(value).bit_length() > LONGEST_NUMBER:
            raise Unusable("The answer is a number beyond every limit")
        return int(value)
    if isinstance(value, numbers.Real | Decimal):
        if not math.isfinite(value):
            raise Unusable(f"The answer is {float(value)}, which cannot be compared with anything")
        return float(value)
    if isinstance(value, list | tuple | range):
        return [plain(part) for part in value]
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if hasattr(value, "tolist"):  # numpy's, torch's and pandas' numbers and rows of numbers
        return plain(value.tolist())
    kind = type(value).__name__
    raise Unusable(f"The answer is of type {kind}; a number, text, list or dict can be marked")


def _call(function: Callable[..., Any], given: tuple[Any, ...]) -> dict[str, Any]:
    """One result of the learner's function, or what it raised."""
    try:
        return {"value": plain(function(*copy.deepcopy(given)))}
    except (Missing, Unusable):
        raise
    except (Exception, SystemExit) as error:
        return {"raised": _line(error)}


def _line(error: BaseException) -> str:
    """An exception in one line."""
    words = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {words}"[:300]
