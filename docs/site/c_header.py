"""A C header as a page: sections, and every function and type with what the header says about it.

Nothing is known here of a particular header but its habits: a block comment stands right above
what it describes, rules such as `/* --- 1. name --- */` begin sections, and a comment by itself is
text. Indented lines in comments are code or tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

RULE = re.compile(r"/\*\s*-{3,}\s*(.*?)\s*-{3,}\s*\*/")
EXPORT = re.compile(r"^[A-Z]+_API\s+")
IDENTIFIER = re.compile(r"`[^`]*`|\b(?:[\w-]+/)*[A-Za-z]+(?:_\w+)+(?:(?:\.[a-z]\w*)+|\(\))?")


@dataclass
class Item:
    """Declarations that stand together, and the comment above them."""

    comment: str
    declarations: list[str] = field(default_factory=list)

    def names(self) -> list[str]:
        """What it declares."""
        return [name_of(declaration) for declaration in self.declarations]


@dataclass
class Section:
    """A part of the header; the first, before any rule, has no title."""

    title: str
    items: list[Item] = field(default_factory=list)


def name_of(declaration: str) -> str:
    """The name that a declaration makes known."""
    code = re.sub(r"/\*.*?\*/|\{.*\}", " ", declaration, flags=re.S)
    for pattern in (
        r"#define\s+(\w+)",  # a constant
        r"\(\s*\*\s*(\w+)\s*\)\s*\(",  # a pointer to a function
        r"^(?!typedef)[^(]*?(\w+)\s*\(",  # a function
        r"(\w+)\s*(?:\[.*?\])?\s*;\s*$",  # a type
        r"\b(?:struct|enum|union)\s+(\w+)",
    ):
        found = re.search(pattern, code)
        if found:
            return found[1]
    raise ValueError(f"expected a declaration, got {declaration!r}")


def _comment_text(comment: str) -> str:
    """A block comment without its stars."""
    body = re.sub(r"^/\*|\s*\*/$", "", comment.strip())
    return "\n".join(re.sub(r"^\s*\* ?", "", line).rstrip() for line in body.split("\n")).strip()


def _pieces(text: str) -> Iterator[str]:
    """Comments, and declarations down to the semicolon that ends them; blank lines as ""."""
    depth_of_conditionals, guard_seen = 0, False
    lines = iter(text.split("\n"))
    for line in lines:
        bare = line.strip()
        if bare.startswith("#"):
            while bare.endswith("\\"):
                bare += "\n" + next(lines)
            if re.match(r"#\s*if", bare):
                if guard_seen:  # what depends on the platform or the language is no manual
                    depth_of_conditionals += 1
                guard_seen = True
            elif re.match(r"#\s*endif", bare):
                depth_of_conditionals = max(0, depth_of_conditionals - 1)
            elif re.match(r"#\s*define\s+\w+\s+\S", bare) and not depth_of_conditionals:
                yield bare
            continue
        if depth_of_conditionals:
            continue
        if not bare:
            yield ""
        elif bare.startswith("/*"):
            piece = line
            while "*/" not in piece:
                piece += "\n" + next(lines)
            yield piece
        else:
            piece = line
            while not _complete(piece):
                piece += "\n" + next(lines)
            yield piece


def _complete(declaration: str) -> bool:
    code = re.sub(r"/\*.*?\*/", "", declaration, flags=re.S)
    if "/*" in code:
        return False
    return code.count("{") == code.count("}") and code.rstrip().endswith(";")


def _without_export(declaration: str) -> str:
    """A declaration without the macro before it, its further lines moved along."""
    found = EXPORT.match(declaration)
    if found is None:
        return declaration
    return re.sub(rf"\n {{{len(found[0])}}}", "\n", declaration[found.end() :])


def parse(text: str) -> list[Section]:
    """The header's sections, in its order."""
    sections = [Section("")]
    item: Item | None = None
    for piece in _pieces(text):
        items = sections[-1].items
        rule = RULE.fullmatch(piece.strip())
        if rule:
            sections.append(Section(rule[1]))
            item = None
        elif not piece:
            item = None
        elif piece.lstrip().startswith("/*"):
            item = Item(_comment_text(piece))
            items.append(item)
        else:
            if item is None:
                item = Item("")
                items.append(item)
            item.declarations.append(_without_export(piece))
    return sections


