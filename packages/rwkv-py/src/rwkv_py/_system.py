"""What Python says in other words on Windows, or not at all."""

from __future__ import annotations

import os
import sys

__all__ = ["lock_file", "memory", "processors", "read_at"]

if sys.platform == "win32":
    import ctypes
    import msvcrt
    import threading
    import time

    # Windows keeps everybody from reading what is locked, so that is a byte that no file has.
    _LOCKED_BYTE = 0x7FFF_FFFE
    _WAIT_SECONDS = 0.1
    _position_taken = threading.Lock()

    def lock_file(file: int, *, wait: bool = False) -> bool:
        """As below."""
        position = os.lseek(file, 0, os.SEEK_CUR)
        try:
            while True:
                os.lseek(file, _LOCKED_BYTE, os.SEEK_SET)
                try:
                    msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
                except PermissionError:
                    if not wait:
                        return False
                    time.sleep(_WAIT_SECONDS)
                else:
                    return True
        finally:
            os.lseek(file, position, os.SEEK_SET)

    def read_at(file: int, n_bytes: int, offset: int) -> bytes:
        """As below."""
        with _position_taken:
            os.lseek(file, offset, os.SEEK_SET)
            return os.read(file, n_bytes)

    class _MemoryStatus(ctypes.Structure):  # MEMORYSTATUSEX
        _fields_ = (
            ("size", ctypes.c_uint32),
            ("load", ctypes.c_uint32),
            ("total", ctypes.c_uint64),
            ("others", ctypes.c_uint64 * 6),
        )

    def memory() -> int:
        """As below."""
        status = _MemoryStatus(size=ctypes.sizeof(_MemoryStatus))
        if not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
            raise ctypes.WinError()
        return int(status.total)

else:
    import fcntl

    def lock_file(file: int, *, wait: bool = False) -> bool:
        """Let one process have an open file at a time, until it closes it or ends.

        Args:
            file: a descriptor, of a file that may be written.
            wait: whether to wait for another process that has it.

        Returns:
            Whether this process has it now.
        """
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except (BlockingIOError, PermissionError):
            return False
        return True

    def read_at(file: int, n_bytes: int, offset: int) -> bytes:
        """Return up to so many bytes from a place of an open file, also in several threads at once.

        Where the next other read or write begins is open; at the end of the file, if that was
        opened to append to.
        """
        return os.pread(file, n_bytes, offset)

    def memory() -> int:
        """Return how many bytes of memory the machine has.

        Raises:
            OSError: Windows does not say.
        """
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def processors() -> int:
    """Return how many processors this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
