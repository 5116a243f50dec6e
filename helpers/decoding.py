"""From tokens back to text: whole characters, where a text ends, and when each step came.

The one place where a text ends: `generate`, `stream` and the server's engine all push their
tokens into an `Ending`. (Lessons 02 and 06.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

WINDOW = 16  # tokens that are decoded together; a longer window starts anew


class PieceDecoder:
    """Turns token ids into pieces of text as they come, never cutting a character in half.

    A character of several bytes may be spread over several tokens; text is held back
    until the bytes are whole.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._ids: list[int] = []  # those that are decoded together
        self._shown = 0  # characters of them already given out

    def push(self, token_id: int) -> str:
        """The text that became certain with this token; often one word, sometimes nothing."""
        self._ids.append(token_id)
        return self._new(final=False)

    def finish(self) -> str:
        """What was still held back when no token follows."""
        return self._new(final=True)

    def _new(self, final: bool) -> str:
        text = self._decode(self._ids)
        if text.endswith("�") and not final:
            return ""
        piece = text[self._shown :]
        self._shown = len(text)
        if len(self._ids) > WINDOW:  # decoding stays cheap
            self._ids = self._ids[-1:]
            self._shown = len(self._decode(self._ids))
        return piece

    def _decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )


class Ending:
    """A new text while it is written, and where it ends.

    It ends at end-of-text, before a stop string (also one that lies across tokens), or at
    its length. Text that could be the beginning of a stop string is held back until it is
    sure that it is none.

    Attributes:
        ids: its tokens; with a stop string the one that completed it is the last,
            end-of-text is not among them.
        pieces: its text; the stop string is not part of it.
        reason: why it ended: "end_of_text", "stop", "length", or what `end` was told;
            empty as long as it goes on.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        ends: Collection[int | None],
        length: int,
        stop: tuple[str, ...] = (),
    ) -> None:
        """Nothing is written yet.

        Args:
            tokenizer: any tokenizer of transformers.
            ends: ids that mean end-of-text; empty goes on whatever comes.
            length: most new tokens.
            stop: the text ends before any of these strings.
        """
        self.ids: list[int] = []
        self.pieces: list[str] = []
        self.reason = ""
        self._decoder = PieceDecoder(tokenizer)
        self._ends, self._length, self._stop = ends, length, stop
        self._held = ""  # could be the beginning of a stop string

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self.pieces)

    def push(self, token: int) -> str:
        """Take the next token; the text that became certain with it.

        What comes after the end changes nothing: a batch runs on until its last row is done.
        """
        if self.reason:
            return ""
        if token in self._ends:
            return self.end("end_of_text")
        if len(self.ids) >= self._length:  # a length of 0: the prompt alone was asked for
            return self.end("length")
        self.ids.append(token)
        piece = self._give(self._decoder.push(token), final=False)
        if not self.reason and len(self.ids) == self._length:
            return piece + self.end("length")
        return piece

    def end(self, reason: str) -> str:
        """No token follows; the text that was still held back."""
        if self.reason:
            return ""
        piece = self._give(self._decoder.finish(), final=True)
        self.reason = self.reason or reason
        return piece

    def _give(self, new: str, final: bool) -> str:
        """Note the part of the text that is certain, and return it."""
        text = self._held + new
        found = [place for s in self._stop if (place := text.find(s)) >= 0]
        if found:
            self.reason, keep = "stop", len(text) - min(found)
        else:
            keep = 0 if final else self._beginning(text)
        piece, self._held = text[: len(text) - keep], text[len(text) - keep :]
        if piece:
            self.pieces.append(piece)
        return piece

    def _beginning(self, text: str) -> int:
        """How many characters at the end of a text could be the beginning of a stop string."""
        longest = max((len(s) for s in self._stop), default=1) - 1
        lengths = range(min(longest, len(text)), 0, -1)
        return next((n for n in lengths if any(s.startswith(text[-n:]) for s in self._stop)), 0)


class Follower:
    """A stopping criterion of transformers' `generate`: follows every row, token by token.

    Attributes:
        endings: the text of each row; a row is done where it has ended.
        times: `time.perf_counter()` after each step.
    """

    def __init__(
        self, endings: Sequence[Ending], each: Callable[[str], None] | None = None
    ) -> None:
        """To be passed in a `StoppingCriteriaList`.

        Args:
            endings: one for each row.
            each: called with every piece of text.
        """
        self.endings, self.each = endings, each
        self.times: list[float] = []

    def __call__(self, ids: torch.Tensor, scores: object, **_: Any) -> torch.Tensor:
        """Which rows are done: (rows,) of bool.

        Args:
            ids: (rows, columns), the newest token in the last column.
            scores: not used.
        """
        import torch

        self.times.append(time.perf_counter())
        for ending, token in zip(self.endings, ids[:, -1].tolist(), strict=True):
            piece = ending.push(token)
            if self.each is not None:
                self.each(piece)
        return torch.tensor([bool(e.reason) for e in self.endings], device=ids.device)

    def ttft(self, start: float) -> float:
        """Time to first token in seconds: reading the prompt and choosing one token."""
        return self.times[0] - start

    @property
    def tokens_per_second(self) -> float:
        """Decoding steps after the first token, by the second; NaN where there was none."""
        if len(self.times) < 2:
            return float("nan")
        return (len(self.times) - 1) / (self.times[-1] - self.times[0])
