"""The two pages in the browser, as files that may talk to their own server only. (Lesson 06.)"""

from __future__ import annotations

from pathlib import Path

from flask import Response, send_file

PAGES = {"/": "playground.html", "/operator": "operator.html"}  # path → file


def send_page(path: str) -> Response:
    """The page at this path of `PAGES`."""
    file = Path(__file__).with_name(PAGES[path])
    response = send_file(file, mimetype="text/html", max_age=0)
    response.headers["Content-Security-Policy"] = (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    return response
