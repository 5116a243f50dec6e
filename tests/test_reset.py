"""`make reset` and `make update`, in real git repositories: a learner's work is never lost."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT

LESSONS = ("02_basic_generation.ipynb", "03_parameter_sliders.ipynb")
IDENTITY = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]


def git(folder: Path, *arguments: str) -> str:
    command = ["git", *IDENTITY, "-c", "init.defaultBranch=main", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


@dataclass
class Course:
    """The published course, and a learner's clone of it."""

    origin: Path
    folder: Path

    def lesson(self, number: int) -> Path:
        return self.folder / "notebooks" / LESSONS[number]

    def mine(self) -> dict[str, str]:
        """Name → content of everything that was kept."""
        return {p.name: p.read_text() for p in (self.folder / "notebooks/mine").glob("*")}

    def run(self, tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, f"tools/{tool}.py", *arguments]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True)

    def publish(self, name: str, content: str) -> None:
        """A new version of the course."""
        (self.origin / name).write_text(content)
        git(self.origin, "add", ".")
        git(self.origin, "commit", "-qm", f"new {name}")

    def state(self) -> dict[str, bytes]:
        """Every file of the clone, without git's own."""
        files = [p for p in self.folder.rglob("*") if p.is_file() and ".git" not in p.parts]
        return {str(p): p.read_bytes() for p in files if "__pycache__" not in p.parts}


@pytest.fixture
def course(tmp_path: Path, require_tool: Callable[..., str]) -> Course:
    require_tool("git")
    origin = tmp_path / "origin"
    tools = ("tools/reset.py", "tools/update.py", "tools/startup.py", "system/startup.py")
    for name in (*tools, *(f"notebooks/{n}" for n in LESSONS)):
        (origin / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, origin / name)
    for name in (".gitignore", ".gitattributes"):
        shutil.copy(ROOT / name, origin / name)
    (origin / "README.md").write_text("the course\n")
    git(origin, "init", "-q")
    git(origin, "add", ".")
    git(origin, "commit", "-qm", "the course")
    git(tmp_path, "clone", "-q", origin.as_uri(), "a learner's course")
    return Course(origin, tmp_path / "a learner's course")


def one_line(ran: subprocess.CompletedProcess[str]) -> str:
    assert ran.stdout == "" and ran.stderr.count("\n") == 1, ran.stdout + ran.stderr
    return ran.stderr


# --- reset --------------------------------------------------------------------------------


def test_reset_keeps_the_learners_copy(course: Course) -> None:
    shipped = course.lesson(1).read_text()
    course.lesson(1).write_text("my answers")
    course.lesson(0).write_text("of another lesson")
    ran = course.run("reset", "03")
    assert ran.returncode == 0 and "notebooks/mine/03_parameter_sliders.ipynb" in ran.stdout
    assert course.lesson(1).read_text() == shipped
    assert course.lesson(0).read_text() == "of another lesson", "only what was named"
    assert course.mine() == {"03_parameter_sliders.ipynb": "my answers"}
    assert "notebooks/mine" not in git(course.folder, "status", "--porcelain")

    # The copies are in a folder of their own, where nobody takes them for lessons.
    found = {path.name for path in (course.folder / "notebooks").glob("*.ipynb")}
    assert found == set(LESSONS)


def test_reset_overwrites_no_copy(course: Course) -> None:
    for attempt in ("first", "second", "third"):
        course.lesson(1).write_text(attempt)
        assert course.run("reset", "3").returncode == 0
    assert course.mine() == {
        "03_parameter_sliders.ipynb": "first",
        "03_parameter_sliders (2).ipynb": "second",
        "03_parameter_sliders (3).ipynb": "third",
    }


def test_reset_of_an_unchanged_lesson_does_nothing(course: Course) -> None:
    os.utime(course.lesson(1))
    before = course.state()
    ran = course.run("reset", "03")
    assert ran.returncode == 0 and "already" in ran.stdout
    assert course.state() == before


def test_reset_brings_back_what_was_deleted_or_staged(course: Course) -> None:
    shipped = course.lesson(1).read_text()
    course.lesson(0).unlink()
    course.lesson(1).write_text("staged")
    git(course.folder, "add", "notebooks")
    assert course.run("reset", "02", "03").returncode == 0
    assert course.lesson(1).read_text() == shipped and course.lesson(0).exists()
    assert course.mine() == {"03_parameter_sliders.ipynb": "staged"}
    assert git(course.folder, "status", "--porcelain") == ""


