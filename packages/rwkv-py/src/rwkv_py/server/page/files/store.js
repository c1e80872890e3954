/** What the browser keeps: conversations in a database, settings beside it. */

import { DEFAULTS } from "./presets.js";

const NAME = "rwkv";
const TABLE = "conversations";

const done = (request) =>
    new Promise((resolve, reject) => {
        request.onsuccess = () => resolve(request.result);
        request.onerror = () => reject(request.error);
    });

/** Conversations, by id. Where the browser keeps nothing they are in memory, until the page is left. */
class Store {
    #database = null;
    #memory = new Map();

    /** Whether what is saved is there again when the page is. */
    get keeps() {
        return this.#database !== null;
    }

    /** Open the database; call it first. */
    async open() {
        try {
            const request = indexedDB.open(NAME, 1);
            request.onupgradeneeded = () =>
                request.result.createObjectStore(TABLE, { keyPath: "id" });
            this.#database = await done(request);
        } catch {
            this.#database = null;
        }
    }

    async all() {
        const found = this.keeps
            ? await done(this.#table("readonly").getAll())
            : [...this.#memory.values()];
        return found.sort((one, other) => other.changed - one.changed);
    }

    async save(conversation) {
        const copy = structuredClone(conversation);
        if (this.keeps) await done(this.#table("readwrite").put(copy));
        else this.#memory.set(copy.id, copy);
    }

    async remove(id) {
        if (this.keeps) await done(this.#table("readwrite").delete(id));
        else this.#memory.delete(id);
    }

    #table(mode) {
        return this.#database.transaction(TABLE, mode).objectStore(TABLE);
    }
}

export const store = new Store();

/** Read a small value; the default where there is none. */
export function recall(name, otherwise) {
    try {
        return JSON.parse(localStorage.getItem(`rwkv.${name}`)) ?? otherwise;
    } catch {
        return otherwise;
    }
}

/** Keep a small value; null forgets it. */
export function remember(name, value) {
    try {
        if (value === null) localStorage.removeItem(`rwkv.${name}`);
        else localStorage.setItem(`rwkv.${name}`, JSON.stringify(value));
    } catch {
        // A browser that keeps nothing: it holds until the page is left.
    }
}

/**
 * What stands in a conversation's composer. Beside the database, since it is kept while one types: it must
 * not take with it what another tab has made of the conversation, nor wait when the page is left.
 */
export const drafts = {
    of: (id) => recall(`draft.${id}`, ""),
    keep: (id, text) => remember(`draft.${id}`, text || null),
};

/** The settings, as one left them. */
export const settings = { ...structuredClone(DEFAULTS), ...recall("settings", {}) };

/** Change settings, and keep them. */
export function changeSettings(changes) {
    Object.assign(settings, changes);
    remember("settings", settings);
}
