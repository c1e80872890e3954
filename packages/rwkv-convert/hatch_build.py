"""Copies the World vocabulary into the package, where a build begins in the repository."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NAME = "rwkv_vocab_v20230424.txt"


class VocabularyHook(BuildHookInterface[Any]):
    """A source distribution holds the copy already."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Runs before anything is packed, and before an editable installation."""
        root = Path(self.root)
        source = root.parent.parent / "native" / "data" / NAME
        if source.is_file():
            shutil.copyfile(source, root / "src" / "rwkv_convert" / NAME)
