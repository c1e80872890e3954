/** Dialogs that ask for one thing, and lines that tell one. */

import { button, el, fill, iconButton } from "./dom.js";

const TOLD_MS = 6000;

/**
 * Make a dialog with a title and a button that closes it. The browser keeps the focus in it, and
 * gives it back.
 * @param {string} title
 * @param {string} kind a class: "panel" stands at the side, "small" in the middle
 * @param {...Node} children
 * @returns {HTMLDialogElement}
 */
export function dialog(title, kind, ...children) {
    const id = `dialog-${title.toLowerCase().replace(/\W+/g, "-")}`;
    const made = el(
        `dialog.dialog.${kind}`,
        { "aria-labelledby": id },
        el(
            "header.dialog-head",
            {},
            el("h2", { id, text: title }),
            iconButton("close", "Close", () => made.close()),
        ),
        el("div.dialog-body", {}, ...children),
    );
    made.addEventListener("pointerdown", ({ target }) => {
        if (target === made) made.close(); // beside it
    });
    document.body.append(made);
    return made;
}

/**
 * Ask for a line of text.
 * @returns {Promise<string|null>} null if nobody answers
 */
export function askLine(
    title,
    label,
    { value = "", type = "text", help = "", submit = "OK", signal = null } = {},
) {
    return new Promise((resolve) => {
        const input = el("input", {
            type,
            value,
            required: true,
            autocomplete: "off",
            maxlength: type === "text" ? "200" : false,
        });
        const form = el(
            "form.ask",
            {},
            el("label", {}, el("span", { text: label }), input),
            help && el("p.help", { text: help }),
            el(
                "div.dialog-buttons",
                {},
                button("Cancel", () => made.close()),
                el("button.button.primary", { type: "submit", text: submit }),
            ),
        );
        const made = dialog(title, "small", form);
        let answer = null;
        form.addEventListener("submit", (event) => {
            event.preventDefault();
            answer = input.value.trim();
            if (answer) made.close();
        });
        signal?.addEventListener("abort", () => made.close(), { once: true });
        made.addEventListener("close", () => {
            made.remove();
            resolve(answer || null);
        });
        made.showModal();
        input.focus();
        input.select();
    });
}

/** Tells things in a line at the bottom of the page, for a while. */
export class Teller {
    element = el("div.told", { role: "status" });
    #timer = 0;

    /** Tell something that can be undone, or not. */
    tell(text, undo = null) {
        clearTimeout(this.#timer);
        const close = () => fill(this.element);
        const undoing = () => {
            close();
            undo();
        };
        fill(
            this.element,
            el(
                "div.told-line",
                {},
                el("span", { text }),
                undo && button("Undo", undoing),
                iconButton("close", "Close", close),
            ),
        );
        this.#timer = setTimeout(close, TOLD_MS);
    }
}
