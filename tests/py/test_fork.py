"""What a child process made by fork may do."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest


def run_program(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("act", [
    "engine.submit('a')",
    "engine.close()",
    "engine.close(cancel=True)",
    "engine.generate_batch(['a'])",
    "request.result()",
    "request.cancel()",
    "next(iter(request))",
    "asyncio.run(request)",
    "asyncio.run(engine.__aenter__()); engine.submit('a')",
])  # fmt: skip
def test_a_forked_child_is_told(act: str, converted: Callable[[str], Path]) -> None:
    """While the engine's thread is at work, and holds whichever lock it holds."""
    program = f"""
        import asyncio, os, sys
        from rwkv_py import Engine, EngineClosedError
        engine = Engine(sys.argv[1])
        request = engine.submit("import ", max_tokens=10**9, banned_tokens=[0])
        next(iter(request))
        for _ in range(5):
            if os.fork() == 0:
                try:
                    {act}
                except EngineClosedError as error:
                    os._exit(7 if "in process" in error.message and "fork" in error.remedy else 8)
                os._exit(9)
            print(os.waitstatus_to_exitcode(os.wait()[1]))
        print(request.done)
        engine.close(cancel=True)
    """
    done = run_program(program, str(converted("q4_0")))
    assert (done.stdout, done.stderr) == ("7\n" * 5 + "False\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_leaves_in_peace(converted: Callable[[str], Path]) -> None:
    """It leaves the block, and ends as Python ends; nothing waits for a thread that is not here."""
    program = """
        import os, sys
        from rwkv_py import Engine, Model, PrefixCache
        model = Model(sys.argv[1])
        cache = PrefixCache(model)
        with Engine(model, cache=cache) as engine:
            request = engine.submit("import " * 9, max_tokens=10**9, banned_tokens=[0])
            next(iter(request))
            child = os.fork()
            if child == 0:
                assert len(cache) == 0
                sys.exit(3)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len(cache))
            request.cancel()
    """
    done = run_program(program, str(converted("q4_0")))
    assert (done.stdout, done.stderr) == ("3 1\n", "")
