"""Text files of every encoding that editors and shells write."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from system.errors import ParameterError
from system.textfiles import TextFileError, read_text

TEXT = "MODEL_NAME=course-gpt-1m\n# Łódź, 東京, 👍\n"


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
    ],
)
def test_the_byte_order_mark_decides(
    tmp_path: Path, mark: bytes, encoding: str, newline: str
) -> None:
    file = tmp_path / "file.txt"
    file.write_bytes(mark + TEXT.replace("\n", newline).encode(encoding))
    assert read_text(file) == TEXT


def test_empty_files_and_files_of_a_mark_alone_are_empty_texts(tmp_path: Path) -> None:
    for content in (b"", codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF32_BE):
        (tmp_path / "file").write_bytes(content)
        assert read_text(tmp_path / "file") == ""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"caf\xe9\n", "line 1: the byte 0xe9 is not UTF-8"),
        (b"one\r\ntwo\rthree\nna\xefve\n", "line 4: the byte 0xef is not UTF-8"),
        ("é\nü\n".encode("latin-1"), "line 1: the byte 0xe9 is not UTF-8"),
        (codecs.BOM_UTF8 + b"a\n\xff", "line 2: the byte 0xff is not UTF-8"),
        (codecs.BOM_UTF16_LE + "a\nb".encode("utf-16-le") + b"\x00", "is not UTF-16"),
        (codecs.BOM_UTF16_LE + "a\n".encode("utf-16-le") + b"\x00\xd8a\x00", "line 2: the byte"),
        (codecs.BOM_UTF32_BE + b"\x00\x11\x00\x00", "is not UTF-32"),
        ("A=1\n".encode("utf-16-le"), "line 1: a null character, which no text has"),
        (b"one\ntwo\x00", "line 2: a null character, which no text has"),
    ],
)
def test_what_is_no_text_is_refused_with_file_and_line(
    tmp_path: Path, content: bytes, words: str
) -> None:
    file = tmp_path / "mine.txt"
    file.write_bytes(content)
    with pytest.raises(TextFileError) as caught:
        read_text(file)
    assert str(caught.value).startswith(f"{file}, ") and words in str(caught.value)
    assert "Save the file as UTF-8." in str(caught.value)
    assert isinstance(caught.value, ParameterError), "command lines say it in one line"
    assert caught.value.parameter == "file" and caught.value.value == str(file)


def test_a_missing_file_is_an_ordinary_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "nothing")
