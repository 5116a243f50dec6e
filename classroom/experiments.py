"""What lessons run in a process of its own, where the code would distract. (Lessons 04, 08.)

run_isolated(experiments.gpt2_speed)
"""

from __future__ import annotations

from typing import Any


def gpt2_speed(tokens: int = 8) -> float:
    """Tokens per second that a model of gpt2's shape writes on the CPU, with random weights.

    Args:
        tokens: how many are timed, after a warm-up.
    """
    import time

    from helpers.isolated import start_libraries

    start_libraries()
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config()).eval()
    prompt = torch.ones((1, 8), dtype=torch.long)
    settings = {"do_sample": False, "pad_token_id": 0, "attention_mask": torch.ones_like(prompt)}
    model.generate(prompt, max_new_tokens=2, **settings)  # warm-up
    start = time.perf_counter()
    model.generate(prompt, min_new_tokens=tokens, max_new_tokens=tokens, **settings)
    return tokens / (time.perf_counter() - start)


def generate_under_limit(model: str, batch: int, tokens: int, more_mb: float) -> list[str]:
    """Generate with little memory, in this process, and tell what it warned of.

    Args:
        model: as `helpers.load` takes it; it runs on the CPU.
        batch: texts at once.
        tokens: asked for in each text.
        more_mb: MB (10⁶ bytes) that the process may take beyond what it has after a warm-up.

    Returns:
        the warnings as Python shows them, the first one first.

    Raises:
        ParameterError: another system than Linux, which alone can limit memory so.
        OutOfMemoryError: not even one token fits.
    """
    import warnings

    import helpers
    from helpers.isolated import limit_memory, start_libraries

    start_libraries()
    generator = helpers.load(model, "cpu")
    generator.warm_up()
    limit_memory(more_mb)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        generator.generate_batch(["Hello"] * batch, max_new_tokens=tokens, temperature=1)
    return [f"{warning.category.__name__}: {warning.message}" for warning in caught]


def compiled_steps(model: str, tokens: int) -> dict[str, Any]:
    """Steps of decoding with a static cache, as they are and through torch.compile, on the CPU.

    A cache whose tensors keep their size lets one compiled program serve every step. The mode
    is "reduce-overhead". What was compiled is kept in torch's cache folder of this user.

    Args:
        model: as `helpers.load` takes it.
        tokens: steps that are timed.

    Returns:
        eager and compiled (seconds a step), compile (seconds of the first step), same (whether
        both write the same tokens), mode (what "reduce-overhead" changes).
    """
    import time
    from statistics import median

    from helpers.isolated import start_libraries

    start_libraries()
    import torch
    import torch._inductor
    from torch._inductor import config
    from transformers import StaticCache

    import helpers

    config.compile_threads = 1  # in this process: no others, which would take memory of their own
    of = helpers.load(model, "cpu").model

    def step(new: torch.Tensor, cache: StaticCache) -> torch.Tensor:
        return of(input_ids=new, past_key_values=cache).logits[:, -1:].argmax(-1)

    def run(step: Any) -> tuple[list[float], list[int]]:
        cache = StaticCache(config=of.config, max_cache_len=tokens + 2)
        new, times, written = torch.tensor([[1]]), [], []
        for _ in range(tokens):
            began = time.perf_counter()
            new = step(new, cache)
            times.append(time.perf_counter() - began)
            written.append(int(new))
        return times, written

    with torch.inference_mode():
        eager, plain = run(step)
        fast = torch.compile(step, mode="reduce-overhead")
        first, _ = run(fast)
        compiled, again = run(fast)
    return {
        "eager": median(eager),
        "compiled": median(compiled),
        "compile": max(first),
        "same": plain == again,
        "mode": torch._inductor.list_mode_options("reduce-overhead"),
    }
