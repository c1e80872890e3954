/** A message: what was said, how it went, and what can be done with it. */

import { button, copyText, el, fill, fitHeight, icon, iconButton } from "./dom.js";
import { speedLine } from "./job.js";
import { renderMarkdown } from "./markdown.js";
import { menuButton } from "./menu.js";
import { settings } from "./store.js";
import { siblings } from "./tree.js";
import { tokensView } from "./view_tokens.js";

/** What is said of an answer that did not end by itself. */
const ENDINGS = {
    cut: "It has as many tokens as the settings allow.",
    stopped: "Stopped.",
    broken: "The connection was lost.",
};

/**
 * @typedef {Object} Hands what messages let others do, each with the message's id
 * @property {(id: string) => void} answerAgain
 * @property {(id: string) => void} goOn
 * @property {(id: string, text: string) => void} say says something else in the place of a question
 * @property {(id: string, text: string) => void} correct lets an answer be another
 * @property {(id: string, step: number) => void} turn opens the branch beside
 * @property {(id: string) => void} choose
 * @property {(id: string) => void} compare shows the branches side by side, or not any more
 * @property {(id: string) => void} keep
 * @property {(id: string) => void} remove
 * @property {(text: string) => void} announce
 */
export class MessageView {
    #conversation;
    #node;
    #hands;
    #text = el("div.text");
    #thinking = el("div.text.thinking-text");
    #think;
    #foot = el("div.foot");
    #asTokens = false;
    #isCard = false;
    #isBusy = false;
    #isEdited = false;

