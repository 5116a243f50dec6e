"""classroom.widgets: every control does its own work, and nothing escapes from a callback."""

from __future__ import annotations

import re
import statistics
import time
from typing import Any

import pytest

import helpers
from classroom.widgets import LoopExplorer, ParameterExplorer
from classroom.widgets.pieces import distribution_html
from helpers.settings import parameter_ranges
from system.errors import ParameterError


@pytest.fixture(scope="module")
def generator() -> helpers.TextGenerator:
    return helpers.load("course-gpt-4m")


@pytest.fixture(scope="module")
def prompt(generator: helpers.TextGenerator) -> str:
    """A text whose most probable next token stands in it already."""
    ids = generator.encode(generator.generate("The cat", max_new_tokens=40, temperature=0).text)
    cut = max(i for i, token in enumerate(ids) if token in ids[:i])
    return generator.decode(ids[:cut])


@pytest.fixture
def explorer(generator: helpers.TextGenerator, prompt: str) -> ParameterExplorer:
    return ParameterExplorer(generator, prompt, seed=1)


def words(markup: str) -> str:
    """What a reader sees."""
    return re.sub(r"<style>.*?</style>|<!--.*?-->|<[^>]+>", " ", markup, flags=re.S)


def seen(explorer: ParameterExplorer) -> tuple[str, str]:
    """Chart and text as a reader sees them, without the seconds."""
    return words(explorer.chart.value), re.sub(r"in [\d.]+ s", "", words(explorer.text.value))


def left(explorer: ParameterExplorer) -> int:
    found = re.search(r"draws from ([\d,]+) of", explorer.chart.value)
    assert found
    return int(found[1].replace(",", ""))


def test_every_numeric_parameter_has_a_control_with_its_limits(explorer: ParameterExplorer) -> None:
    ranges = parameter_ranges()
    assert set(ranges) - set(explorer.controls) == {"max_length"}
    for name, limits in ranges.items():
        if name in ("max_length", "seed", "max_new_tokens"):
            continue
        control = explorer.controls[name]
        assert control.max == limits.maximum and control.value == limits.default
        assert control.min == limits.minimum or name == "top_p"  # above 0: the first step
        assert control.continuous_update is False and control.tooltip == limits.meaning


def test_it_shows_a_text_of_24_new_tokens_at_once(explorer: ParameterExplorer) -> None:
    assert explorer.result is not None and explorer.result.new_tokens <= 24
    assert explorer.result.new_text.split()[0] in words(explorer.text.value)
    assert "all others" in explorer.chart.value


@pytest.mark.parametrize(
    ("name", "value", "chart_changes"),
    [
        ("temperature", 1.6, True),
        ("top_k", 2, True),
        ("top_p", 0.1, True),
        ("repetition_penalty", 1.8, True),
        ("no_repeat_ngram_size", 1, True),
        ("max_new_tokens", 5, False),
        ("num_return_sequences", 3, False),
        ("seed", 9, False),
        ("prompt", "Machine learning is", True),
    ],
)
def test_each_control_changes_what_it_should(
    explorer: ParameterExplorer, name: str, value: Any, chart_changes: bool
) -> None:
    chart, text = seen(explorer)
    explorer.controls[name].value = value
    new_chart, new_text = seen(explorer)
    assert new_text != text
    assert (new_chart != chart) is chart_changes


def test_limits_show_in_the_number_of_tokens_left(explorer: ParameterExplorer) -> None:
    explorer.controls["top_k"].value = 7
    assert left(explorer) == 7
    explorer.controls["temperature"].value = 0
    assert left(explorer) == 1
    explorer.set(temperature=1.0, top_k=0, top_p=1.0)
    assert left(explorer) == len(explorer.generator.tokenizer)


def test_length_and_number_of_texts_follow(explorer: ParameterExplorer) -> None:
    explorer.set(max_new_tokens=3, num_return_sequences=4)
    assert explorer.result is not None and len(explorer.result.new_texts) == 4
    assert all(len(ids) <= 3 for ids in explorer.result.new_ids)
    assert explorer.text.value.count("<mark>") == 4


