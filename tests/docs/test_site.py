"""What the site promises its readers, as far as it can be held without a browser."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

REPO = Path(__file__).resolve().parents[2]
DOCS = REPO / "docs"
sys.path.insert(0, str(DOCS / "site"))

import c_header  # noqa: E402
import pages  # noqa: E402
import plots  # noqa: E402
import tables  # noqa: E402

HEADER = (REPO / pages.HEADER).read_text()
PAGE = c_header.page(HEADER, "rwkv/rwkv.h")
MARKDOWN = sorted(DOCS.rglob("*.md"))
HAS_RAY = importlib.util.find_spec("ray") is not None  # only in `hatch run ray:test`

# ---- the Python reference ----------------------------------------------------------------------


def documented() -> list[tuple[str, object]]:
    """What the pages of reference ask for by `::: NAME`, modules as all that is public in them."""
    found: list[tuple[str, object]] = []
    for page in MARKDOWN:
        for name in re.findall(r"^::: (\S+)$", page.read_text(), re.M):
            if name.startswith("rwkv_py.ray.") and not HAS_RAY:
                continue
            thing = resolve(name)
            if isinstance(thing, ModuleType):
                found += [(f"{name}.{n}", getattr(thing, n)) for n in public(thing)]
            else:
                found.append((name, thing))
    return found


def resolve(name: str) -> object:
    """What mkdocstrings takes it for: where a module and its function share a name, the module."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        parent, _, attribute = name.rpartition(".")
        return getattr(resolve(parent), attribute)


def public(module: ModuleType) -> list[str]:
    own = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]
    return list(getattr(module, "__all__", own))


@pytest.mark.parametrize(
    "module",
    [
        "rwkv_py",
        "rwkv_py.errors",
        "rwkv_py.evaluate",
        "rwkv_py.models",
        "rwkv_py.speed",
        "rwkv_convert",
        "rwkv_runtime",
    ],
)
def test_every_public_name_is_in_the_reference(module: str) -> None:
    imported = importlib.import_module(module)
    known = documented()
    names = {name for name, _ in known}
    assert public(imported)
    missing = [
        name
        for name in public(imported)
        if f"{module}.{name}" not in names
        and not any(thing is getattr(imported, name) for _, thing in known)
    ]
    assert not missing


def test_nothing_is_in_the_reference_twice() -> None:
    names = [name for name, _ in documented()]
    assert sorted(names) == sorted(set(names))


def test_examples_in_docstrings_are_seen_as_code() -> None:
    """docs/site/doctests.py fences what begins with `>>>`; under a heading it would be prose."""
    for name, thing in documented():
        assert not re.search(r"^ *Examples?:$", getattr(thing, "__doc__", None) or "", re.M), name


# ---- the C reference ---------------------------------------------------------------------------


def declared() -> set[str]:
    """The header's functions and types, found another way than c_header does."""
    code = re.sub(r"/\*.*?\*/", "", HEADER, flags=re.S)
    functions = set(re.findall(r"\b(rwkv_\w+)\s*\((?!\*)", code))
    types = set(re.findall(r"\}\s*(rwkv_\w+)\s*;", code))
    types |= set(re.findall(r"typedef struct \w+ (rwkv_\w+);", code))
    return functions | types


@pytest.mark.parametrize("name", sorted(declared()))
def test_every_function_and_type_of_the_header_has_an_entry(name: str) -> None:
    headings = re.findall(r"^### (.*) \{#(\w+)\}$", PAGE, re.M)
    assert any(f"`{name}`" in title.split(", ") for title, _ in headings)


def test_every_sentence_of_the_header_is_on_the_page() -> None:
    comments = " ".join(
        c_header._comment_text(c)
        for c in re.findall(r"^/\*.*?\*/", HEADER, re.M | re.S)
        if not c_header.RULE.fullmatch(c)
    )
    shown = set(re.findall(r"\w+", re.sub(r"[\\`]", "", PAGE)))
    told = set(re.findall(r"\w+", comments.removeprefix("rwkv.h: "))) - {"h"}
    assert len(told) > 400
    assert told - shown == set()


def test_links_within_the_c_page_lead_to_its_entries() -> None:
    anchors = set(re.findall(r"\{#(\w+)\}$", PAGE, re.M))
    links = set(re.findall(r"\]\(#(\w+)\)", PAGE))
    assert "rwkv_status" in links
    assert links <= anchors
    assert len(anchors) == len(re.findall(r"\{#(\w+)\}$", PAGE, re.M))


