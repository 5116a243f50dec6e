"""Exercises of lesson 08: the bandwidth limit, a block of four bits, drafts that pay."""

from __future__ import annotations

import struct
from typing import Any

from classroom.exercises import checks
from classroom.exercises.catalogue import Lesson
from classroom.exercises.question import Question
from classroom.exercises.recap import Recap, RecapQuestion

BILLIONS, BITS, BANDWIDTH = 7, 4, 280  # parameters (10⁹), bits of a weight, GB/s
SHARE, DRAFTED = 0.8, 4


def _check_limit(answer: Any) -> str:
    gigabytes = BILLIONS * BITS / 8
    right = BANDWIDTH / gigabytes
    mistakes = [
        (BANDWIDTH / BILLIONS, "That is one byte a weight. Four bits are half a byte."),
        (BANDWIDTH / (BILLIONS * 4), "That is four bytes a weight. It has four bits."),
        (BANDWIDTH / (BILLIONS * 2), "That is two bytes a weight. It has four bits."),
        (gigabytes / BANDWIDTH, "Those are seconds a token. Turn it round."),
        (gigabytes, "Those are the gigabytes of the weights. How often can they be read?"),
    ]
    checks.expect(checks.number(answer, "tokens/s"), right, "tokens/s", mistakes)
    return "A model cannot write faster than its weights can be read, whatever the processor."


def _block(scale: float, codes: list[int]) -> bytes:
    """A block of Q4_0: a scale, then 32 numbers of four bits."""
    pairs = zip(codes[:16], codes[16:], strict=True)
    return struct.pack("<e", scale) + bytes(low | high << 4 for low, high in pairs)


_BLOCKS = [
    (_block(1.0, list(range(16)) * 2),),
    (_block(0.5, [15] * 16 + [0] * 16),),
    (_block(-0.25, [(7 * n) % 16 for n in range(32)]),),
]


def _unpack(block: bytes) -> list[float]:
    """The 32 numbers of a block of Q4_0."""
    (scale,) = struct.unpack("<e", block[:2])
    codes = [b & 15 for b in block[2:]] + [b >> 4 for b in block[2:]]
    return [scale * (code - 8) for code in codes]


def _scale(block: bytes) -> float:
    return float(struct.unpack("<e", block[:2])[0])


def _woven(block: bytes) -> list[float]:
    """The two numbers of each byte side by side: a usual mistake."""
    return [_scale(block) * (c - 8) for b in block[2:] for c in (b & 15, b >> 4)]


def _swapped(block: bytes) -> list[float]:
    """High halves first: a usual mistake."""
    right = _unpack(block)
    return right[16:] + right[:16]


def _no_shift(block: bytes) -> list[float]:
    """Without the 8 taken off: a usual mistake."""
    return [number + 8 * _scale(block) for number in _unpack(block)]


def _check_unpack(calls: Any) -> str:
    mistakes = [
        (_woven, "The two halves of a byte do not stand side by side: all low ones come first."),
        (_swapped, "The low halves are the first 16 numbers, the high ones the last 16."),
        (_no_shift, "Four bits count from 0 to 15. Take 8 off, so that half are negative."),
        (
            lambda block: [n / (_scale(block) or 1) for n in _unpack(block)],
            "The scale is missing: multiply each number by it.",
        ),
    ]
    checks.results(calls, _BLOCKS, _unpack, "unpack", mistakes)
    return "18 bytes for 32 numbers: 4.5 bits a weight, scale and all."


def _expected(share: float, drafted: int) -> float:
    """Tokens a step of the target writes."""
    return (1 - share ** (drafted + 1)) / (1 - share)


def _check_drafts(answer: Any) -> str:
    guess, measured = (checks.number(part, "tokens") for part in answer)
    mistakes = [
        (SHARE * DRAFTED, "That accepts each token by itself. After a wrong one, all are lost."),
        (SHARE * DRAFTED + 1, "After a wrong token the rest of the draft is lost: sum powers."),
        (_expected(SHARE, DRAFTED) - 1, "The token that the target adds itself is missing."),
        (_expected(SHARE, DRAFTED - 1), "One power is missing: the sum has k + 1 terms."),
        (DRAFTED + 1, "That is if every token is accepted."),
    ]
    checks.expect(measured, _expected(SHARE, DRAFTED), "tokens", mistakes)
    return (
        f"{checks.compare_guess(guess, measured, 'tokens')} However long the draft, it never gets "
        "above 1 / (1 - a)."
    )


