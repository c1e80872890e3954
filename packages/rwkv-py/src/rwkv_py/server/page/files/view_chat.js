/** The open conversation: its messages from the first to the last, those side by side that are compared. */

import { arrange, el, oncePerFrame } from "./dom.js";
import { ROOT, addMessage, choose, chooseBeside, openPath, removeBranch } from "./tree.js";
import { MessageView } from "./view_message.js";

/** How near to its end the conversation is followed while it grows. */
const NEAR_PX = 80;

export class ChatView {
    #talk;
    #library;
    #host;
    #conversation = null;
    /** @type {Map<string, MessageView>} */
    #views = new Map();
    /** @type {Map<string, HTMLElement>} those that hold answers side by side, by the question */
    #rows = new Map();
    #list = el("div.messages");
    #follows = true;

    /**
     * @param {import("./talk.js").Talk} talk
     * @param {import("./library.js").Library} library
     * @param {{askName: (title: string, label: string, value: string) => Promise<string|null>, tell: (text: string, undo?: () => void) => void, announcer: import("./announce.js").Announcer, answers: () => number, empty: (conversation: any) => Node}} host
     */
    constructor(talk, library, host) {
        this.#talk = talk;
        this.#library = library;
        this.#host = host;
        this.element = el("div.scroller", { tabindex: "-1" }, this.#list);
        this.element.addEventListener("scroll", () => {
            const { scrollTop, scrollHeight, clientHeight } = this.element;
            this.#follows = scrollHeight - scrollTop - clientHeight < NEAR_PX;
        });
        const drawn = oncePerFrame(() => this.#drawText());
        talk.addEventListener("change", ({ detail }) => {
            if (detail.conversation !== this.#conversation) return;
            drawn();
            if (detail.job.targets[0] === detail.target) host.announcer.more(detail.target.text);
        });
        for (const type of ["begin", "end"]) {
            talk.addEventListener(type, ({ detail }) => {
                if (detail.conversation !== this.#conversation) return;
                if (type === "begin") {
                    this.#follows = true;
                    host.announcer.begin();
                } else host.announcer.end(detail.job.targets[0].text);
                this.draw();
            });
        }
    }

    /** Open a conversation. */
    show(conversation) {
        this.#conversation = conversation;
        this.#forget();
        this.#follows = true;
        this.draw();
    }

    /** Draw the messages as they are now. */
    draw() {
        const conversation = this.#conversation;
        if (!conversation) return;
        const isBusy = this.#talk.jobOf(conversation.id) !== null;
        const layers = [];
        const path = openPath(conversation);
        for (const node of path) {
            const parent = conversation.nodes[node.parent];
            if (parent.compare && parent.children.length > 1 && node.role === "assistant") {
                const cards = parent.children.map((id) =>
                    this.#drawn(id, { isCard: true, isBusy }),
                );
                layers.push(this.#beside(parent.id, cards));
            } else layers.push(this.#drawn(node.id, { isBusy }));
        }
        arrange(this.#list, layers.length ? layers : [this.#host.empty(conversation)]);
        this.#keepAtEnd();
    }

    #forget() {
        this.#views.clear();
        this.#rows.clear();
    }

    #beside(parent, cards) {
        const label = `${cards.length} answers side by side`;
        let row = this.#rows.get(parent);
        if (!row) {
            row = el("div.beside", { role: "group", tabindex: "0" });
            this.#rows.set(parent, row);
        }
        row.setAttribute("aria-label", label);
        arrange(row, cards);
        return row;
    }

    /** Edit the last question. Returns whether there is one. */
    editLast() {
        const last = openPath(this.#conversation).findLast((node) => node.role === "user");
        if (!last || this.#talk.jobOf(this.#conversation.id)) return false;
        this.#views.get(last.id).edit();
        return true;
    }

    /** Open the branch beside, of the message that has the focus, else of the last that has branches. */
    turnLast(step) {
        const focused = document.activeElement?.closest?.(".message")?.dataset.id;
        const path = openPath(this.#conversation);
        const has = (node) => this.#conversation.nodes[node.parent].children.length > 1;
        const node = path.find((each) => each.id === focused && has(each)) ?? path.findLast(has);
        if (node) this.#turn(node.id, step);
    }

    #drawn(id, how) {
        let view = this.#views.get(id);
        if (!view) {
            view = new MessageView(this.#conversation, this.#conversation.nodes[id], this.#hands);
            this.#views.set(id, view);
        }
        view.update(how);
        return view.element;
    }

    #drawText() {
        for (const node of this.#talk.jobOf(this.#conversation.id)?.targets ?? [])
            this.#views.get(node.id)?.updateText();
        this.#keepAtEnd();
    }

    #keepAtEnd() {
        if (this.#follows) this.element.scrollTop = this.element.scrollHeight;
    }

    #changed() {
        this.#library.save(this.#conversation);
        this.draw();
    }

    #turn(id, step) {
        const beside = chooseBeside(this.#conversation, id, step);
        if (!beside) return;
        this.#follows = false;
        this.#changed();
        const { element } = this.#views.get(beside.id);
        const again = element.querySelector(
            `.turner .icon-button:${step < 0 ? "first-of-type" : "last-of-type"}:not(:disabled)`,
        );
        (again ?? element).focus({ preventScroll: true });
        element.scrollIntoView({ block: "nearest" });
    }

    /** @type {import("./view_message.js").Hands} */
    #hands = {
        answerAgain: (id) => {
            const node = this.#conversation.nodes[id];
            if (node.status === "failed" && !node.text) removeBranch(this.#conversation, id);
            this.#talk.answer(this.#conversation, node.parent, this.#host.answers());
        },
        goOn: (id) => this.#talk.goOn(this.#conversation, id),
        say: (id, text) => {
            this.#talk.ask(
                this.#conversation,
                this.#conversation.nodes[id].parent,
                text,
                this.#host.answers(),
            );
            this.#host.focusComposer();
        },
        correct: (id, text) => {
            const { parent, model } = this.#conversation.nodes[id];
            addMessage(this.#conversation, parent, "assistant", { text, model });
            this.#changed();
            this.#host.focusComposer();
        },
        turn: (id, step) => this.#turn(id, step),
        choose: (id) => {
            choose(this.#conversation, id);
            this.#changed();
            this.#views.get(id).element.querySelector(".chooser")?.focus();
        },
        compare: (id) => {
            const parent = this.#conversation.nodes[this.#conversation.nodes[id].parent];
            parent.compare = !parent.compare;
            if (!parent.compare) choose(this.#conversation, id);
            this.#changed();
            this.#views.get(id).element.focus();
        },
        keep: async (id) => {
            const conversation = this.#conversation;
            const name = await this.#host.askName(
                "Keep the state here",
                "Name",
                conversation.title.slice(0, 200),
            );
            if (name === null) return;
            try {
                await this.#talk.keep(conversation, id, name);
                this.#host.tell(`The server keeps the state “${name}”`);
            } catch (error) {
                this.#host.tell(error.message);
            }
            this.draw();
        },
        remove: (id) => {
            const conversation = this.#conversation;
            const before = structuredClone(conversation.nodes);
            removeBranch(conversation, id);
            this.#changed();
            this.#host.focusComposer();
            this.#host.tell("The branch is deleted", () => {
                conversation.nodes = before;
                this.#forget();
                this.#changed();
            });
        },
        announce: (text) => this.#host.announcer.say(text),
    };

    /** The message after which one speaks. */
    get last() {
        return openPath(this.#conversation).at(-1)?.id ?? ROOT;
    }
}
