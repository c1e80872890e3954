"""For what wheels are made, and what each is called."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A system and a processor."""

    name: str  # of the command line and of folders
    zig: str  # the compiler's -target
    platform: str  # the wheel's tag
    # What the names of Python's extensions end in there; None where rwkv-py is not made here, as
    # Python's headers are not at hand.
    soabi: str | None = None


# Python's headers are the same on every Linux with 64 bits; those of Windows and macOS are others.
TARGETS = [
    Target(
        "manylinux-x86_64", "x86_64-linux-gnu.2.17", "manylinux_2_17_x86_64", "x86_64-linux-gnu"
    ),
    Target(
        "manylinux-aarch64", "aarch64-linux-gnu.2.17", "manylinux_2_17_aarch64", "aarch64-linux-gnu"
    ),
    Target("musllinux-x86_64", "x86_64-linux-musl", "musllinux_1_2_x86_64", "x86_64-linux-musl"),
    Target(
        "musllinux-aarch64", "aarch64-linux-musl", "musllinux_1_2_aarch64", "aarch64-linux-musl"
    ),
    Target("windows-x86_64", "x86_64-windows-gnu", "win_amd64"),
    Target("macos-arm64", "aarch64-macos.11.0", "macosx_11_0_arm64"),
    Target("macos-x86_64", "x86_64-macos.11.0", "macosx_11_0_x86_64"),
]
