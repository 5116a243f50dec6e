"""How probable the model found the tokens of a text: what `logprobs` asks for. (Lesson 07.)"""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving.engine.jobs import TokenLogprob

if TYPE_CHECKING:
    from torch import Tensor

    from serving.engine.jobs import Sequence


def token_logprob(logits: Tensor, token: int, count: int) -> TokenLogprob:
    """The log-probability of a token and of the `count` most probable ones.

    Args:
        logits: (vocabulary,), before any sampling parameter.
        token: the token that was chosen.
        count: how many alternatives to note.
    """
    logprobs = logits.log_softmax(-1)
    values, ids = logprobs.topk(count)
    top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
    return TokenLogprob(token, float(logprobs[token]), top)


def note_prompt(row: Sequence, logits: Tensor, start: int) -> None:
    """Record how probable the prompt's own tokens are.

    Args:
        row: the only row of its batch.
        logits: (columns, vocabulary), of the prompt's tokens from `start` on.
        start: where this chunk begins; its first token was judged with the chunk before.
    """
    if start == 0:
        row.prompt_logprobs = [TokenLogprob(row.ids[0], None, ())]
    for scores, token in zip(logits, row.ids[start + 1 : row.prompt_tokens], strict=False):
        row.prompt_logprobs.append(token_logprob(scores, token, row.job.logprobs or 0))
