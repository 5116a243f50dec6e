"""The progress file: kept, damaged, foreign, unwritable, shared, deleted. Never the learner's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import classroom
from classroom.exercises import lesson_00, lesson_01, lessons, store


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A progress file of the test's own, in a folder that is not there yet."""
    path = tmp_path / "data" / "progress.json"
    monkeypatch.setenv(store.VARIABLE, str(path))
    monkeypatch.setattr(store, "_said", set())
    monkeypatch.setattr(store, "_unkept", [])
    store.notes()
    yield path
    store.notes()


def test_tests_touch_no_file_of_the_learner() -> None:
    assert os.environ[store.VARIABLE] == "off" and store.location() is None


def test_solving_is_kept(file: Path) -> None:
    q1, q2, q3 = lesson_01.questions
    q1.check(900)
    q1.check(3300)
    q1.check(900)  # solved once is solved
    q2.hint()
    q3.check(1, "wrong")
    kept = json.loads(file.read_text())
    assert kept["questions"]["01.1"] | {"attempts": 3, "solved": True} == kept["questions"]["01.1"]
    assert kept["questions"]["01.2"]["hints"] >= 1 and not kept["questions"]["01.2"]["solved"]
    assert kept["questions"]["01.3"]["attempts"] == 1
    assert not list(file.parent.glob("*.part"))


def test_the_map_shows_ticks_and_the_place(file: Path) -> None:
    empty = classroom.progress()
    assert len(empty.rows) == len(lessons()) and not any(row.solved for row in empty.rows)
    assert str(file) in repr(empty) and str(file) in empty._repr_html_()
    assert not file.parent.exists(), "looking writes nothing"

    lesson_00.questions[0].check(14)
    lesson_00.questions[1].check(0, 2)
    store.note_solution("00.3")
    lesson_00.recap.choose(0, 0)
    lesson_00.recap.choose(0, lesson_00.recap.questions[0].right)
    row = classroom.progress().rows[0]
    assert (row.solved, row.answered, row.done) == (2, 1, False)
    assert "exercises 2 of 3, recap 1 of 3" in repr(classroom.progress())
    assert "✓✓·" in classroom.progress()._repr_html_()

    store.note_answer("00.3", True)
    for number, question in enumerate(lesson_00.recap.questions):
        lesson_00.recap.choose(number, question.right)
    assert classroom.progress().rows[0].done
    assert repr(classroom.progress()).startswith("✓ 00 Start here")


def test_forgetting_is_one_call(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store.note_answer("00.1", True)
    classroom.forget_progress()
    assert f"Deleted: {file}" in capsys.readouterr().out
    assert not list(file.parent.iterdir())
    assert classroom.progress().rows[0].solved == 0
    classroom.forget_progress()
    assert "There was no progress" in capsys.readouterr().out


DAMAGED = [
    b"", b"{", b'{"questions": {}}', b"[]", b"null", b"\xff\xfe\x00", b"\x00" * 100,
    b'{"format": "something else"}', b'{"format": "llm-basics progress 2", "questions": {}}',
    b'{"format": "llm-basics progress 1", "questions": {"00.1": 5}}',
    b'{"format": "llm-basics progress 1", "recaps": []}', b"[" * 100_000, b"x" * 2_000_000,
]  # fmt: skip


@pytest.mark.parametrize("content", DAMAGED, ids=lambda c: repr(c[:48]))
def test_a_damaged_or_foreign_file_is_set_aside(
    file: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    file.parent.mkdir()
    file.write_bytes(content)
    (file.parent / "progress.set-aside-1.json").write_text("from an earlier time")
    store.note_answer("00.1", True)
    assert (file.parent / "progress.set-aside-2.json").read_bytes() == content
    assert (file.parent / "progress.set-aside-1.json").read_text() == "from an earlier time"
    (note,) = store.notes()
    assert str(file) in note and "progress.set-aside-2.json" in note
    assert json.loads(file.read_text())["questions"]["00.1"]["solved"]


def test_forgetting_keeps_a_foreign_file(file: Path) -> None:
    file.parent.mkdir()
    file.write_text("my thesis")
    store.forget()
    assert (file.parent / "progress.set-aside-1.json").read_text() == "my thesis"


def test_what_a_later_version_adds_is_kept(file: Path) -> None:
    file.parent.mkdir()
    later = {"format": "llm-basics progress 1", "badges": [1], "questions": {"00.1": {"stars": 3}}}
    file.write_text(json.dumps(later))
    store.note_answer("00.1", True)
    kept = json.loads(file.read_text())
    assert kept["badges"] == [1] and kept["questions"]["00.1"]["stars"] == 3
    assert not store.notes()


def test_a_place_that_cannot_be_written_is_said_once(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file where the folder should be: that stops the superuser, too."""
    file.parent.write_text("a file")
    store.note_answer("00.1", True)
    store.note_answer("00.2", True)
    (note,) = store.notes()
    assert "cannot be kept" in note and str(file) in note
    assert classroom.progress().rows[0].solved == 2, "kept in memory until the kernel ends"
    assert file.parent.read_text() == "a file"


def test_a_folder_in_its_place_is_left_alone(file: Path) -> None:
    (file / "inside").mkdir(parents=True)
    store.note_answer("00.1", True)
    assert (file / "inside").is_dir() and "this is no file" in store.notes()[0]
    assert store.forget().startswith("Not deleted")


def test_a_lock_that_is_held_does_not_hang(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from filelock import FileLock

    monkeypatch.setattr(store, "LOCK_SECONDS", 0.1)
    file.parent.mkdir()
    with FileLock(store._lock_path(file)):
        store.note_answer("00.1", True)
    assert "cannot be kept" in store.notes()[0] and not file.exists()
    assert store.current().questions["00.1"].solved
    store.note_answer("00.2", True)
    assert {"00.1", "00.2"} == set(json.loads(file.read_text())["questions"]), "made up for"


def test_interrupted_writing_leaves_the_old_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.note_answer("00.1", True)
    before = file.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    store.note_answer("00.2", True)
    assert file.read_bytes() == before and not list(file.parent.glob("*.part"))
    assert set(store.current().questions) == {"00.1", "00.2"}
    assert "No space left" in store.notes()[0]


def test_notebooks_at_the_same_time_lose_nothing(file: Path) -> None:
    code = (
        "import sys\nfrom classroom.exercises import store\n"
        "for n in range(25): store.note_answer(f'{sys.argv[1]}.{n}', True)\nprint(store.notes())"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", code, name], stdout=subprocess.PIPE, text=True)
        for name in ("a", "b", "c")
    ]
    assert [child.communicate()[0].strip() for child in children] == ["[]"] * 3
    assert len(store.current().questions) == 75


def test_the_default_place_is_in_the_users_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(store.VARIABLE)
    place = store.location()
    assert place is not None and place.name == "progress.json" and "llm-basics" in place.parts
    assert Path.home() in place.parents


def test_without_a_home_folder_progress_stays_in_memory(
    nobody: dict[str, str], tmp_path: Path
) -> None:
    code = (
        "import classroom; from classroom.exercises import lesson_00\n"
        "for _ in range(2): lesson_00.questions[0].check(1e9)\n"
        "print(classroom.progress()); classroom.forget_progress()"
    )
    nobody.pop("LLM_BASICS_PROGRESS")
    ran = subprocess.run(
        [sys.executable, "-c", code], env=nobody, cwd=tmp_path, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("Your progress is not kept: no home folder is known.") == 1
    assert ran.stdout.count("✗ Question 1") == 2 and "exercises 0 of 3" in ran.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["patched"], "no folder called ~"
