"""The engine's turns, one by one on this thread: who is read, written, answered and given up."""

from __future__ import annotations

import pytest

from serving.engine.engine import MAX_FAILURES, STATIC_WAIT_SECONDS, Engine
from serving.engine.jobs import NotReadyError
from serving.engine.prefix_cache import PrefixStats
from serving.engine.stats import Stats
from system.errors import ParameterError
from tests.serving.by_hand import Clock, Loaded, bounded, ended, greedy, job_of, text, work

pytestmark = pytest.mark.usefixtures("inference")


def test_an_engine_is_as_it_was_asked_for(loaded: Loaded) -> None:
    plain = Engine(*loaded)
    assert (plain.slots, plain.waiting, plain.running, plain.unanswered) == (32, 0, 0, 0)
    assert (plain.static, plain.alive, plain.restrictions, plain.error) == (False, True, {}, "")
    assert (plain.context, plain.vocabulary, plain.dtype) == (512, 8192, "float32")
    assert plain.prefixes.capacity_bytes == 0 and plain._scheduler.queue_length == 64
    assert plain._scheduler.prefill_chunk == plain._runner.prefill_chunk == 128
    assert (plain._thread.name, plain._thread.daemon) == ("engine", True)
    other = Engine(*loaded, 3, 5, 7, "static", 9)
    assert (other.slots, other._scheduler.queue_length, other.static) == (3, 5, True)
    assert other._scheduler.prefill_chunk == other._runner.prefill_chunk == 7
    assert other.prefixes.capacity_bytes == 9 and other._runner.prefixes is other.prefixes
    assert "regex" in other.grammars.kinds


def test_a_long_prompt_holds_nobody_up(loaded: Loaded, clock: Clock) -> None:
    engine = Engine(*loaded, slots=2, prefill_chunk=8)
    short, long = (
        job_of(text(3), room=6, ignore_end=True),
        job_of(text(20), room=2, ignore_end=True),
    )
    third = job_of(text(4), room=1)
    for job in (short, long, third):
        engine.submit(job)
    engine._turn()
    assert (engine.waiting, engine.running, engine.unanswered) == (2, 1, 3)
    assert short.sequences[0].new_tokens == 2
    seen = []
    for _ in range(3):
        engine._turn()
        seen.append((short.sequences[0].new_tokens, long.sequences[0].new_tokens))
    assert seen == [(3, 0), (4, 0), (5, 2)] and engine.waiting == 1
    assert engine.cache_places == 7, "the long one has left"
    engine._turn()
    assert (ended(short), ended(long), ended(third)) == (["length"], ["length"], ["length"])
    assert (engine.running, engine.unanswered, engine.stats.sequences) == (0, 0, 3)
    assert third.sequences[0].finished == clock.now or short.sequences[0].finished == clock.now


def test_what_fits_in_a_chunk_is_read_in_the_same_turn(loaded: Loaded, clock: Clock) -> None:
    """However it came: together, or one by itself because its prompt is to be judged."""
    engine = Engine(*loaded, slots=9, prefill_chunk=12)
    judged = job_of(text(4), prompt_logprobs=True)
    for job in (judged, job_of(text(3), text(4)), job_of(text(5)), job_of(text(9))):
        engine.submit(job)
    engine._turn()
    assert clock.columns == [4, 4, 1] and engine.waiting == 2, "4, then 2 rows of 4: a chunk"
    engine._turn()
    assert clock.columns[3:] == [5, 1] and engine.waiting == 1, "9 more are not for this turn"


def test_those_who_ended_together_are_awaited_for_a_step(
    loaded: Loaded, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[float, ...]] = []
    for batching in ("continuous", "static"):
        engine = Engine(*loaded, batching=batching)

        def wait(*about: float, engine: Engine = engine) -> None:
            asked.append(about)
            engine._closing = not engine.waiting

        monkeypatch.setattr(engine._scheduler, "wait_for_work", wait)
        engine.submit(job_of(text(3), text(4), text(5), room=2, ignore_end=True))
        clock.now = 100.0
        engine._loop()
    nobody = (1, 0.0)
    assert asked == [nobody, (3, 103.0), nobody, nobody], "passes at 101 and 102; static ones wait"


