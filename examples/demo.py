"""Convert the shipped checkpoints to 4 bits and let them write; `hatch run demo` runs this file.

They are 5-million-parameter RWKV-7s. One was trained on the Python documentation: it knows what
documentation looks like, not what is true. The other has learned answers to questions about it.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from rwkv_py import Chat, Session

EXAMPLES = Path(__file__).resolve().parent
BUILD = EXAMPLES.parent / "build"


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Convert examples/*.pth to q4_0, generate text, and ask a question."
    )
    parser.add_argument("--prompt", default=".. function:: ")
    parser.add_argument("--max-tokens", type=int, default=600, help="here a token is a byte")
    parser.add_argument("--seed", type=int, default=3, help="the same seed gives the same text")
    parser.add_argument("--question", default="What does the json module do?")
    args = parser.parse_args()

    writer = convert("rwkv7-pydoc-L6-D256.pth")
    answerer = convert("rwkv7-pychat-L6-D256.pth")

    print("\nrwkv_py.Session writes:\n", flush=True)
    session = Session(writer)
    print(args.prompt, end="")
    for piece in session.stream(
        args.prompt, max_tokens=args.max_tokens, temperature=0.8, top_p=0.9, seed=args.seed
    ):
        print(piece, end="", flush=True)

    print("\n\nrwkv_py.Chat answers:\n", flush=True)
    print(f"User: {args.question}\nAssistant: ", end="", flush=True)
    chat = Chat(answerer, temperature=0, presence_penalty=0, frequency_penalty=0)
    for piece in chat.stream(args.question):
        print(piece, end="", flush=True)
    print(f"\n\nThe models are {writer} and {answerer}")


def convert(name: str) -> Path:
    """Convert one of the checkpoints here; return the model file."""
    model = BUILD / name.replace("-L6-D256.pth", "-q4_0.bin")
    model.parent.mkdir(exist_ok=True)
    command = ["rwkv-convert", str(EXAMPLES / name), str(model), "--dtype", "q4_0", "--force"]
    print("$", *command, flush=True)
    if (code := subprocess.run(command).returncode) != 0:
        sys.exit(code)
    return model


if __name__ == "__main__":
    main()
