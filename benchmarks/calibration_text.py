"""Text of several kinds and languages to calibrate by, or to check a calibrated model with.

    python -m benchmarks.calibration_text FOLDER

Everything comes from packages of Debian, fetched with `apt-get download` (nothing is installed),
and is free; SOURCES is the list. A file is written for each kind, with the beginnings of documents
that are evenly chosen from a package's, the same whenever the packages are the same.
"""

from __future__ import annotations

import argparse
import gzip
import io
import random
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

DOCUMENT_BYTES = 8192
"""Of each document, at most: so a kind is of many."""


@dataclass(frozen=True)
class Source:
    """Where a kind of text comes from.

    Attributes:
        kind: the name of its file.
        package: Debian's name.
        pattern: of the documents' paths in it.
        licence: theirs.
    """

    kind: str
    package: str
    pattern: str
    licence: str


GUIDE = r"usr/share/doc/installation-guide-amd64/{}/install\.{}\.txt(\.gz)?"
SOURCES = (
    Source("english", "installation-guide-amd64", GUIDE.format("en", "en"), "GPL-2+"),
    Source(
        "english-manual", "manpages", r"usr/share/man/man[2-8]/.*", "GPL-2+, BSD, MIT and alike"
    ),
    Source("german", "manpages-de", r"usr/share/man/de/man[1-8]/.*", "GPL-3+"),
    Source("french", "manpages-fr", r"usr/share/man/fr/man[1-8]/.*", "GPL-3+"),
    Source("chinese", "manpages-zh", r"usr/share/man/zh_CN/man[1-8]/.*", "GFDL-1.2+"),
    Source(
        "japanese", "manpages-ja", r"usr/share/man/ja/man[1-8]/.*", "GPL-2+, BSD, MIT and alike"
    ),
    Source("python", "libpython3.11-stdlib", r"usr/lib/python3\.11/.*\.py", "PSF-2"),
    Source("c", "libc6-dev", r"usr/include/.*\.h", "LGPL-2.1+"),
    Source("c++", "libstdc++-12-dev", r"usr/include/c\+\+/12/.*", "GPL-3+ with GCC exception"),
)


def documents(package: Path, pattern: str) -> Iterator[str]:
    """The documents of a .deb file whose paths match, by path, unpacked."""
    data = subprocess.run(
        ["dpkg-deb", "--fsys-tarfile", str(package)], check=True, stdout=subprocess.PIPE
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        wanted = re.compile(pattern)
        members = {member.name.removeprefix("./"): member for member in archive if member.isfile()}
        for name in sorted(members):
            if not wanted.fullmatch(name):
                continue
            file = archive.extractfile(members[name])
            assert file is not None
            raw = file.read()
            raw = gzip.decompress(raw) if name.endswith(".gz") else raw
            text = raw.decode("utf-8", "replace")
            yield without_roff(text) if "/man/" in name else text


def without_roff(text: str) -> str:
    """A manual page's words without most of its markup."""
    lines = []
    for line in text.splitlines():
        if line.startswith(('.\\"', "'\\\"", '\\"', ".so ")):
            continue
        line = re.sub(r"^[.'][A-Za-z]{1,3}\s*", "", line)
        line = re.sub(r"\\f(\[\w*\]|\(..|.)|\\[&|^/,]|\\s[-+]?\d", "", line)
        line = line.replace("\\-", "-").replace("\\(aq", "'").replace("\\e", "\\")
        lines.append(line.strip('"'))
    return "\n".join(lines) + "\n"


def evenly(texts: Iterable[str], size: int) -> bytes:
    """The beginnings of evenly chosen texts, `size` bytes of UTF-8 or what there is."""
    all_texts = [text for text in texts if len(text) > 200]
    n = max(1, min(len(all_texts), size // DOCUMENT_BYTES + 1))
    share = -(-size // n)
    chosen = [all_texts[i * len(all_texts) // n].encode() for i in range(n)] if all_texts else []
    joined = b"".join(text[:share] for text in chosen)[:size]
    return joined.decode("utf-8", "ignore").encode()


def make(folder: Path, size: int) -> list[Path]:
    """Fetches the packages and writes a file for each kind, and one of random bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with tempfile.TemporaryDirectory() as fetched:
        names = sorted({source.package for source in SOURCES})
        subprocess.run(["apt-get", "download", "-qq", *names], cwd=fetched, check=True)
        for source in SOURCES:
            (package,) = Path(fetched).glob(f"{source.package}_*.deb")
            path = folder / f"{source.kind}.txt"
            path.write_bytes(evenly(documents(package, source.pattern), size))
            written.append(path)
    noise = folder / "random.bin"
    noise.write_bytes(random.Random(0).randbytes(size))
    return [*written, noise]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.calibration_text", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("folder", type=Path, help="where the texts go")
    parser.add_argument("--bytes", type=int, default=200_000, help="of each kind (default: 200000)")
    args = parser.parse_args()
    for path in make(args.folder, args.bytes):
        print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
