"""Marking: real notebooks, run for real, by learners of every kind."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from classroom import course
from classroom.exercises import ANSWER_TYPE, Verdict, judge, lessons
from classroom.exercises.answers import record_answer
from classroom.grade.gradebook import rows, write_csv, write_page
from classroom.grade.marking import Mark, Marked, mark
from classroom.grade.submissions import Submission, find_submissions
from system.errors import ParameterError
from tests.conftest import ROOT

LESSON = lessons()["01"]
IMPORTS = "import helpers\nfrom classroom.exercises import lesson_01\n"
IMPORTS += ", ".join(f"q{q.number}" for q in LESSON.questions) + " = lesson_01.questions"
SOLVED = [q.cell(q.code) for q in LESSON.questions]
UNTOUCHED = [q.cell(q.start) for q in LESSON.questions]
CHEAT = """
from classroom.exercises import question
question.Question.judge = lambda self, answer: question.Verdict("right", "of course")
question.Question.check_answer = property(lambda self: lambda answer: "of course")
import classroom.exercises.checks as checks
checks.Wrong = type("Wrong", (Exception,), {})
"""
FORGED = f"""
from IPython.display import display
display({{{ANSWER_TYPE!r}: {{"question": "01.2", "answer": {{"value": "forged"}}}}}}, raw=True)
display({{{ANSWER_TYPE!r}: ["no", "answer"]}}, raw=True)
display({{{ANSWER_TYPE!r}: {{"question": "77.1", "answer": 1}}}}, raw=True)
"""


def hand_in(folder: Path, learner: str, cells: list[str], name: str = "01_tokenization") -> Path:
    """A learner's notebook, as it lies in the folder that the instructor gets."""
    path = folder / learner / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    notebook = new_notebook(cells=[new_code_cell(source) for source in cells])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "", "language": "python"}
    nbformat.write(notebook, path)
    return path


def grade(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "classroom.grade", *map(str, arguments)],
        capture_output=True, text=True, timeout=600, cwd=ROOT,
    )  # fmt: skip


