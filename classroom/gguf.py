"""What stands where in a GGUF file: names, shapes and kinds of its tensors. (Lesson 08.)

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. A file begins with facts
(name, type, value), then lists its tensors; their bytes follow, from an aligned place on.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from system.errors import ParameterError

KINDS = {0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0"}
BLOCKS = {  # kind → (numbers in a block, bytes of a block)
    "F32": (1, 4), "F16": (1, 2), "Q4_0": (32, 18), "Q4_1": (32, 20), "Q5_0": (32, 22),
    "Q5_1": (32, 24), "Q8_0": (32, 34),
}  # fmt: skip
_PLAIN = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _LIST = 8, 9  # the other types of values


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies, and how.

    Attributes:
        kind: a name of `BLOCKS`.
        shape: rows first, as torch has it.
        begin: the place of its first byte in the file.
    """

    kind: str
    shape: tuple[int, ...]
    begin: int

    @property
    def numbers(self) -> int:
        """How many there are."""
        count = 1
        for side in self.shape:
            count *= side
        return count

    @property
    def nbytes(self) -> int:
        """How many bytes they take."""
        numbers, size = BLOCKS[self.kind]
        return self.numbers // numbers * size


def tensors(path: Path) -> dict[str, StoredTensor]:
    """Name → tensor, in the file's order.

    Raises:
        ParameterError: no GGUF file, or a kind of numbers that is not in `KINDS`.
    """
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ParameterError("path", path.name, "a GGUF file: it begins with GGUF")
        _plain(file, "I")  # the format's version
        count, facts = _plain(file, "Q"), _plain(file, "Q")
        values = {_text(file): _value(file, _plain(file, "I")) for _ in range(facts)}
        listed = [_listed(file) for _ in range(count)]
        step = int(values.get("general.alignment", 32))
        begin = -(-file.tell() // step) * step
    unknown = {kind for _, _, kind, _ in listed} - set(KINDS)
    if unknown:
        raise ParameterError("path", path.name, f"tensors of {', '.join(KINDS.values())} alone")
    return {name: StoredTensor(KINDS[kind], shape, begin + at) for name, shape, kind, at in listed}


def read(path: Path, tensor: StoredTensor) -> bytes:
    """The tensor's bytes as they are stored."""
    with path.open("rb") as file:
        file.seek(tensor.begin)
        return file.read(tensor.nbytes)


def _listed(file: BinaryIO) -> tuple[str, tuple[int, ...], int, int]:
    """Name, shape, number of the kind, place after the beginning of all tensors."""
    name, sides = _text(file), _plain(file, "I")
    shape = tuple(_plain(file, "Q") for _ in range(sides))[::-1]
    return name, shape, _plain(file, "I"), _plain(file, "Q")


def _plain(file: BinaryIO, code: str) -> Any:
    """One number, little-endian."""
    return struct.unpack(f"<{code}", file.read(struct.calcsize(f"<{code}")))[0]


def _text(file: BinaryIO) -> str:
    return file.read(_plain(file, "Q")).decode("utf-8")


def _value(file: BinaryIO, kind: int) -> Any:
    """A fact's value: number, text, or a list of one of these."""
    if kind == _TEXT:
        return _text(file)
    if kind == _LIST:
        inside, count = _plain(file, "I"), _plain(file, "Q")
        return [_value(file, inside) for _ in range(count)]
    return _plain(file, _PLAIN[kind])
