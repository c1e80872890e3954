"""From nothing to a chat: `rwkv run NAME` in this interpreter's environment, with an empty home.

`.ci/run` starts it in an empty environment, where pytest is not installed. The hub is one on the
loopback address, and its model the shipped checkpoint under a released one's name.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))

from hub_server import serve  # noqa: E402
from terminal import Terminal  # noqa: E402

FILE = "rwkv7-g1d-0.4b-20260210-ctx8192.pth"


def main() -> None:
    """Chat, and show what the screen showed."""
    checkpoint = (TESTS.parent / "examples" / "rwkv7-pydoc-L6-D256.pth").read_bytes()
    rwkv = str(Path(sys.executable).parent / "rwkv")
    with serve({"BlinkDL/rwkv7-g1": {FILE: checkpoint}}) as hub, tempfile.TemporaryDirectory() as h:
        home = {"HOME": h, "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1"}
        home |= {f"XDG_{name}_HOME": f"{h}/{name}" for name in ("CACHE", "CONFIG", "STATE")}
        home |= {"RWKV_CACHE": "", "HF_HOME": f"{h}/hf"}
        chat = Terminal(rwkv, "run", "g1-0.4b", "--max-tokens", "30", "--seed", "1", **home)
        began = chat.ready()
        chat.type("What is json?\r")
        answer = chat.ready()
        chat.type("/exit\r")
        code = chat.exit_code()
        chat.close()
    print(began, answer)
    assert FILE in began
    written = answer.rpartition("> What is json?")[2].strip("> \n")
    assert written, "expected an answer, got none"
    assert code == 0, f"expected exit code 0, got {code}"


if __name__ == "__main__":
    main()
