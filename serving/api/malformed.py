"""What is no HTTP request: answered as JSON, too, before the application sees any of it."""

from __future__ import annotations

import json
from typing import Any

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.task import ErrorTask


class _Parser(HTTPRequestParser):
    """Waitress' parser of requests, which always has an answer."""

    path = ""  # what waitress notes where a client leaves; else missing where no path was read

    def parse_header(self, header_plus: bytes) -> None:
        """Read the first line and the headers.

        Raises:
            ParsingError: they are wrong; for waitress a number of thousands of digits, which
                Python does not read, is no such error, and ends the connection without a word.
        """
        try:
            super().parse_header(header_plus)
        except ValueError:
            raise ParsingError("a header holds what cannot be read") from None
        self.path = self.path or "/"  # of http://host without more, by RFC 9112


class _Refusal(ErrorTask):
    """The answer to it: in OpenAI's form where its path is known to be below /v1/."""

    def execute(self) -> None:
        """Write the answer; the connection is closed after it."""
        request: Any = self.request  # what the types of waitress say of both is not so
        headers: Any = self.response_headers
        error = request.error
        message: object = f"{error.reason}: {error.body}"
        if request.path.startswith("/v1/"):
            kind = "server_error" if error.code >= 500 else "invalid_request_error"
            message = {"message": message, "type": kind, "param": None, "code": None}
        body = json.dumps({"error": message}).encode() + b"\n"
        self.status = f"{error.code} {error.reason}"
        headers.append(("Content-Type", "application/json"))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class Channel(HTTPChannel):
    """A connection of waitress' with this parser and these answers."""

    parser_class = _Parser
    error_task_class = _Refusal
