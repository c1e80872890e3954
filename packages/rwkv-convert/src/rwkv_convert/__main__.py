"""The command `rwkv-convert`, and the same as `python -m rwkv_convert`."""

from __future__ import annotations

import sys
from typing import NoReturn

from .ending import end


def main() -> NoReturn:
    """Runs the command with the process's arguments, and ends the process."""
    end(_work)


def _work() -> None:
    # From here on Ctrl-C is looked after; numpy takes a tenth of a second to import.
    from .cli import command

    command(sys.argv[1:])


if __name__ == "__main__":
    main()
