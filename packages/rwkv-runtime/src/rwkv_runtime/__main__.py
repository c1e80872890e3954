"""`python -m rwkv_runtime --cflags --libs`: what compilers, linkers and CMake are told."""

import argparse
import shlex
import sys

from rwkv_runtime import (
    __version__,
    cmake_dir,
    include_dir,
    lib_dir,
    pkgconfig_dir,
    static_libraries,
    world_vocabulary_path,
)


def main(arguments: list[str] | None = None) -> int:
    """Print what the options ask for; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m rwkv_runtime",
        description="How to build a program with the RWKV runtime.",
        epilog="cc main.c $(python -m rwkv_runtime --cflags --libs) -o main",
    )
    parser.add_argument("--cflags", action="store_true", help="options of the compiler")
    parser.add_argument("--libs", action="store_true", help="options of the linker, rpath included")
    parser.add_argument(
        "--static", action="store_true", help="with --libs: the static library, by its path"
    )
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--cmake-dir", action="store_true", help="the folder for -Drwkv_DIR=")
    one.add_argument("--vocabulary", action="store_true", help="the World vocabulary's file")
    one.add_argument("--version", action="store_true", help="the version")
    asked = parser.parse_args(arguments)
    flags = asked.cflags or asked.libs
    one_thing = asked.cmake_dir or asked.vocabulary or asked.version
    if flags and one_thing:
        parser.error("--cflags and --libs cannot be printed together with a path or the version")
    if asked.static and not asked.libs:
        parser.error("--static says which --libs, expected --libs beside it")
    if not flags and not one_thing:
        parser.error("nothing to print, expected an option such as --cflags or --cmake-dir")

    try:
        if asked.cmake_dir:
            print(cmake_dir())
        elif asked.vocabulary:
            print(world_vocabulary_path())
        elif asked.version:
            print(__version__)
        else:
            words = [f"-I{include_dir()}"] if asked.cflags else []
            if asked.libs and asked.static:
                words += static_libraries()
            elif asked.libs and sys.platform == "win32":  # the import library; there is no rpath
                words += [f"-L{pkgconfig_dir().parent}", "-lrwkv_runtime"]
            elif asked.libs:
                words += [f"-L{lib_dir()}", "-lrwkv_runtime", f"-Wl,-rpath,{lib_dir()}"]
            print(shlex.join(words))
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
