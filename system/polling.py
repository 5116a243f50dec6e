"""Looking at something again and again while something else happens."""

from __future__ import annotations

import threading
from typing import Self


class Polling:
    """Looks in a thread of its own, from `with` to the end of its block.

    Whoever derives from it says what to look at.
    """

    def __init__(self, every_s: float) -> None:
        """Not looking yet.

        Args:
            every_s: seconds between two looks.
        """
        self._every_s = every_s
        self._stop = threading.Event()
        name = type(self).__name__
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def look(self) -> None:
        """One look; an error ends the looking."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stop.is_set():
            self.look()
            self._stop.wait(self._every_s)