def test_steps_are_counted_with_their_times(loaded: Loaded, clock: Clock) -> None:
    engine = Engine(*loaded, slots=4, prefill_chunk=8)
    engine.submit(job_of(text(3), text(4), room=4, ignore_end=True))
    engine._turn()
    assert (engine.stats.steps, engine.stats.row_steps) == (1, 2)
    assert engine.stats.seconds_in_steps == 1.0 and engine.stats.gap_seconds == 2.0
    engine.submit(job_of(text(8), room=9, ignore_end=True))
    engine._turn()  # a pass for its prompt, one for a token of all
    assert (engine.stats.steps, engine.stats.row_steps) == (2, 5)
    assert engine.stats.seconds_in_steps == 2.0 and engine.stats.gap_seconds == 2.0 + 3 * 2
    for _ in range(7):
        engine._turn()
    assert engine.running == 0 and engine.stats.seconds_in_steps == engine.stats.steps == 9
    clock.now += 1000
    engine.submit(job_of(text(3), room=2, ignore_end=True))
    before = engine.stats.gap_seconds
    engine._turn()
    assert engine.stats.gap_seconds == before + 1, "nobody waited while nothing was written"


def test_a_static_batch_is_filled_written_to_its_end_and_answered(
    loaded: Loaded, clock: Clock
) -> None:
    engine = Engine(*loaded, slots=2, prefill_chunk=8, batching="static")
    first, late = job_of(text(12), room=2), job_of(text(3), room=4, ignore_end=True)
    third = job_of(text(3), room=1)
    for job in (first, late, third):
        engine.submit(job)
    engine._turn()
    assert clock.slept == [STATIC_WAIT_SECONDS] and clock.columns == [8, 4, 3, 1]
    assert engine.running == 2 and ended(first) == []
    engine._turn()
    assert engine.waiting == 1 and late.sequences[0].new_tokens == 3
    engine._turn()
    assert (ended(first), ended(late), ended(third)) == (["length"], ["length"], [])
    engine._turn()
    assert ended(third) == ["length"] and len(clock.slept) == 2


def test_what_nobody_waits_for_leaves_at_the_next_turn(loaded: Loaded, clock: Clock) -> None:
    engine = Engine(*loaded, slots=1)
    running, waiting, late = (job_of(text(3), room=50, ignore_end=True) for _ in range(3))
    for job in (running, waiting, late):
        engine.submit(job)
    engine._turn()
    running.cancel()
    waiting.cancel()
    late.deadline = clock.now - 1
    clock.columns.clear()
    engine.submit(job_of(text(5), room=2, ignore_end=True))
    engine._turn()
    assert (ended(running), ended(waiting), ended(late)) == (
        ["cancelled"],
        ["cancelled"],
        ["timeout"],
    )
    assert engine.unanswered == 0 and clock.columns == [5, 1]


def test_token_ids_of_another_model_are_refused(loaded: Loaded) -> None:
    engine = Engine(*loaded)
    with pytest.raises(ParameterError, match="logit_bias=8192 .*from 0 to 8191"):
        engine.submit(job_of(text(3), logit_bias={8192: 1.0}))
    assert engine.waiting == 0


def failing(engine: Engine, *errors: Exception | None) -> None:
    """Let the next decoding steps end with these errors; later ones work."""
    left, decode = iter(errors), engine._runner.decode

    def step() -> None:
        if error := next(left, None):
            raise error
        decode()

    engine._runner.decode = step  # type: ignore[method-assign]


