"""The errors that the helpers raise on purpose: each says what was wrong and what to do."""

from __future__ import annotations

import sys
import warnings

TROUBLESHOOTING = "docs/troubleshooting.md"


def see(section: str) -> str:
    """Where to read more: "See docs/troubleshooting.md#downloads".

    Args:
        section: an anchor of that document.
    """
    return f"See {TROUBLESHOOTING}#{section}"


def warn(message: str) -> None:
    """A RuntimeWarning at the line that called into the course, however deep it arose.

    A fixed `stacklevel` would count frames, and a comprehension has one of its own only
    before Python 3.12.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and _ours(frame.f_globals):
        frame = frame.f_back
    warnings.warn_explicit(
        message,
        RuntimeWarning,
        frame.f_code.co_filename,
        frame.f_lineno,
        module=frame.f_globals.get("__name__", "__main__"),
        registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )


def _ours(names: dict[str, object]) -> bool:
    """Whether a frame's global names are those of the packages that warn, or of importing."""
    return str(names.get("__name__")).partition(".")[0] in ("system", "helpers", "importlib")


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


_NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "bad_alloc")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out; a CPU says it in other words than a GPU."""
    message = str(error).lower()
    return isinstance(error, MemoryError) or any(words in message for words in _NO_MEMORY)


def out_of_memory(error: BaseException) -> OutOfMemoryError:
    """The same failure in words that say what to do."""
    cause = (str(error).splitlines() or [type(error).__name__])[0][:120]
    return OutOfMemoryError(
        f"this does not fit in memory ({cause}). Use fewer or shorter prompts, fewer new "
        f"tokens, a smaller model, or close what else uses memory. {see('memory')}"
    )
