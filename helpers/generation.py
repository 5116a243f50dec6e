"""What came of a generation, and the calls of transformers' pipeline that made it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from helpers.decoding import Ending, Follower
from helpers.settings import GenerationSettings
from system.errors import is_out_of_memory, out_of_memory, warn

if TYPE_CHECKING:
    from helpers.generator import TextGenerator


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


def run(owner: TextGenerator, prompts: list[str], settings: GenerationSettings) -> list[Generation]:
    """Continue every prompt, in as few batches as possible.

    Args:
        owner: its lock is held.
        prompts: each fits into the context.
        settings: for all of them.

    Raises:
        OutOfMemoryError: not even one token fits in memory.
    """
    lengths = [owner.count_tokens(prompt) for prompt in prompts]
    wanted = [settings.new_tokens(length, owner.context) for length in lengths]
    results: dict[int, Generation] = {}
    for group in _batches(lengths, wanted, owner.context):
        batch = [prompts[i] for i in group]
        found = _run_or_shorter(owner, batch, settings, [wanted[i] for i in group])
        results |= zip(group, found, strict=True)
    return [results[i] for i in range(len(prompts))]


def _batches(lengths: Sequence[int], wanted: Sequence[int], context: int) -> list[list[int]]:
    """Which prompts can run together: the longest and the most new tokens fit the context.

    Args:
        lengths: of the prompts, in tokens.
        wanted: most new tokens of each; each prompt alone fits.
        context: most columns of a batch, padding included.

    Returns:
        indices of the prompts of each batch, in the given order within it.
    """
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        together = [*batches[-1], i] if batches else []
        if together and lengths[together[0]] + max(wanted[j] for j in together) <= context:
            batches[-1] = together
        else:
            batches.append([i])
    return [sorted(batch) for batch in batches]


def _run_or_shorter(
    owner: TextGenerator, prompts: list[str], settings: GenerationSettings, wanted: list[int]
) -> list[Generation]:
    """Run; out of memory, again with half the tokens."""
    import torch

    while True:
        try:
            return _run(owner, prompts, settings, wanted)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            failure = out_of_memory(error)
        # Outside the except block: the failed call's tensors are free by now.
        most = max(wanted)
        if most == 1:
            raise failure
        if owner.device.startswith("cuda"):
            torch.cuda.empty_cache()
        warn(
            f"out of memory with {most} new tokens for {len(prompts)} × "
            f"{settings.num_return_sequences} texts: trying again with {most // 2}"
        )
        wanted = [min(n, most // 2) for n in wanted]


def _run(
    owner: TextGenerator, prompts: list[str], settings: GenerationSettings, wanted: list[int]
) -> list[Generation]:
    """One call of the pipeline, timed from the inside.

    Args:
        owner: its lock is held.
        prompts: they fit into one batch.
        settings: for all of them.
        wanted: most new tokens of each.
    """
    from transformers import StoppingCriteriaList

    from helpers.sampling import generate_arguments, seeded

    lengths = [owner.count_tokens(prompt) for prompt in prompts]
    follower = _follower(owner, wanted, settings)
    start = time.perf_counter()
    with seeded(settings.seed):
        # For a list the pipeline's loader draws a random number of its own, so that a
        # seed would mean another text here than in `stream`.
        owner.pipeline(
            prompts if len(prompts) > 1 else prompts[0],
            batch_size=len(prompts),
            return_tensors=True,
            tokenizer_encode_kwargs={"split_special_tokens": True},  # as `encode`
            max_new_tokens=max(wanted),
            stopping_criteria=StoppingCriteriaList([follower]),
            pad_token_id=owner.tokenizer.pad_token_id,
            **generate_arguments(settings, [max(lengths) - length for length in lengths]),
        )
    return _results(prompts, lengths, follower, start)


def run_ids(
    owner: TextGenerator, ids: list[int], prompt: str, settings: GenerationSettings
) -> Generation:
    """Continue from token ids, which the pipeline does not take: a chat's.

    Args:
        owner: its lock is held.
        ids: the prompt's tokens.
        prompt: the same as text.
        settings: for all texts.
    """
    import torch
    from transformers import StoppingCriteriaList

    from helpers.sampling import generate_arguments, seeded

    most = settings.new_tokens(len(ids), owner.context)
    follower = _follower(owner, [most], settings)
    tokens = torch.tensor([ids], device=owner.model.device)
    start = time.perf_counter()
    with seeded(settings.seed):
        owner.model.generate(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=most,
            stopping_criteria=StoppingCriteriaList([follower]),
            pad_token_id=owner.tokenizer.pad_token_id,
            **generate_arguments(settings, [0]),
        )
    return _results([prompt], [len(ids)], follower, start)[0]


def _follower(owner: TextGenerator, wanted: list[int], settings: GenerationSettings) -> Follower:
    """What watches every text of a call: each prompt's, with the most new tokens of that prompt."""
    return Follower(
        [
            Ending(owner.tokenizer, owner.end_ids, most, settings.stop)
            for most in wanted
            for _ in range(settings.num_return_sequences)
        ]
    )


def _results(
    prompts: list[str], lengths: list[int], follower: Follower, start: float
) -> list[Generation]:
    """What the follower saw, for each prompt; `start` is when the call began."""
    seconds = time.perf_counter() - start
    texts = len(follower.endings) // len(prompts)
    results = []
    for i, prompt in enumerate(prompts):
        endings = follower.endings[i * texts : (i + 1) * texts]
        results.append(
            Generation(
                prompt=prompt,
                new_texts=tuple(ending.text for ending in endings),
                new_ids=tuple(ending.ids for ending in endings),
                finish_reasons=tuple(ending.reason for ending in endings),
                prompt_tokens=lengths[i],
                seconds=seconds,
                ttft=follower.ttft(start),
                tokens_per_second=follower.tokens_per_second,
            )
        )
    return results
