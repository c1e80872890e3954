"""Text that must fit a JSON schema, a regular expression or a grammar: which tokens may come next.

The package llguidance does the parsing (`pip install rwkv-py[grammar]`); it is imported when it is
first needed.
"""

from __future__ import annotations

import functools
import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeAlias, TypedDict, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from ._arguments import as_text
from .errors import InvalidArgumentError, OutOfMemoryError
from .sampling import Sampler
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    import llguidance

__all__ = [
    "Fit",
    "Grammar",
    "GrammarOptions",
    "GuidedSampler",
    "JsonSchema",
    "fit_of",
    "grammar_of",
]

JsonSchema: TypeAlias = Mapping[str, Any] | bool | str

MAX_BYTES = 1 << 19
"""How long a schema, an expression or a grammar is at most."""

# What a stranger's expression may make of memory, 1 to 2 KB each; schemas need hundreds.
_MAX_LEXER_STATES = 50_000

# Between the parts of an object or a list at most a space: a model that hesitates would go on and
# on with white space, which any amount of would fit.
_JSON_STYLE = {
    "whitespace_flexible": False,
    "item_separator": ",\\x20?",
    "key_separator": ":\\x20?",
}


@dataclass(frozen=True)
class Grammar:
    """What a text must fit, in one form whatever says it.

    Attributes:
        option: the argument that says it, for messages.
        lark: a grammar in Lark.
        before: rules in Lark, of which `before` says what stands before the text; "" for nothing.
        begun: the beginning of the text, where it is there already.
    """

    option: str
    lark: str
    before: str = ""
    begun: str = ""


class GrammarOptions(TypedDict, total=False):
    """The keyword arguments that say what a text must fit: one of them at most."""

    json_schema: JsonSchema | None
    regex: str | None
    grammar: str | Grammar | None


class Fit(NamedTuple):
    """What a text must fit, compiled for a vocabulary.

    Attributes:
        option: the argument that says it, for messages.
        matcher: at the beginning; to be copied.
        n_vocab: how many tokens the model has.
    """

    option: str
    matcher: llguidance.LLMatcher
    n_vocab: int


