"""How fast the runtime is, beside what the machine can do and beside other engines.

    python -m benchmarks.speed            decode, prefill, many sequences, loading, memory
    python -m benchmarks.peers            the same work by llama.cpp and the `rwkv` package
    python -m benchmarks.bits_per_byte    what each type of weights costs in accuracy

See docs/benchmarks.md.
"""
