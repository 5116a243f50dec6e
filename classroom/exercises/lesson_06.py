"""Exercises of lesson 06: a drawn seed, the lines of a stream, a server that is full."""

from __future__ import annotations

import json
from typing import Any

from classroom.exercises import checks
from classroom.exercises.catalogue import Lesson
from classroom.exercises.question import Question
from classroom.exercises.recap import Recap, RecapQuestion

PROMPT = "A server is"
CHOSEN = 10_000  # seeds below it are chosen by people: of 32 random bits one in 400,000
SLOTS, PLACES, REQUESTS = 2, 3, 8
LINES = [
    'data: {"text": " a"}',
    "",
    'data: {"text": " program"}',
    "",
    'data: {"text": ".\\n"}',
    "",
    "event: done",
    'data: {"metadata": {"new_tokens": 3, "finish_reason": "length"}}',
    "",
]


def _check_seed(answer: Any) -> str:
    seed, first, second = answer
    if seed is None:
        raise checks.Wrong(
            'None is what you sent. The seed that was drawn is in `answer.parameters["seed"]`.'
        )
    drawn = checks.whole(seed)
    for name, text in (("first", first), ("second", second)):
        if not isinstance(text, str) or not text.strip():
            raise checks.Wrong(f"`{name}` is no text. The text of an answer is `answer.text`.")
    if drawn < 0:
        raise checks.Wrong("A seed is never negative. Read it in `answer.parameters`.")
    if drawn < CHOSEN:
        raise checks.Wrong(
            f"{drawn} looks chosen. Send the first request without a seed: the server draws one "
            "of about 4 billion."
        )
    if first != second and (first.endswith(second) or second.endswith(first)):
        raise checks.Wrong("One text has the prompt before it, the other not. Take both alike.")
    if first != second:
        raise checks.Wrong(
            "Two different texts. Send the second request with `seed=seed`, and all else as in the "
            "first."
        )
    if first.strip() == PROMPT:
        raise checks.Wrong("That is the prompt alone. Take what came back, `answer.text`.")
    return "A server that tells the seed it drew lets you repeat what surprised a user."


def _streams() -> list[tuple[list[str]]]:
    """Answers of /stream as lines, written by the server's own function."""
    from serving.api.streaming import event

    texts = [
        [" a", " computer", " that", " answers", "."],
        [" caf", "é", ":\n", "  text", ' "data', ": x", '"'],
        ["one"],
        [],
    ]
    done = event({"metadata": {"finish_reason": "length"}}, "done")
    streams = ["".join(event({"text": piece}) for piece in pieces) + done for pieces in texts]
    return [(LINES,), *((stream.splitlines(),) for stream in streams)]


def _pieces(lines: list[str]) -> list[str]:
    """The text of each piece."""
    sent = [json.loads(line[5:]) for line in lines if line.startswith("data:")]
    return [content["text"] for content in sent if "text" in content]


def _read_stream(lines: list[str]) -> str:
    return "".join(_pieces(lines))


def _check_stream(calls: Any) -> str:
    def data(lines: list[str]) -> list[str]:
        return [line[5:].removeprefix(" ") for line in lines if line.startswith("data:")]

    stripped = "This strips the pieces. A space before a word belongs to the text."
    mistakes = [
        (lambda lines: "".join(p.strip() for p in _pieces(lines)), stripped),
        (lambda lines: " ".join(p.strip() for p in _pieces(lines)), stripped),
        (
            lambda lines: _read_stream(lines).strip(),
            "This strips the text. Spaces and line breaks at its ends belong to it.",
        ),
        (
            lambda lines: " ".join(_pieces(lines)),
            'This puts spaces between the pieces. Each brings its own: join with `""`.',
        ),
        (
            lambda lines: "\n".join(_pieces(lines)),
            'This puts line breaks between the pieces. Join them with `""`.',
        ),
        (_pieces, 'That is a list of pieces. One text is asked for: `"".join(pieces)`.'),
        (
            lambda lines: "".join(data(lines)),
            'What follows `data: ` is JSON. Read it with `json.loads`, then take `["text"]`.',
        ),
        (
            lambda lines: "".join(data(lines)[:-1]),
            'What follows `data: ` is JSON. Read it with `json.loads`, then take `["text"]`.',
        ),
        (
            lambda lines: "".join(_pieces(lines)[:1]),
            "That is the first piece alone. Go through all lines before the `return`.",
        ),
        (
            lambda lines: "".join(_pieces(lines)[-1:]),
            "That is the last piece alone. Collect them: `text += …`.",
        ),
        (
            lambda lines: "".join(_pieces(lines)[:-1]),
            "The last piece is missing. Only the event `done`, after it, has no text.",
        ),
    ]
    if any(str(call.get("raised", "")).startswith("KeyError: 'text'") for call in calls):
        raise checks.Wrong("KeyError: 'text'. The `data:` line after `event: done` has no text.")
    if any(str(call.get("raised", "")).startswith("JSONDecodeError") for call in calls):
        raise checks.Wrong("Not every line is JSON: only what follows `data: ` in a line.")
    checks.results(calls, _streams(), _read_stream, "read_stream", mistakes)
    return "That is what `client.stream` does for you, and every browser with a chat page."