def test_set_moves_several_controls_and_writes_once(
    explorer: ParameterExplorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(explorer, "redraw", lambda: calls.append(1))
    explorer.set(temperature=0.2, top_k=5, seed=3)
    assert calls == [1] and explorer.parameters["top_k"] == 5
    explorer.controls["top_k"].value = 6
    assert calls == [1, 1]


def test_set_refuses_what_has_no_control_or_no_sense(explorer: ParameterExplorer) -> None:
    with pytest.raises(ParameterError, match="warmth"):
        explorer.set(warmth=1)
    with pytest.raises(ParameterError, match="temperature"):
        explorer.set(temperature=3)


def test_reset_goes_back(explorer: ParameterExplorer) -> None:
    before = seen(explorer)
    explorer.set(temperature=1.9, top_k=3, prompt="Something else")
    assert seen(explorer) != before
    explorer.reset.click()
    assert seen(explorer) == before


@pytest.mark.parametrize("prompt", ["", "  \n", "a\x00b", "\ud800", "word " * 600])
def test_a_bad_prompt_is_said_in_the_widget(explorer: ParameterExplorer, prompt: str) -> None:
    explorer.controls["prompt"].value = prompt
    assert 'role="alert"' in explorer.text.value and "prompt" in words(explorer.text.value)
    assert "all others" not in explorer.chart.value and explorer.result is None
    assert 'role="alert"' not in explorer.chart.value, "said once"
    explorer.controls["prompt"].value = "Well then"
    assert 'role="alert"' not in explorer.text.value + explorer.chart.value


def test_combinations_that_are_refused_are_said_in_the_widget(explorer: ParameterExplorer) -> None:
    explorer.set(max_new_tokens=4, num_return_sequences=2)
    explorer.controls["temperature"].value = 0
    assert "num_return_sequences" in words(explorer.text.value)


@pytest.mark.parametrize("error", [RuntimeError("out of luck"), MemoryError(), KeyError("x")])
def test_no_exception_escapes(
    explorer: ParameterExplorer, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(explorer.generator, "generate", broken)
    explorer.controls["seed"].value = 5
    assert type(error).__name__ in words(explorer.text.value)
    monkeypatch.setattr(explorer.generator, "next_token_distributions", broken)
    explorer.controls["seed"].value = 6
    assert type(error).__name__ in words(explorer.chart.value)


def test_text_is_escaped(explorer: ParameterExplorer) -> None:
    explorer.controls["prompt"].value = "<script>alert(1)</script> & more <b>"
    assert "<script>" not in explorer.text.value + explorer.chart.value
    assert "&lt;script&gt;" in explorer.text.value
    assert "&lt;b&gt;" in distribution_html([("<b>", 0.5, 1.0)], 1, 2)


def bars(markup: str) -> list[float]:
    """The bars' lengths in percent of the place they have."""
    return [float(w) for w in re.findall(r'llm-bar [^>]+width:([\d.]+)%"', markup)]


def test_bars_are_measured_against_one_scale() -> None:
    """A full bar is 100 %, whatever is shown; a zoom is a matter of asking for it."""
    tokens = [(" a", 0.2, 0.5), (" b", 0.1, 0.0)]
    markup = distribution_html(tokens, 3, 9)
    assert "full bar = 100%" in markup and "draws from 3 of 9" in markup
    assert bars(markup) == [20.0, 50.0, 10.0, 0.0]
    assert "70.0%" in markup and "50.0%" in markup  # all others, before and after
    zoomed = distribution_html(tokens, 3, 9, zoom=True)
    assert "full bar = 50%" in zoomed and bars(zoomed) == [40.0, 100.0, 20.0, 0.0]
    assert distribution_html([("x", 1.0, 1.0000001)], 1, 1).count("100.0%") == 4


def test_the_explorers_bars_keep_their_scale_until_a_zoom_is_asked_for(
    explorer: ParameterExplorer, generator: helpers.TextGenerator
) -> None:
    flat = "Machine learning is"  # no token is probable after it
    loop = LoopExplorer(generator, flat, steps=3)
    explorer.set(prompt=flat, temperature=2.0)
    assert "full bar = 100%" in explorer.chart.value and "full bar = 100%" in loop.picture.value
    plain = bars(loop.picture.value)
    assert plain == pytest.approx([100 * p for p in loop.values], abs=0.06)
    explorer.zoom.value = loop.zoom.value = True
    assert "full bar = 100%" not in explorer.chart.value
    assert all(wide >= short for wide, short in zip(bars(loop.picture.value), plain, strict=True))


@pytest.mark.slow
def test_the_length_ends_where_the_context_does(explorer: ParameterExplorer) -> None:
    """No value of the slider is refused, whatever the prompt; its largest one writes a text."""
    generator, slider = explorer.generator, explorer.controls["max_new_tokens"]
    for prompt in ("Machine learning is", "word " * 250, "The end"):
        explorer.controls["prompt"].value = prompt
        assert slider.max == generator.context - generator.count_tokens(prompt)
    explorer.set(prompt="word " * 250, max_new_tokens=5)
    slider.value = slider.max
    assert explorer.result is not None and explorer.result.new_tokens <= slider.max
    longest = slider.max
    explorer.controls["prompt"].value = "word " * 600  # refused as a whole: the length stays
    assert slider.max == longest and "prompt" in words(explorer.text.value)
    explorer.reset.click()
    assert slider.value == 24 and explorer.result is not None


def test_texts_that_run_from_the_right_run_from_the_right(explorer: ParameterExplorer) -> None:
    explorer.controls["prompt"].value = "الخادم"
    assert '<p dir="rtl"><bdi' in explorer.text.value
    explorer.controls["prompt"].value = "The server"
    assert '<p dir="ltr">The server' in explorer.text.value


def test_what_stands_in_a_stored_notebook_is_always_the_same(explorer: ParameterExplorer) -> None:
    first = repr(explorer)
    explorer.controls["temperature"].value = 1.5
    assert repr(explorer) == first and "course-gpt-4m" in first and len(first) <= 110


@pytest.mark.slow
def test_twenty_moves(explorer: ParameterExplorer) -> None:
    """Loose, since other tests may run beside it; the lesson's aim is a median under 0.3 s."""
    seconds = []
    for move in range(20):
        began = time.perf_counter()
        explorer.controls["temperature"].value = 0.5 + 0.05 * move
        seconds.append(time.perf_counter() - began)
    print(
        f"\nslider, helper alone: median {statistics.median(seconds):.3f} s of {len(seconds)} moves"
    )
    assert statistics.median(seconds) < 1.5
