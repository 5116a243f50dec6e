"""TextGenerator: transformers' text-generation pipeline, device-aware, measured and guarded.

Introduced in lesson 02. Every figure in a result is measured around the real call: time
to first token (TTFT) is prefill plus one decoding step, tokens per second counts the
decoding steps after it.
"""

from __future__ import annotations

import queue
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from helpers.device import device_label, resolve_device
from helpers.environment import default_model
from helpers.errors import OutOfMemoryError, ParameterError, PromptTooLongError, see
from helpers.models import context_length, load_model
from helpers.settings import GenerationSettings, check_prompt
from helpers.tokens import PieceDecoder, token_text

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

_NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "bad_alloc")


@dataclass(frozen=True)
class Generation:
    """The text written for one prompt, and what it took.

    Attributes:
        prompt: as used (shortened where `truncate` was asked for).
        new_texts: the text added, one for each returned sequence.
        new_ids: the added token ids, one list a sequence, without end-of-text.
        finish_reasons: for each sequence "length", "end_of_text" or "stop".
        prompt_tokens: length of the prompt in tokens.
        seconds: wall time of the whole call.
        ttft: time to first token in seconds.
        tokens_per_second: decoding speed of one sequence after its first token; NaN if
            there was only one token.
    """

    prompt: str
    new_texts: tuple[str, ...]
    new_ids: tuple[list[int], ...]
    finish_reasons: tuple[str, ...]
    prompt_tokens: int
    seconds: float
    ttft: float
    tokens_per_second: float

    @property
    def texts(self) -> tuple[str, ...]:
        """Prompt and new text together, one for each returned sequence."""
        return tuple(self.prompt + text for text in self.new_texts)

    @property
    def text(self) -> str:
        """Prompt and new text of the first sequence."""
        return self.texts[0]

    @property
    def new_text(self) -> str:
        """The new text of the first sequence."""
        return self.new_texts[0]

    @property
    def new_tokens(self) -> int:
        """Tokens added to the first sequence."""
        return len(self.new_ids[0])