def _check_refused(answer: Any) -> str:
    guess, measured = checks.number(answer[0], "requests"), checks.whole(answer[1], "requests")
    right = REQUESTS - SLOTS - PLACES
    mistakes: list[tuple[float, str]] = [
        (
            0,
            "None was refused. Did all eight leave at the same moment, and by `httpx`? `Client` "
            "tries again until there is room.",
        ),
        (REQUESTS - right, "So many were answered. Count the others, with status code 503."),
        (
            REQUESTS - SLOTS,
            "So many are refused without a queue. Was the server started with `queue_length=3`?",
        ),
        (503, "503 is the status code. How many of the eight answers have it?"),
        (REQUESTS, "All eight were refused? Look at the status codes: only 503 means full."),
    ]
    mistakes += [
        (
            fewer,
            f"Only {fewer}: a text had ended before the last request came. Let all share one "
            "`httpx.Client`, ask for 190 tokens at temperature 0, and try again.",
        )
        for fewer in range(1, right)
    ]
    checks.expect(measured, right, "requests", mistakes, tolerance=0)
    if not 0 <= guess <= REQUESTS:
        raise checks.Wrong("Measured right. But the prediction must be from 0 to 8 requests.")
    return (
        f"{checks.compare_guess(guess, measured)} {SLOTS} were written, {PLACES} waited, the rest "
        "heard at once that they should come back."
    )


# Given in question 3: threads are not what it asks about. Greedy, so that no text ends early.
_CODES_OF = (
    "def codes_of(url):\n"
    '    """The status codes of eight requests that are sent at the same moment."""\n'
    f'    body = {{"prompt": "{PROMPT}", "max_new_tokens": 190, "temperature": 0}}\n'
    "    http = httpx.Client(base_url=url, timeout=60, trust_env=False)\n"
    "    with http, ThreadPoolExecutor(8) as crowd:\n"
    '        sent = [crowd.submit(http.post, "/generate", json=body) for _ in range(8)]\n'
    "    return [one.result().status_code for one in sent]\n\n\n"
)

