"""Requests of every kind that our OpenAPI file allows, and of many that it does not.

    hatch run clients:schemathesis --requests 10000 --seed 7

schemathesis writes them. Whatever it sends, an answer is no 5xx, and has a status, a content type
and a body that the file knows. The server has a small model and small limits: the texts are not
what matters.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx

import rwkv_convert
from server.serving import serve

TESTS = Path(__file__).resolve().parent.parent
EXAMPLES = TESTS.parent / "examples"

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "no_fault_in_a_stream",
)
ALL, FUZZING = "examples,coverage,fuzzing", "fuzzing"
LIMITS = {
    "max_running": 8,
    "max_waiting": 100,
    "max_prompt_tokens": 300,
    "max_output_tokens": 4,
    "max_body_bytes": 600_000,  # a state's file
    "cache_bytes": 20_000_000,  # of states that clients keep, likewise
    "max_choices": 2,
    "state_disk_bytes": 20_000_000,
    "max_seconds": 10.0,
}


def run(model: Path, n_requests: int, seed: int, phases: str = ALL) -> int:
    """Send at least so many requests; return how many the server counted.

    Args:
        model: the file of a small model.
        n_requests: how many.
        seed: what chance follows.
        phases: what follows from the OpenAPI file comes first, the same each time, then fuzzing.

    Raises:
        AssertionError: something was found; the requests that show it are printed.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        serve({"m": model}, state_dir=Path(folder, "states"), **LIMITS) as client,
    ):
        n_operations = sum(map(len, client.get("/openapi.json").json()["paths"].values()))
        n_sent = 0
        while n_sent < n_requests:
            # Some take so little that there are not as many different requests.
            n_each = -(-(n_requests - n_sent) * 5 // (4 * n_operations))
            found = _send(str(client.base_url), phases, min(n_each, 200), seed, folder)
            answered = _counted(client)
            before, n_sent = n_sent, sum(sum(by.values()) for by in answered.values())
            print(f"seed {seed}, {phases}: {n_sent - before} requests", flush=True)
            assert not found, found
            assert n_sent > before
            phases, seed = FUZZING, seed + 1
        for route, by_status in sorted(answered.items()):
            print(route, *(f"{status}: {n}" for status, n in sorted(by_status.items())), sep="  ")
        return n_sent


def _send(url: str, phases: str, n_each: int, seed: int, folder: str) -> str:
    """Let schemathesis do its work; return what it found, "" if nothing."""
    command = [
        str(Path(sys.executable).parent / "st"), "--no-color", "run", f"{url}/openapi.json",
        "--checks", ",".join(CHECKS), "--phases", phases, "--max-examples", str(n_each),
        "--seed", str(seed), "--generation-database", "none", "--warnings", "off",
        "--suppress-health-check", "all", "--continue-on-failure", "--request-timeout", "60",
    ]  # fmt: skip
    env = {**os.environ, "SCHEMATHESIS_HOOKS": "clients.request_hooks"}
    env["PYTHONPATH"] = str(TESTS)
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env)
    return "" if done.returncode == 0 else done.stdout[-20000:] + done.stderr[-5000:]


def _counted(client: httpx.Client) -> dict[str, dict[str, int]]:
    """How many requests the server has answered, by route and status."""
    found: dict[str, dict[str, int]] = {}
    line = r'^rwkv_requests_total\{route="(.*)",status="(.*)"\} (.*)$'
    for route, status, n in re.findall(line, client.get("/metrics").text, re.M):
        found.setdefault(route, {})[status] = int(float(n))
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.bin"
        rwkv_convert.convert(EXAMPLES / "rwkv7-pychat-L6-D256.pth", model, dtype="q8_0")
        n_sent = run(model, args.requests, args.seed)
    print(f"{n_sent} requests, nothing found")


if __name__ == "__main__":
    main()
