"""The server's playground page inside a notebook. (Lesson 06.)"""

from __future__ import annotations

import os
from typing import Protocol

import ipywidgets as widgets

_THEMES = (
    "body[data-jp-theme-light=false] .playground-light,"
    "body:not([data-jp-theme-light=false]) .playground-dark {display:none}"
)
_DEAD = "An empty or dead page: run the cell that starts the server again, then this one."


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
        # Of the two frames only the one of JupyterLab's theme is shown, and loaded at all.
        frames = [
            f'<iframe class="playground-{theme}" title="The playground of {server.name}" '
            f'loading="lazy" src="{page_url(server.url)}?theme={theme}" '
            f'style="width:100%;height:{height}px;border:0"></iframe>'
            for theme in ("light", "dark")
        ]
        super().__init__(f"<style>{_THEMES}</style>{''.join(frames)}<p>{_DEAD}</p>")

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
