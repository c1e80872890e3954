"""Conversions of which the first system call fails, then the second ... until none is left to fail.

    LD_PRELOAD=failing_calls.so python -m convert.failing_conversions FOLDER

An error of ours must come out and nothing may be left behind, or the file must be right: some
failures do not matter. Prints which calls have failed, for each kind of file.
"""

import ctypes
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import rwkv_convert
from convert.fuzz_readers import KINDS


def fail_each(kind: str, folder: Path) -> Counter[str]:
    shim = ctypes.CDLL(None)
    shim.failing_call.restype = ctypes.c_char_p
    given, out = folder / f"{kind}.in", folder / kind
    given.mkdir()
    out.mkdir()
    KINDS[kind].write(given)
    source = given / KINDS[kind].source if KINDS[kind].source else given
    options: dict[str, Any] = {
        name: given / value if isinstance(value, Path) else value
        for name, value in KINDS[kind].options.items()
    }
    destination = out / "a.bin"

    def convert() -> None:
        rwkv_convert.convert(source, destination, dtype="q4_0", force=True, threads=1, **options)

    convert()
    expected = destination.read_bytes()
    failed: Counter[str] = Counter()
    for has_older in (False, True):
        n = 0
        while True:
            n += 1
            destination.unlink(missing_ok=True)
            if has_older:
                destination.write_bytes(b"older")
            files = len(os.listdir("/proc/self/fd"))
            shim.failing_arm(os.fsencode(folder), n)
            try:
                convert()
                succeeded = True
            except rwkv_convert.ConvertError as error:
                succeeded = False
                assert str(folder) in str(error), error
            finally:
                n_calls = shim.failing_disarm()
                call = shim.failing_call().decode()
            left = {path.name: path.read_bytes() for path in out.iterdir()}
            before = {"a.bin": b"older"} if has_older else {}
            where = f"{kind}, call {n} of {n_calls}, {call}: {succeeded}, {sorted(left)}"
            assert left == ({"a.bin": expected} if succeeded else before), where
            assert len(os.listdir("/proc/self/fd")) == files, where
            if n > n_calls:
                assert succeeded, where
                break
            failed[call] += 1
    return failed


if __name__ == "__main__":
    for name in KINDS:
        print(name, dict(fail_each(name, Path(sys.argv[1]))))
