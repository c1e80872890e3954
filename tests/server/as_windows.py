"""`python as_windows.py rwkv ...`: a command in a Python that has of the system what Windows' has.

What it lacks is gone: modules, where rwkv_py asks for them, and functions. Its `msvcrt` is a fake,
by what locks files here.
"""

from __future__ import annotations

import builtins
import ctypes
import importlib.util
import os
import runpy
import signal
import sys
import types
from pathlib import Path
from typing import Any

LACKS = {"fcntl", "grp", "pty", "pwd", "resource", "termios", "tty"}


def fake_msvcrt() -> types.ModuleType:
    """Of Microsoft's C library, what locks a byte of a file where its position is."""
    import fcntl

    module = types.ModuleType("msvcrt")
    module.LK_NBLCK = 2  # type: ignore[attr-defined]

    def locking(file: int, mode: int, n_bytes: int) -> None:
        assert (mode, n_bytes) == (2, 1)
        assert os.lseek(file, 0, os.SEEK_CUR) > os.fstat(file).st_size
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PermissionError(13, "Permission denied") from None

    module.locking = locking  # type: ignore[attr-defined]
    return module


class Kernel32:
    """Of Windows' library of that name: a machine of 3 GB."""

    @staticmethod
    def GlobalMemoryStatusEx(status: Any) -> int:
        numbers = ctypes.cast(status, ctypes.POINTER(ctypes.c_uint64 * 8)).contents
        assert numbers[0] & 0xFFFF_FFFF == ctypes.sizeof(numbers)
        numbers[1] = 3_000_000_000
        return 1


def system_of_windows() -> types.ModuleType:
    """rwkv_py._system, as it is there."""
    package = importlib.util.find_spec("rwkv_py")
    assert package is not None and package.origin is not None
    path = Path(package.origin).with_name("_system.py")
    sys.modules["msvcrt"] = fake_msvcrt()
    spec = importlib.util.spec_from_file_location("rwkv_py._system", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    here, sys.platform = sys.platform, "win32"
    try:
        spec.loader.exec_module(module)
    finally:
        sys.platform = here
        del sys.modules["msvcrt"]  # by which Python's own modules would know Windows
    return module


def become_windows() -> None:
    """From now on."""
    sys.modules["rwkv_py._system"] = system_of_windows()
    imported = builtins.__import__

    def import_(
        name: str, globals: object = None, *rest: object, **more: object
    ) -> types.ModuleType:
        asks = globals.get("__name__", "") if isinstance(globals, dict) else ""
        if name in LACKS and asks.startswith("rwkv_"):
            raise ModuleNotFoundError(f"No module named '{name}'")
        return imported(name, globals, *rest, **more)  # type: ignore[arg-type]

    builtins.__import__ = import_
    ctypes.windll = types.SimpleNamespace(kernel32=Kernel32)  # type: ignore[attr-defined]
    for name in (
        "O_CLOEXEC",
        "sysconf",
        "pread",
        "pwrite",
        "sched_getaffinity",
        "register_at_fork",
        "fork",
    ):
        delattr(os, name)
    del signal.SIGHUP


if __name__ == "__main__":
    become_windows()
    del sys.argv[0]
    runpy.run_module("rwkv_py", run_name="__main__", alter_sys=True)
