"""The roofline: what memory and arithmetic allow at most. (Lesson 08.)

A step of decoding reads every weight once and multiplies it by one number of each row. It can
be no faster than either of the two (Williams, Waterman, Patterson, 2009, "Roofline: An Insightful
Visual Performance Model", https://doi.org/10.1145/1498765.1498785):

    seconds ≥ max(bytes read / bandwidth, operations / peak)
"""

from __future__ import annotations

from dataclasses import dataclass

from system.errors import ParameterError

OPERATIONS = 2  # a number: one multiplication, one addition


@dataclass(frozen=True)
class Step:
    """The bounds of one decoding step.

    Attributes:
        reading_s: seconds to read the weights and the KV cache.
        computing_s: seconds for the multiplications and additions.
        rows: texts in the batch: a step writes one token for each.
    """

    reading_s: float
    computing_s: float
    rows: int

    @property
    def tokens_per_s(self) -> float:
        """The most tokens a second, all rows together."""
        return self.rows / max(self.reading_s, self.computing_s)

    @property
    def bound(self) -> str:
        """What limits it: "memory" or "arithmetic"."""
        return "memory" if self.reading_s >= self.computing_s else "arithmetic"


def step(
    parameters: float, bits: float, rows: int, bandwidth: float, peak: float, kv_bytes: float = 0
) -> Step:
    """The bounds of a step.

    Args:
        parameters: numbers of the model.
        bits: of one weight.
        rows: texts in the batch.
        bandwidth: of the memory, bytes/s.
        peak: of the processor, operations/s.
        kv_bytes: keys and values of one text.

    Raises:
        ParameterError: one of them is not above 0 (`kv_bytes`: below 0).
    """
    given = {"parameters": parameters, "bits": bits, "rows": rows, "bandwidth": bandwidth,
             "peak": peak}  # fmt: skip
    for name, value in given.items():
        if not value > 0:
            raise ParameterError(name, value, "above 0")
    if kv_bytes < 0:
        raise ParameterError("kv_bytes", kv_bytes, "at least 0")
    bytes_read = parameters * bits / 8 + rows * kv_bytes
    return Step(bytes_read / bandwidth, OPERATIONS * parameters * rows / peak, rows)


def ridge(bits: float, bandwidth: float, peak: float) -> float:
    """The batch from which arithmetic limits a step, not memory (without a KV cache).

    Args:
        bits: of one weight.
        bandwidth: bytes/s.
        peak: operations/s.
    """
    return bits / 8 * peak / (OPERATIONS * bandwidth)
