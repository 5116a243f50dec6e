"""A job in the forms that OpenAI's API answers in: whole, and block by block."""

from __future__ import annotations

import codecs
import secrets
import time
from collections.abc import Iterator
from typing import Any

from serving.api.openai import answers
from serving.engine.jobs import Job, Sequence, TokenLogprob, Update
from serving.tokenizer import SharedTokenizer

REASONS = {"end_of_text": "stop", "stop": "stop", "length": "length"}


def piece_name(content: bytes) -> str:
    r"""A token as OpenAI shows it: its text, or `bytes:\xe6` where it is no whole character."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)


class _Pieces:
    """The noted tokens of one text, in step with the characters that were sent of it."""

    def __init__(self, tokenizer: SharedTokenizer, echoed: int) -> None:
        self._tokenizer = tokenizer
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")
        self._noted = 0  # tokens told
        self._offset = 0  # whole characters of their bytes
        self.sent = echoed  # characters of the returned text that are sent

    def new(self, row: Sequence) -> Iterator[tuple[TokenLogprob, bytes, int]]:
        """Tokens that begin in the text sent so far and were not told: (what, bytes, offset).

        Bytes that make no whole character yet count with the token that completes it. What
        a stop string cut off is never told.
        """
        entries = [*row.prompt_logprobs, *row.logprobs]
        while self._noted < len(entries) and self._offset < self.sent:
            entry = entries[self._noted]
            content = self._tokenizer.bytes_of(entry.token_id)
            yield entry, content, self._offset
            self._noted += 1
            self._offset += len(self._characters.decode(content))


class Writer:
    """What both forms have in common."""

    kind = ""  # of the blocks of a stream
    prefix = ""

    def __init__(
        self, tokenizer: SharedTokenizer, model: str, job: Job, prompts: list[str]
    ) -> None:
        """To be made when the job is started.

        Args:
            tokenizer: of the model.
            model: its name.
            job: what is answered.
            prompts: the text that stands before each sequence's own, "" for none.
        """
        self.tokenizer, self.job, self.prompts = tokenizer, job, prompts
        self.head = {
            "id": f"{self.prefix}-{secrets.token_hex(12)}",
            "object": self.kind,
            "created": int(time.time()),
            "model": model,
        }
        self._pieces = [_Pieces(tokenizer, len(prompt)) for prompt in prompts]

    def new_pieces(self, row: Sequence, text: str) -> list[tuple[TokenLogprob, bytes, int]]:
        """The tokens to tell with the next characters of a row."""
        found = self._pieces[row.index]
        found.sent += len(text)
        return list(found.new(row))

    def usage(self) -> answers.Usage:
        """Token counts; a prompt counts once, however many texts were written for it."""
        rows = self.job.sequences
        texts = rows[0].settings.num_return_sequences
        read = sum(row.prompt_tokens for row in rows[::texts])
        written = sum(row.new_tokens for row in rows)
        cached = sum(row.cached_tokens for row in rows[::texts])
        return answers.Usage(
            prompt_tokens=read,
            prompt_tokens_details=answers.PromptTokensDetails(cached_tokens=cached),
            completion_tokens=written,
            total_tokens=read + written,
        )

    def start(self) -> Iterator[dict[str, Any]]:
        """The blocks before the first token."""
        raise NotImplementedError

    def chunk(self, update: Update) -> dict[str, Any] | None:
        """The block of an update; None where there is nothing to tell."""
        raise NotImplementedError


class CompletionWriter(Writer):
    """Writes a job in the form of /v1/completions."""

    kind, prefix = "text_completion", "cmpl"

    def _logprobs(self, row: Sequence, text: str) -> answers.Logprobs | None:
        if self.job.logprobs is None:
            return None
        found = answers.Logprobs(
            tokens=[], token_logprobs=[], top_logprobs=[], text_offset=[], bytes=[]
        )
        for entry, content, offset in self.new_pieces(row, text):
            found.tokens.append(piece_name(content))
            found.token_logprobs.append(entry.logprob)
            found.top_logprobs.append(None if entry.logprob is None else self._top(entry))
            found.text_offset.append(offset)
            found.bytes.append(list(content))
        return found

    def _top(self, entry: TokenLogprob) -> dict[str, float]:
        return {piece_name(self.tokenizer.bytes_of(token)): value for token, value in entry.top}

    def start(self) -> Iterator[dict[str, Any]]:
        """The prompts, where they are given back."""
        for row, prompt in zip(self.job.sequences, self.prompts, strict=True):
            if prompt:
                yield self._choice(row, prompt, None, None)

    def chunk(self, update: Update) -> dict[str, Any] | None:
        """As in the base."""
        row = self.job.sequences[update.index]
        logprobs = self._logprobs(row, update.text)
        if not (update.text or update.finish_reason or (logprobs and logprobs.tokens)):
            return None
        return self._choice(row, update.text, logprobs, REASONS.get(update.finish_reason))

    def _choice(
        self, row: Sequence, text: str, logprobs: answers.Logprobs | None, reason: str | None
    ) -> dict[str, Any]:
        choice = {
            "index": row.index,
            "text": text,
            "logprobs": logprobs.model_dump() if logprobs else None,
            "finish_reason": reason,
        }
        return self.head | {"choices": [choice]}

    def whole(self) -> answers.Completion:
        """The finished job."""
        choices = [
            answers.CompletionChoice(
                index=row.index,
                text=prompt + row.text,
                logprobs=self._logprobs(row, row.text),
                finish_reason=REASONS[row.finish_reason],  # type: ignore[arg-type]
            )
            for row, prompt in zip(self.job.sequences, self.prompts, strict=True)
        ]
        return answers.Completion(
            **self.head,  # type: ignore[arg-type]
            choices=choices,
            usage=self.usage(),
        )


class ChatWriter(Writer):
    """Writes a job in the form of /v1/chat/completions."""

    kind, prefix = "chat.completion.chunk", "chatcmpl"

    def _logprobs(self, row: Sequence, text: str) -> answers.ChatLogprobs | None:
        if self.job.logprobs is None:
            return None
        return answers.ChatLogprobs(
            content=[
                answers.ChatLogprob(
                    token=piece_name(content),
                    logprob=entry.logprob or 0.0,
                    bytes=list(content),
                    top_logprobs=[self._top(token, value) for token, value in entry.top],
                )
                for entry, content, _ in self.new_pieces(row, text)
            ]
        )

    def _top(self, token: int, value: float) -> answers.TopLogprob:
        content = self.tokenizer.bytes_of(token)
        return answers.TopLogprob(token=piece_name(content), logprob=value, bytes=list(content))

    def start(self) -> Iterator[dict[str, Any]]:
        """Whose turn it is."""
        for row in self.job.sequences:
            yield self._choice(row.index, {"role": "assistant", "content": ""}, None, None)

    def chunk(self, update: Update) -> dict[str, Any] | None:
        """As in the base."""
        logprobs = self._logprobs(self.job.sequences[update.index], update.text)
        if not (update.text or update.finish_reason or (logprobs and logprobs.content)):
            return None
        delta = {"content": update.text} if update.text else {}
        return self._choice(update.index, delta, logprobs, REASONS.get(update.finish_reason))

    def _choice(
        self,
        index: int,
        delta: dict[str, str],
        logprobs: answers.ChatLogprobs | None,
        reason: str | None,
    ) -> dict[str, Any]:
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": logprobs.model_dump() if logprobs else None,
            "finish_reason": reason,
        }
        return self.head | {"choices": [choice]}

    def whole(self) -> answers.ChatCompletion:
        """The finished job."""
        choices = [
            answers.ChatChoice(
                index=row.index,
                message=answers.AssistantMessage(content=row.text),
                logprobs=self._logprobs(row, row.text),
                finish_reason=REASONS[row.finish_reason],  # type: ignore[arg-type]
            )
            for row in self.job.sequences
        ]
        head = self.head | {"object": "chat.completion"}
        return answers.ChatCompletion(
            **head,  # type: ignore[arg-type]
            choices=choices,
            usage=self.usage(),
        )
