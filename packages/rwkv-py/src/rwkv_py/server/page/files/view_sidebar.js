/** The conversations: begin, find, open, rename and delete them. */

import { el, fill, icon, iconButton } from "./dom.js";

const DAY_MS = 86_400_000;

/** Return what a day is called, as long as it is near. */
function dayOf(time) {
    const today = new Date().setHours(0, 0, 0, 0);
    if (time >= today) return "Today";
    if (time >= today - DAY_MS) return "Yesterday";
    if (time >= today - 7 * DAY_MS) return "This week";
    return new Date(time).toLocaleDateString(undefined, { month: "long", year: "numeric" });
}

/**
 * @typedef {Object} Hands
 * @property {() => void} newChat
 * @property {() => void} newText
 * @property {(id: string) => void} open
 * @property {(id: string) => void} rename
 * @property {(id: string) => void} remove
 * @property {() => void} states
 * @property {() => void} settings
 * @property {() => void} theme
 * @property {() => void} shortcuts
 */
export class Sidebar {
    #library;
    #hands;
    #list = el("div.list");
    #search = el("input", {
        type: "search",
        placeholder: "Search",
        "aria-label": "Search conversations",
    });
    #openId = null;

    /**
     * @param {import("./library.js").Library} library
     * @param {Hands} hands
     */
    constructor(library, hands) {
        this.#library = library;
        this.#hands = hands;
        const action = (name, label, run, extra = {}) =>
            el(
                "button.side-action",
                { type: "button", onclick: run, ...extra },
                icon(name),
                el("span", { text: label }),
            );
        this.element = el(
            "nav.sidebar",
            { "aria-label": "Conversations", id: "sidebar" },
            el(
                "div.side-head",
                {},
                action("add", "New chat", hands.newChat),
                action("text", "New text", hands.newText),
            ),
            el("div.search", {}, icon("search"), this.#search),
            this.#list,
            el(
                "div.side-foot",
                {},
                action("keep", "States", hands.states),
                action("settings", "Settings", hands.settings),
                el(
                    "div.side-icons",
                    {},
                    iconButton("moon", "Change between light and dark", hands.theme),
                    el("button.icon-button", {
                        type: "button",
                        "aria-label": "Keyboard shortcuts",
                        title: "Keyboard shortcuts",
                        onclick: hands.shortcuts,
                        text: "?",
                    }),
                ),
            ),
        );
        this.#search.addEventListener("input", () => this.draw());
        this.#search.addEventListener("keydown", (event) => {
            if (event.key === "Escape" && this.#search.value) {
                this.#search.value = "";
                this.draw();
                event.stopPropagation();
            } else if (event.key === "ArrowDown") {
                this.#list.querySelector(".item-open")?.focus();
                event.preventDefault();
            }
        });
        this.#list.addEventListener("keydown", (event) => this.#onKey(event));
        library.addEventListener("change", () => this.draw());
    }

    /** Show which is open. */
    show(id) {
        this.#openId = id;
        this.draw();
    }

    search() {
        this.#search.focus();
        this.#search.select();
    }

    draw() {
        const focused = this.#list.contains(document.activeElement)
            ? document.activeElement.dataset
            : null;
        const groups = new Map();
        const found = this.#library.find(this.#search.value);
        for (const each of found) {
            const day = dayOf(each.changed);
            if (!groups.has(day)) groups.set(day, []);
            groups.get(day).push(this.#item(each));
        }
        const nothing = this.#search.value.trim()
            ? "Nothing has these words."
            : "No conversations yet.";
        const shown = [...groups].map(([day, items]) =>
            el("section", {}, el("h2", { text: day }), el("ul", {}, ...items)),
        );
        fill(this.#list, ...(shown.length ? shown : [el("p.nothing", { text: nothing })]));
        if (focused)
            this.#list.querySelector(`[data-id="${focused.id}"][data-do="${focused.do}"]`)?.focus();
    }

    #item({ id, title, kind }) {
        const name = title || (kind === "text" ? "New text" : "New chat");
        const open = el(
            "button.item-open",
            {
                type: "button",
                "data-id": id,
                "data-do": "open",
                "aria-current": id === this.#openId ? "page" : false,
                title: name,
                onclick: () => this.#hands.open(id),
            },
            kind === "text" && icon("text"),
            el("span", { text: name }),
        );
        return el(
            `li.item${id === this.#openId ? ".open" : ""}`,
            {},
            open,
            iconButton("edit", `Rename ${name}`, () => this.#hands.rename(id), {
                "data-id": id,
                "data-do": "rename",
            }),
            iconButton("trash", `Delete ${name}`, () => this.#hands.remove(id), {
                "data-id": id,
                "data-do": "delete",
            }),
        );
    }

    #onKey(event) {
        const all = [...this.#list.querySelectorAll(".item-open")];
        const at = all.indexOf(document.activeElement);
        const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
        if (at < 0 || step === undefined) return;
        event.preventDefault();
        (all[at + step] ?? this.#search).focus();
    }
}
