/** A text by itself, which the model goes on with: no turns, no roles. */

import { button, el, fill, iconButton, oncePerFrame } from "./dom.js";
import { speedLine, waitLine } from "./job.js";
import { titleOf } from "./tree.js";
import { tokensView } from "./view_tokens.js";

const MOST_KEPT = 50; // texts to go back to

export class TextView {
    #talk;
    #library;
    #hands;
    #document = null;
    #asTokens = false;
    #waits = null;
    #area = el("textarea.paper", {
        "aria-label": "Text",
        placeholder: "Begin a text; the model goes on with it.",
        spellcheck: "false",
    });
    #body = el("div.paper-box");
    #foot = el("div.paper-foot");

    /**
     * @param {import("./talk.js").Talk} talk
     * @param {import("./library.js").Library} library
     * @param {{announce: (text: string) => void}} hands
     */
    constructor(talk, library, hands) {
        this.#talk = talk;
        this.#library = library;
        this.#hands = hands;
        this.element = el("div.text-view", {}, this.#body, this.#foot);
        this.#area.addEventListener("input", () => this.#typed());
        this.#area.addEventListener("keydown", (event) => {
            if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
                event.preventDefault();
                this.#goOn();
            }
        });
        const grown = oncePerFrame(() => this.#grow());
        talk.addEventListener(
            "change",
            ({ detail }) => detail.conversation === this.#document && grown(),
        );
        talk.addEventListener("wait", ({ detail }) => {
            if (detail.conversation !== this.#document) return;
            this.#waits = detail.why;
            this.#drawFoot();
        });
        for (const type of ["begin", "end"])
            talk.addEventListener(
                type,
                ({ detail }) => detail.conversation === this.#document && this.draw(),
            );
    }

    /** Open a text. */
    show(document) {
        this.#document = document;
        this.#asTokens = false;
        this.#waits = null;
        this.draw();
    }

    focus() {
        this.#area.focus();
    }

    draw() {
        const { text, last } = this.#document;
        const isBusy = this.#talk.jobOf(this.#document.id) !== null;
        this.#area.value = text;
        this.#area.readOnly = isBusy;
        const tokens = this.#asTokens && last?.tokens && !isBusy;
        fill(
            this.#body,
            tokens
                ? el(
                      "div.paper",
                      {},
                      el("span.plain", { text: text.slice(0, last.start) }),
                      tokensView(last.tokens),
                  )
                : this.#area,
        );
        this.#drawFoot();
    }

    #goOn() {
        const document = this.#document;
        if (this.#talk.jobOf(document.id)) return;
        document.before = [...document.before, document.text].slice(-MOST_KEPT);
        document.after = [];
        const target = { text: document.text, thinking: "", start: document.text.length };
        document.last = target;
        if (!document.named) document.title = titleOf(document.text) || document.title;
        this.#asTokens = false;
        const writing = this.#talk.complete(document, target);
        writing.then(() => {
            this.#hands.announce(target.text.slice(target.start) || "Nothing was added");
        });
        this.#area.focus();
    }

    #grow() {
        const { last } = this.#document;
        if (!last) return;
        this.#area.value = last.text;
        this.#area.scrollTop = this.#area.scrollHeight;
    }

    #typed() {
        const document = this.#document;
        document.text = this.#area.value;
        document.last = null;
        document.changed = Date.now();
        if (!document.named) document.title = titleOf(document.text);
        if (this.#library.get(document.id)) this.#library.saveSoon(document);
        else this.#library.save(document);
        this.#drawFoot();
    }

    #step(from, to) {
        const document = this.#document;
        document[to] = [...document[to], document.text];
        document.text = document[from].at(-1);
        document[from] = document[from].slice(0, -1);
        document.last = null;
        this.#asTokens = false;
        this.#library.save(document);
        this.draw();
        this.#area.focus();
    }

    #drawFoot() {
        const { before, after, last } = this.#document;
        const job = this.#talk.jobOf(this.#document.id);
        const error =
            !job && ["failed", "broken"].includes(last?.status)
                ? (last.error ?? "The connection was lost. What came is here; go on from it.")
                : null;
        const show = () => {
            this.#asTokens = !this.#asTokens;
            this.draw();
            this.#foot.querySelector("[aria-pressed]").focus();
        };
        fill(
            this.#foot,
            error && el("p.error", { role: "alert", text: error }),
            this.#waits && job && el("p.help", { text: waitLine(this.#waits) }),
            el(
                "div.rows",
                {},
                job
                    ? button("Stop", () => job.stop(), { class: "button primary" })
                    : button("Go on", () => this.#goOn(), {
                          class: "button primary",
                          title: "Ctrl+Enter",
                      }),
                !job &&
                    iconButton("back", "The text before", () => this.#step("before", "after"), {
                        disabled: before.length === 0,
                    }),
                !job &&
                    iconButton("forth", "The text after", () => this.#step("after", "before"), {
                        disabled: after.length === 0,
                    }),
                !job &&
                    last?.tokens?.length > 0 &&
                    iconButton("probability", "Show how probable each token was", show, {
                        "aria-pressed": String(this.#asTokens),
                    }),
                last?.stats && el("span.speed", { text: speedLine(last.stats) }),
            ),
        );
    }
}
