"""A hook of mkdocs: pages made of files beside docs/, and links to files that the site lacks."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))
import c_header

HEADER = "native/include/rwkv/rwkv.h"
PAGES = {
    HEADER: "c-reference.md",
    "examples/README.md": "examples.md",
    "packages/rwkv-convert/README.md": "packages/rwkv-convert.md",
    "packages/rwkv-runtime/README.md": "packages/rwkv-runtime.md",
    "packages/rwkv-py/README.md": "packages/rwkv-py.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Files of the repository, and the page that each becomes."""

_LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s]+)(#[^)]*)?\)")


def _repository(config: MkDocsConfig) -> Path:
    return Path(config.docs_dir).resolve().parent


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    from mkdocs.structure.files import File

    for source, page in PAGES.items():
        text = (_repository(config) / source).read_text()
        if source == HEADER:
            text = c_header.page(text, "rwkv/rwkv.h")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links out of docs/ to the pages made of those files, or keep their text alone."""
    repository = _repository(config)
    here = page.file.src_uri
    source = {made: name for name, made in PAGES.items()}.get(here, f"docs/{here}")
    folder = (repository / source).parent

    def lead(link: re.Match[str]) -> str:
        if "://" in link[2]:
            return link[0]
        target = (folder / link[2]).resolve().relative_to(repository).as_posix()
        inside = PAGES.get(target) or target.removeprefix("docs/")
        if files.get_file_from_path(inside) is None:
            return f"{link[1]} (`{target}`)"
        up = "../" * here.count("/")
        return f"[{link[1]}]({up}{inside}{link[3] or ''})"

    return _LINK.sub(lead, markdown)