class _Writer:
    """Sections as Markdown."""

    def __init__(self, sections: list[Section]) -> None:
        self.anchors: dict[str, str] = {}
        for section in sections:
            for item in section.items:
                names = item.names()
                for declaration in item.declarations:
                    constants = re.findall(r"^\s+([A-Z][A-Z0-9_]+)\b", declaration, re.M)
                    # Comments leave out what all constants of a type begin with.
                    short = [c.removeprefix(f"{names[0].upper()}_") for c in constants]
                    self.anchors.update(dict.fromkeys([*constants, *short], names[0]))
                self.anchors.update({name: names[0] for name in names})

    def prose(self, text: str) -> str:
        """A paragraph: identifiers are code, and lead to where they are described."""

        def mark(found: re.Match[str]) -> str:
            code = found[0].strip("`")
            name = code.removesuffix("()")
            anchor = self.anchors.get(name) or self.anchors.get(re.split(r"\W", name)[0])
            return f"[`{code}`](#{anchor})" if anchor else f"`{code}`"

        parts, end = [], 0
        for found in IDENTIFIER.finditer(text):
            parts += [re.sub(r"([*<>\[\]|])", r"\\\1", text[end : found.start()]), mark(found)]
            end = found.end()
        return "".join(parts) + re.sub(r"([*<>\[\]|])", r"\\\1", text[end:])

    def text(self, comment: str, heading: str) -> Iterator[str]:
        """A comment: paragraphs, code, and headings over indented text."""
        for block in _blocks(comment):
            indented = [line for line in block if line.startswith("    ")]
            if len(indented) == len(block):
                yield from _code(indented)
            elif len(block) > 1 and indented == block[1:]:
                body = [line[4:] for line in indented]
                title = block[0].rstrip(":")
                if block[0][-1:] in ".:" or block[0][:1].islower():
                    yield self.prose(block[0])
                    yield from _code(indented)
                    continue
                yield f"{heading} {title}"
                if any(re.search(r"\S {2,}\S", line) for line in body):
                    yield from _code(indented)
                else:
                    yield self.prose("\n".join(body))
            else:
                yield from self._mixed(block)

    def _mixed(self, block: list[str]) -> Iterator[str]:
        """Lines of a paragraph with indented ones among them."""
        run: list[str] = []
        for line in block:
            if run and run[0].startswith("    ") != line.startswith("    "):
                yield from _code(run) if run[0].startswith("    ") else [self.prose("\n".join(run))]
                run = []
            run.append(line)
        yield from _code(run) if run[0].startswith("    ") else [self.prose("\n".join(run))]

    def item(self, item: Item) -> Iterator[str]:
        """An entry: its names, its declarations, its text."""
        names = item.names()
        title = ", ".join(f"`{name}`" for name in names)
        yield f"### {title} {{#{names[0]}}}"
        yield "```c\n" + "\n".join(item.declarations) + "\n```"
        yield from self.text(item.comment, "####")


def _blocks(text: str) -> Iterator[list[str]]:
    """Runs of lines that are not blank; blank lines between indented ones do not part them."""
    blocks = [block.split("\n") for block in re.split(r"\n\s*\n", text) if block.strip()]
    merged: list[list[str]] = []
    for block in blocks:
        if (
            merged
            and all(line.startswith("    ") for line in block)
            and all(line.startswith("    ") for line in merged[-1])
        ):
            merged[-1] += ["", *block]
        else:
            merged.append(block)
    return iter([line or "    " for line in block] for block in merged)


def _code(lines: list[str]) -> Iterator[str]:
    text = "\n".join(line[4:].rstrip() for line in lines)
    language = "c" if re.search(r";\s*(//.*)?$", text, re.M) else "text"
    yield f"```{language}\n{text}\n```"


def page(header: str, include: str) -> str:
    """The header as Markdown.

    Args:
        header: its text.
        include: how a program names it, such as "rwkv/rwkv.h".
    """
    sections = parse(header)
    writer = _Writer(sections)
    parts = [f"# C reference: `{include}`"]
    for section in sections:
        items = list(section.items)
        if section.title:
            capital = re.sub(r"[a-z]", lambda first: first[0].upper(), section.title, count=1)
            parts.append(f"## {capital}")
        elif items and not items[0].declarations:
            # The manual's beginning: its first line names the file, which the title has.
            first, _, rest = items.pop(0).comment.partition("\n")
            parts.append(writer.prose(first.partition(": ")[2]))
            parts += writer.text(rest.strip("\n"), "##")
        for item in items:
            parts += writer.item(item) if item.declarations else writer.text(item.comment, "###")
    return "\n\n".join(parts) + "\n"
