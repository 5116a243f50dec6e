"""classroom.strategies: right and wrong are told apart, and repeated stories are found out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import helpers
from classroom import strategies
from system.errors import ParameterError


def texts(*new: str) -> Any:
    """As much of a generation as is scored."""
    return SimpleNamespace(new_texts=new)


def test_only_the_whole_right_word_counts() -> None:
    written = [texts(" 61847\nMail", " 61847."), texts(" 9350", " 935061")]
    assert strategies.share_right(written, ["61847", "93506"]) == 50
    assert strategies.share_right([texts(" Paris, France.")], ["Paris"]) == 100
    assert strategies.share_right([texts(" Parisian")], ["Paris"]) == 0
    with pytest.raises(ValueError, match="shorter"):
        strategies.share_right(written, ["61847"])


def test_variety_falls_with_repeats_within_and_between_texts() -> None:
    assert strategies.variety([[1, 2, 3, 4]]) == 100
    assert strategies.variety([[1, 2, 3, 4]] * 4) == 25
    assert strategies.variety([[1, 2, 3, 1, 2, 3]]) == 75  # the last run came before
    assert strategies.variety([[1]]) == 0


def test_the_right_answers_stand_in_the_mails() -> None:
    for task in (strategies.EXTRACT, strategies.ANSWER):
        assert len(set(task.answers.values())) == len(task.answers) == len(task.prompts)
    for mail, number in strategies.EXTRACT.answers.items():
        assert number in mail.replace(".", " ").split()
        assert number not in strategies.EXTRACT.form


def test_a_model_does_all_three_tasks() -> None:
    """Greedy stories are the same; scores repeat with the seed."""
    generator = helpers.load("course-gpt-1m", device="cpu")
    greedy = strategies.try_strategy(generator, 1, temperature=0)
    assert greedy["story"] <= 100 / strategies.STORIES and greedy["a story"].strip()
    hot = strategies.try_strategy(generator, 1, temperature=1.5, top_k=0)
    assert hot["story"] > 2 * greedy["story"]
    assert hot == strategies.try_strategy(generator, 1, temperature=1.5, top_k=0)
    assert all(0 <= hot[name] <= 100 for name in ("extract", "answer", "story"))
    with pytest.raises(ParameterError, match="temperature"):
        strategies.try_strategy(generator, 1, temperature=3)
