"""Structure by construction: a grammar says which tokens may come next. (Lesson 07.)

llguidance reads the grammar and answers, for the text so far, with a mask over the
vocabulary; the runner takes every other token out before it chooses. End-of-text is allowed
where the text is complete, special tokens never. Each mask is computed in a small pool of
threads while the model reads the token before it: llguidance and torch both let go of
Python's lock, so a step waits only for what takes longer than the model.
"""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from system.errors import ParameterError

if TYPE_CHECKING:
    from llguidance import LLMatcher
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)
MAX_BYTES = 32_768  # of a schema, an expression or choices, written as JSON
WORKERS = 2
# llguidance counts what it does instead of watching the clock: at these limits compiling ends
# after half a second at most, and a text needs some ten megabytes.
LIMITS: dict[str, Any] = {"max_lexer_states": 10_000, "verbose_errors": False}
# One way to write a JSON text: no choice of spaces that a model could write for ever.
FORM: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
FORM |= {"lenient": False, "coerce_one_of": False}


@dataclass(frozen=True)
class Structure:
    """The form that a text must have.

    Attributes:
        kind: whether `source` is a JSON schema, a regular expression or a list of texts.
        source: a dict, a str or a list of str.
        parameter: what the request calls it.
    """

    kind: Literal["json", "regex", "choice"]
    source: Any
    parameter: str


def _refused(structure: Structure, why: str) -> ParameterError:
    if "NoExtension" in why:
        why = "no text has this form"
    why = " ".join(why.partition("<non-verbose/>")[0].split())[:300]
    return ParameterError(structure.parameter, "…", f"a form that can be kept: {why}")


class Guide:
    """Where one text stands in its grammar."""

    def __init__(self, matcher: LLMatcher, structure: Structure, pool: ThreadPoolExecutor) -> None:
        self._matcher, self._structure, self._pool = matcher, structure, pool
        self._error = ""
        self._next = pool.submit(self._compute)

    def _compute(self) -> tuple[bytes, str]:
        """The next mask and what went wrong; the matcher is used by one thread at a time."""
        return self._matcher.compute_logit_bias(), self._matcher.get_error()

    def copy(self) -> Guide:
        """Another text at the same place."""
        self._next.result()
        return Guide(self._matcher.deep_copy(), self._structure, self._pool)

    def mask(self) -> bytes:
        """One byte for each token of the vocabulary: 0 where it may not come next."""
        mask, self._error = self._next.result()
        return mask

    def accept(self, token: int) -> bool:
        """Take the next token, one that `mask` allowed; whether nothing but the end can follow."""
        self._matcher.consume_token(token)
        if self._matcher.is_stopped():
            self._error = self._error or self._matcher.get_error()
            return True
        self._next = self._pool.submit(self._compute)
        return False

    @property
    def problem(self) -> ParameterError | None:
        """Why the text cannot go on in its grammar, though it is not complete."""
        return _refused(self._structure, self._error) if self._error else None


