"""`-p NAME=VALUE`: read by the kind of value that the lesson has there."""

from __future__ import annotations

import ast
import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from system.errors import ParameterError

if TYPE_CHECKING:
    from nbformat import NotebookNode

_TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def parse_parameters(given: list[str]) -> dict[str, list[str]]:
    """Values by name, as they were typed, from NAME=VALUE pieces; a name may come twice.

    Raises:
        ParameterError: no NAME=VALUE.
    """
    parameters: dict[str, list[str]] = {}
    for piece in given:
        name, equals, text = piece.partition("=")
        if not (equals and name.isidentifier()):
            raise ParameterError("-p", piece, "NAME=VALUE, with a NAME as in the lesson")
        parameters.setdefault(name, []).append(text)
    return parameters


def defaults(notebook: NotebookNode) -> dict[str, Any]:
    """Name → value of a lesson's parameters; None where that is no plain value."""
    tagged = (c.source for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    source = next(tagged, "")
    found: dict[str, Any] = {}
    for node in ast.parse(source).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            if isinstance(target, ast.Name):
                try:
                    found[target.id] = ast.literal_eval(getattr(node, "value", None) or "None")
                except ValueError:
                    found[target.id] = None
    return found


def typed(
    parameters: dict[str, list[str]], known: dict[Path, dict[str, Any]]
) -> dict[str, list[Any]]:
    """The values as the lessons take them, none of them twice.

    Text stays as it is: "No", "2024" and "# Title" are text. Numbers, lists, true and false
    are read.

    Args:
        parameters: from `parse_parameters`.
        known: each lesson's `defaults`.

    Raises:
        ParameterError: no lesson has this parameter, it takes another kind of value, or two
            lessons take it for different kinds.
    """
    values: dict[str, list[Any]] = {}
    names = sorted({name for lesson in known.values() for name in lesson})
    for name, texts in parameters.items():
        kinds = [lesson[name] for lesson in known.values() if name in lesson]
        if not kinds:
            allowed = f"one of {', '.join(names)}" if names else "left out: there is none here"
            raise ParameterError("-p", name, f"a parameter of a chosen lesson: {allowed}")
        read = [[read_value(name, text, kind) for text in texts] for kind in kinds]
        if any(repr(other) != repr(read[0]) for other in read):
            raise ParameterError(name, texts[0], "given to one lesson at a time: lessons differ")
        kept = {repr(value): value for value in read[0]}  # 1 and 1.0 are two values
        values[name] = list(kept.values())
    return values


def read_value(name: str, text: str, default: Any) -> Any:
    """One value, of the kind that the lesson's own value has.

    Raises:
        ParameterError: another kind.
    """
    if isinstance(default, str):
        return text
    if isinstance(default, bool):
        if text.strip().lower() not in _TRUTH:
            raise ParameterError(name, text, "true or false")
        return _TRUTH[text.strip().lower()]
    if isinstance(default, int | float):
        return _number(name, text)
    if isinstance(default, list | tuple):
        return _list(name, text, default)
    return _plain(name, text)


def _number(name: str, text: str) -> int | float:
    """A number; infinity and "nan" are none."""
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        if math.isfinite(value):
            return value
    raise ParameterError(name, text, "a number, such as 12 or 0.5")


def _list(name: str, text: str, default: list[Any] | tuple[Any, ...]) -> list[Any]:
    """A list of the kind of value that stands in the lesson's; [a, b] needs no quotes."""
    import yaml

    try:
        found = yaml.load(text, Loader=yaml.BaseLoader)  # it leaves every item text
    except yaml.YAMLError:
        found = None
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise ParameterError(name, text, "a list, such as [a, b]")
    return [read_value(name, item, default[0] if default else None) for item in found]


def _plain(name: str, text: str) -> Any:
    """A value of a parameter whose kind the lesson leaves open: as YAML has it."""
    import yaml
    from papermill.iorw import NoDatesSafeLoader

    try:
        return yaml.load(text, Loader=NoDatesSafeLoader)
    except yaml.YAMLError:
        raise ParameterError(name, text, "a number, a list such as [a, b], or text") from None


def combinations(parameters: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Every combination of the values: {"A": [1, 2]} gives [{"A": 1}, {"A": 2}]."""
    return [
        dict(zip(parameters, values, strict=True))
        for values in itertools.product(*parameters.values())
    ]