questions = (
    Question(
        id="06.1",
        task='Start a server with `with ServerProcess("exercise", model="course-gpt-1m") as '
        f'exercise:`. In that block, let a `Client` continue "{PROMPT}" **without a seed**. Read '
        "the seed that the server drew in `answer.parameters`, and get the same text again.",
        start="seed = ...  # what the server drew\n"
        "first = ...  # the text of the request without a seed\n"
        "second = ...  # the text of the request with it",
        check_answer=_check_seed,
        ask="seed, first, second",
        hints=(
            "All three values are made inside the `with` block, which stops the server at its end.",
            f'`caller = Client(exercise.url)`, then `answer = caller.generate("{PROMPT}")`.',
            '`answer.parameters["seed"]` is the seed, `answer.text` the text. The second request '
            "gets `seed=seed`.",
        ),
        code="from serving.client import Client, ServerProcess\n\n"
        'with ServerProcess("exercise", model="course-gpt-1m") as exercise:\n'
        "    caller = Client(exercise.url)\n"
        f'    answer = caller.generate("{PROMPT}")\n'
        '    seed = answer.parameters["seed"]\n'
        "    first = answer.text\n"
        f'    second = caller.generate("{PROMPT}", seed=seed).text',
        why="Without a seed the server draws one and reports it. Model, prompt, parameters and "
        "seed together decide the text; keep them all with a bug report.",
    ),
    Question(
        id="06.2",
        task="Write `read_stream(lines)`: the new text, put together from the lines of an answer "
        "of `/stream`. `lesson_06.LINES` is an example: print it. Pieces are JSON after `data: `; "
        "after `event: done` comes what has no text.",
        start="def read_stream(lines):\n    return ...",
        check_answer=_check_stream,
        ask="read_stream",
        inputs=_streams,
        hints=(
            'Go through the lines; only those that `line.startswith("data: ")` matter.',
            '`json.loads(line.removeprefix("data: "))` is a dictionary. Import `json` first.',
            'Add `content["text"]` where there is one: `content.get("text", "")`.',
        ),
        code="import json\n\n\n"
        "def read_stream(lines):\n"
        '    text = ""\n'
        "    for line in lines:\n"
        '        if line.startswith("data: "):\n'
        '            content = json.loads(line.removeprefix("data: "))\n'
        '            text += content.get("text", "")  # the last event has none\n'
        "    return text",
        why="Server-sent events are lines of text, so any language can read them. JSON keeps "
        "spaces, quotes and line breaks of a piece safe within one line.",
    ),
    Question(
        id="06.3",
        task="*Predict, then measure.* A server of `course-gpt-1m` has `slots=2` and "
        "`queue_length=3`. Eight requests of 190 new tokens are sent at the same moment. **How "
        "many get the status code 503?** Predict. Then start it in a `with` block as in "
        "question 1, send them with `codes_of`, which is given, and count.",
        start="guess = ...  # requests: write it before you measure\n\n\n"
        + _CODES_OF
        + "measured = ...  # requests: start the server, call codes_of(its url), count",
        check_answer=_check_refused,
        ask="guess, measured",
        hints=(
            "How many texts are written, how many may wait? What happens to the others?",
            '`with ServerProcess("exercise", model="course-gpt-1m", slots=2, queue_length=3) as '
            "exercise:` starts it. `Client` would try again; `codes_of` does not.",
            "`codes = codes_of(exercise.url)` in that block, then `codes.count(503)`.",
        ),
        code="from concurrent.futures import ThreadPoolExecutor\n\n"
        "import httpx\n\n"
        "from serving.client import ServerProcess\n\n"
        "guess = 6\n\n\n" + _CODES_OF + 'limits = {"slots": 2, "queue_length": 3}\n'
        'with ServerProcess("exercise", model="course-gpt-1m", **limits) as exercise:\n'
        "    codes = codes_of(exercise.url)\n"
        "measured = codes.count(503)",
        why="Two texts have a slot, three wait. The queue is bounded, so the other three are told "
        "at once; an endless queue would let them wait until they give up.",
    ),
)

recap = Recap(
    "06",
    (
        RecapQuestion(
            "Why does /health not run a generation?",
            ("It would need a prompt", "It must answer at once, above all under load",
             "The model may not be asked twice"),
            1,
            "A check that waits in the queue reports a busy server as dead. It is restarted, and "
            "its load moves to the next one.",
        ),
        RecapQuestion(
            "A client gets a 503. What should it do? And with a 400?",
            ("503: wait, try again. 400: do not", "Both: try again at once",
             "503: give up. 400: wait, try again"),
            0,
            "503 means full: wait as long as `Retry-After` says, with a random part. After a 400 "
            "the same request will always be wrong.",
        ),
        RecapQuestion(
            "Why does one thread own the model?",
            ("Python allows only one thread", "It keeps the texts secret",
             "One step for many rows is cheaper than many"),
            2,
            "Threads that call the model side by side compete for the same cores and read the "
            "same weights several times.",
        ),
    ),
)  # fmt: skip

lesson = Lesson("06", questions, recap)