class Grammars:
    """Makes guides for the texts of one model."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, vocabulary: int, ends: set[int | None]
    ) -> None:
        """Read the vocabulary.

        Args:
            tokenizer: of the model.
            vocabulary: how many token ids the model knows.
            ends: those that mean end-of-text; without one, the tokenizer's.
        """
        from llguidance import LLTokenizer

        self._pool, self._tokens = ThreadPoolExecutor(WORKERS, "masks"), None
        end: Any = sorted(e for e in ends if e is not None) or tokenizer.eos_token_id
        try:
            size = max(vocabulary, len(tokenizer))
            self._tokens = LLTokenizer(_renamed(tokenizer), n_vocab=size, eos_token=end)
        except Exception as error:  # a kind that llguidance does not know
            log.warning("no structured output with this tokenizer: %s", error)

    @property
    def kinds(self) -> list[str]:
        """What requests may ask for; nothing where the tokenizer cannot be used."""
        return ["json_object", "json_schema", "regex", "choice"] if self._tokens else []

    def guide(self, structure: Structure | None) -> Guide | None:
        """The beginning of a text of this form; None where no form is asked for.

        Raises:
            ParameterError: it is too large, has parts that are not known, or no text has it.
        """
        from llguidance import LLMatcher, LLParserLimits

        if structure is None:
            return None
        if self._tokens is None:
            raise ParameterError(structure.parameter, "…", "left out: not with this tokenizer")
        try:
            size = len(json.dumps(structure.source))
            if size > MAX_BYTES:
                allowed = f"at most {MAX_BYTES} bytes of JSON"
                raise ParameterError(structure.parameter, f"… ({size} bytes)", allowed)
            limits = LLParserLimits(**LIMITS)
            matcher = LLMatcher(self._tokens, _grammar(structure), log_level=0, limits=limits)
        except ParameterError:
            raise
        except (ValueError, RecursionError) as error:
            raise _refused(structure, str(error)) from None
        guide = Guide(matcher, structure, self._pool)
        guide.mask()  # what no text can begin with shows only now
        if guide.problem:
            raise guide.problem
        return guide


def _renamed(tokenizer: PreTrainedTokenizerBase) -> str:
    """tokenizer.json, its special tokens renamed: a text that reads like one is text."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content |= {"post_processor": None, "padding": None, "truncation": None}
    vocab = content["model"]["vocab"]
    for token in content["added_tokens"]:
        if token["special"]:
            old, token["content"] = token["content"], f"\ufdd0{token['id']}"
            if old in vocab:
                vocab[token["content"]] = vocab.pop(old)
    return json.dumps(content)


def _grammar(structure: Structure) -> str:
    """The structure as llguidance reads it."""
    from llguidance import LLMatcher

    if structure.kind == "regex":
        return LLMatcher.grammar_from_regex(structure.source)
    if structure.kind == "choice":
        texts = (json.dumps(text, ensure_ascii=False) for text in structure.source)
        return LLMatcher.grammar_from_lark(f"start: {' | '.join(texts)}")
    if "x-guidance" in structure.source:
        raise ValueError("x-guidance is no keyword of JSON Schema")
    return LLMatcher.grammar_from_json_schema(
        json.dumps(narrowed(structure.source)), overrides=FORM
    )


# llguidance's formats are wider than what validators take: second 60 (a leap second), year 0,
# 29 February in any year, a host name without end.
_YEAR = {"pattern": "^(000[1-9]|00[1-9]|0[1-9]|[1-9])"}
_LEAP = "(..(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29"
_DAY = {"pattern": f"^(....-(0[13-9]|1.|02-([01].|2[0-8]))|{_LEAP})"}
NARROWER: dict[Any, list[dict[str, Any]]] = {
    "date": [_YEAR, _DAY],
    "date-time": [_YEAR, _DAY, {"pattern": "^.{17}[0-5]"}],
    "time": [{"pattern": "^.{6}[0-5]"}],
    "hostname": [{"maxLength": 253}],
}
_ONE = (
    "additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then",
    "unevaluatedItems", "unevaluatedProperties",
)  # fmt: skip
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_NAMED = ("$defs", "definitions", "dependentSchemas", "patternProperties", "properties")


def narrowed(schema: Any) -> Any:
    """The schema with every format as narrow as validators take it.

    Only schemas within it are looked at: a property or a constant may be named "format", too.
    """
    if not isinstance(schema, dict):
        return schema
    found = dict(schema)
    for key, inner in schema.items():
        if key in _ONE and isinstance(inner, dict):
            found[key] = narrowed(inner)
        elif key in _LISTS and isinstance(inner, list):
            found[key] = [narrowed(one) for one in inner]
        elif key in _NAMED and isinstance(inner, dict):
            found[key] = {name: narrowed(one) for name, one in inner.items()}
    form = schema.get("format")
    extra = NARROWER.get(form, []) if isinstance(form, str) else []
    if extra and isinstance(schema.get("allOf", []), list):
        found["allOf"] = [*found.get("allOf", []), *extra]
    return found
