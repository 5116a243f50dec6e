"""A chat as token ids: the model's template, with every message encoded as plain text.

A chat template writes roles and turns around the messages, with special tokens such as
`<|im_start|>`. Only the template may write those: a message that holds the same characters is
text, and must not become a turn of its own. (Lessons 06 and 07.)
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING

from helpers.settings import check_prompt
from system.errors import ParameterError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, str]  # role and content
ROLES = ("system", "user", "assistant")


def check_messages(messages: Sequence[Message]) -> list[Message]:
    """The messages, if a chat can be made of them.

    Raises:
        ParameterError: none, a message without role and content, an unknown role, or a
            content that no prompt may be.
    """
    wanted = "a list of at least one {'role': 'user', 'content': 'text'}"
    if isinstance(messages, str | bytes | dict) or not isinstance(messages, Sequence):
        raise ParameterError("messages", messages, wanted)
    if not messages:
        raise ParameterError("messages", messages, wanted)
    for message in messages:
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            raise ParameterError("messages", message, wanted)
        if message["role"] not in ROLES:
            raise ParameterError("role", message["role"], " or ".join(ROLES))
        check_prompt(message["content"])
    return list(messages)


def render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    """The chat as the template writes it, to where the assistant's turn begins."""
    text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
    return str(text)


def chat_ids(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """Token ids of a chat, ending where the assistant's turn begins.

    The template is filled with marks in place of the messages, so that its own text is known
    from theirs; only there are special tokens looked for.

    Args:
        tokenizer: one with a chat template.
        messages: as `check_messages` lets them through.
    """
    marks = {f"[[{secrets.token_hex(12)}]]": message["content"] for message in messages}
    filled = render(
        tokenizer,
        [{"role": m["role"], "content": mark} for m, mark in zip(messages, marks, strict=True)],
    )
    specials = sorted(tokenizer.all_special_tokens, key=len, reverse=True)
    parts = re.split("(" + "|".join(map(re.escape, specials)) + ")", filled)
    ids: list[int] = []
    for part in parts:
        if part in specials:
            ids.append(int(tokenizer.convert_tokens_to_ids(part)))
        elif part:
            for mark, content in marks.items():
                part = part.replace(mark, content)
            plain = tokenizer(part, add_special_tokens=False, split_special_tokens=True)
            ids += plain["input_ids"]
    return ids
