"""How well a model predicts a text it has never seen: bits per byte (lesson 05).

Perplexity per token cannot be compared between models whose tokenizers differ: a
tokenizer with longer tokens makes each token harder and each text shorter. Bits per
*byte* can, because the bytes of a text do not depend on the tokenizer:

    bits per byte = sum of -ln p(token | tokens before it) / (ln 2 × UTF-8 bytes)

(Gao et al., 2020, "The Pile", section 3.1, https://arxiv.org/abs/2101.00027)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase


def bits_per_byte(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    context: int = 512,
    batch_size: int = 8,
) -> float:
    """Held-out bits per byte of `text`: lower is better, 8 is a blind guess.

    The text is cut at `<|endoftext|>` into documents, each begins after an end-of-text
    token, and the whole stream is read in windows of `context` tokens that do not
    overlap (so the first tokens of a window have little to go by: the figure is a
    little pessimistic, equally for every model).

    Args:
        model: a causal language model that answers `.logits` of shape
            (rows, tokens, vocabulary).
        tokenizer: the model's own tokenizer.
        text: plain text; documents may end with `<|endoftext|>`.
        context: window length in tokens, at most the model's context.
        batch_size: windows in one forward pass.

    Returns:
        bits per UTF-8 byte of the documents' text.

    Raises:
        ValueError: if the text holds no document.
    """
    import torch
    from torch.nn import functional as F

    documents = [d.strip() for d in text.split("<|endoftext|>") if d.strip()]
    if not documents:
        raise ValueError("text: no document in it (got only blanks); pass some text to measure")
    end = tokenizer.eos_token_id
    ids: list[int] = []
    for document in documents:
        ids += [end, *tokenizer(document, verbose=False)["input_ids"]]
    ids.append(end)
    n_bytes = sum(len(d.encode("utf-8")) for d in documents)

    device = next(model.parameters()).device
    n_windows = -(-(len(ids) - 1) // context)
    padded = ids + [end] * (n_windows * context + 1 - len(ids))
    stream = torch.tensor(padded, device=device)
    inputs, targets = stream[:-1].view(-1, context), stream[1:].view(-1, context).clone()
    targets.view(-1)[len(ids) - 1 :] = -100  # the padding of the last window does not count

    nats = 0.0
    with torch.inference_mode():
        for x, y in zip(inputs.split(batch_size), targets.split(batch_size), strict=True):
            logits = model(input_ids=x, attention_mask=torch.ones_like(x)).logits.float()
            # Few positions at a time: over a wide vocabulary a second copy of all logits is large.
            parts = zip(logits.flatten(0, 1).split(64), y.flatten().split(64), strict=True)
            for scores, wanted in parts:
                nats += F.cross_entropy(scores, wanted, ignore_index=-100, reduction="sum").item()
            del logits, parts, scores  # or they would be held while the next ones are computed
    return nats / math.log(2) / n_bytes