class TextGenerator:
    """A loaded model and tokenizer behind transformers' text-generation pipeline.

    Safe to use from several threads: calls take turns (a lock), because seeds are global
    in torch. For many requests at once there is the server of lesson 06.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        name: str = "model",
    ) -> None:
        from transformers import pipeline

        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.context = context_length(model)
        self.pipeline = pipeline("text-generation", model=model, tokenizer=tokenizer)
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"TextGenerator({self.name}, {self.device}, {self.parameters / 1e6:.1f}M parameters)"

    @property
    def device(self) -> str:
        """The torch device, "cpu" or "cuda:0"."""
        return str(self.model.device)

    @property
    def device_label(self) -> str:
        """The device as people read it: "CPU" or "GPU:0"."""
        return device_label(self.device)

    @property
    def parameters(self) -> int:
        """How many numbers the model learned (tied ones counted once)."""
        return sum(p.numel() for p in self.model.parameters())

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        return list(self.tokenizer(text, verbose=False)["input_ids"])

    def decode(self, ids: list[int]) -> str:
        """Text of token ids."""
        return str(self.tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    def count_tokens(self, text: str) -> int:
        """How many tokens a text has."""
        return len(self.encode(text))

    def warm_up(self) -> float:
        """Two tokens, thrown away: the first call pays for allocations. Returns seconds."""
        start = time.perf_counter()
        self.generate("Hello", max_new_tokens=2, temperature=0)
        return time.perf_counter() - start

    def generate(self, prompt: str, truncate: bool = False, **parameters: Any) -> Generation:
        """Go on from a prompt.

        Args:
            prompt: the text to go on from.
            truncate: drop the beginning of a prompt that is too long, with a warning,
                instead of refusing it.
            **parameters: any field of `GenerationSettings`.

        Raises:
            ParameterError: a parameter out of range (PromptTooLongError for the prompt).
            OutOfMemoryError: not even one token fits in memory.
        """
        return self._generate([check_prompt(prompt)], GenerationSettings(**parameters), truncate)[0]

    def generate_batch(
        self, prompts: list[str], truncate: bool = False, **parameters: Any
    ) -> list[Generation]:
        """Go on from several prompts in one batch, padded on the left to equal length.

        All share the parameters and the times; random numbers are drawn for the batch as
        a whole, so a seeded text here differs from the same prompt alone.

        Raises:
            ParameterError, OutOfMemoryError: as `generate`; an empty list.
        """
        if not prompts:
            raise ParameterError("prompts", prompts, "a list of at least one prompt")
        checked = [check_prompt(prompt) for prompt in prompts]
        return self._generate(checked, GenerationSettings(**parameters), truncate)

    def _generate(
        self, prompts: list[str], settings: GenerationSettings, truncate: bool
    ) -> list[Generation]:
        prompts = [self._fit(prompt, settings, truncate) for prompt in prompts]
        batch = self.tokenizer(prompts, padding=True, padding_side="left", return_tensors="pt")
        longest = batch["input_ids"].shape[1]
        wanted = settings.new_tokens(longest, self.context)
        with self._lock:
            while True:
                try:
                    return self._run(prompts, batch, settings, wanted)
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    failure = _no_memory(error)
                # Outside the except block: the failed call's tensors are free by now.
                if wanted == 1:
                    raise failure
                self._empty_cache()
                warnings.warn(
                    f"out of memory with {wanted} new tokens for {len(prompts)} × "
                    f"{settings.num_return_sequences} texts: trying again with {wanted // 2}",
                    RuntimeWarning,
                    stacklevel=4,
                )
                wanted //= 2

    def _run(
        self, prompts: list[str], batch: BatchEncoding, settings: GenerationSettings, wanted: int
    ) -> list[Generation]:
        """One call of the pipeline, timed from the inside."""
        from transformers import StoppingCriteriaList

        width = batch["input_ids"].shape[1]
        watch = _watcher(self.tokenizer, width, settings.stop)
        start = time.perf_counter()
        with _seeded(settings.seed):
            # For a list the pipeline's loader draws a random number of its own, so that a
            # seed would mean another text here than in `stream`.
            outputs = self.pipeline(
                prompts if len(prompts) > 1 else prompts[0],
                batch_size=len(prompts),
                return_tensors=True,
                max_new_tokens=wanted,
                stopping_criteria=StoppingCriteriaList([watch]),
                pad_token_id=self.tokenizer.pad_token_id,
                **settings.generate_arguments(),
            )
        seconds = time.perf_counter() - start
        outputs = outputs if len(prompts) > 1 else [outputs]
        steps = len(watch.times)
        ttft = watch.times[0] - start if steps else seconds
        decoding = watch.times[-1] - watch.times[0] if steps > 1 else 0.0
        speed = (steps - 1) / decoding if decoding > 0 else float("nan")
        results = []
        for i, (prompt, sequences) in enumerate(zip(prompts, outputs, strict=True)):
            ended = [self._ending(s["generated_token_ids"][width:], settings) for s in sequences]
            results.append(
                Generation(
                    prompt=prompt,
                    new_texts=tuple(text for text, _, _ in ended),
                    new_ids=tuple(ids for _, ids, _ in ended),
                    finish_reasons=tuple(reason for _, _, reason in ended),
                    prompt_tokens=int(batch["attention_mask"][i].sum()),
                    seconds=seconds,
                    ttft=ttft,
                    tokens_per_second=speed,
                )
            )
        return results

    def _ending(self, ids: list[int], settings: GenerationSettings) -> tuple[str, list[int], str]:
        """Cut new tokens at end-of-text or a stop string: (text, ids, finish reason)."""
        reason, ends = "length", self._end_ids()
        for n, token in enumerate(ids):
            if token in ends:
                ids, reason = ids[:n], "end_of_text"
                break
        decoder = PieceDecoder(self.tokenizer, settings.stop)
        pieces = []
        for n, token in enumerate(ids):
            pieces.append(decoder.push(token))
            if decoder.stopped:
                return "".join(pieces), ids[: n + 1], "stop"
        pieces.append(decoder.finish())
        return "".join(pieces), ids, "stop" if decoder.stopped else reason

    def _end_ids(self) -> set[int]:
        """The tokens that end a text."""
        end = self.model.generation_config.eos_token_id
        return set(end) if isinstance(end, list) else {end}

    def _fit(self, prompt: str, settings: GenerationSettings, truncate: bool) -> str:
        """The prompt, without its beginning where it is too long and `truncate` is set."""
        ids = self.encode(prompt)
        limit = min(settings.max_length or self.context, self.context)
        limit -= settings.max_new_tokens or 1
        # Says what is wrong: the settings themselves, or a prompt that may not be shortened.
        settings.new_tokens(1 if truncate else len(ids), self.context)
        if len(ids) <= limit:
            return prompt
        kept = ids[-limit:]
        # A cut within a word can make another number of tokens of what is left.
        while self.count_tokens(text := self.decode(kept).lstrip("�")) > limit:
            kept = kept[1:]
        warnings.warn(
            f"prompt of {len(ids)} tokens cut to its last {limit}: the context holds "
            f"{self.context}, prompt and new text together",
            RuntimeWarning,
            stacklevel=5,
        )
        return text

    def _empty_cache(self) -> None:
        import torch

        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()

    def stream(self, prompt: str, truncate: bool = False, **parameters: Any) -> TextStream:
        """Go on from a prompt piece by piece: iterate over the returned `TextStream`.

        Raises:
            ParameterError: as `generate`; more than one sequence.
        """
        check_prompt(prompt)
        settings = GenerationSettings(**parameters)
        if settings.num_return_sequences > 1:
            raise ParameterError("num_return_sequences", settings.num_return_sequences,
                                 "1 when streaming")  # fmt: skip
        return TextStream(self, self._fit(prompt, settings, truncate), settings)

    def next_token_logits(self, text: str) -> torch.Tensor:
        """What the model says about the token after `text`: logits of shape (vocabulary,).

        Raises:
            PromptTooLongError: the text is longer than the context.
        """
        import torch

        ids = self.encode(text)
        if not 0 < len(ids) <= self.context:
            raise PromptTooLongError(len(ids), self.context, self.context)
        with torch.inference_mode():
            inputs = torch.tensor([ids], device=self.model.device)
            return self.model(input_ids=inputs).logits[0, -1].float()

    def next_token_probabilities(
        self, prompt: str, top: int = 10, **parameters: Any
    ) -> pd.DataFrame:
        """The most probable next tokens, before and after the generation parameters.

        Args:
            prompt: the text so far.
            top: how many rows.
            **parameters: any field of `GenerationSettings`.

        Returns:
            columns token, id, logit, before (softmax of the logits) and after (what
            sampling really draws from); the most probable token first.

        Raises:
            ParameterError: a parameter out of range (PromptTooLongError for the prompt).
        """
        import pandas as pd

        if top < 1:
            raise ParameterError("top", top, "a whole number from 1")
        settings = GenerationSettings(**parameters)
        logits = self.next_token_logits(check_prompt(prompt))
        before, after = self._before_after(prompt, logits, settings)
        order = before.topk(min(top, len(before))).indices
        return pd.DataFrame(
            {
                "token": [token_text(self.tokenizer, int(i)) for i in order],
                "id": order.tolist(),
                "logit": logits[order].tolist(),
                "before": before[order].tolist(),
                "after": after[order].tolist(),
            }
        )

    def next_token_distributions(
        self, prompt: str, **parameters: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Every token's probability of coming next, before and after the parameters.

        Returns:
            before and after, each of shape (vocabulary,) with sum 1. (Lesson 03.)
        """
        settings = GenerationSettings(**parameters)
        return self._before_after(prompt, self.next_token_logits(check_prompt(prompt)), settings)

    def _before_after(
        self, prompt: str, logits: torch.Tensor, settings: GenerationSettings
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Softmax of the logits as they are, and as these settings change them."""
        import torch

        ids = torch.tensor([self.encode(prompt)], device=logits.device)
        changed = settings.logits_processors()(ids, logits.clone()[None])[0]
        return probabilities(logits), probabilities(changed)


class TextStream:
    """Pieces of text as the model writes them: an iterator, closed to stop early.

    After the last piece, `new_tokens`, `ttft` and `tokens_per_second` tell what it took
    and `finish_reason` why it ended. The model works in a thread of its own, ahead of
    the reader; closing ends it at the next token.
    """

    def __init__(self, owner: TextGenerator, prompt: str, settings: GenerationSettings) -> None:
        self.prompt, self.finish_reason = prompt, ""
        self.new_tokens, self.ttft, self.tokens_per_second = 0, float("nan"), float("nan")
        self._owner, self._settings = owner, settings
        self._pieces: queue.SimpleQueue[str | Exception | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="text-stream")
        self._thread.start()

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
            with self._owner._lock:
                self._write()
        except Exception as error:  # handed to the reader's thread
            self._pieces.put(_no_memory(error) if is_out_of_memory(error) else error)
        finally:
            self._pieces.put(None)

    def _write(self) -> None:
        import torch
        from transformers import StoppingCriteriaList

        owner, settings = self._owner, self._settings
        inputs = owner.tokenizer(self.prompt, return_tensors="pt").to(owner.model.device)
        width = inputs["input_ids"].shape[1]
        decoder = PieceDecoder(owner.tokenizer, settings.stop)
        ends = owner._end_ids()
        times: list[float] = []

        def each(ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
            token = int(ids[0, -1])
            times.append(time.perf_counter())
            if token in ends:
                self.finish_reason = "end_of_text"
            else:
                self.new_tokens += 1
                self._pieces.put(decoder.push(token))
            over = decoder.stopped or self._closed.is_set() or token in ends
            return torch.full((1,), over, dtype=torch.bool, device=ids.device)

        start = time.perf_counter()
        with _seeded(settings.seed):
            owner.model.generate(
                **inputs,
                max_new_tokens=settings.new_tokens(width, owner.context),
                stopping_criteria=StoppingCriteriaList([each]),
                pad_token_id=owner.tokenizer.pad_token_id,
                **settings.generate_arguments(),
            )
        self._pieces.put(decoder.finish())
        if decoder.stopped:
            self.finish_reason = "stop"
        elif not self.finish_reason:
            self.finish_reason = "closed" if self._closed.is_set() else "length"
        self.ttft = times[0] - start
        if len(times) > 1:
            self.tokens_per_second = (len(times) - 1) / (times[-1] - times[0])


def load(
    name: str | None = None, device: str | int | None = None, dtype: str | None = None
) -> TextGenerator:
    """Load a model by name, ready to generate.

    Args:
        name: a shipped model, a folder or a hub id; None takes MODEL_NAME, else the
            course's default.
        device: "auto", "cpu", "cuda:0", "mps", -1, 0 …; None takes DEVICE, else "auto".
        dtype: "float32", "bfloat16", "float16"; None takes what suits the device.

    Raises:
        ModelNotFoundError, HubUnreachableError, ParameterError: each says what to do.
    """
    where = resolve_device(device)
    model, tokenizer = load_model(name, where, dtype)
    return TextGenerator(model, tokenizer, name or default_model())


@contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    """Random numbers from this seed inside; outside they go on as if nothing had happened."""
    import torch

    if seed is None:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Softmax: logits of shape (…, vocabulary) to probabilities that sum to 1."""
    import torch

    return torch.softmax(logits, dim=-1)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out; a CPU says it in other words than a GPU."""
    message = str(error).lower()
    return isinstance(error, MemoryError) or any(words in message for words in _NO_MEMORY)


def _no_memory(error: BaseException) -> OutOfMemoryError:
    """The same failure in words that say what to do."""
    cause = (str(error).splitlines() or [type(error).__name__])[0][:120]
    return OutOfMemoryError(
        f"this does not fit in memory ({cause}). Use fewer or shorter prompts, fewer new "
        f"tokens, a smaller model, or close what else uses memory. {see('memory')}"
    )


def _watcher(tokenizer: PreTrainedTokenizerBase, width: int, stop: tuple[str, ...]) -> Any:
    """A stopping criterion that notes the time of every step and looks for stop strings."""
    import torch
    from transformers import StoppingCriteria

    class Watcher(StoppingCriteria):
        def __init__(self) -> None:
            self.times: list[float] = []

        def __call__(self, ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
            self.times.append(time.perf_counter())
            over = torch.zeros(ids.shape[0], dtype=torch.bool, device=ids.device)
            if stop:
                texts = tokenizer.batch_decode(ids[:, width:])
                over = torch.tensor([any(s in t for s in stop) for t in texts], device=ids.device)
            return over

    return Watcher()
