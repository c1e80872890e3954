"""Convert the shipped checkpoint to 4 bits and let it write; `hatch run demo` runs this file.

The checkpoint is a 5-million-parameter RWKV-7 trained on the Python documentation: it knows what
documentation looks like, not what is true.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from rwkv_py import Session

EXAMPLES = Path(__file__).resolve().parent
CHECKPOINT = EXAMPLES / "rwkv7-pydoc-L6-D256.pth"
MODEL = EXAMPLES.parent / "build" / "rwkv7-pydoc-q4_0.bin"


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Convert examples/*.pth to q4_0 and generate text."
    )
    parser.add_argument("--prompt", default=".. function:: ")
    parser.add_argument("--max-tokens", type=int, default=600, help="here a token is a byte")
    parser.add_argument("--seed", type=int, default=3, help="the same seed gives the same text")
    args = parser.parse_args()

    MODEL.parent.mkdir(exist_ok=True)
    command = ["rwkv-convert", str(CHECKPOINT), str(MODEL), "--dtype", "q4_0", "--force"]
    print("$", *command, flush=True)
    if (code := subprocess.run(command).returncode) != 0:
        sys.exit(code)

    print("\nrwkv_py.Session writes:\n", flush=True)
    session = Session(MODEL)
    print(args.prompt, end="")
    for piece in session.stream(
        args.prompt, max_tokens=args.max_tokens, temperature=0.8, top_p=0.9, seed=args.seed
    ):
        print(piece, end="", flush=True)
    print(f"\n\nThe model is in {MODEL}")


if __name__ == "__main__":
    main()