def table(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "gradebook.csv").open(encoding="utf-8", newline="") as file:
        return {row["learner"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess]:
    """One gradebook of learners of every kind."""
    folder = tmp_path_factory.mktemp("submissions")
    hand_in(folder, "anna", [IMPORTS, *SOLVED])
    hand_in(folder, "ben", [IMPORTS, *UNTOUCHED])
    hand_in(folder, "cheat", [IMPORTS, CHEAT, "q1.check('wrong')", "q2.check('wrong')", FORGED])
    hand_in(folder, "crash", [IMPORTS, SOLVED[0], "import os\nos.kill(os.getpid(), 9)"])
    endless = "import time\nwhile True:\n    time.sleep(1)"  # for ever, and in nobody's way
    hand_in(folder, "endless", [IMPORTS, endless, SOLVED[0]])
    flood = "for _ in range(40):\n    print('x' * 1_000_000)"
    hand_in(folder, "flood", [IMPORTS, SOLVED[0], flood])
    grow = "import time\nheld = [bytearray(10**8) for _ in range(30)]\ntime.sleep(60)"
    hand_in(folder, "greedy", [IMPORTS, SOLVED[0], grow])
    hand_in(folder, "tries", [IMPORTS, "1 / 0", "q1.check('wrong')", "q1.check('no')", SOLVED[0]])
    (folder / "broken").mkdir()
    (folder / "broken" / "01_tokenization.ipynb").write_text("{ no notebook")
    for learner, encoding in (("wide", "utf-16"), ("marked", "utf-8-sig"), ("latin", "latin-1")):
        path = hand_in(folder, learner, [f"{IMPORTS}  # gr\u00fcn", SOLVED[0]])
        path.write_bytes(path.read_text(encoding="utf-8").encode(encoding))
    output = folder.parent / "book"
    done = grade(folder, "--output", output, "--cell-timeout", "25", "--memory", "1500")
    return output, done


@pytest.mark.slow
def test_every_learner_is_a_row(graded) -> None:
    output, done = graded
    assert done.returncode == 1, done.stdout + done.stderr
    assert len(table(output)) == 12
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stdout.count("\n[") == 11 and "gradebook.html" in done.stdout


@pytest.mark.slow
def test_solved_and_untouched(graded) -> None:
    book = table(graded[0])
    assert all(book["anna"][q.id] == "right" for q in LESSON.questions)
    assert book["anna"]["right"] == str(len(LESSON.questions))
    assert book["anna"]["problems"] == "" and book["anna"]["errors"] == "0"
    assert all(book["ben"][q.id] == "unanswered" for q in LESSON.questions)
    assert book["ben"]["attempts"] == "0"


@pytest.mark.slow
def test_helpers_changed_in_memory_and_forged_outputs_mark_nothing_right(graded) -> None:
    row = table(graded[0])["cheat"]
    assert row["right"] == "0"
    assert row["01.1"] == "wrong" and row["01.2"] in ("wrong", "error")


@pytest.mark.slow
def test_crash_endless_loop_flood_and_memory_are_rows(graded) -> None:
    book = table(graded[0])
    assert "kernel died" in book["crash"]["problems"] and book["crash"]["01.1"] == "right"
    assert book["endless"]["01.1"] == "right" and book["endless"]["errors"] == "1"
    assert book["flood"]["01.1"] == "right"
    sizes = [path.stat().st_size for path in (graded[0] / "executed").glob("*.ipynb")]
    assert max(sizes) < 30_000_000
    assert "memory limit of 1431 MiB" in book["greedy"]["problems"]
    assert book["greedy"]["01.1"] == "right"
    assert book["broken"]["problems"] and book["broken"]["right"] == "0"


@pytest.mark.slow
def test_a_byte_order_mark_is_read_and_other_encodings_are_refused_in_a_line(graded) -> None:
    book = table(graded[0])
    for learner in ("wide", "marked"):
        assert (book[learner]["problems"], book[learner]["01.1"]) == ("", "right")
    said = book["latin"]["problems"]
    assert "latin" in said and "01_tokenization.ipynb, line " in said and "\n" not in said
    assert "the byte 0xfc is not UTF-8. Save the file as UTF-8." in said


@pytest.mark.slow
def test_attempts_and_errors_are_counted_and_the_last_answer_counts(graded) -> None:
    row = table(graded[0])["tries"]
    assert (row["01.1"], row["attempts"], row["errors"]) == ("right", "3", "1")


@pytest.mark.slow
def test_the_page_shows_it_all(graded) -> None:
    page = (graded[0] / "gradebook.html").read_text(encoding="utf-8")
    for learner in table(graded[0]):
        assert f">{learner}</a>" in page
    assert "kernel died" in page and "memory limit" in page
    assert not re.search(r"<(script|link|img)\b|url\(|@import", page), (
        "needs nothing from elsewhere"
    )


# --- which notebooks


def told(*given: Path) -> tuple[dict[tuple[str, str], Path], list[str]]:
    """(learner, lesson) → notebook, and what the instructor is told."""
    found = find_submissions([str(path) for path in given])
    return {(s.learner, s.lesson): s.path for s in found.submissions}, found.notes


def test_learner_and_lesson_are_told_by_names(tmp_path: Path) -> None:
    hand_in(tmp_path, "ann", [], "01_tokenization")
    hand_in(tmp_path, "ann", [], "00_start_here")
    hand_in(tmp_path, "all", [], "ben_01_tokenization")
    hand_in(tmp_path, "all", [], "01_tokenization_copyright")
    found, notes = told(tmp_path)
    assert list(found) == [("ann", "00"), ("ann", "01"), ("ben", "01"), ("copyright", "01")]
    assert notes == []


def test_hidden_and_system_files_are_nobodys(tmp_path: Path) -> None:
    good = hand_in(tmp_path, "anna", [], "01_tokenization")
    (tmp_path / "anna" / "._01_tokenization.ipynb").write_bytes(b"\x00\x05\x16\x07")
    for folder in (
        "__MACOSX/anna", "anna/.ipynb_checkpoints", ".Trash-0/files", "$RECYCLE.BIN", ".git",
        "System Volume Information", "anna/__pycache__",
    ):  # fmt: skip
        hand_in(tmp_path, folder, [], "01_tokenization")
    (tmp_path / "ben" / "01_tokenization.ipynb").mkdir(parents=True)
    assert told(tmp_path) == ({("anna", "01"): good}, [])
    hidden = tmp_path / ".class"  # one that is named is meant
    assert list(told(hand_in(hidden, "carl", [], "00_start_here").parent)[0]) == [("carl", "00")]


@pytest.mark.parametrize(
    "name",
    [
        "01_tokenization-Copy1", "01_tokenization-Copy1-Copy2", "01_tokenization (2)",
        "01_tokenization(1)", "01_tokenization copy", "01_tokenization copy 3",
        "01_tokenization - Copy", "01_tokenization - Copy (2)", "Copy of 01_tokenization",
        "Copy_of_01_tokenization",
    ],
)  # fmt: skip
def test_a_copy_is_no_other_learner(tmp_path: Path, name: str) -> None:
    """Alone it is marked, beside the original it is left out, however new it is."""
    copy = hand_in(tmp_path, "ann", [], name)
    found, notes = told(tmp_path)
    assert found == {("ann", "01"): copy}
    assert len(notes) == 1 and "only a copy is there" in notes[0] and str(copy) in notes[0]
    original = hand_in(tmp_path, "ann", [])
    os.utime(original, (1, 1))
    found, notes = told(tmp_path)
    assert found == {("ann", "01"): original}
    assert len(notes) == 1 and f"not {copy} (the other one is a copy)" in notes[0]
    named = hand_in(tmp_path, "all", [], name.replace("01_tokenization", "eve_01_tokenization"))
    assert told(named)[0] == {("eve", "01"): named}


def test_of_two_candidates_the_newer_is_marked_and_it_is_said(tmp_path: Path) -> None:
    first = hand_in(tmp_path, "one", [], "ann_01_tokenization")
    second = hand_in(tmp_path, "two", [], "ann_01_tokenization")
    other = hand_in(tmp_path, "two", [], "ben_01_tokenization")
    os.utime(first, (2000, 2000))
    os.utime(second, (1000, 1000))
    found, notes = told(second, other, first)
    assert found == {("ann", "01"): first, ("ben", "01"): other}
    assert notes == [f"ann, lesson 01: {first} is marked, not {second} (it was changed last)"]
    os.utime(second, (2000, 2000))
    found, notes = told(second, first, first)
    assert found == {("ann", "01"): first} and len(notes) == 1 and "equally old" in notes[0]


def test_two_folders_of_one_name_may_be_two_people(tmp_path: Path) -> None:
    for group in ("monday", "friday"):
        hand_in(tmp_path / group, "alex", [], "00_start_here")
    hand_in(tmp_path / "friday", "alex", [])
    found, notes = told(tmp_path)
    assert list(found) == [("friday/alex", "00"), ("friday/alex", "01"), ("monday/alex", "00")]
    assert notes == [
        "several folders are called alex: marked apart, as friday/alex and monday/alex"
    ]


def test_what_is_no_submission_is_said_and_stops_nobody(tmp_path: Path) -> None:
    good = hand_in(tmp_path, "ann", [])
    stray = hand_in(tmp_path, "bo", [], "my_homework")
    (tmp_path / "zoe").mkdir()
    last = hand_in(tmp_path, "zoe2", [])
    (tmp_path / "READ ME.txt").write_text("x")
    found, notes = told(*sorted(tmp_path.iterdir()))
    assert found == {("ann", "01"): good, ("zoe2", "01"): last}
    assert notes == [
        f"{tmp_path / 'READ ME.txt'}: left out, it is no notebook",
        f"{tmp_path / 'zoe'}: no notebook in it",
        f"{stray}: left out, its name holds no lesson's "
        f"({', '.join(one.file for one in course.written())})",
    ]


def test_a_learners_name_is_the_same_however_a_system_spells_it(tmp_path: Path) -> None:
    hand_in(tmp_path, "a", [], "Zoe\u0308_00_start_here")  # as macOS stores it
    hand_in(tmp_path, "a", [], "Zo\u00eb_01_tokenization")
    assert {learner for learner, _ in told(tmp_path)[0]} == {"Zo\u00eb"}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: p / "nothing", "a notebook, or a folder with notebooks"),
        (lambda p: p, "a notebook named like a lesson"),
        (lambda p: hand_in(p, "ann", [], "my_homework"), "01_tokenization"),
        (lambda p: hand_in(p, ".hidden", [], "._01_tokenization"), "named like a lesson"),
    ],
)
def test_nothing_to_mark_is_said(tmp_path: Path, make, words: str) -> None:
    place = str(make(tmp_path))
    with pytest.raises(ParameterError, match=words) as caught:
        find_submissions([place])
    assert (caught.value.parameter, caught.value.value) == ("submission", place)


