"""The two pages in the browser, whole in one file each, that may talk to their own server only.

What they share of their looks is kept once, in `pages.css`, and put into each as it is sent: so
they work below any proxy's path, in a notebook's frame and before other engines. (Lesson 06.)
"""

from __future__ import annotations

from pathlib import Path

from flask import Response, request

PAGES = {"/": "playground.html", "/operator": "operator.html"}  # path → file
STYLE = "/* pages.css */"  # stands in a page where the shared rules go


def send_page(path: str) -> Response:
    """The page at this path of `PAGES`."""
    folder = Path(__file__).parent
    style = (folder / "pages.css").read_text("utf-8")
    page = (folder / PAGES[path]).read_text("utf-8").replace(STYLE, style)
    response = Response(page, mimetype="text/html")
    response.headers["Cache-Control"] = "no-cache"  # ask each time whether it has changed
    response.headers["Content-Security-Policy"] = (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    response.add_etag()
    response.make_conditional(request)
    return response
