"""TextGenerator: transformers' text-generation pipeline, device-aware, measured and guarded.

Introduced in lesson 02. Every figure in a result is measured around the real call: time
to first token (TTFT) is reading the prompt and choosing one token, tokens per second
counts the decoding steps after it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from helpers.chat import Message, chat_ids, check_messages, render
from helpers.device import device_label, resolve_device
from helpers.generation import Generation, run, run_ids
from helpers.models import context_length, load_model
from helpers.settings import GenerationSettings, check_prompt
from helpers.stream import TextStream
from helpers.tokens import token_text
from system.environment import default_model
from system.errors import ParameterError, PromptTooLongError, warn

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


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
        end = model.generation_config.eos_token_id if model.generation_config else None
        self.end_ids = set(end) if isinstance(end, list) else {end}  # what ends a text
        self.lock = threading.RLock()

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

    @property
    def vocabulary(self) -> int:
        """How many token ids the model knows."""
        return int(self.model.get_input_embeddings().num_embeddings)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text: what looks like a special token in it is text, too."""
        found = self.tokenizer(text, verbose=False, split_special_tokens=True)
        return list(found["input_ids"])

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
        """Continue a prompt.

        Args:
            prompt: the text to continue.
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
        """Continue several prompts in one batch, padded on the left to equal length.

        All share the parameters and the times; random numbers are drawn for the batch as
        a whole, so a seeded text here differs from the same prompt alone. Padding counts
        for nothing else. Where it would push a short prompt's text past the context, the
        prompts run in several batches, each with times of its own.

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
        with self.lock:
            return run(self, prompts, settings)

    def _fit(self, prompt: str, settings: GenerationSettings, truncate: bool) -> str:
        """The prompt, without its beginning where it is too long and `truncate` is set."""
        settings.check_tokens(self.vocabulary)
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
        warn(
            f"prompt of {len(ids)} tokens cut to its last {limit}: the context holds "
            f"{self.context}, prompt and new text together"
        )
        return text

    def stream(self, prompt: str, truncate: bool = False, **parameters: Any) -> TextStream:
        """Continue a prompt piece by piece: iterate over the returned `TextStream`.

        Raises:
            ParameterError: as `generate`; more than one sequence.
        """
        check_prompt(prompt)
        settings = GenerationSettings(**parameters)
        if settings.num_return_sequences > 1:
            raise ParameterError("num_return_sequences", settings.num_return_sequences,
                                 "1 when streaming")  # fmt: skip
        return TextStream(self, self._fit(prompt, settings, truncate), settings)

    def chat(self, messages: Sequence[Message], **parameters: Any) -> Generation:
        """Answer a chat, written by the model's own template.

        Args:
            messages: `{"role": "user", "content": "…"}` and so on; contents are plain text,
                also where they look like special tokens.
            **parameters: any field of `GenerationSettings`.

        Raises:
            ParameterError: a base model, a message or a parameter that cannot be used, or a
                chat that leaves no place in the context.
        """
        if not getattr(self.tokenizer, "chat_template", None):
            raise ParameterError(
                "model",
                self.name,
                "an instruct model: this one has no chat template, it was trained to continue "
                "text and not to answer. Use generate(), or load smollm2-135m",
            )
        settings = GenerationSettings(**parameters)
        settings.check_tokens(self.vocabulary)
        checked = check_messages(messages)
        ids, prompt = chat_ids(self.tokenizer, checked), render(self.tokenizer, checked)
        with self.lock:
            return run_ids(self, ids, prompt, settings)

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

        from helpers.sampling import probabilities, processors

        settings.check_tokens(len(logits))
        ids = torch.tensor([self.encode(prompt)], device=logits.device)
        changed = processors(settings)(ids, logits.clone()[None])[0]
        return probabilities(logits), probabilities(changed)


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