@pytest.mark.slow
def test_wrong_usage_is_one_line(tmp_path: Path) -> None:
    done = grade(tmp_path / "nowhere")
    assert done.returncode == 2
    assert done.stderr.startswith("error: submission=") and done.stderr.count("\n") == 1
    full = grade(hand_in(tmp_path, "ann", []), "--output", tmp_path)
    assert full.returncode == 2 and "a new or an empty folder" in full.stderr


# --- the gradebook


def marked(learner: str, lesson: str, status: str, problem: str = "") -> Marked:
    asked = lessons()[lesson].questions
    marks = {q.id: Mark(Verdict(status, "<b>words</b>"), 2) for q in asked}  # type: ignore[arg-type]
    return Marked(Submission(learner, lesson, Path("x")), marks, problem=problem)


def test_several_lessons_of_a_learner_share_a_row(tmp_path: Path) -> None:
    book = [marked("ann", "00", "right"), marked("ann", "01", "wrong"), marked("bo", "00", "wrong")]
    assert [row.learner for row in rows(book)] == ["ann", "bo"]
    write_csv(tmp_path / "b.csv", book)
    lines = (tmp_path / "b.csv").read_text().splitlines()
    assert len(lines) == 3 and lines[0].startswith("learner,00.1,")
    assert ",,,0," in lines[2], "a lesson that was not handed in stays empty"


