"""The command `rwkv`, run many times at the price of a fork: streams, environment and all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self


class Ended(NamedTuple):
    """How a run of the command ended; a stream that was not captured is None."""

    code: int
    stdout: str | None
    stderr: str | None


class Forks:
    """Runs of `rwkv` in a process that has imported it already, each in a child of its own.

    A stream is "captured", "closed" (as `>&-` does it), "nobody reads" (a pipe whose other end is
    closed), or a path, such as /dev/full; stdin is "closed", a path, or bytes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
        env.pop("PYTHONUNBUFFERED", None)  # what is buffered may be lost: that is the point
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, t: TracebackType | None
    ) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(timeout=30)

    def run(
        self,
        *args: str | os.PathLike[str],
        stdin: str | bytes = b"",
        stdout: str = "captured",
        stderr: str = "captured",
        env: Mapping[str, str | None] | None = None,
        seconds: int = 60,
    ) -> Ended:
        """Run `rwkv ARGS`; `env` is added to the environment, None takes a variable away."""
        if isinstance(stdin, bytes):
            (self._folder / "in").write_bytes(stdin)
            stdin = str(self._folder / "in")
        out, err = self._folder / "out", self._folder / "err"
        streams = [
            stdin,
            str(out) if stdout == "captured" else stdout,
            str(err) if stderr == "captured" else stderr,
        ]
        out.write_bytes(b"")
        err.write_bytes(b"")
        order = [[os.fspath(a) for a in args], streams, dict(env or {}), seconds]
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(order).encode() + b"\n")
        self._server.stdin.flush()
        code = int(self._server.stdout.readline())
        return Ended(
            code,
            out.read_text("utf-8", "surrogateescape") if stdout == "captured" else None,
            err.read_text("utf-8", "surrogateescape") if stderr == "captured" else None,
        )


def _serve() -> None:
    # What runs import late.
    import typer._adapters
    import typer.rich_utils  # noqa: F401

    from rwkv_py.cli import main

    orders, codes = os.dup(0), os.dup(1)
    with open(orders, "rb") as lines:
        for line in lines:
            args, streams, env, seconds = json.loads(line)
            child = os.fork()
            if child == 0:
                _become(args, streams, env, seconds)
                main()
            _, status = os.waitpid(child, 0)
            os.write(codes, b"%d\n" % os.waitstatus_to_exitcode(status))


def _become(
    args: Sequence[str], streams: Sequence[str], env: Mapping[str, str | None], seconds: int
) -> None:
    """Make of this process what the interpreter finds when it starts `rwkv ARGS`."""
    import signal

    signal.alarm(seconds)  # a run that hangs is killed
    for name, value in env.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    sys.argv = ["rwkv", *args]
    for number, (name, wanted) in enumerate(
        zip(("stdin", "stdout", "stderr"), streams, strict=True)
    ):
        os.close(number)
        if wanted == "closed":
            # What Python makes of it; it looks before anything else is opened.
            setattr(sys, name, None)
            continue
        if wanted == "nobody reads":
            ours, theirs = os.pipe()
            os.close(ours if number else theirs)
            opened = theirs if number else ours
        else:
            opened = os.open(wanted, os.O_WRONLY if number else os.O_RDONLY)
        if opened != number:
            os.dup2(opened, number)
            os.close(opened)
        setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115


if __name__ == "__main__":
    _serve()
