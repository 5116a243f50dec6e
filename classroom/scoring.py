"""Classifying with a language model: which of a few tokens would it write next? (Lesson 07.)"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch
    from transformers import DynamicCache, PreTrainedModel

BATCH = 10  # prompts that run together, in one row


def label_scores(
    model: PreTrainedModel, prompts: Sequence[list[int]], labels: Sequence[int]
) -> np.ndarray[Any, Any]:
    """The log-probability of each label as the next token: one forward pass, nothing is written.

    What all prompts begin with is read once; its keys and values are shared by all.

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
    with torch.inference_mode():
        cache = DynamicCache()
        if shared:
            model.base_model(_row(model, prompts[0][:shared]), past_key_values=cache)
        for first in range(0, len(prompts), BATCH):
            rests = [ids[shared:] for ids in prompts[first : first + BATCH]]
            # One row: each prompt sees what all share and itself, not its neighbours.
            own = torch.block_diag(*(torch.ones(len(rest), len(rest)).tril() for rest in rests))
            seen = torch.cat([torch.ones(len(own), shared), own], 1).bool()
            hidden = model.base_model(
                _row(model, [token for rest in rests for token in rest]),
                attention_mask=seen[None, None].to(model.device),
                position_ids=_row(model, [shared + n for rest in rests for n in range(len(rest))]),
                past_key_values=cache if shared else None,
            ).last_hidden_state[0]
            ends = np.cumsum([len(rest) for rest in rests]) - 1
            logits = model.get_output_embeddings()(hidden[ends]).float().log_softmax(-1)
            scores[first : first + BATCH] = logits[:, list(labels)].cpu().numpy()
            cache.crop(-len(own))  # the shared beginning is left
    return scores


def _row(model: PreTrainedModel, numbers: list[int]) -> torch.Tensor:
    """A batch of one, of shape (1, numbers), where the model is."""
    import torch

    return torch.tensor([numbers], device=model.device)


def reading_time(
    model: PreTrainedModel, ids: list[int], kept: DynamicCache | None = None
) -> tuple[float, DynamicCache]:
    """Time to first token after a prompt, of which a beginning may have been read before.

    Args:
        model: any decoder-only model.
        ids: the tokens to read.
        kept: keys and values of what stands before them; it is left as it is.

    Returns:
        milliseconds, the best of two runs; and the keys and values of the whole prompt.
    """
    import torch

    taken = []
    for _ in range(2):
        cache, began = copy.deepcopy(kept), time.perf_counter()
        with torch.inference_mode():
            out = model(_row(model, ids), past_key_values=cache, logits_to_keep=1)
            out.logits.argmax().item()  # waits for a GPU, too
        taken.append(1000 * (time.perf_counter() - began))
    return min(taken), out.past_key_values


def cache_mb(cache: DynamicCache) -> float:
    """Megabytes (10⁶ bytes) that the keys and values of all layers take."""
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers) / 1e6


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


def accuracies(
    scores: Mapping[str, np.ndarray[Any, Any]], truth: np.ndarray[Any, Any], seed: int
) -> pd.DataFrame:
    """How often the highest score is the right label, in percent, with its 95 % interval.

    Args:
        scores: name of a prompt → scores of shape (items, labels).
        truth: the right label of each item, as a place among the labels.
        seed: start of the random numbers.

    Returns:
        columns value, low and high; a row a prompt.
    """
    import pandas as pd

    right = {name: found.argmax(1) == truth for name, found in scores.items()}
    rows = {name: (hits.mean(), *bootstrap(hits, seed)) for name, hits in right.items()}
    return 100 * pd.DataFrame(rows, index=["value", "low", "high"]).T


def gains(
    scores: Mapping[str, np.ndarray[Any, Any]],
    truth: np.ndarray[Any, Any],
    seed: int,
    of: str = "zero-shot",
) -> pd.DataFrame:
    """What each kind of prompt gains over the plainest one, item by item.

    Args:
        scores: "form, kind" → scores of shape (items, labels); each form has the kind `of`.
        truth: as in `accuracies`.
        seed: start of the random numbers.
        of: the kind that the others are compared with.

    Returns:
        columns gain (percentage points, with its 95 % interval, as text) and so ("null result"
        where the interval holds 0); a row for each prompt of another kind.
    """
    import pandas as pd

    rows = {}
    for name, found in scores.items():
        form, _, kind = name.rpartition(", ")
        if kind == of:
            continue
        before = (scores[f"{form}, {of}"].argmax(1) == truth).astype(float)
        change = (found.argmax(1) == truth) - before
        low, high = (100 * end for end in bootstrap(change, seed))
        so = "null result" if low <= 0 <= high else "a difference"
        rows[name] = f"{100 * change.mean():+.0f} ({low:+.0f} to {high:+.0f})", so
    return pd.DataFrame(rows, index=["gain", "so"]).T


def fits(text: str, schema: Mapping[str, Any]) -> bool:
    """Whether a text is JSON that a JSON schema describes."""
    import jsonschema

    try:
        jsonschema.validate(json.loads(text), schema)
    except (ValueError, jsonschema.ValidationError):
        return False
    return True