def test_steps_that_fail_end_what_was_written(
    loaded: Loaded, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine(*loaded, slots=1, queue_length=9)
    asked = [job_of(text(3), room=3, ignore_end=True) for _ in range(4)]
    for job in asked:
        engine.submit(job)
    broken = RuntimeError("a broken step")
    failing(engine, broken, broken, None, None, broken)
    work(engine)
    assert [ended(job) for job in asked] == [["error"], ["error"], ["length"], ["error"]]
    assert asked[0].sequences[0].error == "the model failed"
    assert engine.stats.failed_steps == 3 and engine.running == engine.unanswered == 0
    messages = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert messages == [f"a step failed ({n} in a row)" for n in (1, 2, 1)]


def test_an_engine_that_goes_on_failing_dies_and_says_so(loaded: Loaded) -> None:
    engine = Engine(*loaded, slots=1, queue_length=9)
    asked = [job_of(text(3), room=3, ignore_end=True) for _ in range(MAX_FAILURES + 1)]
    for job in asked:
        engine.submit(job)
    failing(engine, *[RuntimeError("broken")] * 9)
    bounded(engine)._run()
    assert not engine.alive and engine.error == "the model failed"
    assert [ended(job) for job in asked] == [["error"]] * MAX_FAILURES + [["shutdown"]]
    assert asked[-1].sequences[0].error == "the model failed" and engine.unanswered == 0
    with pytest.raises(NotReadyError, match="the model failed"):
        engine.submit(asked[0])


def test_without_memory_half_of_the_texts_go_on_and_the_others_wait(
    loaded: Loaded, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine(*loaded, slots=9)
    rooms = (3, 1, 4, 5, 6, 3)
    asked = [job_of(text(3 + n), room=room, ignore_end=True) for n, room in enumerate(rooms)]
    for job in asked:
        engine.submit(job)
    failing(engine, None, MemoryError("no room\nfor this"), *[None] * 9)
    work(engine)
    assert engine.slots == 2 and engine.stats.out_of_memory == 1 and engine.stats.failed_steps == 0
    for room, job in zip(rooms, asked, strict=True):
        (row,) = job.sequences
        assert ended(job) == ["length"]
        assert row.ids == greedy(loaded, row.ids[: row.prompt_tokens], room)
    ends = [job.sequences[0].finished for job in asked]
    assert max(ends[0], ends[2]) < ends[4], "in the order in which they came"
    assert [record.getMessage() for record in caplog.records] == [
        "out of memory: 2 slots from now on (no room)"
    ]


def test_without_memory_for_two_texts_they_follow_each_other(loaded: Loaded) -> None:
    engine, asked = Engine(*loaded), [job_of(text(n), room=3, ignore_end=True) for n in (3, 4)]
    for job in asked:
        engine.submit(job)
    failing(engine, MemoryError("no room"))
    work(engine)
    assert engine.slots == 1 and [ended(job) for job in asked] == [["length"], ["length"]]


def test_without_memory_for_a_single_text_it_is_given_up(
    loaded: Loaded, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine(*loaded, prefix_cache_bytes=2**22)
    job = job_of(text(40), room=3)
    engine.submit(job)
    failing(engine, *[MemoryError("no room " * 99)] * 2)
    work(engine)
    assert ended(job) == ["error"] and engine.slots == 32
    assert job.sequences[0].error == "not even this text alone fits in memory"
    assert engine.stats.out_of_memory == 2 and engine.prefixes.capacity_bytes == 0
    short = ("no room " * 99)[:200]
    assert [record.getMessage() for record in caplog.records] == [
        f"out of memory: no prompts are kept from now on ({short})",
        f"out of memory with a single text: {short}",
    ]


def test_a_closed_engine_writes_nothing_more(loaded: Loaded) -> None:
    engine, job = Engine(*loaded), job_of(text(3))
    engine.submit(job)
    engine.close()
    bounded(engine)._run()
    assert engine.alive is False and ended(job) == ["shutdown"] and engine.unanswered == 0
    (row,) = job.sequences
    assert row.error == engine.error == "the server is shutting down" and row.new_tokens == 0


def test_it_starts_with_two_tokens_that_count_for_nothing_and_closes(
    loaded: Loaded, clock: Clock
) -> None:
    engine = Engine(*loaded, prefix_cache_bytes=2**22)
    engine.start()
    hello = len(loaded[1]("Hello")["input_ids"])
    assert clock.columns == [1, hello, 1], "the probe, the prompt, the second token"
    assert engine.stats == Stats() and engine.prefixes.stats == PrefixStats()
    engine.close()
    assert not engine.alive and engine.error == "the server is shutting down"
    assert not engine._thread.is_alive()
