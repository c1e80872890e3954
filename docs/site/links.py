"""A hook of mkdocs: pages link to files of the repository, which the site does not have."""

import re
from pathlib import Path
from typing import Any

_LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s]+)(#[^)]*)?\)")


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Keep the text of links that leave the documentation's folder, without the link."""
    docs = Path(config["docs_dir"]).resolve()
    folder = Path(page.file.abs_src_path).parent

    def keep_or_unlink(link: re.Match[str]) -> str:
        target = (folder / link[2]).resolve()
        if "://" in link[2] or target.is_relative_to(docs):
            return link[0]
        return f"{link[1]} (`{target.relative_to(docs.parent)}`)"

    return _LINK.sub(keep_or_unlink, markdown)
