"""What to do about an error, in words of the command line."""

from __future__ import annotations

from ..errors import (
    ConversionError,
    InvalidArgumentError,
    NoTokenizerError,
    RwkvError,
    TokenOutOfRangeError,
    VocabularyError,
)

# By the kind of error and what its message is about ("" for whatever it is).
_REMEDIES: dict[tuple[type[RwkvError], str], str] = {
    (NoTokenizerError, ""): "Try --tokenizer with its vocabulary file",
    (VocabularyError, ""): "Try --tokenizer world or --tokenizer bytes, which are built in",
    (TokenOutOfRangeError, "tokenizer"): (
        "Try --tokenizer with the vocabulary that the model was trained with"
    ),
    (ConversionError, "out"): "Try --force, which replaces it",
    (InvalidArgumentError, "format"): "Try --format with the name of one, such as --format world",
    (InvalidArgumentError, "prompt"): "Try giving a prompt",
}


def describe(error: RwkvError) -> str:
    """Return what is wrong, and what to do where there is something to advise.

    An error that has a remedy for Python gets the one of the table in its place. What is not in the
    table is left as it is if it holds no code.
    """
    remedy = ""
    if error.remedy:
        where = error.message.partition(": ")[0]
        for key in ((type(error), where), (type(error), "")):
            if key in _REMEDIES:
                remedy = _REMEDIES[key]
                break
        else:
            remedy = "" if "(" in error.remedy else error.remedy
    return f"{error.message}. {remedy}" if remedy else error.message