@pytest.mark.parametrize("numbers", [["42"], ["03", "x"], ["../03"], []])
def test_reset_refuses_what_is_no_lesson(course: Course, numbers: list[str]) -> None:
    course.lesson(1).write_text("mine")
    before = course.state()
    ran = course.run("reset", *numbers)
    assert ran.returncode == 2 and ("02, 03" in one_line(ran) or "LESSON=03" in one_line(ran))
    assert course.state() == before


@pytest.mark.parametrize("flag", ["--assume-unchanged", "--skip-worktree"])
def test_a_lesson_that_git_was_told_to_overlook_is_reset(course: Course, flag: str) -> None:
    shipped = course.lesson(1).read_text()
    git(course.folder, "update-index", flag, *(f"notebooks/{name}" for name in LESSONS))
    ran = course.run("reset", "03")
    assert "already" in ran.stdout and not course.mine()
    course.lesson(1).write_text("my answers")
    ran = course.run("reset", "03")
    assert ran.returncode == 0 and "already" not in ran.stdout
    assert course.lesson(1).read_text() == shipped
    assert course.mine() == {"03_parameter_sliders.ipynb": "my answers"}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are text")
@pytest.mark.parametrize("tracked", [False, True])
def test_a_file_name_that_is_not_utf8_disturbs_nothing(course: Course, tracked: bool) -> None:
    name = os.fsdecode(b"notebooks/caf\xe9.txt")
    (course.folder / name).write_text("mine")
    if tracked:
        git(course.folder, "add", "--intent-to-add", name)
    course.publish(f"notebooks/{LESSONS[1]}", "a better lesson 03")
    course.lesson(0).write_text("my answers")
    course.lesson(1).write_text("more answers")
    for tool in ("reset", "update"):
        ran = course.run(tool, *(["02"] if tool == "reset" else []))
        assert (ran.returncode, ran.stderr) == (0, ""), ran.stderr
    assert set(course.mine()) == set(LESSONS)
    assert course.lesson(1).read_text() == "a better lesson 03"

    # In the way of the update it is named, as far as it can be.
    (course.origin / name).write_text("published")
    course.publish("more.txt", "and more")
    ran = course.run("update")
    if not tracked:
        assert ran.returncode == 1 and "notebooks/caf" in one_line(ran)
    assert (course.folder / name).read_text() == "mine"


@pytest.mark.parametrize("tool", ["reset", "update"])
def test_a_lock_that_git_left_is_named_and_nothing_is_changed(course: Course, tool: str) -> None:
    course.publish(f"notebooks/{LESSONS[1]}", "a better lesson 03")
    course.lesson(1).write_text("my answers")
    (course.folder / ".git/index.lock").touch()
    before = course.state()
    for _ in range(2):
        ran = course.run(tool, *(["03"] if tool == "reset" else []))
        assert ran.returncode == 1 and "index.lock" in one_line(ran)
        assert course.state() == before and not course.mine()
    (course.folder / ".git/index.lock").unlink()
    assert course.run(tool, *(["03"] if tool == "reset" else [])).returncode == 0
    assert course.mine() == {"03_parameter_sliders.ipynb": "my answers"}


def test_the_same_version_is_kept_once(course: Course) -> None:
    for _ in range(2):
        course.lesson(1).write_text("my answers")
        ran = course.run("reset", "03")
        assert ran.returncode == 0 and "mine/03_parameter_sliders.ipynb" in ran.stdout
    assert course.mine() == {"03_parameter_sliders.ipynb": "my answers"}


@pytest.mark.parametrize("tool", ["reset", "update"])
def test_what_git_refuses_in_the_end_is_put_back(course: Course, tool: str) -> None:
    """A failure that nobody foresaw, after the copies were made: here, git's own settings."""
    course.publish(f"notebooks/{LESSONS[1]}", "a better lesson 03")
    course.lesson(0).unlink()
    course.publish(f"notebooks/{LESSONS[0]}", "a better lesson 02")
    course.lesson(1).write_text("my answers")
    if tool == "update":
        git(course.folder, "config", "merge.verifySignatures", "true")
    else:  # a filter that can store, and cannot bring back
        (course.folder / ".git/info/attributes").write_text("*.ipynb filter=broken\n")
        for way, command in (("clean", "cat"), ("smudge", "false"), ("required", "true")):
            git(course.folder, "config", f"filter.broken.{way}", command)
    before = course.state()
    ran = course.run(tool, *(["02", "03"] if tool == "reset" else []))
    assert ran.returncode == 1 and "git" in one_line(ran)
    assert course.state() == before and not course.mine()


@pytest.mark.parametrize("tool", ["reset", "update"])
def test_without_git_says_what_to_do(course: Course, tool: str) -> None:
    shutil.rmtree(course.folder / ".git")
    git(course.folder.parent, "init", "-q")  # the folder lies in a repository of somebody's
    course.lesson(1).write_text("mine")
    before = course.state()
    ran = course.run(tool, *(["03"] if tool == "reset" else []))
    assert ran.returncode == 1 and "download the course again" in one_line(ran)
    assert course.state() == before