def test_the_csv_in_full(tmp_path: Path) -> None:
    ann, late, bo = (
        marked("ann", "00", "right"),
        marked("ann", "01", "wrong"),
        marked("bo", "00", "right"),
    )
    late.errors, ann.errors, late.problem = 2, 1, "kernel died"
    first = next(iter(bo.marks))
    bo.marks[first] = Mark(Verdict("error", "no number"), 5)
    write_csv(tmp_path / "b.csv", [ann, late, bo])
    with (tmp_path / "b.csv").open(encoding="utf-8", newline="") as file:
        head, *lines = csv.reader(file)
    ids = {number: [q.id for q in lessons()[number].questions] for number in ("00", "01")}
    zero, one = len(ids["00"]), len(ids["01"])
    assert head == ["learner", *ids["00"], *ids["01"], "right", "attempts", "errors", "problems"]
    counts = [str(zero), str(2 * (zero + one)), "3", "01: kernel died"]
    assert lines[0] == ["ann", *["right"] * zero, *["wrong"] * one, *counts]
    states = ["error", *["right"] * (zero - 1), *[""] * one]
    assert lines[1] == ["bo", *states, str(zero - 1), str(2 * zero + 3), "0", ""]
    assert len(lines) == 2
    assert (tmp_path / "b.csv").read_bytes().count(b"\r\n") == 3, "as RFC 4180 ends its lines"
    both = [
        marked("eve", number, "wrong", problem) for number, problem in (("00", "a"), ("01", "b"))
    ]
    assert rows(both)[0].problems == "00: a; 01: b" and rows(both)[0].marked == both


def test_the_page_counts_who_solved_a_question(tmp_path: Path) -> None:
    book = [marked("ann", "00", "right"), marked("bo", "00", "wrong"), marked("bo", "01", "right")]
    write_page(tmp_path / "b.html", book)
    page = (tmp_path / "b.html").read_text(encoding="utf-8")
    text = " ".join(re.sub(r"<[^>]*>", " ", page.split("</style>")[1]).split())
    solved = ["1 /2"] * len(lessons()["00"].questions) + ["1 /1"] * len(LESSON.questions)
    assert re.findall(r"\d+ /\d+", text) == solved
    assert all(sign in text for sign in "✓✗–") and "Caution" not in page
    made = re.search(r"Made (\d+ \w+ \d{4}, \d\d:\d\d)", text)
    assert made and not made[1].startswith("0")
    between = page.split("</style>")[1].partition("</table>")[0]
    assert "\n\n" not in between, "the template's own lines leave none in the page"


# --- marking


