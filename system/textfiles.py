"""Text files that people write: answers, corpora, questions, records, settings.

Editors and shells write other encodings than UTF-8: PowerShell's `>` writes UTF-16, older
Windows editors one byte a letter. A byte-order mark says which; without one the file must be
UTF-8, and where it is not, the error names the file and the line instead of guessing.
"""

from __future__ import annotations

import codecs
from pathlib import Path

from system.errors import ParameterError, see

_MARKS = {  # UTF-32 first: its little-endian mark begins with UTF-16's
    codecs.BOM_UTF32_LE: "UTF-32-LE",
    codecs.BOM_UTF32_BE: "UTF-32-BE",
    codecs.BOM_UTF8: "UTF-8",
    codecs.BOM_UTF16_LE: "UTF-16-LE",
    codecs.BOM_UTF16_BE: "UTF-16-BE",
}


class TextFileError(ParameterError):
    """A file that is no text; the message names it and, where one is known, the line."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__("file", str(path), "text in UTF-8, or with a byte-order mark")
        self.args = (f"{path}, {reason}. Save the file as UTF-8. {see('encoding')}",)


def read_text(path: str | Path) -> str:
    """The text of a file, by its byte-order mark, else as UTF-8; line ends as Python has them.

    Args:
        path: the file.

    Raises:
        TextFileError: not text in the encoding that it should be.
        OSError: it cannot be read.
    """
    return decode(Path(path).read_bytes(), path)


def decode(content: bytes, path: str | Path) -> str:
    """The text in a file's bytes; see `read_text`.

    Args:
        content: the bytes.
        path: the file's name, for the error.

    Raises:
        TextFileError: not text in the encoding that it should be.
    """
    mark = next((mark for mark in _MARKS if content.startswith(mark)), b"")
    encoding, content = _MARKS.get(mark, "UTF-8"), content[len(mark) :]
    try:
        text = _plain_lines(content.decode(encoding))
    except UnicodeDecodeError as error:
        line = _plain_lines(content[: error.start].decode(encoding)).count("\n") + 1
        byte = f"the byte 0x{content[error.start]:02x} is not {encoding}"
        raise TextFileError(path, f"line {line}: {byte}") from None
    if "\x00" in text:  # as in UTF-16 without its mark, or in no text at all
        line = text[: text.index("\x00")].count("\n") + 1
        raise TextFileError(path, f"line {line}: a null character, which no text has")
    return text


def _plain_lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
