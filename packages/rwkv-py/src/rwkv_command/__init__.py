"""Where the command `rwkv` begins: Ctrl-C ends it quietly from here on.

A package of its own, since importing anything of `rwkv_py` imports most of it first, and numpy: in
these tenths of a second Ctrl-C would show a traceback.
"""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line, and end with the exit code that `rwkv_py.cli.ending` says."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)  # until rwkv_py.cli.ending looks after it
    from rwkv_py.cli import main

    main()


def _end(number: int, _: FrameType | None) -> None:
    os._exit(128 + number)  # nothing is begun, so nothing is to be cleaned up
