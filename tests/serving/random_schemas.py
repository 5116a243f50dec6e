"""Random JSON schemas of the keywords that services are asked for, small enough to end soon."""

from __future__ import annotations

import random
from typing import Any

WORDS = ["name", "état", "is urgent", 'quote"d', "back\\slash", "x", "count", "日本", "a/b", "$ref"]
PATTERNS = ["^[a-z]{2,6}$", "^[A-Z]{3}-[0-9]{2}$", "^(yes|no)$", r"^\d{1,3}\.\d$", "^$", "b{2,3}"]
FORMATS = ["date", "time", "date-time", "email", "ipv4", "uuid"]
FIXED: list[Any] = [None, True, 0, -3, 1.5, "", "é🎉\n", 'a"b', [], [1, "x"], {}, {"k": [None]}]


def _string(chance: random.Random) -> dict[str, Any]:
    kind = chance.randrange(4)
    if kind == 0:
        return {"type": "string", "pattern": chance.choice(PATTERNS), "maxLength": 12}
    if kind == 1:
        return {"type": "string", "format": chance.choice(FORMATS)}
    low = chance.randint(0, 4)
    return {"type": "string", "minLength": low, "maxLength": low + chance.randint(0, 12)}


def _number(chance: random.Random) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": chance.choice(["integer", "number"])}
    low = chance.randint(-1000, 1000)
    schema[chance.choice(["minimum", "exclusiveMinimum"])] = low
    schema[chance.choice(["maximum", "exclusiveMaximum"])] = low + chance.randint(0, 500)
    if schema["type"] == "integer" and chance.random() < 0.3:
        schema["multipleOf"] = chance.choice([2, 3, 10])
    return schema


def _array(chance: random.Random, depth: int) -> dict[str, Any]:
    low = chance.randint(0, 2)
    schema: dict[str, Any] = {"type": "array", "minItems": low, "items": _any(chance, depth - 1)}
    schema["maxItems"] = low + chance.randint(0, 2)
    if chance.random() < 0.2:
        schema["prefixItems"] = [_any(chance, depth - 1)]
    return schema


def _object(chance: random.Random, depth: int) -> dict[str, Any]:
    names = chance.sample(WORDS, chance.randint(0, 4))
    schema: dict[str, Any] = {"type": "object"}
    schema["properties"] = {name: _any(chance, depth - 1) for name in names}
    schema["required"] = [name for name in names if chance.random() < 0.7]
    kind = chance.random()
    if kind < 0.8:
        schema["additionalProperties"] = False
    elif kind < 0.9:
        schema["additionalProperties"] = _number(chance)
    return schema


def _any(chance: random.Random, depth: int) -> dict[str, Any]:
    kind = chance.randrange(12)
    if kind == 0:
        return {"enum": chance.sample(FIXED, chance.randint(1, 4))}
    if kind == 1:
        return {"const": chance.choice(FIXED)}
    if kind == 2:
        return {"type": chance.choice([["boolean", "null"], "boolean", ["integer", "null"]])}
    if kind == 3 and depth > 0:
        return {"$ref": "#/$defs/shared"}
    if kind == 4 and depth > 0:
        return {"anyOf": [_any(chance, depth - 1) for _ in range(chance.randint(1, 3))]}
    if kind == 5:
        return {"allOf": [_number(chance), {"type": "integer"}], "title": "A number"}
    if kind in (6, 7) and depth > 0:
        return _array(chance, depth)
    if kind in (8, 9) and depth > 0:
        return _object(chance, depth)
    return _string(chance) if chance.random() < 0.5 else _number(chance)


def random_schema(number: int) -> dict[str, Any]:
    """The schema of this number: always the same; a few of them no value can meet."""
    chance = random.Random(number)
    schema = _object(chance, 3) if chance.random() < 0.7 else _any(chance, 3)
    return schema | {"$defs": {"shared": _any(chance, 0) | {"description": "Used elsewhere."}}}
