"""Text and tokens, made visible: tables, coloured strips, merges, pieces (lesson 01)."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import TYPE_CHECKING

from system.errors import ParameterError
from system.markup import attribute, safe, visible

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import HTML
    from transformers import PreTrainedTokenizerBase

# Okabe and Ito's colours (https://jfly.uni-koeln.de/color/) made translucent: told apart by
# colour-blind readers, readable under black and under white text.
STRIP_COLOURS = (
    "rgba(86,180,233,.38)",
    "rgba(230,159,0,.38)",
    "rgba(0,158,115,.34)",
    "rgba(204,121,167,.38)",
    "rgba(240,228,66,.40)",
)


def token_text(tokenizer: PreTrainedTokenizerBase, token_id: int) -> str:
    r"""One token as text; bytes that are no whole character as OpenAI's API writes them.

    The first of the three bytes of 日 shows as `bytes:\xe6`.
    """
    text = tokenizer.decode([token_id], clean_up_tokenization_spaces=False)
    if "\ufffd" not in text:
        return text
    data = token_bytes(tokenizer, token_id)
    try:
        return data.decode("utf-8")  # a replacement character that the text itself holds
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def token_bytes(tokenizer: PreTrainedTokenizerBase, token_id: int) -> bytes:
    """The bytes that a token stands for, in byte-level BPE and in SentencePiece's `<0xE6>`."""
    token = tokenizer.convert_ids_to_tokens(int(token_id))
    if single := re.fullmatch(r"<0x([0-9A-F]{2})>", token):
        return bytes.fromhex(single[1])
    table = _byte_of_character()
    if all(c in table for c in token):
        return bytes(table[c] for c in token)
    return token.encode("utf-8")  # a special token, or a tokenizer of another kind


@cache
def _byte_of_character() -> dict[str, int]:
    """Byte-level BPE writes every byte as one printable character: 0x20, the space, as Ġ."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(b): b for b in printable}
    spare = 256
    for byte in range(256):
        if byte not in printable:
            table[chr(spare)] = byte
            spare += 1
    return table


def text_table(tokenizer: PreTrainedTokenizerBase, texts: dict[str, str]) -> pd.DataFrame:
    """How several texts fare: one row a text.

    Args:
        tokenizer: any tokenizer of transformers.
        texts: name → text, none of them empty.

    Returns:
        columns bytes (of UTF-8), tokens and round trip (whether decoding gives the text back).

    Raises:
        ParameterError: no text, or an empty one.
    """
    import pandas as pd

    if not texts or not all(texts.values()):
        raise ParameterError("texts", texts, "at least one text, none of them empty")
    rows = {}
    for name, text in texts.items():
        ids = tokenizer(text, verbose=False)["input_ids"]
        rows[name] = {
            "bytes": len(text.encode("utf-8")),
            "tokens": len(ids),
            "round trip": tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def token_strip(
    tokenizer: PreTrainedTokenizerBase, text: str | list[int], ids: bool = False
) -> HTML:
    """The text with every token on a colour of its own; spaces show as a dot.

    Args:
        tokenizer: any tokenizer of transformers.
        text: what to cut up; or token ids, shown as they are.
        ids: write each token's id below it.
    """
    from IPython.display import HTML

    numbers = tokenizer(text, verbose=False)["input_ids"] if isinstance(text, str) else text
    return HTML(strip_html([(i, token_text(tokenizer, i)) for i in numbers], ids))


def strip_html(tokens: list[tuple[int, str]], ids: bool = False) -> str:
    """The HTML of a strip of (id, text) tokens."""
    boxes = []
    for n, (token_id, text) in enumerate(tokens):
        below = f"<small style='display:block;font-size:.72em'>{token_id}</small>"
        boxes.append(
            f"<span title='id {token_id}' style='background:{STRIP_COLOURS[n % 5]};padding:2px 3px;"
            "margin:1px;border-radius:3px;display:inline-block;text-align:center;"
            "white-space:pre-wrap;overflow-wrap:anywhere'>"
            f"{safe(visible(text))}{below if ids else ''}</span>"
        )
    return (
        "<div role='img' aria-label='"
        + attribute(f"{len(tokens)} tokens: " + " | ".join(t for _, t in tokens))
        + "' style='font-family:var(--jp-code-font-family,monospace);line-height:1.7'>"
        + "".join(boxes)
        + "</div>"
    )


def merges(tokenizer: PreTrainedTokenizerBase) -> dict[tuple[str, str], int]:
    """The learned merges of a BPE tokenizer: (left, right) → rank; the lowest rank merges first."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    pairs = (m.split(" ") if isinstance(m, str) else m for m in model["merges"])
    return {(left, right): rank for rank, (left, right) in enumerate(pairs)}
