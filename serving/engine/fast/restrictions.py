"""What CTranslate2 cannot do for a request: one table, for the 400s and for `/info`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serving.engine.jobs import Sequence
from system.errors import ParameterError

if TYPE_CHECKING:
    from serving.engine.grammar import Guide, Structure

RULED_OUT = -100.0  # a bias that stands for "never"
NO_FORMS = "left out with ENGINE=ctranslate2, which chooses each token by itself"


@dataclass(frozen=True)
class Restriction:
    """A parameter of which this engine takes a part.

    Attributes:
        parameter: its name in both APIs.
        allowed: what it may be, in words, and why no more.
        value: what a text asks for that is not allowed; None where all is well.
    """

    parameter: str
    allowed: str
    value: Callable[[Sequence], Any]


def penalised(row: Sequence) -> bool:
    """Whether what was written changes what may follow: the library must see the prompt, too."""
    settings = row.settings
    return settings.repetition_penalty != 1.0 or settings.no_repeat_ngram_size > 0


def _other_bias(row: Sequence) -> dict[int, float] | None:
    found = {i: bias for i, bias in row.settings.logit_bias.items() if bias != RULED_OUT}
    return found or None


def _changed_logprobs(row: Sequence) -> int | None:
    return row.job.logprobs if penalised(row) or row.settings.logit_bias else None


RESTRICTIONS = (
    Restriction(
        "seed",
        "left out unless the temperature is 0: with ENGINE=ctranslate2 all requests draw from one "
        "source of random numbers",
        lambda row: None if row.settings.greedy else row.settings.seed,
    ),
    Restriction(
        "logit_bias",
        f"{RULED_OUT:g} for each token with ENGINE=ctranslate2, which can rule tokens out but not "
        "make them more or less likely",
        _other_bias,
    ),
    Restriction(
        "echo",
        "false where logprobs are asked for: ENGINE=ctranslate2 has none of the prompt",
        lambda row: True if row.job.prompt_logprobs else None,
    ),
    Restriction(
        "logprobs",
        "left out with repetition_penalty, no_repeat_ngram_size or logit_bias: with "
        "ENGINE=ctranslate2 they would be those of the changed logits",
        _changed_logprobs,
    ),
)


def check(row: Sequence) -> None:
    """Refuse what this engine cannot do for a text.

    Raises:
        ParameterError: the first parameter that it cannot take, and why.
    """
    for restriction in RESTRICTIONS:
        if (value := restriction.value(row)) is not None:
            raise ParameterError(restriction.parameter, value, restriction.allowed)


class NoForms:
    """No structured output: the library takes no mask over the vocabulary at a step."""

    kinds: list[str] = []

    def guide(self, structure: Structure | None) -> Guide | None:
        """None where no form is asked for.

        Raises:
            ParameterError: one is.
        """
        if structure is not None:
            raise ParameterError(structure.parameter, "…", NO_FORMS)
        return None
