"""A text piece by piece, while the model writes it. (Lesson 02.)"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from helpers.decoding import Ending, Follower
from helpers.settings import GenerationSettings
from system.errors import is_out_of_memory, out_of_memory

if TYPE_CHECKING:
    from helpers.generator import TextGenerator


class TextStream:
    """Pieces of text as the model writes them: an iterator, closed to stop early.

    After the last piece, `new_tokens`, `ttft` and `tokens_per_second` tell what it took
    and `finish_reason` why it ended. The model works in a thread of its own, ahead of
    the reader; closing ends it at the next token.
    """

    def __init__(self, owner: TextGenerator, prompt: str, settings: GenerationSettings) -> None:
        self.prompt = prompt
        self.ttft, self.tokens_per_second = float("nan"), float("nan")
        self._owner, self._settings = owner, settings
        self._length = settings.new_tokens(owner.count_tokens(prompt), owner.context)
        self._ending = Ending(owner.tokenizer, owner.end_ids, self._length, settings.stop)
        self._pieces: queue.SimpleQueue[str | Exception | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="text-stream")
        self._thread.start()

    @property
    def new_tokens(self) -> int:
        """Tokens written so far."""
        return len(self._ending.ids)

    @property
    def finish_reason(self) -> str:
        """Why it ended: "length", "end_of_text", "stop", "closed"; empty while it goes on."""
        return self._ending.reason

    def __iter__(self) -> Iterator[str]:
        try:
            while (piece := self._pieces.get()) is not None:
                if isinstance(piece, Exception):
                    raise piece
                if piece:
                    yield piece
        finally:
            self.close()

    def close(self) -> None:
        """Stop the model at its next token."""
        self._closed.set()
        self._thread.join()

    def _work(self) -> None:
        try:
            with self._owner.lock:
                self._write()
        except Exception as error:  # handed to the reader's thread
            self._pieces.put(out_of_memory(error) if is_out_of_memory(error) else error)
        finally:
            self._pieces.put(None)

    def _write(self) -> None:
        import torch
        from transformers import StoppingCriteriaList

        from helpers.sampling import generate_arguments, seeded

        owner = self._owner
        ids = torch.tensor([owner.encode(self.prompt)], device=owner.model.device)
        follower = Follower([self._ending], self._each)
        start = time.perf_counter()
        with seeded(self._settings.seed):
            owner.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=self._length,
                stopping_criteria=StoppingCriteriaList([follower]),
                pad_token_id=owner.tokenizer.pad_token_id,
                **generate_arguments(self._settings),
            )
        self.ttft, self.tokens_per_second = follower.ttft(start), follower.tokens_per_second

    def _each(self, piece: str) -> None:
        self._pieces.put(piece)
        if self._closed.is_set():
            self._ending.end("closed")
