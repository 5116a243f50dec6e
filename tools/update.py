"""Bring the course up to date by git; a learner's work is never lost (`make update`).

python tools/update.py

A lesson that the learner has changed and the update changes, too, is first copied to
notebooks/mine/. Everything else stays where it is. If the update cannot go through, nothing is
changed at all.
"""

from __future__ import annotations

import startup
from reset import Problem, changed_files, finish, git, restore, shipped_lessons


def names(*arguments: str) -> set[str]:
    """The file names that git lists."""
    return set(filter(None, git(*arguments, "-z").split("\0")))


def in_the_way(coming: set[str]) -> list[str]:
    """Changed or new files, lessons apart, that the update would have to overwrite."""
    changed = changed_files() - set(shipped_lessons().values())
    return sorted((names("ls-files", "--others") | changed) & coming)


def update() -> None:
    """Fetch, look, put the learner's lessons aside, go forward.

    Raises:
        Problem: not from git, not reachable, or something in the way.
    """
    shipped_lessons()
    git("fetch", "--quiet")
    try:
        git("rev-parse", "--verify", "@{upstream}")
    except Problem:
        raise Problem("This version follows no other: git checkout main, then again.") from None
    behind, ahead = (int(git("rev-list", "--count", span)) for span in ("HEAD..@{u}", "@{u}..HEAD"))
    if not behind:
        print("The course is up to date.")
        return
    if ahead:
        raise Problem(
            f"You have {ahead} commits of your own, so the course cannot simply go forward: "
            "join both by git merge or git rebase. Nothing was changed."
        )
    coming = names("diff", "--name-only", "--no-renames", "HEAD", "@{upstream}")
    if obstacles := in_the_way(coming):
        raise Problem(
            f"The update brings {', '.join(obstacles)}, where you have something of your own: move "
            "that elsewhere (git checkout HEAD -- FILE brings back the course's file), then run "
            "this again. Nothing was changed."
        )
    restore(sorted(changed_files() & coming & set(shipped_lessons().values())))
    git("merge", "--quiet", "--ff-only", "--no-overwrite-ignore", "@{upstream}")
    print(f"The course is up to date: {behind} changes.")


def main() -> int:
    """Exit status: 0 up to date, 1 not possible; then nothing was changed."""
    return finish(update)


if __name__ == "__main__":
    startup.run(main)
