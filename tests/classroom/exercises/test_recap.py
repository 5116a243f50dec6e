"""The recap's widget: choosing answers, and what is stored of it."""

from __future__ import annotations

import pytest

from classroom.exercises import Lesson, lessons, store

each_lesson = pytest.mark.parametrize("lesson", lessons().values(), ids=lambda x: x.number)


@each_lesson
def test_questions_can_be_shown(lesson: Lesson) -> None:
    assert lesson.recap.lesson == lesson.number and len(lesson.recap.questions) == 3
    for question in lesson.recap.questions:
        assert 2 <= len(question.options) <= 4
        assert 0 <= question.right < len(question.options)
        assert len(set(question.options)) == len(question.options)
        assert max(map(len, question.options)) <= 50, "one line, on a narrow page too"
    assert len({q.right for q in lesson.recap.questions}) > 1, "always the same place"


@each_lesson
def test_choosing_explains_and_is_noted(lesson: Lesson) -> None:
    store.forget()
    widget = lesson.recap.show()
    assert [choice.value for choice in widget.choices] == [None] * 3
    assert [response.value for response in widget.responses] == [""] * 3
    rows = zip(lesson.recap.questions, widget.choices, widget.responses, strict=True)
    for n, (question, choice, response) in enumerate(rows):
        name = lesson.recap.ids[n]
        choice.index = (question.right + 1) % len(question.options)
        assert "✗ Not this one." in response.value and "role='status'" in response.value
        assert not store.current().recaps[name].right
        choice.index = question.right
        assert "✓ Right." in response.value
        assert question.explanation.split("`")[0].split("'")[0] in response.value
        assert store.current().recaps[name].right
        choice.index = None  # as when widgets are cleared
        assert "✓ Right." in response.value
    store.forget()


@each_lesson
def test_its_text_is_always_the_same(lesson: Lesson) -> None:
    widget = lesson.recap.show()
    before = repr(widget)
    widget.choices[0].index = 0
    assert repr(widget) == before and lesson.number in before
    store.forget()
