"""Jobs, their queue and their log-probabilities, without a model: clocks are set by hand."""

from __future__ import annotations

import threading
import time
from itertools import islice
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from helpers.decoding import Ending
from helpers.models import locate
from helpers.settings import GenerationSettings
from serving.engine import jobs, scheduler
from serving.engine.jobs import (
    GRACE_SECONDS,
    Job,
    NotReadyError,
    QueueFullError,
    Sequence,
    SequenceError,
    TimeLimitError,
    TokenLogprob,
    Update,
)
from serving.engine.logprobs import note_prompt, token_logprob
from serving.engine.scheduler import Scheduler
from system.errors import ParameterError


class Clock:
    """Stands for `time.perf_counter` where a module reads it."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(jobs, "time", made)
    monkeypatch.setattr(scheduler, "time", made)
    return made


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(locate("course-gpt-1m"))


def job_of(*lengths: int, time_limit: float = 10.0, **options: Any) -> Job:
    """A job with a sequence of each prompt length."""
    job = Job(time_limit, **options)
    for length in lengths:
        job.add(GenerationSettings(seed=1), [7] * length, 5)
    return job


def tokens(row: Sequence) -> int:
    """What a row costs to read where nothing is kept of other prompts."""
    return len(row.ids)


def writing(tokenizer: PreTrainedTokenizerBase, length: int = 3, **options: Any) -> Sequence:
    """The only sequence of a job, ready to take tokens."""
    row = job_of(2, **options).sequences[0]
    row.ending = Ending(tokenizer, {tokenizer.eos_token_id}, length)
    return row


def news(job: Job) -> list[Update]:
    return [job.events.get_nowait() for _ in range(job.events.qsize())]


def heard(job: Job) -> list[Update | None]:
    """Its updates; ten at most, so that one which never ends fails."""
    return list(islice(job.updates(poll_seconds=0.01), 10))


# --- jobs


def test_a_new_job_holds_what_it_was_given(clock: Clock) -> None:
    job = Job(7.5, stream=True, logprobs=3, prompt_logprobs=True, ignore_end=True)
    assert (job.created, job.deadline, job.cancelled) == (100.0, 107.5, False)
    assert (job.stream, job.logprobs, job.prompt_logprobs, job.ignore_end) == (True, 3, True, True)
    plain = Job(1)
    assert (plain.stream, plain.logprobs, plain.prompt_logprobs) == (False, None, False)
    assert plain.ignore_end is False and plain.guide is None and plain.sequences == []
    plain.cancel()
    assert plain.cancelled is True


def test_each_text_of_a_request_is_a_sequence_with_a_seed_of_its_own() -> None:
    job, prompt = Job(1), [1, 2, 3]
    settings = GenerationSettings(seed=2**63 - 1, num_return_sequences=3)
    job.add(settings, prompt, 9)
    job.add(GenerationSettings(seed=5), [4], 8)
    assert [row.index for row in job.sequences] == [0, 1, 2, 3]
    assert [row.seed for row in job.sequences] == [2**63 - 1, 0, 1, 5]
    assert [row.prompt_tokens for row in job.sequences] == [3, 3, 3, 1]
    assert [row.max_new_tokens for row in job.sequences] == [9, 9, 9, 8]
    first = job.sequences[0]
    assert first.job is job and first.settings is settings and first.guide is None
    first.ids.append(4)
    assert prompt == [1, 2, 3] == job.sequences[1].ids and first.new_tokens == 1
    seeds = {s.seed for _ in range(3) for s in _unseeded(2)}
    assert len(seeds) == 6 and max(seeds) <= 2**32, "without a seed each job draws one"


def _unseeded(count: int) -> list[Sequence]:
    job = Job(1)
    job.add(GenerationSettings(num_return_sequences=count), [1], 1)
    return job.sequences


def test_tokens_are_taken_until_the_text_ends(
    clock: Clock, tokenizer: PreTrainedTokenizerBase
) -> None:
    one, two, three = tokenizer("one two three")["input_ids"][:3]
    row = writing(tokenizer)
    assert (row.text, row.first_token) == ("", 0.0)
    noted = [TokenLogprob(token, -1.0, ()) for token in (one, two, three)]
    clock.now = 101.5
    row.accept(one, noted[0])
    clock.now = 102.0
    row.accept(two, noted[1])
    assert (row.first_token, row.ttft, row.finish_reason) == (101.5, 1.5, "")
    assert row.ids == [7, 7, one, two] and row.new_tokens == 2
    row.accept(three, None)
    assert row.finish_reason == "length" and row.logprobs == noted[:2]
    assert row.text == tokenizer.decode([one, two, three])
    assert news(row.job) == [], "only a stream hears before the end"
    row.finished = 105.5
    assert row.tokens_per_second == 0.5
    ended = writing(tokenizer)
    ended.accept(tokenizer.eos_token_id, noted[0])
    assert (ended.finish_reason, ended.ids, ended.logprobs) == ("end_of_text", [7, 7], [])
    assert ended.tokens_per_second == 0.0
    broken = writing(tokenizer)
    broken.accept(-1, None)
    words = "the model gave no numbers to choose a token by"
    assert (broken.finish_reason, broken.error, broken.first_token) == ("error", words, 0.0)
    first = writing(tokenizer)
    first.accept(0, None)
    assert (first.ids, first.finish_reason == "error") == ([7, 7, 0], False), "0 is a token, too"


def test_a_stream_hears_each_piece_once(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = tokenizer("one two three")["input_ids"][:3]
    row = writing(tokenizer, stream=True)
    for token in ids:
        row.accept(token, None)
    row.report()
    pieces = [tokenizer.decode([token]) for token in ids]
    heard = [Update(0, pieces[0], 1), Update(0, pieces[1], 2), Update(0, pieces[2], 3, "length")]
    assert news(row.job) == heard
    quiet = writing(tokenizer)
    for token in ids:
        quiet.accept(token, None)
    quiet.report()
    assert news(quiet.job) == [Update(0, "".join(pieces), 3, "length")], "all of it at once"
    quiet.end("cancelled")
    assert quiet.error == ""
    waiting = job_of(2, 2).sequences[1]
    waiting.end("timeout", "why")
    waiting.report()
    assert waiting.error == "why" and news(waiting.job) == [Update(1, "", 0, "timeout")]


def test_updates_go_on_until_every_sequence_has_ended() -> None:
    job = job_of(1, 1)
    sent = [Update(0, "a", 1), Update(1, "b", 1, "stop"), Update(0, "c", 2, "length")]
    for update in [*sent, Update(0, "late", 3)]:
        job.events.put(update)
    assert heard(job) == sent
    assert next(job_of(1).updates(poll_seconds=0.001)) is None, "nothing came yet"


@pytest.mark.parametrize(
    ("reason", "error", "words"),
    [
        ("timeout", TimeLimitError, "^$"),
        ("shutdown", NotReadyError, "^my words$"),
        ("error", SequenceError, "^my words$"),
    ],
)
def test_updates_raise_what_ended_a_sequence(
    reason: str, error: type[Exception], words: str
) -> None:
    job = job_of(1, 1)
    job.sequences[1].end(reason, "my words")
    job.sequences[1].report()
    with pytest.raises(error, match=words):
        heard(job)


class Guide:
    """Stands for a grammar: the form is whole with the token `last`, and `bad` spoils it."""

    def __init__(self, last: int = -1, bad: int = -1) -> None:
        self.last, self.bad = last, bad
        self.problem: ParameterError | None = None

    def accept(self, token: int) -> bool:
        if token == self.bad:
            self.problem = ParameterError("schema", "x", "another")
        return token == self.last

    def copy(self) -> Guide:
        return Guide(self.last, self.bad)


def test_a_text_ends_where_its_form_is_whole(tokenizer: PreTrainedTokenizerBase) -> None:
    one, two, three = tokenizer("one two three")["input_ids"][:3]
    whole = writing(tokenizer, guide=Guide(last=two))
    for token in (one, two):
        assert whole.finish_reason == ""
        whole.accept(token, None)
    assert (whole.finish_reason, whole.ids) == ("end_of_text", [7, 7, one, two])
    at_its_length = writing(tokenizer, length=1, guide=Guide(last=one))
    at_its_length.accept(one, None)
    assert at_its_length.finish_reason == "end_of_text", "it is whole, not cut"
    stopped = writing(tokenizer, guide=Guide(last=two))
    stopped.ending = Ending(tokenizer, (), 3, (tokenizer.decode([two]),))
    stopped.accept(one, None)
    stopped.accept(two, None)
    assert stopped.finish_reason == "stop"
    held = writing(tokenizer, guide=Guide(last=two))
    held.ending = Ending(tokenizer, (), 3, (tokenizer.decode([two]) + "!",))
    held.accept(one, None)
    held.accept(two, None)
    assert (held.finish_reason, held.text) == ("end_of_text", tokenizer.decode([one, two]))


def test_a_text_without_the_form_asked_for_raises_its_guides_problem(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    (one,) = tokenizer("one")["input_ids"][:1]
    row = writing(tokenizer, guide=Guide(bad=one))
    assert isinstance(row.guide, Guide) and row.guide is not row.job.guide, "each has its own"
    row.accept(one, None)
    assert row.finish_reason == "structure"
    row.report()
    with pytest.raises(ParameterError, match="schema"):
        heard(row.job)
    row.end("cancelled")
    row.report()
    assert [update.finish_reason for update in heard(row.job) if update] == ["cancelled"]


def test_an_engine_that_hangs_is_given_up_after_the_time_limit_and_some_grace(
    clock: Clock,
) -> None:
    job = job_of(1, time_limit=10)
    updates = job.updates(poll_seconds=0.001)
    clock.now = 110.0 + GRACE_SECONDS
    assert next(updates) is None and not job.cancelled
    clock.now += 0.001
    with pytest.raises(TimeLimitError):
        next(updates)
    assert job.cancelled


# --- the queue


def test_all_of_a_job_is_taken_or_nothing() -> None:
    queue = Scheduler(slots=2, queue_length=2, prefill_chunk=64)
    assert (queue.slots, queue.queue_length, queue.prefill_chunk) == (2, 2, 64)
    assert (len(queue), queue.unanswered, queue.closed) == (0, 0, "")
    first = job_of(1, 1, 1)
    queue.submit(first)
    with pytest.raises(QueueFullError):
        queue.submit(job_of(1, 1))
    assert (len(queue), queue.unanswered) == (3, 3)
    last = job_of(1)
    queue.submit(last)
    assert queue.take(0, tokens) == first.sequences[:2] and queue.unanswered == 4
    queue.answered()
    assert queue.unanswered == 3
    assert queue.empty() == [first.sequences[2], *last.sequences] and len(queue) == 0
    assert queue.empty() == []


def test_a_closed_queue_says_why_and_keeps_the_first_reason() -> None:
    queue = Scheduler(1, 1, 8)
    queue.close("the engine has died")
    queue.close("closing")
    with pytest.raises(NotReadyError, match="^the engine has died$"):
        queue.submit(job_of(1))
    assert queue.unanswered == 0
    waiting = threading.Thread(target=queue.wait_for_work, daemon=True)
    waiting.start()
    assert ends(waiting), "there will be none"


def ends(thread: threading.Thread) -> bool:
    thread.join(20)
    return not thread.is_alive()


def test_waiting_for_work_ends_with_it() -> None:
    for wake in (lambda q: q.submit(job_of(1)), lambda q: q.close("over")):
        queue = Scheduler(1, 1, 8)
        waiting = threading.Thread(target=queue.wait_for_work, daemon=True)
        waiting.start()
        assert waiting.is_alive()
        wake(queue)
        assert ends(waiting)


def test_company_is_waited_for_until_it_is_there_or_the_time_is_over() -> None:
    queue = Scheduler(8, 8, 8)
    queue.submit(job_of(1))
    queue.wait_for_work(2, time.perf_counter() - 1)
    queue.wait_for_work(2, time.perf_counter() + 0.01)
    waiting = threading.Thread(
        target=queue.wait_for_work, args=(3, time.perf_counter() + 3600), daemon=True
    )
    waiting.start()
    for _ in range(2):
        waiting.join(0.05)
        assert waiting.is_alive() and len(queue) < 3
        queue.submit(job_of(1))
    assert ends(waiting)
    waiting = threading.Thread(
        target=queue.wait_for_work, args=(9, time.perf_counter() + 3600), daemon=True
    )
    waiting.start()
    queue.close("over")
    assert ends(waiting)


def test_what_is_left_of_a_chunk_is_for_short_prompts_only() -> None:
    queue = Scheduler(slots=8, queue_length=8, prefill_chunk=12)
    rows = job_of(13, 2, 3, 3, 12).sequences
    queue.submit(rows[0].job)
    assert queue.take(0, tokens, 11) == []
    assert queue.take(0, tokens, 12) == rows[:1], "a whole chunk: it may be longer"
    assert queue.take(0, tokens, 1) == [] and queue.take(0, tokens, 6) == rows[1:3]
    assert queue.take(0, tokens, 3) == rows[3:4] and queue.take(0, tokens, 11) == []
    judged = job_of(2, prompt_logprobs=True)
    queue.empty()
    queue.submit(judged)
    assert queue.take(0, tokens, 11) == [] and queue.take(0, tokens) == judged.sequences


def test_short_prompts_are_taken_together_as_far_as_they_fill_a_chunk() -> None:
    queue = Scheduler(slots=8, queue_length=8, prefill_chunk=12)
    rows = job_of(3, 4, 4, 1, 13, 2).sequences
    queue.submit(rows[0].job)
    assert queue.take(8, tokens) == [] and queue.take(9, tokens) == []
    assert queue.take(7, tokens) == rows[:1], "one slot is free"
    assert queue.take(1, tokens) == rows[1:4], "three rows as wide as the widest fill the chunk"
    assert queue.take(0, tokens) == rows[4:5], "a longer one goes alone"
    assert queue.take(0, tokens) == rows[5:] and queue.take(0, tokens) == []
    queue.put_back(rows[:3])
    assert queue.empty() == rows[:3], "in their order, at the head"


def test_what_is_known_of_prompts_does_not_count() -> None:
    queue = Scheduler(slots=8, queue_length=8, prefill_chunk=12)
    rows = job_of(40, 41, 45, 45).sequences
    queue.submit(rows[0].job)
    assert queue.take(0, lambda row: len(row.ids) - 40) == rows[:2], "0 and 1 left to read"
    assert queue.take(0, lambda row: len(row.ids) - 40) == rows[2:], "5 and 5: ten columns"


def test_a_prompt_whose_tokens_are_judged_goes_alone() -> None:
    queue = Scheduler(slots=8, queue_length=8, prefill_chunk=64)
    for judged in (False, True, True, False):
        queue.submit(job_of(2, prompt_logprobs=judged))
    assert [len(queue.take(0, tokens)) for _ in range(5)] == [1, 1, 1, 1, 0]
    running = job_of(1).sequences
    queue.submit(job_of(1, 1))
    queue.put_back(running)
    assert queue.take(0, tokens)[0] is running[0]


def test_what_waited_too_long_or_for_nobody_leaves_the_queue(clock: Clock) -> None:
    queue = Scheduler(8, 8, 64)
    late, left, good, done = (job_of(1, time_limit=t) for t in (5, 20, 20, 1))
    running, over = job_of(1, time_limit=5).sequences[0], done.sequences[0]
    over.end("length")
    for job in (late, left, good):
        queue.submit(job)
    assert queue.expire([running]) == [] and len(queue) == 3
    left.cancel()
    clock.now = 105.0
    assert queue.expire([]) == left.sequences, "the limit itself is in time"
    clock.now = 105.001
    assert queue.expire([running, over]) == late.sequences
    reasons = [row.finish_reason for row in (*left.sequences, *late.sequences, running, over)]
    assert reasons == ["cancelled", "timeout", "timeout", "length"]
    assert queue.empty() == good.sequences and good.sequences[0].finish_reason == ""


# --- log-probabilities


def test_a_tokens_log_probability_and_its_alternatives() -> None:
    logits = torch.tensor([0.1, 0.2, 0.6, 0.1]).log() + 5  # any number added changes nothing
    noted = token_logprob(logits, 1, 2)
    assert noted.token_id == 1 and noted.logprob == pytest.approx(-1.6094, abs=1e-4)
    assert [token for token, _ in noted.top] == [2, 1]
    assert [p for _, p in noted.top] == pytest.approx([-0.5108, -1.6094], abs=1e-4)
    assert token_logprob(logits, 2, 0).top == ()


def test_a_prompts_own_tokens_are_judged_chunk_by_chunk() -> None:
    job = Job(1, logprobs=1, prompt_logprobs=True)
    job.add(GenerationSettings(seed=1), [3, 1, 2, 0], 5)
    (row,) = job.sequences
    row.ids.append(1)  # a new token, which is none of the prompt
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    note_prompt(row, logits[:3], 0)
    note_prompt(row, logits[3:], 3)
    judged = [token_logprob(logits[i], row.ids[i + 1], 1) for i in range(3)]
    assert row.prompt_logprobs == [TokenLogprob(3, None, ()), *judged]
    row.job.logprobs = None
    row.prompt_logprobs = []
    note_prompt(row, logits[1:2], 1)
    assert row.prompt_logprobs == [token_logprob(logits[1], 2, 0)]
