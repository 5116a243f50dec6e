"""Text to token ids and back, where the text is a stranger's.

A text that holds `<|endoftext|>` or `<|im_start|>system` must not end the text or take over
the chat: what users write is encoded as text, letter by letter where need be. Only the
model's own chat template may write special tokens.
"""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from helpers.chat import chat_ids
from helpers.tokens import token_bytes
from system.errors import ParameterError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")  # how SentencePiece writes a single byte


class SharedTokenizer:
    """A tokenizer that several threads use."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()  # fast tokenizers refuse to be used twice at once

    def encode(self, text: str) -> list[int]:
        """Token ids of a user's text: what looks like a special token is text, too."""
        with self._lock:
            found = self._tokenizer(text, split_special_tokens=True, verbose=False)
        return list(found["input_ids"])

    def decode(self, ids: list[int]) -> str:
        """Text of token ids."""
        return str(self._tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    def bytes_of(self, token_id: int) -> bytes:
        """The bytes of UTF-8 that one token stands for, be they a whole character or not."""
        name = str(self._tokenizer.convert_ids_to_tokens(token_id))
        if byte := _BYTE_TOKEN.fullmatch(name):
            return bytes.fromhex(byte.group(1))
        if name.startswith("▁"):
            return name.replace("▁", " ").encode()
        text = self.decode([token_id])
        return token_bytes(self._tokenizer, token_id) if "�" in text else text.encode()

    @property
    def has_chat_template(self) -> bool:
        """Whether the tokenizer knows how to write a chat."""
        return bool(getattr(self._tokenizer, "chat_template", None))

    def chat(self, messages: list[dict[str, str]]) -> list[int]:
        """Token ids of a chat, ending where the assistant's turn begins.

        Raises:
            ParameterError: the template refuses the messages.
        """
        with self._lock:
            try:
                return chat_ids(self._tokenizer, messages)
            except TemplateError as error:  # some want turns to alternate, or no system's
                wanted = f"as this model's chat template takes them: {error}"
                raise ParameterError("messages", "…", wanted) from None
