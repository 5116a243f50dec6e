"""`python -m classroom.report`: real notebooks, run as an instructor runs them."""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from classroom import course
from classroom.report import compare
from classroom.report.__main__ import arguments, make_report
from classroom.report.execute import execute
from classroom.report.model import Record, Report, Run, read_report
from classroom.report.page import index_page, record_tables
from classroom.report.parameters import combinations, parse_parameters, read_value
from classroom.report.plan import find_lessons, plan, read_lesson
from system.errors import ParameterError
from system.textfiles import TextFileError

COMMAND = [sys.executable, "-m", "classroom.report"]
LIMIT = 300  # seconds: far above what a busy machine needs


def write_lesson(folder: Path, name: str, *cells: str, parameters: str = "") -> Path:
    """A small lesson; a cell that begins with #tag: carries that tag, one with "## " is text."""
    first = f"# {name} · A lesson\n\n[![Open](https://x.invalid/b.svg)](https://x.invalid)"
    made = [new_markdown_cell(f"{first} [next](10_good.ipynb) [none](99_none.ipynb)")]
    if parameters:
        made.append(new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    for cell in cells:
        tag = re.match(r"#tag:(\S+)\n", cell)
        if cell.startswith("## "):
            made.append(new_markdown_cell(cell))
        else:
            made.append(new_code_cell(cell, metadata={"tags": [tag[1]]} if tag else {}))
    path = folder / f"{name}.ipynb"
    nbformat.write(new_notebook(cells=made), path)
    return path


@pytest.fixture(scope="module")
def lessons(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Lessons that pass, raise, lose their kernel, and never end."""
    folder = tmp_path_factory.mktemp("a course")
    recording = "from classroom.records import record\nrecord(word=WORD, letters=len(WORD), size=N)"
    deliberate = "#tag:raises-exception\n1 / 0"
    code = 'WORD = "a"  # what is written\nN = 3'
    made = [
        write_lesson(folder, "10_good", recording, deliberate, "## 2. The end", parameters=code),
        write_lesson(folder, "11_quick", "print(6 * 7)"),
        write_lesson(folder, "12_raises", "## 3. Worse", "{}['<b>key</b>']", "print('never')"),
        write_lesson(folder, "13_dies", "print('before')", "import os\nos.kill(os.getpid(), 9)"),
        write_lesson(folder, "14_hangs", "import time\nwhile True:\n    time.sleep(1)"),
    ]
    return {path.stem[3:]: path for path in made}


def an_answer(**changed: object) -> Run:
    """A run that passed, with some of it changed."""
    run = Run(lesson="05_x", title="05 · X", values={"SEED": 1}, name="05_x", status="passed")
    return run.model_copy(update={"seconds": 10.0, **changed})


def a_report(*runs: Run, **changed: object) -> Report:
    """A report of these runs."""
    plain = Report(
        started="2026-01-05T09:30:00+00:00",
        machine={"Memory": "8 GB"},
        versions={"Python": "3.12.1"},
        parameters={"SEED": [1]},
        timeout=60,
        runs=list(runs),
    )
    return plain.model_copy(update=changed)


# --- What is run --------------------------------------------------------------------------


TEXTS = [
    "Learning C # is", "Question: who?", "No", "12:30", "2024", "# Title", "1e-3", "null", "~",
    "[a, b]", "{a: b}", "'quoted'", '"quoted"', "- item", "a=b", " blanks ", "*", "&x", "!x", "%d",
    "@", "`", "true", "2026-01-05", "", "日本 👍", "C:\\new", "two\nlines",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_text_stays_as_it_was_typed(tmp_path: Path, text: str) -> None:
    """As far as into the run notebook's cell, as papermill writes it."""
    from papermill.translators import PythonTranslator

    lesson = write_lesson(tmp_path, "10_x", parameters="PROMPT = 'a'  # what is written")
    runs, values = plan([lesson], parse_parameters([f"PROMPT={text}"]))
    assert values == {"PROMPT": [text]} and runs[0].values == {"PROMPT": text}
    cell = PythonTranslator.codify(runs[0].values)
    assert ast.literal_eval(cell.partition("PROMPT = ")[2]) == text


@pytest.mark.parametrize(
    ("text", "default", "value"),
    [
        ("1", 5, 1),
        ("-3", 5, -3),
        ("0.5", 5, 0.5),
        ("1e-3", 0.1, 0.001),
        ("2", 0.1, 2),
        ("true", False, True),
        ("No", True, False),
        ("[a, b]", ["x"], ["a", "b"]),
        ("[No, 12:30, 2024]", ["x"], ["No", "12:30", "2024"]),
        ("[1, 2.5]", (3, 4), [1, 2.5]),
        ("[]", ["x"], []),
        ("[1, a]", None, [1, "a"]),
        ("text", None, "text"),
    ],
)
def test_a_value_has_the_kind_of_the_lessons_own(text: str, default: object, value: object) -> None:
    read = read_value("A", text, default)
    assert repr(read) == repr(value)


@pytest.mark.parametrize(
    ("text", "default", "allowed"),
    [
        ("many", 5, "a number"),
        ("", 5, "a number"),
        ("12:30", 5, "a number"),
        ("nan", 5, "a number"),
        ("inf", 0.5, "a number"),
        ("true", 5, "a number"),
        ("maybe", True, "true or false"),
        ("1", True, "true or false"),
        ("gpt2", ["x"], "a list"),
        ("[a, [b]]", ["x"], "a list"),
        ("[a", ["x"], "a list"),
        ("{a: 1}", ["x"], "a list"),
        ("[1, many]", [3], "a number"),
        ("[1,", None, "a number, a list such as"),
    ],
)
def test_another_kind_is_refused_by_name(text: str, default: object, allowed: str) -> None:
    with pytest.raises(ParameterError, match=f"SIZE=.* SIZE must be {allowed}"):
        read_value("SIZE", text, default)


def test_one_name_for_two_kinds_is_refused(tmp_path: Path) -> None:
    first = write_lesson(tmp_path, "10_x", parameters="A = 'text'")
    second = write_lesson(tmp_path, "11_y", parameters="A = 3")
    with pytest.raises(ParameterError, match="one lesson at a time"):
        plan([first, second], {"A": ["3"]})


def test_values_come_by_name_and_in_order() -> None:
    assert parse_parameters(["A=x=y", "B=1", "A="]) == {"A": ["x=y", ""], "B": ["1"]}


@pytest.mark.parametrize("wrong", ["SEED", "=1", "two words=1"])
def test_a_piece_that_sets_nothing_is_refused(wrong: str) -> None:
    with pytest.raises(ParameterError, match="NAME=VALUE"):
        parse_parameters([wrong])


def test_every_combination_of_values() -> None:
    assert combinations({}) == [{}]
    pairs = [(c["A"], c["B"]) for c in combinations({"A": [1, 2], "B": [3, 4]})]
    assert pairs == [(1, 3), (1, 4), (2, 3), (2, 4)]


def test_lessons_by_number_name_and_path(lessons: dict[str, Path], tmp_path: Path) -> None:
    known = sorted(lessons.values())
    assert find_lessons([], known) == known
    assert find_lessons([]) == course.notebooks()
    named = ["12", "10_good", "11_quick.ipynb", str(lessons["dies"]), "12"]
    found = [p.stem for p in find_lessons(named, known)]
    assert found == ["12_raises", "10_good", "11_quick", "13_dies"]
    for wrong in (["99"], [str(tmp_path)], ["good"], [""]):
        with pytest.raises(ParameterError, match="one of 10, 11"):
            find_lessons(wrong, known)


def test_a_parameter_is_set_where_it_exists(lessons: dict[str, Path]) -> None:
    asked = {"WORD": ["a", "a/b", "a"], "N": ["1", "1"]}
    runs, values = plan([lessons["good"], lessons["quick"]], asked)
    assert values == {"WORD": ["a", "a/b"], "N": [1]}
    assert [(r.lesson, r.values) for r in runs] == [
        ("10_good", {"WORD": "a", "N": 1}),
        ("10_good", {"WORD": "a/b", "N": 1}),
        ("11_quick", {}),
    ]
    assert [r.name for r in runs] == [
        "10_good--WORD-a-N-1",
        "10_good--WORD-a-b-N-1",
        "11_quick",
    ]
    same, _ = plan([lessons["good"]], {"WORD": ["a b", "a/b"]})
    assert len({run.name for run in same}) == 2, "each run has a file of its own"


@pytest.mark.slow
def test_wrong_usage_is_one_line_and_runs_nothing(lessons: dict[str, Path], tmp_path: Path) -> None:
    output = tmp_path / "report"
    done = subprocess.run(
        [*COMMAND, str(lessons["good"]), "-p", "WROD=x", "--output", str(output)],
        capture_output=True, text=True, timeout=LIMIT,
    )  # fmt: skip
    assert done.returncode == 2 and done.stdout == "" and not output.exists()
    assert len(done.stderr.splitlines()) == 1
    assert "WROD" in done.stderr and "one of N, WORD" in done.stderr


def test_other_wrong_usage(lessons: dict[str, Path], tmp_path: Path) -> None:
    def refused(*words: str) -> str:
        with pytest.raises(ParameterError) as caught:
            make_report(arguments().parse_args([str(lessons["quick"]), *words]))
        return str(caught.value)

    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "report.json").write_text('{"runs": 3}')
    assert "empty folder" in refused("--output", str(tmp_path / "full"))
    assert "earlier report" in refused("--compare", str(tmp_path / "full"))
    assert "earlier report" in refused("--compare", str(tmp_path / "missing"))
    assert "there is none here" in refused("-p", "SEED=1")
    broken = tmp_path / "15_broken.ipynb"
    for text in ("{", "[]", '{"cells": 1}'):
        broken.write_text(text)
        with pytest.raises(ParameterError, match="Jupyter notebook"):
            plan([broken], {})
    for seconds in ("0", "-1", "soon", "nan"):
        with pytest.raises(SystemExit) as ended:
            arguments().parse_args(["--timeout", seconds])
        assert ended.value.code == 2


# --- Running ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def broken(
    lessons: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[subprocess.CompletedProcess[str], Path]:
    """A report in which two lessons fail before others pass."""
    folder = tmp_path_factory.mktemp("report") / "made" / "by it"
    chosen = [str(lessons[name]) for name in ("raises", "dies", "good")]
    values = ["-p", "WORD=one", "-p", "WORD=longer"]
    command = [*COMMAND, *chosen, *values, "--output", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    return done, folder


@pytest.mark.slow
def test_one_failure_is_marked_and_the_rest_is_run(
    broken: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    done, folder = broken
    assert done.returncode == 1, done.stderr
    assert done.stderr == "", "no bar and no noise where nobody watches"
    assert [line[0] for line in done.stdout.splitlines()[:4]] == list("✗✗✓✓")
    assert done.stdout.splitlines()[-1].startswith("2 passed, 2 failed: ")
    raises, dies, one, longer = read_report(folder).runs
    assert (raises.status, raises.reason) == ("failed", "KeyError: '<b>key</b>'")
    assert raises.failure and raises.failure.cell.number == 1
    assert raises.failure.cell.heading == "3. Worse"
    assert "{}['<b>key</b>']" in raises.failure.traceback and "\x1b" not in raises.failure.traceback
    assert dies.status == "failed" and "kernel died" in dies.reason
    assert dies.failure and "os.kill" in dies.failure.source
    assert (one.status, longer.status) == ("passed", "passed"), "its error is part of the lesson"
    assert [r.values for r in one.records] == [{"word": "one", "letters": 3, "size": 3}]
    assert longer.records[0].values["letters"] == 6
    assert all(run.seconds and run.cells for run in (raises, one, longer))


class Loaded(HTMLParser):
    """What a page loads (not what it links to), and what its reader needs."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.without_alt = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        names = (
            ("href",) if tag in ("link", "use", "image") else ("src", "srcset", "data", "poster")
        )
        self.loaded += [str(given[name]) for name in names if given.get(name)]
        self.without_alt += tag == "img" and not given.get("alt")


@pytest.mark.slow
def test_pages_need_no_network(broken: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    _, folder = broken
    pages = [folder / "index.html", *sorted((folder / "lessons").glob("*.html"))]
    assert len(pages) == 5
    for page in pages:
        text = page.read_text(encoding="utf-8")
        seen = Loaded(text)
        assert all(source.startswith("data:") for source in seen.loaded), page.name
        assert not re.search(r"(url\(|@import|from|import\()\s*[\"']?(https?:)?//", text), page.name
        assert seen.without_alt == 0
        assert '<html lang="en">' in text and "<title>" in text


@pytest.mark.slow
def test_pages_show_what_happened(broken: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    _, folder = broken
    index = (folder / "index.html").read_text(encoding="utf-8")
    assert "2 of 4 passed" in index and "Not complete" not in index
    assert "&lt;b&gt;key&lt;/b&gt;" in index and "<b>key</b>" not in index
    assert 'scope="col"' in index and 'scope="row"' in index
    for target in re.findall(r'href="(lessons/[^"#]+)', index):
        assert (folder / target).is_file(), target
    assert "recorded" in index.lower() and "longer" in index
    page = (folder / "lessons" / "12_raises.html").read_text(encoding="utf-8")
    anchor = re.search(r'lessons/12_raises\.html#(cell-id=[^"]+)', index)
    assert anchor and f'id="{anchor[1]}"' in page
    good = (folder / "lessons" / "10_good--WORD-one.html").read_text(encoding="utf-8")
    assert "ZeroDivisionError" in good and "An Exception was encountered" not in good
    assert '<a href="10_good--WORD-one.html">next</a>' in good, "links lead to pages of the report"
    assert "99_none" not in good


@pytest.mark.slow
def test_a_lesson_without_end_is_ended(lessons: dict[str, Path], tmp_path: Path) -> None:
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    problem = execute(lessons["hangs"], tmp_path / "out.ipynb", {}, "", timeout=8)
    assert problem == "over the time limit of 8 s"
    left = [p for p in psutil.Process().children(recursive=True) if p.pid not in before]
    assert not [p for p in left if "ipykernel" in " ".join(p.cmdline())]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="terminals and signals as on Unix")
def test_ending_it_in_the_middle_keeps_what_is_there(
    lessons: dict[str, Path], tmp_path: Path
) -> None:
    import fcntl
    import pty
    import struct
    import termios

    folder = tmp_path / "report"
    chosen = [str(lessons[name]) for name in ("quick", "hangs", "raises")]
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    process = subprocess.Popen(
        [*COMMAND, *chosen, "--output", str(folder)], stdout=subprocess.DEVNULL, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    deadline = time.monotonic() + LIMIT
    while b"14_hangs:" not in shown and time.monotonic() < deadline:
        shown += os.read(ours, 4096)  # the bar of the second lesson
    index = (folder / "index.html").read_text(encoding="utf-8")
    assert "1 of 3 passed" in index and "ended from outside" in index, "all that a SIGKILL leaves"
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT) == 130
    while True:
        try:
            shown += os.read(ours, 4096)
        except OSError:  # the terminal's other end is closed
            break
    os.close(ours)
    words = shown.decode(errors="replace")
    assert "11_quick:" in words and "cell" in words and "%" in words
    assert words.strip().splitlines()[-1].startswith("stopped: 1 of 3 ran, see ")
    assert "Traceback" not in words
    assert not psutil.wait_procs(family, timeout=10)[1], "no kernel is left behind"
    report = json.loads((folder / "report.json").read_text())
    assert [run["status"] for run in report["runs"]] == ["passed", "not run", "not run"]
    index = (folder / "index.html").read_text(encoding="utf-8")
    assert "stopped by hand" in index and "14_hangs (defaults): stopped while it ran" in index
    assert "12_raises (defaults)" in index
    assert (folder / "lessons" / "11_quick.html").is_file()


@pytest.mark.slow
def test_a_long_temporary_folder_and_no_home_stop_nothing(
    lessons: dict[str, Path], tmp_path: Path, nobody: dict[str, str]
) -> None:
    """Sockets have addresses of about 100 characters, and Jupyter asks for a home."""
    temporary = tmp_path / "t"
    while len(str(temporary)) < 100:
        temporary /= "a folder"
    temporary.mkdir(parents=True)
    output = tmp_path / "report"
    done = subprocess.run(
        [*COMMAND, str(lessons["quick"]), "--output", str(output)],
        env=nobody | {"TMPDIR": str(temporary)}, capture_output=True, text=True, timeout=LIMIT,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert not list(temporary.glob("home-*")), "it is put away"


# --- Comparing and showing ----------------------------------------------------------------


def test_changes_against_an_earlier_report() -> None:
    records = [Record(cell=3, values={"bits": 1.25, "text": "a"})]
    before = a_report(
        an_answer(records=records),
        an_answer(values={"SEED": 2}, status="failed"),
        an_answer(values={"SEED": 3}),
    )
    moved = [Record(cell=4, values={"bits": 1.5, "text": "b"})]
    after = a_report(
        an_answer(seconds=14.0, records=moved),
        an_answer(values={"SEED": 2}),
        an_answer(values={"SEED": 4}),
        an_answer(values={"SEED": 5}, status="not run", seconds=None),
    )
    found = compare.changes(after, before)
    assert [(c.what, c.before, c.now, c.difference, c.verdict) for c in found] == [
        ("duration", "10.0 s", "14.0 s", "+4 (+40.0 %)", "worse"),
        ("bits", "1.25", "1.5", "+0.25 (+20.0 %)", "other"),
        ("text", "a", "b", "", "other"),
        ("status", "failed", "passed", "", "better"),
        ("status", "–", "passed", "new", "other"),
        ("status", "passed", "–", "not in this one", "other"),
    ]
    assert compare.changes(before, before) == []


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (2, 1, "−1 (−50.0 %)"),
        (0, 3, "+3"),
        (-2.0, -1.0, "+1 (+50.0 %)"),
        (True, 1, ""),
        ("a", 1, ""),
    ],
)
def test_how_far_a_value_moved(before: int, now: int, said: str) -> None:
    assert compare.difference(before, now) == said


def test_the_page_marks_changes() -> None:
    old = a_report(an_answer(status="failed"), versions={"Python": "3.11.2"})
    page = index_page(a_report(an_answer()), old)
    assert "failed before" in page and "▲ better" in page
    assert "Changes since 5 January 2026, 09:30" in page
    assert "Python: 3.11.2 → 3.12.1" in page
    same = index_page(a_report(an_answer()), a_report(an_answer()))
    assert "No change in status" in same and "Not the same set-up" not in same


def test_a_report_survives_writing_and_reading(tmp_path: Path) -> None:
    records = [Record(cell=1, values={"i": 1, "f": 1.0, "b": True, "t": "1"})]
    report = a_report(an_answer(records=records))
    (tmp_path / "report.json").write_text(report.model_dump_json())
    back = read_report(tmp_path)
    assert back == report == read_report(tmp_path / "report.json")
    assert [type(v) for v in back.runs[0].records[0].values.values()] == [int, float, bool, str]


def test_recorded_values_become_tables_and_figures() -> None:
    def measured(seed: int, speed: float) -> Run:
        values = {"model": "small", "seed": seed, "tokens_per_second": speed}
        other = Record(cell=5, values={"note": "x"})
        return an_answer(values={"SEED": seed}, records=[Record(cell=2, values=values), other])

    first, second = record_tables([measured(1, 20.5), measured(2, 31.0)])
    assert first.names == ("model", "seed", "tokens_per_second")
    assert [row.values for row in first.rows] == [["small", 1, 20.5], ["small", 2, 31.0]]
    assert first.numeric == [False, True, True]
    assert len(first.figures) == 1 and "alt=" in first.figures[0]
    assert "tokens per second from 20.5 to 31" in first.figures[0], "a seed is no result"
    assert second.names == ("note",) and second.figures == []


def test_a_lesson_is_read_by_its_byte_order_mark_or_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "13_green.ipynb"
    text = nbformat.writes(new_notebook(cells=[new_markdown_cell("# Gr\u00fcn")]))
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path.write_bytes(text.encode(encoding))
        assert read_lesson(path).cells[0].source == "# Gr\u00fcn"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(TextFileError, match=r"13_green.ipynb, line \d+: the byte 0xfc"):
        read_lesson(path)
