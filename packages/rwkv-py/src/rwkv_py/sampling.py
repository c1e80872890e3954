"""Logits -> token."""

from __future__ import annotations

import contextlib
import functools
import reprlib
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypedDict, Unpack, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _core
from ._arguments import as_count, as_integer, as_integers, as_number, as_token
from .errors import InvalidArgumentError, TokenOutOfRangeError
from .tokenizer import Tokenizer

__all__ = ["Sampler", "SamplingOptions", "sampler_of_text", "settled"]


class SamplingOptions(TypedDict, total=False):
    """The keyword arguments of `Sampler`."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    typical_p: float
    mirostat_tau: float
    mirostat_eta: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    penalty_decay: float
    logit_bias: Mapping[int, float]
    banned_tokens: Iterable[int]
    seed: int | None


class Sampler:
    """Draws tokens from logits, in the order of the official `rwkv` package.

    1. `banned_tokens` leave, and `logit_bias` is added.
    2. Penalties, for each token accepted so far: `logit /= repetition_penalty` (a negative logit is
       multiplied), then `logit -= presence_penalty + count * frequency_penalty`. Accepting a token
       multiplies all counts by `penalty_decay`, then adds 1 to its own.
    3. `top_p`: of the probabilities keep those at least as large as the one where the sum, from the
       largest down, reaches it.
    4. `top_k`: of these keep the largest.
    5. `min_p`: of these keep those that are at least this share of the largest.
    6. `typical_p`: of these keep those whose surprise is nearest to the mean surprise, until their
       share reaches it (Meister et al., 2022).
    7. `p ** (1 / temperature)`, and draw.

    With `mirostat_tau` above 0, mirostat 2 (Basu et al., 2021) replaces steps 3 to 6, after the
    temperature: it keeps the mean surprise near `mirostat_tau` bits.

    The same options, seed, logits and accepted tokens give the same tokens on every platform.
    A sampler is used by one thread at a time.

    Args:
        n_vocab: how many logits there are.
        temperature: 0 takes the most probable token (of equals the first).
        top_p: 0 to 1; 1 is off.
        top_k: 0 is off.
        min_p: 0 to 1; 0 is off.
        typical_p: 0 to 1; 1 is off.
        mirostat_tau: bits; 0 is off.
        mirostat_eta: how fast mirostat follows.
        repetition_penalty: above 0; 1 is off.
        presence_penalty: 0 is off.
        frequency_penalty: 0 is off.
        penalty_decay: 0 to 1; 1 never forgets.
        logit_bias: what to add to the logits of tokens.
        banned_tokens: tokens that are never drawn.
        seed: 0 to 2**64 - 1; None chooses one, see `seed`.

    Raises:
        InvalidArgumentError: an option is outside its range, or of the wrong type.
        TokenOutOfRangeError: a token of `logit_bias` or `banned_tokens` is not below `n_vocab`.

    >>> sampler = Sampler(4, temperature=0, presence_penalty=1.0)
    >>> sampler.sample([0.0, 2.0, 1.5, 0.0])
    1
    >>> sampler.accept(1)
    >>> sampler.sample([0.0, 2.0, 1.5, 0.0])
    2
    """

    def __init__(
        self,
        n_vocab: int,
        *,
        temperature: float = 1.0,
        top_p: float = 0.85,
        top_k: int = 0,
        min_p: float = 0.0,
        typical_p: float = 1.0,
        mirostat_tau: float = 0.0,
        mirostat_eta: float = 0.1,
        repetition_penalty: float = 1.0,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        penalty_decay: float = 0.996,
        logit_bias: Mapping[int, float] | None = None,
        banned_tokens: Iterable[int] = (),
        seed: int | None = None,
    ):
        self._seed = _as_seed(seed)
        options = _core.SamplerOptions()
        options.temperature = as_number("temperature", temperature)
        options.top_p = as_number("top_p", top_p)
        options.top_k = _as_top_k(top_k)
        options.min_p = as_number("min_p", min_p)
        options.typical_p = as_number("typical_p", typical_p)
        options.mirostat_tau = as_number("mirostat_tau", mirostat_tau)
        options.mirostat_eta = as_number("mirostat_eta", mirostat_eta)
        options.repetition_penalty = as_number("repetition_penalty", repetition_penalty)
        options.presence_penalty = as_number("presence_penalty", presence_penalty)
        options.frequency_penalty = as_number("frequency_penalty", frequency_penalty)
        options.penalty_decay = as_number("penalty_decay", penalty_decay)
        options.seed = self._seed
        self._n_vocab = as_count("n_vocab", n_vocab, at_least=1, at_most=1 << 24)
        self._core = _core.Sampler(self._n_vocab, options)
        self._options = options
        with _naming("logit_bias"):
            for token, bias in _as_biases(logit_bias).items():
                self._core.bias(token, bias)
        banned_tokens = as_integers("banned_tokens", banned_tokens)
        with _naming("banned_tokens"):
            self.ban(banned_tokens)

    def __repr__(self) -> str:
        defaults = _core.SamplerOptions()
        changed = [
            f"{name}={getattr(self._options, name):.6g}"
            for name in SamplingOptions.__annotations__
            if name != "seed"
            and hasattr(defaults, name)
            and getattr(self._options, name) != getattr(defaults, name)
        ]
        return f"Sampler({', '.join([str(self._n_vocab), *changed, f'seed={self._seed}'])})"

    @property
    def seed(self) -> int:
        """The seed in use: the one given, or the one chosen."""
        return self._seed

    def sample(self, logits: ArrayLike, *, mask: NDArray[np.uint32] | None = None) -> int:
        """Draw a token from `logits`, float32 (n_vocab,), without accepting it.

        Args:
            logits: the model's.
            mask: uint32 ((n_vocab + 31) // 32,): token t may be drawn only if bit t % 32 of word
                t // 32 is set, for this once. None: all may.

        Raises:
            InvalidArgumentError: a shape is another, a logit is NaN or +infinity, or all tokens
                are banned.
        """
        try:
            array = np.ascontiguousarray(logits, np.float32)
        except (TypeError, ValueError, OverflowError):
            raise InvalidArgumentError(
                f"logits: expected numbers of shape ({self._n_vocab},), got "
                f"{type(logits).__name__}: {reprlib.repr(logits)}"
            ) from None
        if array.shape != (self._n_vocab,):
            raise InvalidArgumentError(
                f"logits: expected shape ({self._n_vocab},), got {array.shape}"
            )
        if mask is None:
            return self._core.sample(array)
        words = (self._n_vocab + 31) // 32
        if not (
            isinstance(mask, np.ndarray) and mask.dtype == np.uint32 and mask.shape == (words,)
        ):
            raise InvalidArgumentError(
                f"mask: expected a uint32 array of shape ({words},), got {reprlib.repr(mask)}"
            )
        return self._core.sample_masked(array, np.ascontiguousarray(mask))

    def accept(self, token: int) -> None:
        """Tell the sampler that `token` was taken, so that the penalties know it."""
        self._core.accept(as_token(token))

    def ban(self, tokens: Iterable[int]) -> None:
        """Never draw `tokens` from now on."""
        for token in as_integers("tokens", tokens):
            self._core.bias(as_token(token), -np.inf)

    def weigh(self, token: int, weight: float) -> None:
        """Let accepting `token` add `weight`, not 1, to its count.

        The official package lets spaces, tabs and digits count 0; `Session.generate` does too.
        """
        self._core.weigh(as_token(token), as_number("weight", weight))

    def reset(self, seed: int | None = None) -> None:
        """Forget the tokens accepted, and start the random numbers again.

        Args:
            seed: as for the class; None keeps the present one.
        """
        self._seed = self._seed if seed is None else _as_seed(seed)
        self._core.reset(self._seed)


def sampler_of_text(
    tokenizer: Tokenizer, n_vocab: int, **sampling: Unpack[SamplingOptions]
) -> Sampler:
    """Return a sampler that draws only tokens that stand for text.

    Spaces, tabs and digits do not count for its `frequency_penalty`, as in the official package.
    """
    sampler = Sampler(n_vocab, **sampling)
    missing, uncounted = _about(tokenizer, n_vocab)
    sampler.ban(missing)
    for token in uncounted:
        sampler.weigh(token, 0)
    return sampler


def settled(options: SamplingOptions) -> SamplingOptions:
    """Return options whose values nobody else can change, checked for their types."""
    given: Mapping[str, Any] = options
    checks: dict[str, Callable[[Any], Any]] = {
        "logit_bias": _as_biases,
        "banned_tokens": functools.partial(as_integers, "banned_tokens"),
        "seed": lambda seed: None if seed is None else _as_seed(seed),
        "top_k": _as_top_k,
    }
    kept = {
        name: checks.get(name, functools.partial(as_number, name))(value)
        for name, value in given.items()
    }
    return cast(SamplingOptions, kept)


@contextlib.contextmanager
def _naming(option: str) -> Iterator[None]:
    """Let an error about a token name the option that has it."""
    try:
        yield
    except TokenOutOfRangeError as error:
        raise TokenOutOfRangeError(f"{option}: {error}") from None


def _as_seed(seed: int | None) -> int:
    if seed is None:
        return secrets.randbits(64)
    seed = as_integer("seed", seed)
    if not 0 <= seed < 2**64:
        raise InvalidArgumentError(f"seed: expected 0 to 2**64 - 1, got {seed}")
    return seed


def _as_biases(logit_bias: Mapping[int, float] | None) -> dict[int, float]:
    if logit_bias is None:
        return {}
    if not isinstance(logit_bias, Mapping):
        raise InvalidArgumentError(
            f"logit_bias: expected numbers by token, as in {{11: -2.5}}, got {logit_bias!r}"
        )
    return {
        as_token(as_integer("logit_bias", token)): as_number("logit_bias", bias)
        for token, bias in logit_bias.items()
    }


def _as_top_k(top_k: int) -> int:
    top_k = as_integer("top_k", top_k)
    if not 0 <= top_k < 2**31:
        raise InvalidArgumentError(f"top_k: expected 0 (all) or more, got {top_k}")
    return top_k


# The official package lets a token count nothing for the frequency penalty if its text is part of
# this one.
_UNCOUNTED = " \t0123456789"


@functools.lru_cache(maxsize=8)
def _about(tokenizer: Tokenizer, n_vocab: int) -> tuple[list[int], list[int]]:
    """Return the tokens of the model that the tokenizer lacks, and those that are not counted."""
    parts = {
        _UNCOUNTED[begin:end]
        for begin in range(len(_UNCOUNTED))
        for end in range(begin + 1, len(_UNCOUNTED) + 1)
    }
    uncounted = []
    for part in parts:
        with contextlib.suppress(InvalidArgumentError):  # not every vocabulary has all of it
            tokens = tokenizer.encode(part)
            if len(tokens) == 1 and tokens[0] < n_vocab:
                uncounted += tokens
    return list(tokenizer.missing(n_vocab)), uncounted
