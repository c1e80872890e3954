/** The server. Paths are relative to the page, so that it may stand behind another one. */

import { events } from "./sse.js";

const KEY = "rwkv.key";

/** What the server refused: `status` of HTTP, its own sentence, and after how many seconds to try again. */
export class Refused extends Error {
    constructor(status, message, retryAfter) {
        super(message);
        this.status = status;
        this.retryAfter = retryAfter;
    }
}

/** Nobody answered. */
export class Unreachable extends Error {}

/** The key that each request has; it is forgotten with the tab. */
export const key = {
    get: () => sessionStorage.getItem(KEY) ?? "",
    set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

async function ask(path, options = {}) {
    const headers = { ...(options.body ? { "Content-Type": "application/json" } : {}) };
    if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
    let response;
    try {
        response = await fetch(new URL(path, document.baseURI), {
            ...options,
            headers,
            cache: "no-store",
            credentials: "same-origin",
        });
    } catch (error) {
        if (error.name === "AbortError") throw error;
        throw new Unreachable("server: expected an answer, got none");
    }
    if (response.ok) return response;
    let message = `server: expected an answer, got status ${response.status}`;
    try {
        message = (await response.json()).error.message;
    } catch {
        // Something between us and the server, which speaks otherwise.
    }
    const seconds = Number.parseFloat(response.headers.get("Retry-After") ?? "");
    throw new Refused(response.status, message, Number.isFinite(seconds) ? seconds : null);
}

const post = (path, body, signal) =>
    ask(path, { method: "POST", body: JSON.stringify(body), signal });

/** Whether the server answers. */
export async function isThere() {
    try {
        await ask("health", { signal: AbortSignal.timeout(5000) });
        return true;
    } catch (error) {
        return error instanceof Refused && error.status < 500;
    }
}

/** @returns {Promise<string[]>} the names of the models */
export const models = async () =>
    (await (await ask("v1/models")).json()).data.map((model) => model.id);

/** Ask for a text; returns its events. `path` is "v1/chat/completions" or "v1/completions". */
export async function stream(path, body, signal) {
    const response = await post(
        path,
        { ...body, stream: true, stream_options: { include_usage: true } },
        signal,
    );
    return events(response.body);
}

/** What the server keeps. */
export const states = {
    list: async () => (await (await ask("v1/states?limit=1000")).json()).data,
    keep: async (response, name) =>
        (
            await post("v1/states", { response_id: response.id, choice: response.choice, name })
        ).json(),
    remove: (id) => ask(`v1/states/${encodeURIComponent(id)}`, { method: "DELETE" }),
};
