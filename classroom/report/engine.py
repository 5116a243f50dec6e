"""Papermill's engine with a bound on outputs: a notebook that floods its output stays readable."""

from __future__ import annotations

import logging
from typing import Any

from nbformat import NotebookNode
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines

NAME = "llm-basics"
MOST_OUTPUT = 20_000_000  # characters that a notebook's messages may have in all
CUT = f"\n[cut: the notebook printed more than {MOST_OUTPUT // 1_000_000} million characters]\n"


class BoundedClient(PapermillNotebookClient):
    """Runs cells, and drops what a notebook prints beyond `MOST_OUTPUT`."""

    _left = MOST_OUTPUT

    def process_message(self, msg: dict[str, Any], cell: NotebookNode, cell_index: int) -> Any:
        """Keep one message of the kernel, if there is room for it."""
        if msg["msg_type"] in ("stream", "display_data", "execute_result"):
            if self._left < 0:
                return None
            self._left -= len(str(msg["content"]))
            if self._left < 0:
                msg["msg_type"] = msg["header"]["msg_type"] = "stream"
                msg["content"] = {"name": "stderr", "text": CUT}
        return super().process_message(msg, cell, cell_index)


class BoundedEngine(NBClientEngine):
    """Papermill's usual engine over `BoundedClient`."""

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: Any, kernel_name: str, start_timeout: float = 60,
        execution_timeout: float | None = None, **options: Any,
    ) -> Any:  # fmt: skip
        """Run the notebook; other options are nbclient's, such as `allow_errors`."""
        unknown = ("input_path", "log_output", "stdout_file", "stderr_file", "timeout")
        kept = {name: value for name, value in options.items() if name not in unknown}
        client = BoundedClient(
            nb_man, kernel_name=kernel_name, startup_timeout=start_timeout,
            timeout=execution_timeout, log=logging.getLogger("papermill"), **kept,
        )  # fmt: skip
        return client.execute()


def register() -> str:
    """Make the engine known to papermill; returns its name."""
    papermill_engines.register(NAME, BoundedEngine)
    return NAME