    /**
     * @param {import("./tree.js").Conversation} conversation
     * @param {import("./tree.js").Message} node
     * @param {Hands} hands
     */
    constructor(conversation, node, hands) {
        this.#conversation = conversation;
        this.#node = node;
        this.#hands = hands;
        this.#think = el(
            "details.think",
            {},
            el("summary", {}, el("span", { text: "Reasoning" })),
            this.#thinking,
        );
        this.element = el(`article.message.${node.role}`, { "data-id": node.id, tabindex: "-1" });
    }

    /** Draw all of it. `isCard`: it stands beside others; `isBusy`: something is being written. */
    update({ isCard = false, isBusy = false } = {}) {
        this.#isCard = isCard;
        this.#isBusy = isBusy;
        if (this.#isEdited) return; // what is typed stays
        const focused = this.element.contains(document.activeElement) && document.activeElement;
        const { role, status } = this.#node;
        const all = siblings(this.#conversation, this.#node.id);
        const at = all.indexOf(this.#node) + 1;
        const what = role === "user" ? "You said" : "Answer";
        this.element.setAttribute(
            "aria-label",
            all.length > 1 ? `${what}, ${at} of ${all.length}` : what,
        );
        this.element.setAttribute("aria-busy", String(status === "writing"));
        this.element.classList.toggle("card", isCard);
        this.element.classList.toggle(
            "chosen",
            isCard && this.#conversation.nodes[this.#node.parent].chosen === this.#node.id,
        );
        const body = this.#asTokens ? tokensView(this.#node.tokens) : this.#text;
        fill(
            this.element,
            isCard && this.#cardHead(all, at),
            role === "assistant" && this.#think,
            body,
            this.#foot,
        );
        this.updateText();
        this.#drawFoot(all, at);
        if (focused && !focused.isConnected)
            this.#button(focused.getAttribute("aria-label"))?.focus();
    }

    /** Draw what was said, as far as it is there. */
    updateText() {
        const { text, thinking, status, role } = this.#node;
        this.#think.hidden = !thinking;
        if (thinking) {
            renderMarkdown(this.#thinking, thinking);
            this.#think.querySelector("summary span").textContent =
                status === "writing" && !text ? "Reasoning …" : "Reasoning";
        }
        if (role === "assistant" && settings.markdown) renderMarkdown(this.#text, text);
        else fill(this.#text, el("p.plain", { text }));
        this.#text.classList.toggle("waiting", status === "writing" && !text && !thinking);
        this.#text.classList.toggle("growing", status === "writing" && text !== "");
    }

    /** Let the text be changed; what comes of it is another branch. */
    edit() {
        const { id, role, text } = this.#node;
        const area = el("textarea.edit", {
            "aria-label": role === "user" ? "Say it differently" : "Write it differently",
            rows: "1",
            value: text,
        });
        const close = () => {
            this.#isEdited = false;
            this.update({ isCard: this.#isCard, isBusy: this.#isBusy });
        };
        const save = () => {
            const written = area.value.trim();
            if (!written) return;
            close();
            if (role === "user") this.#hands.say(id, written);
            else this.#hands.correct(id, written);
        };
        const cancel = () => {
            close();
            this.#button(role === "user" ? "Edit" : "More")?.focus();
        };
        area.addEventListener("input", () => fitHeight(area));
        area.addEventListener("keydown", (event) => {
            if (event.key === "Escape") cancel();
            else if (
                event.key === "Enter" &&
                !event.shiftKey &&
                !event.isComposing &&
                role === "user"
            )
                save();
            else return;
            event.preventDefault();
            event.stopPropagation();
        });
        const buttons = el(
            "div.edit-buttons",
            {},
            el("span.hint", { text: "A new branch: what was said before stays." }),
            button("Cancel", cancel),
            button(role === "user" ? "Send" : "Save", save, { class: "button primary" }),
        );
        fill(this.element, el("div.edit-box", {}, area, buttons));
        this.#isEdited = true;
        fitHeight(area);
        area.focus();
        area.setSelectionRange(text.length, text.length);
    }

    #drawFoot(all, at) {
        const { id, role, status, text, error, stats, state, tokens } = this.#node;
        if (status === "writing") {
            fill(this.#foot);
            return;
        }
        const hands = this.#hands;
        const isAnswer = role === "assistant";
        const free = !this.#isBusy;
        const ending = error || ENDINGS[status];
        const goesOn = isAnswer && text && ["cut", "stopped", "broken"].includes(status);
        const note =
            isAnswer && ending
                ? el(
                      `div.ending.${status}`,
                      status === "failed" || status === "broken" ? { role: "alert" } : {},
                      el("span", { text: ending }),
                      free && goesOn && button("Go on", () => hands.goOn(id)),
                      free &&
                          !goesOn &&
                          status !== "cut" &&
                          button("Try again", () => hands.answerAgain(id)),
                  )
                : null;
        const tools = el(
            "div.tools",
            {},
            all.length > 1 && !this.#isCard && this.#turner(all, at),
            iconButton("copy", "Copy", () => copyText(text).then(() => hands.announce("Copied"))),
            isAnswer && free && iconButton("redo", "Answer again", () => hands.answerAgain(id)),
            !isAnswer && free && iconButton("edit", "Edit", () => this.edit()),
            isAnswer &&
                tokens?.length > 0 &&
                iconButton(
                    "probability",
                    "Show how probable each token was",
                    () => this.#showTokens(),
                    {
                        "aria-pressed": String(this.#asTokens),
                    },
                ),
            isAnswer &&
                all.length > 1 &&
                !this.#isCard &&
                iconButton("columns", "Show the answers side by side", () => hands.compare(id)),
            state &&
                el(
                    "span.kept",
                    { title: `The server keeps the state “${state.name}” here` },
                    icon("keep"),
                    el("span", { text: "kept" }),
                ),
            menuButton("more", "More", () => [
                isAnswer && free && { label: "Edit the answer", run: () => this.edit() },
                isAnswer &&
                    this.#node.response &&
                    !state && { label: "Keep the state here …", run: () => hands.keep(id) },
                isAnswer &&
                    all.length > 1 && {
                        label: this.#isCard ? "Show one at a time" : "Show side by side",
                        run: () => hands.compare(id),
                    },
                free && { label: "Delete this branch", run: () => hands.remove(id), danger: true },
            ]),
        );
        fill(
            this.#foot,
            note,
            tools,
            isAnswer && stats && el("p.speed", { text: speedLine(stats) }),
        );
    }

    #turner(all, at) {
        const { id } = this.#node;
        return el(
            "div.turner",
            { role: "group", "aria-label": "Branches" },
            iconButton("back", "The branch before", () => this.#hands.turn(id, -1), {
                disabled: at === 1,
            }),
            el("span", {
                text: `${at}/${all.length}`,
                "aria-label": `branch ${at} of ${all.length}`,
            }),
            iconButton("forth", "The branch after", () => this.#hands.turn(id, 1), {
                disabled: at === all.length,
            }),
        );
    }

    #cardHead(all, at) {
        const isChosen = this.#conversation.nodes[this.#node.parent].chosen === this.#node.id;
        const choose = button(
            isChosen ? "Going on from here" : "Go on from here",
            () => this.#hands.choose(this.#node.id),
            {
                class: "button chooser",
                "aria-pressed": String(isChosen),
                "aria-label": `Go on from answer ${at}`,
            },
        );
        return el("div.card-head", {}, el("span", { text: `${at} of ${all.length}` }), choose);
    }

    #showTokens() {
        this.#asTokens = !this.#asTokens;
        this.update({ isCard: this.#isCard, isBusy: this.#isBusy });
    }

    #button(label) {
        return [...this.element.querySelectorAll("button")].find(
            (each) => each.getAttribute("aria-label") === label,
        );
    }
}
