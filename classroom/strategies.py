"""Three small tasks, and how well a model does them with given parameters. (Lesson 03.)

    try_strategy(generator, seed=3, temperature=0.7, top_p=0.95)

Each task is scored by a program, so that a strategy can be chosen by numbers: an extracted
order number is right or wrong, an answer holds the right word or not, and stories differ or
repeat each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from helpers.settings import GenerationSettings

if TYPE_CHECKING:
    from helpers.generator import Generation, TextGenerator

TRIES = 2  # texts for each prompt; temperature 0 would write the same one again
STORIES = 3


@dataclass(frozen=True)
class Task:
    """Prompts of one kind, the right answer to each, and the room for it.

    Attributes:
        form: the prompt; the gap takes each case.
        answers: case → right answer.
        new_tokens: how many tokens an answer may take.
    """

    form: str
    answers: dict[str, str]
    new_tokens: int

    @property
    def prompts(self) -> list[str]:
        """One for each case."""
        return [self.form.format(case) for case in self.answers]


EXTRACT = Task(
    "Mail: Where is my parcel? It is order 48213. Order: 48213\nMail: {} Order:",
    {
        "I paid 30 euros for order 61847 and want it back.": "61847",
        "Since 12 May I wait for order 93506.": "93506",
        "Two of the 3 lamps in order 27194 are missing.": "27194",
        "Please send order 58320 to Main Street 77.": "58320",
    },
    new_tokens=6,
)
ANSWER = Task(
    "The capital of {} is",
    {"France": "Paris", "Japan": "Tokyo", "Italy": "Rome", "Egypt": "Cairo"},
    new_tokens=3,
)
STORY = "Once upon a time, a little robot"
STORY_TOKENS = 10


def try_strategy(generator: TextGenerator, seed: int, **parameters: Any) -> dict[str, Any]:
    """Do all three tasks.

    Args:
        generator: the model that writes.
        seed: start of the random numbers.
        **parameters: the strategy, fields of `GenerationSettings`.

    Returns:
        the scores in %: extract and answer (right ones), story (runs of three tokens that
        no story had before); and the first story, as "a story".

    Raises:
        ParameterError: a parameter out of range.
    """
    greedy = GenerationSettings(**parameters).greedy
    given = {"seed": seed, **parameters}
    scores: dict[str, Any] = {}
    for name, task in (("extract", EXTRACT), ("answer", ANSWER)):
        written = generator.generate_batch(
            task.prompts,
            max_new_tokens=task.new_tokens,
            num_return_sequences=1 if greedy else TRIES,
            **given,
        )
        scores[name] = share_right(written, list(task.answers.values()))
    stories = generator.generate(
        STORY, max_new_tokens=STORY_TOKENS, num_return_sequences=1 if greedy else STORIES, **given
    )
    scores["story"] = variety(stories.new_ids * STORIES if greedy else stories.new_ids)
    scores["a story"] = stories.new_text
    return scores


def share_right(written: Sequence[Generation], answers: Sequence[str]) -> float:
    """The texts whose words hold the right answer of their prompt, in %.

    Args:
        written: one generation a prompt.
        answers: the right answer to each.
    """
    right = [
        answer in text.replace(".", " ").replace(",", " ").split()
        for generation, answer in zip(written, answers, strict=True)
        for text in generation.new_texts
    ]
    return 100 * sum(right) / len(right)


def variety(texts: Sequence[Sequence[int]]) -> float:
    """Runs of three tokens that did not come before, in any of the texts, in %.

    Args:
        texts: token ids of each text.
    """
    runs = [run for ids in texts for run in zip(ids, ids[1:], ids[2:], strict=False)]
    return 100 * len(set(runs)) / max(1, len(runs))
