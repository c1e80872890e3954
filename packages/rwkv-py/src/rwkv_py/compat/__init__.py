"""The Python interfaces of other engines, so that programs written for them run here.

`rwkv_py.compat.rwkv` stands for the PyPI package `rwkv`, `rwkv_py.compat.rwkv_cpp` for the Python
modules of rwkv.cpp. docs/guides/coming-from-rwkv-cpp.md says what stands for what, and what
differs.
"""
