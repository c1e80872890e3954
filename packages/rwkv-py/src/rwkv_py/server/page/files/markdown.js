/**
 * Markdown as elements: what models write of it, and no HTML. A text becomes blocks, each with its
 * source, so that while a text grows only its last block is made anew.
 */

import { copyText, el, iconButton } from "./dom.js";

const FENCE = /^ {0,3}(```+|~~~+)\s*([\w+#.-]*)[^`]*$/;
const HEADING = /^(#{1,6})\s+(\S.*)$/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const QUOTE = /^ {0,3}> ?(.*)$/;
const TABLE_RULE = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;

/** How deep lists and quotations may stand in each other; deeper ones are shown as they were written. */
const DEEPEST = 12;

/** Where links may lead. */
const SAFE_LINK = /^(https?:\/\/|mailto:)/i;

/**
 * Cut a text into blocks.
 * @param {string} text
 * @returns {string[]} the source of each
 */
export function blocksOf(text) {
    const lines = text.replace(/\r\n?/g, "\n").split("\n");
    const blocks = [];
    let block = [];
    const end = () => {
        if (block.length) blocks.push(block.join("\n"));
        block = [];
    };
    for (let i = 0; i < lines.length; i += 1) {
        const fence = FENCE.exec(lines[i]);
        if (fence) {
            end();
            const close = new RegExp(`^ {0,3}${fence[1][0]}{${fence[1].length},}\\s*$`);
            block.push(lines[i]);
            for (i += 1; i < lines.length && !close.test(lines[i]); i += 1) block.push(lines[i]);
            if (i < lines.length) block.push(lines[i]);
            end();
        } else if (!lines[i].trim()) {
            // A list goes on after an empty line, if an item or a deeper line follows.
            const goesOn =
                ITEM.test(block[0] ?? "") &&
                (ITEM.test(lines[i + 1] ?? "") || /^\s{2,}\S/.test(lines[i + 1] ?? ""));
            if (goesOn) block.push("");
            else end();
        } else {
            const begins = HEADING.test(lines[i]) || RULE.test(lines[i]);
            const kind = (line) => (ITEM.test(line) ? "item" : QUOTE.test(line) ? "quote" : "text");
            const other =
                block.length && kind(lines[i]) !== kind(block[0]) && kind(lines[i]) !== "text";
            if (
                begins ||
                other ||
                HEADING.test(block[0] ?? "") ||
                (RULE.test(block[0] ?? "") && !begins)
            )
                end();
            block.push(lines[i]);
            if (begins) end();
        }
    }
    end();
    return blocks;
}

/** Make the element of a block. */
export function renderBlock(source, depth = 0) {
    const lines = source.split("\n");
    const fence = FENCE.exec(lines[0]);
    if (fence) return codeBlock(lines, fence);
    const heading = HEADING.exec(lines[0]);
    // The page has its own first two levels.
    if (heading)
        return el(
            `h${Math.min(6, heading[1].length + 2)}`,
            {},
            ...inline(heading[2].trimEnd().replace(/(^|\s)#+$/, "")),
        );
    if (RULE.test(lines[0])) return el("hr");
    if (depth < DEEPEST && ITEM.test(lines[0])) return list(lines, depth);
    if (depth < DEEPEST && QUOTE.test(lines[0])) {
        const inside = lines.map((line) => QUOTE.exec(line)?.[1] ?? line).join("\n");
        return el(
            "blockquote",
            {},
            ...blocksOf(inside).map((block) => renderBlock(block, depth + 1)),
        );
    }
    if (lines.length > 1 && lines[0].includes("|") && TABLE_RULE.test(lines[1]))
        return table(lines);
    return el("p", {}, ...inline(source));
}

/**
 * Show a text in an element; blocks that are there already stay as they are.
 * @param {HTMLElement} element
 * @param {string} text
 */
export function renderMarkdown(element, text) {
    const blocks = blocksOf(text);
    const shown = [...element.children];
    let same = 0;
    while (same < blocks.length && shown[same]?.source === blocks[same]) same += 1;
    for (const old of shown.slice(same)) old.remove();
    for (const source of blocks.slice(same)) {
        const block = renderBlock(source);
        block.source = source;
        element.append(block);
    }
}

function codeBlock(lines, fence) {
    const closed =
        lines.length > 1 &&
        new RegExp(`^ {0,3}${fence[1][0]}{${fence[1].length},}\\s*$`).test(lines.at(-1));
    const code = lines.slice(1, closed ? -1 : undefined).join("\n");
    const copy = iconButton("copy", "Copy the code", () => copyText(code));
    const head = el("div.code-head", {}, el("span", { text: fence[2] || "text" }), copy);
    return el(
        "div.code-block",
        {},
        head,
        el(
            "pre",
            { tabindex: "0", role: "region", "aria-label": "Code" },
            el("code", { text: code }),
        ),
    );
}

function list(lines, depth) {
    const [, indent, marker] = ITEM.exec(lines[0]);
    const ordered = /\d/.test(marker);
    const made = el(
        ordered ? "ol" : "ul",
        ordered && Number.parseInt(marker, 10) !== 1 ? { start: Number.parseInt(marker, 10) } : {},
    );
    const items = [];
    for (const line of lines) {
        const item = ITEM.exec(line);
        if (item && item[1].length <= indent.length + 1) items.push([item[3]]);
        else
            items
                .at(-1)
                .push(
                    line.replace(new RegExp(`^\\s{0,${indent.length + 4}}`), (space) =>
                        ITEM.test(line) ? space.slice(indent.length + 2) : "",
                    ),
                );
    }
    for (const [first, ...rest] of items) {
        const inside = blocksOf([first, ...rest].join("\n")).map((block) =>
            renderBlock(block, depth + 1),
        );
        // A single paragraph needs no space around it.
        const parts =
            inside[0]?.localName === "p" ? [...inside[0].childNodes, ...inside.slice(1)] : inside;
        made.append(el("li", {}, ...parts));
    }
    return made;
}

function table(lines) {
    const cells = (line) =>
        line
            .trim()
            .replace(/^\||\|$/g, "")
            .split(/(?<!\\)\|/)
            .map((cell) => cell.trim().replaceAll("\\|", "|"));
    const row = (line, kind) =>
        el("tr", {}, ...cells(line).map((cell) => el(kind, {}, ...inline(cell))));
    const body = lines.slice(2).map((line) => row(line, "td"));
    return el(
        "div.table",
        { tabindex: "0", role: "region", "aria-label": "Table" },
        el("table", {}, el("thead", {}, row(lines[0], "th")), el("tbody", {}, ...body)),
    );
}

// In the order in which they are tried at each place. None looks far, so that no text takes long.
const INLINE = [
    [
        /(`+)([^`]|[^`][\s\S]{0,2000}?[^`])\1(?!`)/,
        (found) => el("code", { text: found[2].trim() || found[2] }),
    ],
    [
        /!?\[([^\]\n]{0,500})\]\(([^\s)]{1,2000})(?:\s{1,9}"[^"]{0,500}")?\)/,
        (found) => link(found[1], found[2], found[0]),
    ],
    [/https?:\/\/[^\s<>"'`)\]]*[^\s<>"'`)\].,;:!?]/, (found) => link(found[0], found[0], found[0])],
    [/\*\*(?=\S)([\s\S]{0,2000}?\S)\*\*/, (found) => el("strong", {}, ...inline(found[1]))],
    [
        /(?<!\w)__(?=\S)([\s\S]{0,2000}?\S)__(?!\w)/,
        (found) => el("strong", {}, ...inline(found[1])),
    ],
    [/~~(?=\S)([\s\S]{0,2000}?\S)~~/, (found) => el("s", {}, ...inline(found[1]))],
    [/\*(?=[^\s*])([^*]*[^\s*])\*/, (found) => el("em", {}, ...inline(found[1]))],
    [/(?<!\w)_(?=[^\s_])([^_]*[^\s_])_(?!\w)/, (found) => el("em", {}, ...inline(found[1]))],
    [/\\([\\`*_{}[\]()#+.!|~>-])/, (found) => document.createTextNode(found[1])],
];

function inline(text) {
    const parts = [];
    // What each finds next; that is still true until we are past it.
    const next = INLINE.map(([pattern, make]) => ({
        pattern: new RegExp(pattern, "g"),
        make,
        found: undefined,
    }));
    let at = 0;
    while (at < text.length) {
        let best = null;
        for (const each of next) {
            if (each.found === undefined || (each.found && each.found.index < at)) {
                each.pattern.lastIndex = at;
                each.found = each.pattern.exec(text);
            }
            if (each.found && (best === null || each.found.index < best.found.index)) best = each;
        }
        if (best === null) break;
        const { index, 0: source } = best.found;
        if (index > at) parts.push(...withBreaks(text.slice(at, index)));
        parts.push(best.make(best.found));
        at = index + source.length;
    }
    if (at < text.length) parts.push(...withBreaks(text.slice(at)));
    return parts;
}

function withBreaks(text) {
    return text.split("\n").flatMap((line, i) => (i ? [el("br"), line] : [line]));
}

function link(label, address, source) {
    if (!SAFE_LINK.test(address)) return document.createTextNode(source);
    const inside = label === address ? [label] : inline(label);
    return el("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, ...inside);
}