def test_the_header_is_read_by_its_structure() -> None:
    text = """/* x.h: a library.
 *
 *     int use = x_go(1);
 *
 * Rules
 *     Be kind to x_thing.
 */
#ifndef X_H
#define X_H
#if defined(_WIN32)
#define X_API __declspec(dllexport)
#else
#define X_API
#endif

/* ------ 1. going --- */

#define X_MOST 3

/* Called with `user` for each * of them. */
typedef int32_t (*x_callback)(void* user,
                              size_t n);

typedef struct x_thing {
    int a; /* not a section; see x_go */
} x_thing;

/* Goes; see x_thing.a and share/x_y.txt. Fails with X_STATUS_BAD_ONE, BAD_ONE:
 *     1. a table
 *     2. of lines */
X_API int x_go(int how,
               x_callback call); /* behind it */
X_API void x_stop(void);

/* A remark by itself. */

typedef enum x_status { X_STATUS_OK = 0,
    X_STATUS_BAD_ONE = 1
} x_status;

#endif
"""
    sections = c_header.parse(text)
    assert [section.title for section in sections] == ["", "1. going"]
    items = sections[1].items
    assert [item.names() for item in items] == [
        ["X_MOST"], ["x_callback"], ["x_thing"], ["x_go", "x_stop"], [], ["x_status"],
    ]  # fmt: skip
    page = c_header.page(text, "x.h")
    assert "# C reference: `x.h`\n\na library.\n\n```c\nint use = x_go(1);\n```" in page
    assert "## Rules\n\nBe kind to [`x_thing`](#x_thing)." in page
    assert "## 1. Going" in page
    assert (
        "### `x_go`, `x_stop` {#x_go}\n\n```c\nint x_go(int how,\n         x_callback call);"
        in page
    )
    assert "see [`x_thing.a`](#x_thing) and `share/x_y.txt`." in page
    assert "with [`X_STATUS_BAD_ONE`](#x_status), [`BAD_ONE`](#x_status):" in page
    assert "```text\n1. a table\n2. of lines\n```" in page
    assert "for each \\* of them" in page
    assert "\nA remark by itself.\n" in page
    assert "declspec" not in page


# ---- pages, tables, plots ----------------------------------------------------------------------


def test_the_site_has_every_page() -> None:
    """`mkdocs.yml` lists each page by its path, those that are made too."""
    listed = (REPO / "mkdocs.yml").read_text()
    made = list(pages.PAGES.values())
    for page in [*(str(page.relative_to(DOCS)) for page in MARKDOWN), *made]:
        assert re.search(rf"[ :]{re.escape(page)}$", listed, re.M), page
    for page in re.findall(r"([\w/-]+\.md)$", listed, re.M):
        assert page in made or (DOCS / page).is_file(), page


def test_links_out_of_the_documentation_lead_to_pages() -> None:
    """Sources are named without a link; a text that is to be read must be a page of the site."""
    sources = {f"docs/{page.relative_to(DOCS)}": page for page in MARKDOWN}
    sources |= {name: REPO / name for name in pages.PAGES if name.endswith(".md")}
    for name, path in sources.items():
        for target in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
            if "://" in target:
                continue
            file = (path.parent / target).resolve().relative_to(REPO).as_posix()
            assert not file.endswith(".md") or file in sources, f"{name}: {target}"


def test_anchors_of_links_exist() -> None:
    for page in MARKDOWN:
        for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)]+)\)", page.read_text()):
            if "://" in target:
                continue
            text = (page.parent / target).read_text() if target else page.read_text()
            slugs = {
                re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
                for heading in re.findall(r"^#+ (.*)$", text, re.M)
            }
            assert anchor in slugs, f"{page.name}: {target}#{anchor}"


def test_search_works_without_a_server_and_without_a_network() -> None:
    """The plugin `offline` loads a script from elsewhere, if none of that name is given."""
    config = (REPO / "mkdocs.yml").read_text()
    assert re.search(r"^  - offline$", config, re.M)
    (script,) = re.findall(r"polyfills: \[(\S+)\]", config)
    assert "iframe-worker" in script
    assert (DOCS / script).is_file()
    assert "https://" not in "".join(line for line in config.splitlines() if "#" not in line)


def head(columns: int) -> str:
    return "<table>\n<thead>\n<tr>\n" + "<th>a</th>\n" * columns + "</tr>\n</thead>\n<tbody>"


def test_tables_of_many_columns_are_marked() -> None:
    style = (DOCS / "assets" / "site.css").read_text()
    assert "table[data-wide] :is(th, td):first-child" in style
    assert tables.on_page_content(head(3)) == head(3)
    marked = tables.on_page_content(head(3) + head(4).replace("<th>", '<th style="x">') + head(2))
    assert marked.count("data-wide") == 1
    assert '<table data-wide="4">' in marked


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: page.stem)
def test_tables_are_as_narrow_as_a_reader_can_follow(page: Path) -> None:
    for rule in re.findall(r"^\|(?:\s*:?-+:?\s*\|)+$", page.read_text(), re.M):
        assert rule.count("|") - 1 <= 7, f"{page.name}: {rule}"


def test_plots_show_what_the_tables_show() -> None:
    used = [
        name for page in MARKDOWN for name in re.findall(r"<!-- plot (\S+) -->", page.read_text())
    ]
    assert set(used) == set(plots.PLOTS)
    for page in ("README.md", "benchmarks.md", "guides/quantisation.md"):
        text = plots.on_page_markdown((DOCS / page).read_text())
        assert '<figure class="bars">' in text, page
        assert "<!-- plot" not in text
    html = plots.PLOTS["speed"]()
    chosen = [
        f
        for machine in plots.figures.read(plots.DATA / "speed.json").machines()
        for f in plots.figures.best(
            plots.figures.read(plots.DATA / "speed.json").of(machine).figures, plots.MODEL
        )
    ]
    assert html.count('class="bar ours"') == html.count('class="bar"') == len(chosen)
    shares = [float(share) for share in re.findall(r"--share: ([\d.]+)", html)]
    assert all(0 < share <= 1 for share in shares)
    assert shares.count(1.0) >= len(chosen)
    for f in chosen:
        assert plots.number(f.tokens_per_s) in html
