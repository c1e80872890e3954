"""The Python modules of rwkv.cpp, computed by rwkv_py, each under its name.

There is no shared library to build or to find: `RWKVSharedLibrary` stands for rwkv-runtime's own.
"""
