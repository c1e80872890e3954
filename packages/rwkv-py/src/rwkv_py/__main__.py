"""`python -m rwkv_py` is the command `rwkv`."""

from .cli import main

if __name__ == "__main__":
    main()
