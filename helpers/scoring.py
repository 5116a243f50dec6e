"""Classifying with a language model: which of a few tokens would it write next? (Lesson 07.)"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel

BATCH = 16  # prompts of similar length that run together


def label_scores(
    model: PreTrainedModel, prompts: Sequence[list[int]], labels: Sequence[int]
) -> np.ndarray[Any, Any]:
    """The log-probability of each label as the next token: one forward pass, nothing is written.

    What all prompts begin with is read once; its keys and values are shared.

    Args:
        model: any decoder-only model.
        prompts: token ids, each list at least one token longer than what all share.
        labels: the token ids to compare.

    Returns:
        shape (prompts, labels), the order as given.
    """
    import numpy as np
    import torch
    from transformers import DynamicCache

    shared = 0
    while all(len(ids) > shared + 1 and ids[shared] == prompts[0][shared] for ids in prompts):
        shared += 1
    scores = np.zeros((len(prompts), len(labels)))
    by_length = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
    with torch.inference_mode():
        device = model.device
        start = torch.tensor([prompts[0][:shared]], device=device)
        prefix = model(input_ids=start, use_cache=True).past_key_values if shared else None
        for first in range(0, len(prompts), BATCH):
            places = by_length[first : first + BATCH]
            rests = [prompts[place][shared:] for place in places]
            longest = max(map(len, rests))
            ids = torch.tensor([rest + [0] * (longest - len(rest)) for rest in rests])
            seen = torch.tensor([[1] * (shared + len(r)) + [0] * (longest - len(r)) for r in rests])
            cache = DynamicCache()
            for number, layer in enumerate(prefix.layers if prefix else ()):
                rows = (len(places), -1, -1, -1)
                cache.update(layer.keys.expand(rows), layer.values.expand(rows), number)
            last = torch.tensor([len(rest) - 1 for rest in rests])
            hidden = model.base_model(
                input_ids=ids.to(device),
                attention_mask=seen.to(device),
                past_key_values=cache,
            ).last_hidden_state[torch.arange(len(places)), last]
            logits = model.get_output_embeddings()(hidden).float().log_softmax(-1)
            scores[places] = logits[:, list(labels)].cpu().numpy()
    return scores


def bootstrap(
    values: Sequence[float] | np.ndarray[Any, Any], seed: int, rounds: int = 10_000
) -> tuple[float, float]:
    """The 95 % interval of a mean, by drawing as many values again and again, with repeats.

    Args:
        values: one an item (1 right, 0 wrong; or the difference of two such).
        seed: start of the random numbers.
        rounds: how often a sample is drawn.
    """
    import numpy as np

    drawn = np.random.default_rng(seed).choice(np.asarray(values, float), (rounds, len(values)))
    low, high = np.quantile(drawn.mean(1), (0.025, 0.975))
    return float(low), float(high)