class GuidedSampler:
    """Draws, with a sampler, only tokens with which a text that fits can go on.

    Where the text fits as it is, the tokens that end it may be drawn too, and elsewhere not: what
    ends by itself fits. Where nothing can follow, the token after the last of the vocabulary ends
    it.
    """

    def __init__(self, sampler: Sampler, fit: Fit, stop_tokens: Iterable[int]):
        self._sampler = sampler
        self._option, matcher, self._n_vocab = fit
        self._matcher = matcher.deep_copy()
        # Bits by token, as `Sampler.sample` wants them.
        words = np.zeros((fit.n_vocab + 31) // 32, np.uint32)
        for token in stop_tokens:
            if 0 <= token < fit.n_vocab:
                words[token // 32] |= np.uint32(1 << token % 32)
        self._ends = words
        known = np.full(len(words), 0xFFFFFFFF, np.uint32)
        if fit.n_vocab % 32:
            known[-1] = (1 << fit.n_vocab % 32) - 1
        self._text = known & ~words

    def sample(self, logits: ArrayLike) -> int:
        """Draw a token, as `Sampler.sample`.

        Raises:
            InvalidArgumentError: there is none with which the text could go on: those that could
                are banned, or not of the vocabulary; or the grammar takes too much to follow.
        """
        words = np.frombuffer(self._matcher.compute_bitmask(), np.uint32)
        self._check()
        # One more than the model has stands for the end.
        end = self._n_vocab
        may_end = bool(words[end // 32] >> np.uint32(end % 32) & 1)
        mask = words[: len(self._text)] & self._text
        if not mask.any():
            if may_end:
                return end
            raise InvalidArgumentError(
                f"{self._option}: expected a token of the vocabulary with which the text can go "
                "on, got none"
            )
        return self._sampler.sample(logits, mask=mask | self._ends if may_end else mask)

    def accept(self, token: int) -> None:
        """Tell the sampler and the grammar that `token` was taken."""
        self._sampler.accept(token)
        self._matcher.consume_token(token)
        self._check()

    def forced(self) -> list[int]:
        """Return tokens that stand for what the text must go on with, if it is certain.

        Others that stand for the same may be drawn.
        """
        return list(self._matcher.compute_ff_tokens())

    def _check(self) -> None:
        if self._matcher.is_error():
            raise _refused(self._option, self._matcher.get_error())


class ForcedGuesser:
    """Guesses what a grammar forces a text to go on with: of `Guesser`'s interface.

    Args:
        sampler: what follows the grammar.
    """

    is_free = True

    def __init__(self, sampler: GuidedSampler):
        self._sampler = sampler
        self._forced: list[int] | None = None  # where the text is; None: not asked yet

    @property
    def source(self) -> str:
        """Return "grammar" where something is forced, else ""."""
        return "grammar" if self._next() else ""

    def begin(self, text: list[int]) -> None:
        """Know the text so far, which a grammar does not ask for."""

    def read(self, token: int) -> None:
        """Know that the text goes on with what the sampler has accepted."""
        self._forced = None

    @classmethod
    def guess(cls, wanted: Sequence[tuple[Self, int]]) -> list[list[int]]:
        """Return for several texts what is forced: for each at most so many tokens."""
        return [guesser._next()[:n] for guesser, n in wanted]

    def _next(self) -> list[int]:
        if self._forced is None:
            self._forced = self._sampler.forced()
        return self._forced


def fit_of(
    tokenizer: Tokenizer,
    n_vocab: int,
    stop: Iterable[bytes],
    *,
    json_schema: JsonSchema | None = None,
    regex: str | None = None,
    grammar: str | Grammar | None = None,
) -> Fit | None:
    """Return what a text must fit; None if it is free.

    Args:
        tokenizer: what the tokens stand for.
        n_vocab: how many tokens the model has.
        stop: strings that end a text. Where it fits, one of them may follow.
        json_schema: a JSON schema (2020-12), as a dict, as text, or True for any JSON. The text is
            JSON in one line. Keywords that cannot be kept are refused.
        regex: a regular expression (of the Rust crate regex) that matches the whole text.
        grammar: a grammar in Lark, as llguidance understands it, or in the GBNF of llama.cpp.

    Raises:
        InvalidArgumentError: it is not understood, or nothing fits it, or there is more than one;
            or llguidance is not installed.
    """
    found = grammar_of(json_schema=json_schema, regex=regex, grammar=grammar)
    if found is None:
        return None
    endings = []
    for each in stop:
        try:
            endings.append(each.decode())
        except UnicodeDecodeError:
            continue  # no text that fits has those bytes
    if not tokenizer.is_context_free:
        raise InvalidArgumentError(
            f"{found.option}: expected a tokenizer whose tokens stand for the same text wherever "
            f"they are, got {tokenizer!r}"
        )
    matcher = _compiled(tokenizer, n_vocab, found, tuple(endings))
    return Fit(found.option, matcher, n_vocab)


def grammar_of(
    *,
    json_schema: JsonSchema | None = None,
    regex: str | None = None,
    grammar: str | Grammar | None = None,
) -> Grammar | None:
    """Return the argument that is given as a grammar in Lark; None if none is.

    Raises:
        InvalidArgumentError: there is more than one; or what can be seen to be wrong with it
            without compiling it.
    """
    given = {"json_schema": json_schema, "regex": regex, "grammar": grammar}
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise InvalidArgumentError(
            f"{names[1]}: expected one of json_schema, regex and grammar, got {' and '.join(names)}"
        )
    if json_schema is not None:
        return Grammar("json_schema", f"start: {json_rule(json_schema)}\n")
    if regex is not None:
        return Grammar("regex", f"start: TEXT\nTEXT: /{_regex(regex)}/\n")
    if isinstance(grammar, Grammar):
        return grammar
    return None if grammar is None else Grammar("grammar", _lark(grammar))


def json_rule(schema: JsonSchema, option: str = "json_schema", *, lenient: bool = False) -> str:
    """Return what stands in a rule of Lark for JSON that fits a schema, in our style.

    Args:
        schema: the schema.
        option: the argument that it comes from, for messages.
        lenient: pass over what cannot be kept.

    Raises:
        InvalidArgumentError: it is no schema, or too long.
    """
    style = {**_JSON_STYLE, "lenient": lenient, "coerce_one_of": lenient}
    try:
        if isinstance(schema, str):
            schema = json.loads(schema)
        if isinstance(schema, Mapping):
            schema = dict(schema)
        if schema is True:
            schema = {}
        if not isinstance(schema, dict):
            raise InvalidArgumentError(
                f"{option}: expected an object or true, got {_short(schema)}"
            )
        text = json.dumps({**schema, "x-guidance": style}, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        if isinstance(error, InvalidArgumentError):
            raise
        raise InvalidArgumentError(f"{option}: expected JSON, got: {error}") from None
    return f"%json {_limited(option, text)}"


def _regex(regex: str) -> str:
    r"""Return an expression as it stands between slashes.

    >>> _regex("^a/b$")
    'a\\/b'
    """
    text = _limited("regex", as_text("regex", regex)).removeprefix("^")
    backslashes = len(text[:-1]) - len(text[:-1].rstrip("\\"))
    if text.endswith("$") and backslashes % 2 == 0:
        text = text[:-1]
    # Pairs first: a slash after one is not escaped by it.
    escaped = re.sub(r"\\.|/", lambda m: "\\/" if m[0] == "/" else m[0], text, flags=re.DOTALL)
    return escaped.replace("\n", "\\n").replace("\r", "\\r")


def _lark(grammar: str) -> str:
    text = _limited("grammar", as_text("grammar", grammar))
    if not re.search(r"^\s*[\w-]+\s*::=", text, re.MULTILINE):
        return text
    _llguidance("grammar")
    from llguidance.gbnf_to_lark import gbnf_to_lark

    try:
        # A letter that is written by its number is not always understood: here it is the letter.
        return gbnf_to_lark(re.sub(r"\\\\|\\u(\w{4})|\\U(\w{8})", _letter, text))
    # It raises Exception itself, and IndexError or RecursionError where it is taken by surprise.
    except Exception as error:
        raise _refused("grammar", str(error)) from None


def _letter(escape: re.Match[str]) -> str:
    number = int(escape[1] or escape[2] or "0", 16)
    return chr(number) if number > 0x7F else escape[0]


def _limited(option: str, text: str) -> str:
    if (size := len(text.encode())) > MAX_BYTES:
        raise InvalidArgumentError(f"{option}: expected at most {MAX_BYTES} bytes, got {size}")
    return text


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _llguidance(option: str) -> Any:
    try:
        import llguidance
    except ImportError:
        raise InvalidArgumentError(
            f"{option}: expected the package llguidance to follow it, got none",
            remedy="Try `pip install rwkv-py[grammar]`",
        ) from None
    return llguidance


def _refused(option: str, complaint: str) -> InvalidArgumentError:
    """Return the error for what llguidance says, in one line: without its state and our source."""
    complaint = re.split(r"\n *(?:1 \||<state>|<backtrace>)", complaint, maxsplit=1)[0]
    if option != "grammar":  # places are in a source that is ours
        complaint = re.sub(r"^(?:at )?\d+\(\d+\): ", "", complaint)
        complaint = complaint.removeprefix("failed to compile JSON schema: ")
        complaint = complaint.rpartition("\nerror: ")[2]
    complaint = " ".join(complaint.split()).rstrip(".")
    expected = {"json_schema": "a JSON schema", "regex": "an expression"}.get(option, "a grammar")
    return InvalidArgumentError(
        f"{option}: expected {expected} that can be followed, got: {complaint[:300]}"
    )


@functools.lru_cache(maxsize=64)
def _compiled(
    tokenizer: Tokenizer, n_vocab: int, grammar: Grammar, endings: tuple[str, ...]
) -> llguidance.LLMatcher:
    option = grammar.option
    library = _llguidance(option)
    source = grammar.lark
    if grammar.before or endings:
        # A grammar of its own around it: the rules of each are its own, and so are their names.
        outer = f"start: {'before ' * bool(grammar.before)}@text {'ending?' * bool(endings)}\n"
        outer += grammar.before
        if endings:
            outer += f"ending: {' | '.join(json.dumps(each) for each in endings)}\n"
        both = [{"lark_grammar": outer}, {"name": "text", "lark_grammar": grammar.lark}]
        source = json.dumps({"grammars": both})
    vocabulary = _vocabulary(tokenizer, n_vocab)

    def compile() -> tuple[llguidance.LLMatcher, str, bool]:
        limits = library.LLParserLimits(max_lexer_states=_MAX_LEXER_STATES, verbose_errors=False)
        matcher = library.LLMatcher(vocabulary, source, log_level=0, limits=limits)
        if grammar.begun and not matcher.is_error():
            begun = tokenizer.encode(grammar.begun)
            if matcher.try_consume_tokens(begun) < len(begun):
                return matcher, "NoExtension", False
        # Whether anything fits is seen at the first token.
        first = matcher.deep_copy()
        some = any(first.compute_bitmask())
        return matcher, matcher.get_error() or first.get_error(), some

    matcher, error, some = _with_deep_stack(compile)
    if "NoExtension" in error or not (error or some):
        raise InvalidArgumentError(f"{option}: expected what a text can fit, got what none can")
    if error:
        raise _refused(option, error)
    return matcher


class _Vocabulary:
    """A tokenizer as llguidance wants it."""

    is_tokenizer_wrapper = True
    eos_token_id = None  # makes one more token than there are, for the end
    bos_token_id = None
    special_token_ids: tuple[int, ...] = ()

    def __init__(self, tokenizer: Tokenizer, n_vocab: int):
        self._tokenizer = tokenizer
        missing = set(tokenizer.missing(n_vocab))
        # What stands for nothing never comes. Nor does the byte 0xFF, which no text in UTF-8 has:
        # for llguidance it begins the name of a special token.
        self.tokens = [b"" if t in missing else tokenizer.decode_bytes([t]) for t in range(n_vocab)]

    def __call__(self, text: str) -> list[int]:
        return self._tokenizer.encode(text)


@functools.lru_cache(maxsize=8)
def _vocabulary(tokenizer: Tokenizer, n_vocab: int) -> llguidance.LLTokenizer:
    made: llguidance.LLTokenizer = _llguidance("grammar").LLTokenizer(
        _Vocabulary(tokenizer, n_vocab)
    )
    return made


_T = TypeVar("_T")

_STACK_BYTES = 512 << 20  # of addresses: only what is used takes memory
_stack_size = threading.Lock()


def _with_deep_stack(make: Callable[[], _T]) -> _T:
    """Call something that recurses as deep as a text of a stranger nests, which no stack outgrows.

    Running out of the usual stack would end the process.
    """
    made: list[_T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            made.append(make())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="rwkv-grammar", daemon=True)
    with _stack_size:
        usual = threading.stack_size(_STACK_BYTES)
        try:
            thread.start()
        except RuntimeError:
            raise OutOfMemoryError(
                f"grammar: expected {_STACK_BYTES >> 20} MiB of addresses for a stack, got none"
            ) from None
        finally:
            threading.stack_size(usual)
    thread.join()
    if failed:
        raise failed[0]
    return made[0]
