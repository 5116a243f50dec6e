"""The server's playground page inside a notebook. (Lesson 06.)"""

from __future__ import annotations

import os
from typing import Protocol

import ipywidgets as widgets


class Server(Protocol):
    """What the frame needs to know of a server: `serving.client.ServerProcess` has it."""

    name: str
    url: str


class Playground(widgets.HTML):
    """The page of a running server, in a frame."""

    def __init__(self, server: Server, height: int = 720) -> None:
        """The frame.

        Args:
            server: a started one.
            height: of the frame in pixels.
        """
        super().__init__(
            f'<iframe title="The playground of {server.name}" src="{page_url(server.url)}" '
            f'style="width:100%;height:{height}px;border:0"></iframe>'
        )

    def __repr__(self) -> str:
        return "Playground: run this cell in Jupyter to use it."


def page_url(url: str) -> str:
    """Where the learner's browser finds a server of this machine.

    Args:
        url: its address on this machine, such as http://127.0.0.1:5000. Behind Binder or
            a JupyterHub the browser is elsewhere and goes by way of jupyter-server-proxy.
    """
    if prefix := os.environ.get("JUPYTERHUB_SERVICE_PREFIX"):
        return f"{prefix}proxy/{url.rsplit(':', 1)[1]}/"
    return f"{url}/"
