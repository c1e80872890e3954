/** All conversations, as they are in memory, in the browser's database, and in its other tabs. */

import { drafts, store } from "./store.js";
import { mentions } from "./tree.js";

const SAVE_AFTER_MS = 500;

/**
 * Tells `change` when a conversation came, went or changed, `elsewhere` when another tab changed it, and
 * `full` when the browser has no room for it; `detail` is its id.
 */
export class Library extends EventTarget {
    /** @type {Map<string, any>} */
    #all = new Map();
    #timers = new Map();
    #tabs = "BroadcastChannel" in globalThis ? new BroadcastChannel("rwkv") : null;
    #isBusy;

    /** @param {(id: string) => boolean} isBusy whether one is being written here */
    constructor(isBusy) {
        super();
        this.#isBusy = isBusy;
        this.#tabs?.addEventListener("message", ({ data }) => this.#changedElsewhere(data));
        addEventListener("pagehide", () => this.flush());
    }

    /** Read what is kept. */
    async load() {
        await store.open();
        this.#take(await store.all());
        for (const { nodes = {} } of this.#all.values()) {
            for (const node of Object.values(nodes)) {
                if (node.status === "writing") node.status = "broken"; // the page was left meanwhile
            }
        }
    }

    get keeps() {
        return store.keeps;
    }

    get(id) {
        return this.#all.get(id) ?? null;
    }

    /** Return those that have the words, the latest first. */
    find(words) {
        const found = [...this.#all.values()].filter(
            (each) => !words.trim() || mentions(each, words.trim()),
        );
        return found.sort((one, other) => other.changed - one.changed);
    }

    /** Keep a conversation, now. */
    save(conversation) {
        this.#all.set(conversation.id, conversation);
        drafts.keep(conversation.id, conversation.draft);
        this.#write(conversation.id);
        this.#tell("change", conversation.id);
    }

    /** Keep one soon, of which more comes: nothing changed that a list of them shows. */
    saveSoon({ id }) {
        if (!this.#timers.has(id))
            this.#timers.set(
                id,
                setTimeout(() => this.#write(id), SAVE_AFTER_MS),
            );
    }

    /** Forget one. Returns it, so that it can be saved again. */
    remove(id) {
        const conversation = this.#all.get(id);
        this.#all.delete(id);
        clearTimeout(this.#timers.get(id));
        this.#timers.delete(id);
        drafts.keep(id, "");
        store.remove(id).then(() => this.#tabs?.postMessage(id));
        this.#tell("change", id);
        return conversation;
    }

    /** Keep now what was to be kept soon. */
    flush() {
        for (const id of [...this.#timers.keys()]) this.#write(id);
    }

    async #write(id) {
        clearTimeout(this.#timers.get(id));
        this.#timers.delete(id);
        try {
            await store.save(this.#all.get(id));
            this.#tabs?.postMessage(id);
        } catch {
            this.#tell("full", id);
        }
    }

    async #changedElsewhere(id) {
        if (this.#isBusy(id)) return;
        const kept = (await store.all()).filter((each) => each.id === id);
        if (this.#isBusy(id)) return; // by now: what is said here stays
        if (kept.length) this.#take(kept);
        else this.#all.delete(id);
        this.#tell("elsewhere", id);
        this.#tell("change", id);
    }

    #take(conversations) {
        for (const conversation of conversations) {
            conversation.draft = drafts.of(conversation.id);
            this.#all.set(conversation.id, conversation);
        }
    }

    #tell(type, id) {
        this.dispatchEvent(new CustomEvent(type, { detail: id }));
    }
}