def executed(path: Path, *outputs: dict, tags: tuple[str, ...] = ()) -> Path:
    """A notebook as a run leaves it: one cell with these outputs."""
    cell = new_code_cell("...", outputs=[nbformat.from_dict(output) for output in outputs])
    cell.metadata.tags = list(tags)
    nbformat.write(new_notebook(cells=[cell]), path)
    return path


def recorded(question: object, answer: object) -> dict:
    data = {ANSWER_TYPE: {"question": question, "answer": answer}}
    return {"output_type": "display_data", "data": data, "metadata": {}}


RAISED = {"output_type": "error", "ename": "E", "evalue": "", "traceback": []}


def test_marking_takes_the_last_answer_and_counts_tries_and_errors(tmp_path: Path) -> None:
    question, other = LESSON.questions[:2]
    whose = Submission("ann", "01", tmp_path / "x.ipynb")
    book = executed(
        tmp_path / "done.ipynb",
        {"output_type": "stream", "name": "stdout", "text": "hello"},
        recorded(question.id, "first"), recorded(question.id, "no answer"),
        recorded("77.1", 1), recorded(7, 1), recorded("00.1", 1),
        RAISED, RAISED,
    )  # fmt: skip
    done = mark(whose, book, "it took too long", 2.5)
    assert (done.submission, done.problem, done.seconds) == (whose, "it took too long", 2.5)
    assert list(done.marks) == [q.id for q in LESSON.questions] and done.errors == 2
    assert done.marks[question.id].attempts == 2
    assert done.marks[question.id].verdict == judge(question.id, "no answer")
    assert done.marks[other.id] == Mark(Verdict("unanswered", "no check of it was run"), 0)
    meant = mark(whose, executed(tmp_path / "e.ipynb", RAISED, tags=("raises-exception",)), "", 0)
    assert (meant.errors, meant.problem, meant.right) == (0, "", 0)


def test_a_recorded_answer_is_judged_and_three_dots_are_no_try(tmp_path: Path) -> None:
    question = LESSON.questions[0]
    names: dict = {}
    exec(f"import helpers\n{question.code}", names)
    right = record_answer((names[question.ask],), question.inputs)
    dots = recorded(question.id, record_answer((...,), question.inputs))
    whose = Submission("ann", "01", tmp_path / "x.ipynb")
    book = executed(tmp_path / "b.ipynb", dots, recorded(question.id, right), RAISED)
    notebook = nbformat.read(book, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_markdown_cell("words have no outputs"))
    notebook.cells[1].metadata.pop("tags")
    nbformat.write(notebook, book)
    done = mark(whose, book, "", 0)
    found = done.marks[question.id]
    assert (found.verdict.status, found.attempts) == ("right", 1)
    assert (done.right, done.errors) == (1, 1)


def test_marking_what_was_not_written(tmp_path: Path) -> None:
    whose = Submission("ann", "01", tmp_path / "x.ipynb")
    for problem, said in (("", "nothing was written"), ("kernel died", "kernel died")):
        done = mark(whose, tmp_path / "nowhere.ipynb", problem, 1.0)
        assert done.problem == said and done.right == 0 and done.seconds == 1.0
        assert {m.verdict.status for m in done.marks.values()} == {"unanswered"}


def test_names_are_data_and_never_markup_or_formulas(tmp_path: Path) -> None:
    book = [marked("<script>alert(1)</script>", "00", "right"), marked("=1+1", "00", "right", "@x")]
    write_page(tmp_path / "b.html", book, "take <care>", ["a <note>"])
    page = (tmp_path / "b.html").read_text(encoding="utf-8")
    assert "<script>" not in page and "<b>words</b>" not in page and "take &lt;care&gt;" in page
    assert "<li>a &lt;note&gt;</li>" in page
    write_csv(tmp_path / "b.csv", book)
    assert "'=1+1" in (tmp_path / "b.csv").read_text()


def test_a_changed_installation_is_noticed(monkeypatch, tmp_path: Path) -> None:
    """The checksum covers code and models."""
    from classroom.grade import __main__ as program

    names = ("system", "helpers", "serving", "classroom", "models")
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file.py").write_text("one")
    monkeypatch.setattr(program, "ROOT", tmp_path)
    seen = {program.fingerprint()}
    for name in names:
        (tmp_path / name / "file.py").write_text("two")
        seen.add(program.fingerprint())
    assert len(seen) == 1 + len(names)