questions = (
    Question(
        id="08.1",
        task=f"A model has {BILLIONS} billion weights of {BITS} bits. The card's memory gives "
        f"{BANDWIDTH} GB/s. How many **tokens a second** can one text get at most?",
        start="answer = ...  # tokens/s, a number",
        check_answer=_check_limit,
        hints=(
            "Each token reads every weight once.",
            "How many gigabytes are the weights? Eight bits are a byte.",
            "Bandwidth divided by the gigabytes of the weights.",
        ),
        code=f"answer = {BANDWIDTH} / ({BILLIONS} * {BITS} / 8)",
        why="Weights of 3.5 GB can be read so many times a second, and each reading is a token.",
    ),
    Question(
        id="08.2",
        task="GGUF's Q4_0 is simpler than Q4_1: a block is a scale (float16, 2 bytes) and 16 bytes "
        "of two four-bit numbers each, the low halves first; each stands for scale × (number - 8). "
        "Write `unpack(block)`: 18 bytes in, a list of 32 numbers out.",
        start="def unpack(block):\n    return ...",
        check_answer=_check_unpack,
        ask="unpack",
        inputs=lambda: _BLOCKS,
        hints=(
            'The scale: `import struct`, then `struct.unpack("<e", block[:2])[0]`.',
            "Of a byte, `byte & 15` is the low half and `byte >> 4` the high one.",
            "First the low halves of all 16 bytes, then the high ones.",
        ),
        code="import struct\n\n\n"
        "def unpack(block):\n"
        '    scale = struct.unpack("<e", block[:2])[0]\n'
        "    numbers = [byte & 15 for byte in block[2:]] + [byte >> 4 for byte in block[2:]]\n"
        "    return [scale * (number - 8) for number in numbers]",
        why="No minimum is stored: the numbers lie around 0, from -8 to 7 scales.",
    ),
    Question(
        id="08.3",
        task=f"*Predict, then compute.* A draft of {DRAFTED} tokens, each accepted with "
        f"probability {SHARE} if those before it were. How many **tokens** does a step of the "
        "target write on average? Predict first.",
        start="guess = ...  # tokens: write it before you compute\n"
        "measured = ...  # tokens: code that computes",
        check_answer=_check_drafts,
        ask="guess, measured",
        hints=(
            "Section 5 has the formula, and the table compares it.",
            "One token always comes; a second one with probability a; a third with a × a.",
            f"Sum a to the powers 0 to {DRAFTED}.",
        ),
        code=f"guess = 4\nmeasured = sum({SHARE}**power for power in range({DRAFTED} + 1))",
        why="The sum is (1 - a⁵) / (1 - a): one wrong token throws away all that follow it.",
    ),
)

recap = Recap(
    "08",
    (
        RecapQuestion(
            "One text is written, and memory is the limit. What helps most?",
            ("A processor with more operations a second", "Fewer bytes a weight",
             "A longer prompt"),
            1,
            "A step reads every weight for two operations each. Fewer bytes are read sooner; a "
            "faster processor would only wait longer.",
        ),
        RecapQuestion(
            "Why does a larger batch give more tokens a second?",
            ("Weights that were read once serve all rows", "Each row becomes faster",
             "It needs less memory"),
            0,
            "The reading is shared. Each row gets slower, not faster, and the KV cache grows.",
        ),
        RecapQuestion(
            "A bad draft model proposes nonsense. What happens to the text?",
            ("It gets worse", "It stays the target's, and takes longer", "It ends early"),
            1,
            "The target checks every token, and writes its own where the draft was wrong. Only "
            "time is lost.",
        ),
    ),
)  # fmt: skip

lesson = Lesson("08", questions, recap)