def test_make_reset_and_update_run_the_tools(require_tool: Callable[..., str]) -> None:
    make = require_tool("make")
    for target, tool in (("reset", "tools/reset.py 03"), ("update", "tools/update.py")):
        shown = subprocess.check_output(
            [make, "-n", "--no-print-directory", target, "LESSON=03"], cwd=ROOT, text=True
        )
        assert re.search(rf"python3? {re.escape(tool)}$", shown.strip()), shown
    ran = subprocess.run([make, "-s", "reset"], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 2 and "LESSON=03" in ran.stderr.splitlines()[0]


# --- update -------------------------------------------------------------------------------


def test_update_keeps_what_git_pull_would_refuse(course: Course) -> None:
    course.publish(f"notebooks/{LESSONS[1]}", "a better lesson 03")
    course.lesson(0).write_text("my work on 02, which the update leaves alone")
    course.lesson(1).write_text("my work on 03")
    with pytest.raises(subprocess.CalledProcessError):
        git(course.folder, "pull", "-q", "--ff-only")
    ran = course.run("update")
    assert ran.returncode == 0, ran.stderr
    assert course.lesson(1).read_text() == "a better lesson 03"
    assert course.lesson(0).read_text() == "my work on 02, which the update leaves alone"
    assert course.mine() == {"03_parameter_sliders.ipynb": "my work on 03"}
    again = course.run("update")
    assert again.returncode == 0 and again.stdout == "The course is up to date.\n"


def test_update_keeps_a_lesson_that_is_gone(course: Course) -> None:
    git(course.origin, "mv", f"notebooks/{LESSONS[1]}", "notebooks/03_other_name.ipynb")
    git(course.origin, "commit", "-qm", "another name")
    course.lesson(1).write_text("my work on 03")
    assert course.run("update").returncode == 0
    assert not course.lesson(1).exists()
    assert (course.folder / "notebooks/03_other_name.ipynb").exists()
    assert course.mine() == {"03_parameter_sliders.ipynb": "my work on 03"}


def changed_readme(course: Course) -> None:
    (course.folder / "README.md").write_text("my notes\n")


def new_lesson(course: Course) -> None:
    (course.folder / "notebooks/07_new.ipynb").write_text("my own lesson")


def ignored_file(course: Course) -> None:
    (course.folder / ".env").write_text("MODEL_NAME=mine")


def own_commit(course: Course) -> None:
    git(course.folder, "commit", "-qam", "my work")


def hidden_readme(course: Course) -> None:
    git(course.folder, "update-index", "--assume-unchanged", "README.md")
    changed_readme(course)


def unmerged_file(course: Course) -> None:
    """Two versions of a file that the update does not touch, as after `git stash pop`."""
    notes = course.folder / "notes.txt"
    notes.write_text("first\n")
    git(course.folder, "add", "notes.txt")
    git(course.folder, "stash", "-q", "--", "notes.txt")
    notes.write_text("second\n")
    git(course.folder, "add", "notes.txt")
    ran = subprocess.run(["git", *IDENTITY, "stash", "pop"], cwd=course.folder, capture_output=True)
    assert ran.returncode != 0


def unfinished_merge(course: Course) -> None:
    head = git(course.folder, "rev-parse", "HEAD")
    (course.folder / ".git/MERGE_HEAD").write_text(head)


def no_network(course: Course) -> None:
    shutil.move(course.origin, course.origin.with_name("away"))


@pytest.mark.parametrize(
    ("happens", "said"),
    [
        (changed_readme, "README.md"),
        (new_lesson, "notebooks/07_new.ipynb"),
        (ignored_file, ".env"),
        (hidden_readme, "README.md"),
        (unmerged_file, "notes.txt"),
        (unfinished_merge, "MERGE_HEAD"),
        (own_commit, "1 commits of your own"),
        (no_network, "git fetch"),
    ],
)
def test_update_that_cannot_go_through_changes_nothing(
    course: Course, happens: Callable[[Course], None], said: str
) -> None:
    for name in ("README.md", "notebooks/07_new.ipynb", f"notebooks/{LESSONS[1]}"):
        course.publish(name, "new")
    (course.origin / ".env").write_text("published by mistake")
    git(course.origin, "add", "--force", ".env")
    git(course.origin, "commit", "-qm", "a mistake")
    course.lesson(1).write_text("my work on 03")
    happens(course)
    before = course.state()
    ran = course.run("update")
    assert ran.returncode == 1 and said in one_line(ran)
    assert course.state() == before and not course.mine()
