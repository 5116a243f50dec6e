"""The errors that the helpers raise on purpose: each says what was wrong and what to do."""

from __future__ import annotations

TROUBLESHOOTING = "docs/troubleshooting.md"


def see(section: str) -> str:
    """Where to read more: "See docs/troubleshooting.md#downloads".

    Args:
        section: an anchor of that document.
    """
    return f"See {TROUBLESHOOTING}#{section}"


class ParameterError(ValueError):
    """A parameter outside its allowed range.

    Attributes:
        parameter: its name, as the caller wrote it.
        value: what was given.
        allowed: the allowed range in words, such as "a number from 0.0 to 2.0".
    """

    def __init__(self, parameter: str, value: object, allowed: str) -> None:
        self.parameter, self.value, self.allowed = parameter, value, allowed
        try:
            shown = repr(value)
        except ValueError:  # Python refuses to write out integers of thousands of digits
            shown = f"a number of {type(value).__name__} beyond every limit"
        if len(shown) > 60:
            shown = shown[:57] + "…"
        super().__init__(f"{parameter}={shown} is not allowed: {parameter} must be {allowed}")


class PromptTooLongError(ParameterError):
    """The prompt leaves no room for a new token in the model's context."""

    def __init__(self, prompt_tokens: int, room: int, context: int) -> None:
        self.prompt_tokens, self.context = prompt_tokens, context
        super().__init__(
            "prompt",
            f"… ({prompt_tokens} tokens)",
            f"at most {room} tokens long: the context of {context} tokens holds the prompt and "
            "the new text. Shorten the prompt, ask for fewer new tokens, or pass truncate=True "
            "to drop its beginning",
        )


class ModelNotFoundError(ParameterError):
    """No shipped model, folder or hub model has this name."""


class HubUnreachableError(OSError):
    """The model hub could not be reached; nothing else was loaded in its place."""


class OutOfMemoryError(RuntimeError):
    """Not even the shortest retry fits in memory."""
