"""Bring the course up to date by git; a learner's work is never lost (`make update`).

python tools/update.py

A lesson that the learner has changed and the update changes, too, is first copied to
notebooks/mine/. Everything else stays where it is. If the update cannot go through, no file is
changed at all.
"""

from __future__ import annotations

import startup
from reset import (
    Problem,
    changed_files,
    finish,
    git,
    names,
    restore,
    shipped_lessons,
    stop_if_busy,
    unhide,
)

# Work of git's that an update would come on top of.
UNFINISHED = ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "rebase-merge", "rebase-apply")


def in_the_way(coming: set[str]) -> list[str]:
    """Changed or new files, lessons apart, that the update would have to overwrite."""
    changed = changed_files() - set(shipped_lessons().values())
    return sorted((names("ls-files", "--others", "-z") | changed) & coming)


def update() -> None:
    """Fetch, look, put the learner's lessons aside, go forward.

    Raises:
        Problem: not from git, not reachable, or something in the way.
    """
    shipped_lessons()
    stop_if_busy(UNFINISHED)
    if unmerged := sorted(names("diff", "--name-only", "--diff-filter=U", "-z")):
        raise Problem(
            f"{', '.join(unmerged)}: two versions are not joined yet. Choose one (git checkout "
            "HEAD -- FILE takes the course's), then run this again. Nothing was changed."
        )
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
    coming = names("diff", "--name-only", "--no-renames", "-z", "HEAD", "@{upstream}")
    if obstacles := in_the_way(coming):
        raise Problem(
            f"The update brings {', '.join(obstacles)}, where you have something of your own: move "
            "that elsewhere (git checkout HEAD -- FILE brings back the course's file), then run "
            "this again. Nothing was changed."
        )

    def go_forward() -> None:
        unhide(coming)
        git("merge", "--quiet", "--ff-only", "--no-overwrite-ignore", "@{upstream}")

    mine = changed_files() & coming & set(shipped_lessons().values())
    restore(sorted(mine), then=go_forward)
    print(f"The course is up to date: {behind} changes.")


def main() -> int:
    """Exit status: 0 up to date, 1 not possible; then nothing was changed."""
    return finish(update)


if __name__ == "__main__":
    startup.run(main)
