"""How every command ends: with an exit code for what happened, and at most one line on stderr.

The rule, which `rwkv-convert` follows too:

    0    all that was asked for was done, and all that was written has left this process
    1    it was not, and one line says what was wrong and what to try; nothing is said where nobody
         reads what is written, as in `rwkv generate ... | head`
    2    wrong usage
    130  Ctrl-C; 143 SIGTERM; 129 SIGHUP: a terminal is left as it was found, and no temporary file
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import typer

from ..errors import RwkvError
from . import streams
from .remedies import describe

_FAILED = 1
_INTERRUPTED = 128 + signal.SIGINT
# Windows has no terminal that hangs up.
_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]

# All that Typer raises about a command line; it has no name for it.
_WrongUsage: Any = typer.BadParameter.__base__


def run(app: Callable[..., Any]) -> int:
    """Run a Typer application, and return the exit code."""
    streams.prepare()
    ours = [number for number in _SIGNALS if signal.getsignal(number) is signal.SIG_DFL]  # nohup
    _heed(ours, _end)
    try:
        if callable(signal.getsignal(signal.SIGINT)):  # rwkv_command's, of the time before
            signal.signal(signal.SIGINT, signal.default_int_handler)
        code = app(standalone_mode=False)
        streams.flush()
    except SystemExit as end:  # of a signal, or of Typer's completion
        code = end.code
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except streams.NobodyReads:
        code = _FAILED
    except _WrongUsage as error:
        with contextlib.suppress(OSError):  # of stderr
            error.show()
        code = error.exit_code
    except (RwkvError, OSError, ImportError, MemoryError) as error:
        streams.complain(f"rwkv: {_complaint(error)}")
        code = _FAILED
    finally:
        _heed(ours, signal.SIG_DFL)  # what is left may wait for a reader
        streams.abandon()
    return code if isinstance(code, int) else 0


def _heed(numbers: Iterable[int], action: Any) -> None:
    for number in numbers:
        signal.signal(number, action)


def _end(number: int, _: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # what cleans up now is not to be disturbed
    raise SystemExit(128 + number)


def run_async(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine, which a signal that ends the command cancels, as Ctrl-C does.

    `SystemExit` would come up in whichever task is at work, as a failure of that task.

    Raises:
        SystemExit: a signal came.
    """
    came: list[int] = []
    heeded = [number for number in _SIGNALS if signal.getsignal(number) is _end]

    async def main() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def cancel(number: int, _: object) -> None:
            signal.signal(number, signal.SIG_IGN)
            came.append(number)
            loop.call_soon_threadsafe(task.cancel)

        _heed(heeded, cancel)
        try:
            await work
        finally:
            _heed([number for number in heeded if number not in came], _end)

    try:
        asyncio.run(main())
    except asyncio.CancelledError:
        if not came:
            raise
    if came:
        raise SystemExit(128 + came[0])


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
