"""For what wheels are made, and what each is called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Target:
    """A system and a processor."""

    name: str  # of the command line and of folders
    zig: str  # the compiler's -target
    platform: str  # the wheel's tag
    python: bool  # is rwkv-py made for it here? Its extension is compiled with Python's headers

    @property
    def system(self) -> Literal["linux", "windows", "macos"]:
        """Which of the three."""
        for system in ("windows", "macos"):
            if f"-{system}" in self.zig:
                return system
        return "linux"


# Python's headers are the same on every Linux with 64 bits; those of Windows and macOS are not
# here.
TARGETS = [
    Target("manylinux-x86_64", "x86_64-linux-gnu.2.17", "manylinux_2_17_x86_64", True),
    Target("manylinux-aarch64", "aarch64-linux-gnu.2.17", "manylinux_2_17_aarch64", True),
    Target("musllinux-x86_64", "x86_64-linux-musl", "musllinux_1_2_x86_64", True),
    Target("musllinux-aarch64", "aarch64-linux-musl", "musllinux_1_2_aarch64", True),
    Target("windows-x86_64", "x86_64-windows-gnu", "win_amd64", False),
    Target("macos-arm64", "aarch64-macos.11.0", "macosx_11_0_arm64", False),
    Target("macos-x86_64", "x86_64-macos.11.0", "macosx_11_0_x86_64", False),
]
