"""How a request is answered, beside the parameters of its text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serving.engine.grammar import Structure


@dataclass(frozen=True)
class Options:
    """How a request is answered; how its text is written is in its settings.

    Attributes:
        stream: every piece is told when it comes, not only the ends.
        logprobs: record each new token's log-probability and that many alternatives.
        prompt_logprobs: record them for the prompt too.
        ignore_end: go on after end-of-text (for load tests of equal length).
        only_prompt: read the prompt and write nothing.
        default_new_tokens: new tokens where no length is named, as far as there is room;
            None takes the server's DEFAULT_MAX_LENGTH, which counts the prompt.
        structure: the form that each text must have.
    """

    stream: bool = False
    logprobs: int | None = None
    prompt_logprobs: bool = False
    ignore_end: bool = False
    only_prompt: bool = False
    default_new_tokens: int | None = None
    structure: Structure | None = None


USUAL = Options()
