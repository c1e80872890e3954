/** Where one speaks: a text area, how many answers, send and stop, and why nothing comes. */

import { button, el, fill, fitHeight, icon } from "./dom.js";
import { waitLine } from "./job.js";
import { changeSettings, settings } from "./store.js";

const MOST_ANSWERS = 6;

/**
 * @typedef {Object} Hands
 * @property {(text: string) => void} send
 * @property {() => void} stop
 * @property {() => boolean} editLast
 * @property {(text: string) => void} draft keeps what is not said yet
 * @property {(text: string) => void} announce
 */
export class Composer {
    #hands;
    #area = el("textarea", {
        rows: "1",
        placeholder: "Say something",
        "aria-label": "Your message",
        autocomplete: "off",
        enterkeyhint: "send",
    });
    #answers = el("select", { "aria-label": "How many answers" });
    #submit = el("button.send", { type: "submit" });
    #status = el("div.job-status");
    #isBusy = false;
    #said = null;

    /** @param {Hands} hands */
    constructor(hands) {
        this.#hands = hands;
        for (let n = 1; n <= MOST_ANSWERS; n += 1)
            this.#answers.append(
                el("option", { value: String(n), text: n === 1 ? "1 answer" : `${n} answers` }),
            );
        this.#answers.value = String(settings.answers);
        this.#answers.addEventListener("change", () => changeSettings({ answers: this.answers }));
        const row = el(
            "div.composer-row",
            {},
            el("label.answers", {}, this.#answers),
            el("span.hint", { text: "Enter sends, Shift+Enter begins a line" }),
            this.#submit,
        );
        this.element = el(
            "form.composer",
            { "aria-label": "Say something" },
            this.#status,
            el("div.composer-box", {}, this.#area, row),
        );
        this.element.addEventListener("submit", (event) => {
            event.preventDefault();
            if (this.#isBusy) this.#hands.stop();
            else this.#send();
        });
        this.#area.addEventListener("input", () => {
            fitHeight(this.#area);
            this.#drawButton();
            this.#hands.draft(this.#area.value);
        });
        this.#area.addEventListener("keydown", (event) => this.#onKey(event));
        this.busy(false);
    }

    /** How many answers are wanted. */
    get answers() {
        return Number(this.#answers.value);
    }

    /** Show what stands there of a conversation. */
    show(draft) {
        this.#area.value = draft;
        fitHeight(this.#area);
        this.#drawButton();
    }

    /** Let one type; not where that would bring a keyboard onto the screen. */
    focus() {
        if (!matchMedia("(hover: none)").matches) this.#area.focus();
    }

    /** Whether something is being written: then the button stops it. */
    busy(isBusy) {
        this.#isBusy = isBusy;
        this.#drawButton();
        if (!isBusy) this.waits(null);
    }

    /** Say why nothing comes, or null. */
    waits(why) {
        const words = why && waitLine(why);
        fill(
            this.#status,
            words && el("span", { text: words }),
            words && button("Cancel", () => this.#hands.stop()),
        );
        if (words && why.reason !== this.#said) this.#hands.announce(words); // and not each second
        this.#said = why?.reason ?? null;
    }

    #send() {
        const text = this.#area.value.trim();
        if (!text || this.#isBusy) return;
        this.show("");
        this.#hands.draft("");
        this.#hands.send(text);
    }

    #onKey(event) {
        if (event.isComposing) return;
        if (event.key === "Enter" && !event.shiftKey) {
            event.preventDefault();
            this.#send();
        } else if (event.key === "ArrowUp" && !this.#area.value && this.#hands.editLast())
            event.preventDefault();
    }

    #drawButton() {
        const label = this.#isBusy ? "Stop" : "Send";
        this.#submit.setAttribute("aria-label", label);
        this.#submit.title = this.#isBusy ? "Stop (Esc)" : "Send (Enter)";
        this.#submit.disabled = !this.#isBusy && !this.#area.value.trim();
        fill(this.#submit, icon(this.#isBusy ? "stop" : "send"));
    }
}
