"""The list of containers: how each is recognised, and its reader. Content decides, not the name."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass

from .checkpoint import Checkpoint
from .errors import DOWNLOAD_AGAIN, CheckpointError, quote
from .input_file import InputFile
from .read_ggmf import GGMF_MAGIC, read_ggmf
from .read_gguf import GGUF_MAGIC, read_gguf
from .read_pth import LEGACY_MAGIC, read_pth_legacy, read_pth_zip
from .read_safetensors import SAFETENSORS_HEAD, read_safetensors
from .zip_table import ZIP_MAGIC

HEAD_BYTES = 64
"""How much of a file's beginning is looked at."""


@dataclass(frozen=True, slots=True)
class Container:
    """A kind of file that we read.

    Attributes:
        head: matches the beginning of such a file.
        read: reads its table of contents, or raises CheckpointError.
    """

    head: re.Pattern[bytes]
    read: Callable[[InputFile], Checkpoint]


@dataclass(frozen=True, slots=True)
class OtherFile:
    """A kind of file that people have in the place of a checkpoint.

    Attributes:
        head: matches the beginning of such a file.
        what: its name, for the message.
        remedy: what to do about it.
    """

    head: re.Pattern[bytes]
    what: str
    remedy: str = ""


CONTAINERS = (
    Container(re.compile(re.escape(ZIP_MAGIC)), read_pth_zip),
    Container(re.compile(re.escape(GGMF_MAGIC)), read_ggmf),
    Container(re.compile(re.escape(GGUF_MAGIC)), read_gguf),
    Container(LEGACY_MAGIC, read_pth_legacy),
    Container(SAFETENSORS_HEAD, read_safetensors),
)
"""The first whose beginning matches reads the file."""

OTHER_FILES = (
    OtherFile(re.compile(rb"\Z"), "an empty file", DOWNLOAD_AGAIN),
    OtherFile(
        re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype|!--|html|\?xml|head)", re.IGNORECASE),
        "a web page",
        "Try the link that downloads the file itself",
    ),
    OtherFile(re.compile(rb"version https://git-lfs"), "a Git LFS pointer", "Try `git lfs pull`"),
    OtherFile(
        re.compile(rb"tjgg|lmgg|algg"),
        "a ggml file of another program",
        "Try the checkpoint that it was made from",
    ),
    OtherFile(
        re.compile(rb"\x1f\x8b|7z\xbc\xaf|Rar!|\xfd7zXZ|\x28\xb5\x2f\xfd"),  # gzip, .., xz, zstd
        "a compressed archive",
        "Try to unpack it first",
    ),
    OtherFile(re.compile(rb"\x80"), "a pickle that torch.save did not write"),
    OtherFile(re.compile(rb"\0+\Z"), "zeros", DOWNLOAD_AGAIN),
)
"""The first whose beginning matches is named."""


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads the table of contents of a file.

    Raises:
        CheckpointError: not such a file, or a damaged one.
    """
    with InputFile(path) as file:
        head = file.read(0, min(HEAD_BYTES, file.size))
        for container in CONTAINERS:
            if container.head.match(head):
                return container.read(file)
    what, remedy = f"a file that begins with {quote(head[:16].decode('latin-1'))}", ""
    for other in OTHER_FILES:
        if other.head.match(head):
            what, remedy = other.what, other.remedy
            break
    raise CheckpointError(
        f"{file.path}: not a checkpoint, expected a .pth, .safetensors, ggmf .bin or .gguf file, "
        f"got {what}",
        remedy=remedy,
    )
