"""The peak memory of a process that generates, measured in one of its own. (Lesson 04.)

What `helpers.memory` computes is compared with this. MB are 10⁶ bytes.
"""

from __future__ import annotations

import functools
import tempfile

from helpers.isolated import run_isolated
from helpers.models import locate
from helpers.monitor import get_peak_memory
from system.errors import ParameterError


@functools.lru_cache
def runtime_mb(tokenizer_of: str = "course-gpt-1m") -> float:
    """MB that Python, torch, transformers and a tokenizer take, whatever the model: measured.

    A fresh process loads a random model of one layer and width 8 as any other model,
    generates two tokens and reports its peak. Takes some seconds, once.

    Args:
        tokenizer_of: whose tokenizer is loaded with it.

    Raises:
        ChildFailed: the process gave no result.
    """
    with tempfile.TemporaryDirectory() as folder:
        save_random_model(folder, layers=1, width=8, heads=1, tokenizer_of=tokenizer_of)
        return float(run_isolated(peak_after_generation, model=folder))


def save_random_model(
    folder: str, layers: int, width: int, heads: int, tokenizer_of: str = "course-gpt-1m"
) -> int:
    """Save a GPT-2 with random float32 weights, and a tokenizer, as any model on the hub.

    Args:
        folder: where to.
        layers: how many layers.
        width: hidden size.
        heads: attention heads; they divide the width.
        tokenizer_of: the model whose tokenizer is saved with it.

    Returns:
        its number of parameters.

    Raises:
        ParameterError: heads that do not divide the width.
    """
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel
    from transformers.utils import logging

    if heads < 1 or width % heads:
        raise ParameterError("heads", heads, f"a divisor of the width {width}")
    tokenizer = AutoTokenizer.from_pretrained(locate(tokenizer_of))
    end = tokenizer.eos_token_id
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=512, n_embd=width, n_layer=layers, n_head=heads,
        bos_token_id=end, eos_token_id=end, pad_token_id=end,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    logging.disable_progress_bar()
    try:
        model.save_pretrained(folder)
    finally:
        logging.enable_progress_bar()
    tokenizer.save_pretrained(folder)
    return sum(p.numel() for p in model.parameters())


def peak_after_generation(
    model: str, prompt_tokens: int = 4, new_tokens: int = 2, batch: int = 1
) -> float:
    """Load a model, generate greedily, and tell this process's peak memory in MB.

    Meant for a fresh process: `run_isolated(peak_after_generation, model="course-gpt-4m")`.

    Args:
        model: as `helpers.load` takes it; it runs on the CPU.
        prompt_tokens: tokens of the prompt, all of them the same word.
        new_tokens: tokens to write; an early end-of-text is not let through.
        batch: sequences at once.
    """
    import torch

    from helpers.generator import load

    generator = load(model, "cpu")
    prompt = torch.full((batch, prompt_tokens), generator.encode(" the")[0])
    with torch.inference_mode():
        generator.model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            do_sample=False,
            pad_token_id=generator.tokenizer.pad_token_id,
        )
    return get_peak_memory()
