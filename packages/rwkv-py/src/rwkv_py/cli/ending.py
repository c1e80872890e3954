r"""How every command ends: with an exit code for what happened, and at most one line on stderr.

| code | when |
|---|---|
| 0 | all was done, and all that was written has left this process |
| 1 | it failed: one line says what was wrong, and what to try |
| 2 | wrong usage |
| 129, 143 | a signal asked for the end: SIGHUP, SIGTERM |
| 130 | Ctrl-C |
| 141 | nobody reads what is written, as in `rwkv generate ... \| head`: said by the code alone |

The codes above 128 are what a shell reports of a program that the signal of that number ended
(128 + SIGPIPE is 141). The program catches the signals in order to leave a terminal as it found it,
and no temporary file.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from typing import Any

import typer

from ..errors import RwkvError
from . import streams
from .remedies import describe

_FAILED = 1
_INTERRUPTED = 128 + signal.SIGINT
_NOBODY_READS = 128 + signal.SIGPIPE

# All that Typer raises about a command line; it has no name for it.
_WrongUsage: Any = typer.BadParameter.__base__


def run(app: Callable[..., Any]) -> int:
    """Run a Typer application, and return the exit code."""
    streams.prepare()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # not with nohup
            signal.signal(number, _end)
    try:
        code = app(standalone_mode=False)
        streams.flush()
    except SystemExit as end:  # of a signal, or of Typer's completion
        code = end.code
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except streams.NobodyReads:
        code = _NOBODY_READS
    except _WrongUsage as error:
        with contextlib.suppress(OSError):  # of stderr
            error.show()
        code = error.exit_code
    except (RwkvError, OSError, ImportError, MemoryError) as error:
        streams.complain(f"rwkv: {_complaint(error)}")
        code = _FAILED
    finally:
        streams.abandon()
    return code if isinstance(code, int) else 0


def _end(number: int, _: object) -> None:
    raise SystemExit(128 + number)


def _complaint(error: Exception) -> str:
    if isinstance(error, RwkvError):
        return describe(error)
    if isinstance(error, MemoryError):
        return "there is not enough memory"
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        name = os.fsdecode(error.filename) if not isinstance(error.filename, int) else "file"
        done = {"stdin": "read", "stdout": "written"}.get(name, "opened")
        return f"{name}: cannot be {done}: {error.strerror}"
    return str(error)
