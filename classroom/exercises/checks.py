"""What check functions are made of: each reads or compares a part, and names usual mistakes.

A check function takes the answer as JSON and returns one sentence, why it is right, or
raises `Wrong` with a message that fits the mistake.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

Mistakes = Sequence[tuple[float, str]]  # a wrong value, and what led to it


class Wrong(Exception):
    """The answer is wrong; the message helps on."""


def number(value: Any, unit: str = "") -> float:
    """A number, or `Wrong` with what was given instead.

    Args:
        value: a part of an answer.
        unit: what it counts, such as "GB", for the messages.
    """
    of = f" of {unit}" if unit else ""
    if isinstance(value, list) and len(value) == 1:  # such as a tensor of one number
        value = value[0]
    if isinstance(value, bool):
        raise Wrong(f"{value} is a truth value; a number{of} is asked for.")
    if isinstance(value, str):
        if any(c.isdigit() for c in value):
            raise Wrong(
                f"{value!r} is text. Give the bare number{of}, without quotes, unit or commas."
            )
        raise Wrong(f"{value!r} is text; a number{of} is asked for.")
    if value is None:
        raise Wrong(
            "The answer is None, no value. `print` shows a number and gives back nothing; "
            "a function needs a `return`."
        )
    if not isinstance(value, int | float):
        kind = "several values" if isinstance(value, list | dict) else f"a {type(value).__name__}"
        raise Wrong(f"The answer holds {kind}; one number{of} is asked for.")
    if not math.isfinite(value):
        raise Wrong(f"{value} cannot be compared with anything.")
    return float(value)


def whole(value: Any, unit: str = "") -> int:
    """A whole number, or `Wrong`; 12.0 counts as one."""
    found = number(value, unit)
    if not found.is_integer():
        raise Wrong(f"{found:g} is no whole number, but {unit or 'what is asked'} can be counted.")
    return int(found)


def truth(value: Any) -> bool:
    """True or False, or `Wrong`."""
    if not isinstance(value, bool):
        raise Wrong(f"{value!r} is neither True nor False.")
    return value


def equal(value: float, expected: float, tolerance: float = 0.005) -> bool:
    """Whether two numbers agree, but for rounding.

    Args:
        value: the learner's.
        expected: the right one.
        tolerance: the share by which they may differ; 0 for whole numbers.
    """
    return math.isclose(value, expected, rel_tol=max(tolerance, 1e-9), abs_tol=1e-9)


def expect(
    value: float, expected: float, unit: str, mistakes: Mistakes = (), tolerance: float = 0.005
) -> None:
    """Nothing if the number is right, else `Wrong` with the message that fits best.

    The question's own mistakes come first; then those that are made everywhere: units by
    thousands, 1024 for 1000, off by one, percent for shares, upside down.
    """
    if equal(value, expected, tolerance):
        return
    for mistaken, message in mistakes:
        if equal(value, mistaken, tolerance):
            raise Wrong(message)
    raise Wrong(_everywhere(value, expected, unit, tolerance))


def _everywhere(value: float, expected: float, unit: str, tolerance: float) -> str:
    """The message for a mistake that fits any number."""
    if float(expected).is_integer() and abs(value - expected) == 1:
        return f"{value:g} is off by one. Count again what is included, first and last."
    if expected and value:
        ratio = value / expected
        close = max(tolerance, 0.005)
        for power in (1, 2, 3):
            if any(equal(ratio, step, close) for step in (1000.0**power, 1000.0**-power)):
                return f"{value:g} is off by a factor of {1000**power:,}: the answer is in {unit}."
            if equal(ratio, 1.024**-power, 0.004):
                return f"{value:g} was divided by 1024 somewhere. {unit} counts in steps of 1000."
        if equal(ratio, 100, close) or equal(ratio, 0.01, close):
            return f"{value:g} is off by a factor of 100: a share or percent? Asked for: {unit}."
        if ratio < 0:
            return f"{value:g} has the wrong sign."
        if equal(value * expected, 1, close) and not equal(value, 1, close):
            return f"{value:g} is the right ratio upside down: divide the other way round."
    return f"{value:g} is too {'low' if value < expected else 'high'}, in {unit}."


def results(
    calls: Sequence[dict[str, Any]],
    inputs: Sequence[tuple[Any, ...]],
    right: Callable[..., Any],
    name: str,
    mistakes: Sequence[tuple[Callable[..., Any], str]] = (),
    same: Callable[[Any, Any], bool] = lambda got, wanted: bool(got == wanted),
) -> None:
    """Nothing if a learner's function gave the right results, else `Wrong`.

    Args:
        calls: a recorded answer's results, one for each input.
        inputs: the arguments of each call.
        right: the right function.
        name: what the task calls the function.
        mistakes: functions with a usual mistake in them, and what to say about it: taken
            when they give the same results as the learner's, call by call.
        same: whether a result is the wanted one.
    """
    for call, given in zip(calls, inputs, strict=True):
        if "raised" in call:
            raise Wrong(f"{shown(name, given)} raised {call['raised']}.")
        if call["value"] is None:
            raise Wrong(f"{shown(name, given)} gave None. Does every path end with a `return`?")
    got = [call["value"] for call in calls]
    wanted = [right(*given) for given in inputs]
    for value, sample in zip(got, wanted, strict=True):
        if isinstance(sample, bool):
            truth(value)
        elif isinstance(sample, int | float):
            number(value)
    wrong = [n for n, pair in enumerate(zip(got, wanted, strict=True)) if not same(*pair)]
    if not wrong:
        return
    for mistaken, message in mistakes:
        if all(same(value, mistaken(*given)) for value, given in zip(got, inputs, strict=True)):
            raise Wrong(message)
    n = wrong[0]
    raise Wrong(f"{shown(name, inputs[n])} gave {got[n]!r}; {wanted[n]!r} is right.")


def shown(name: str, given: tuple[Any, ...]) -> str:
    """A call as one writes it, long arguments cut."""
    words = (repr(value) for value in given)
    return f"{name}({', '.join(w if len(w) <= 40 else f'{w[:36]}…{w[-1]}' for w in words)})"


def compare_ratio(guess: float, measured: float) -> str:
    """`compare_guess` for ratios, which `Wrong` says must be above 0."""
    if guess <= 0:
        raise Wrong("Measured right. But the prediction, a ratio, must be above 0.")
    return compare_guess(guess, measured)


def compare_guess(guess: float, measured: float, unit: str = "") -> str:
    """One sentence on how far a prediction was off; a wrong prediction is no mistake."""
    shown_unit = f" {unit}" if unit else ""
    words = f"You predicted {guess:.4g}{shown_unit}, measured {measured:.4g}{shown_unit}"
    if equal(guess, measured, 0.1):
        return f"{words}: well predicted."
    if guess <= 0 or measured <= 0:
        return f"{words}."
    factor = max(guess, measured) / min(guess, measured)
    return f"{words}: too {'high' if guess > measured else 'low'}, by a factor of {factor:.2g}."
