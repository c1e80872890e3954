/**
 * A text, or several, being written: asked for until the server has room, taken piece by piece, and
 * stopped when somebody wishes. What it writes into are messages of a tree, or a text by itself.
 */

import { Refused, Unreachable, stream } from "./api.js";
import { connection, countDown } from "./connection.js";
import { Lost } from "./sse.js";

/** How long writing has to take for its speed to be told without the reading. */
const LEAST_SECONDS = 0.25;

/** How many probable tokens to ask for with each. */
export const N_TOP = 5;

/**
 * @typedef {Object} Target what is written into: `text` and `thinking` grow
 * @property {string} text
 * @property {string} thinking
 * @property {string} status
 *
 * @typedef {Object} Stats
 * @property {number} first seconds to the first piece
 * @property {number} seconds from there to the last
 * @property {number} tokens written, in all texts together
 * @property {number} texts how many there were
 * @property {number} prompt tokens of the prompt
 * @property {number} cached of them, not read again
 */

/** Tells `change` (a target has more), `wait` (why nothing comes, or null) and `end`. */
export class Job extends EventTarget {
    #controller = new AbortController();
    #begun = 0;
    #firstAt = 0;
    #lastAt = 0;

    /**
     * @param {Target[]} targets one for each text that is asked for
     * @param {string} path "v1/chat/completions" or "v1/completions"
     * @param {() => Object} body what to ask; called again for each attempt
     * @param {{askForKey: (signal: AbortSignal) => Promise<void>, onRefused?: (error: Refused) => boolean}} hands
     *   gets a key from whoever sits there; may change what `body` returns, and have it asked again
     */
    constructor(targets, path, body, hands) {
        super();
        this.targets = targets;
        this.path = path;
        this.body = body;
        this.hands = hands;
        for (const target of targets) Object.assign(target, { status: "writing", error: undefined });
    }

    /** Stop; what was written stays. */
    stop() {
        this.#controller.abort();
    }

    /** Write; ends when all is written, or nothing more can be. Never fails: the targets say how it went. */
    async run() {
        const before = this.targets.map(({ text, tokens = [] }) => ({ text, nTokens: tokens.length }));
        let status = "stopped";
        let error;
        try {
            while (!(await this.#attempt(before)));
            status = "done";
        } catch (caught) {
            if (caught.name !== "AbortError") {
                const isLost = caught instanceof Lost;
                status = isLost || caught.status >= 500 ? "broken" : "failed";
                error = isLost ? undefined : caught.message;
                if (isLost) connection.lost();
            }
        }
        this.#tell("wait", null);
        for (const target of this.targets) {
            if (target.status === "writing") Object.assign(target, { status, error });
        }
        this.#tell("end");
    }

    /** Ask once; `before` is how far the texts were. Returns whether they are written; else says what it waits for, and does. */
    async #attempt(before) {
        const { signal } = this.#controller;
        try {
            signal.throwIfAborted();
            this.#begun = performance.now();
            this.#firstAt = 0;
            this.targets.forEach((target, i) => target.tokens?.splice(before[i].nTokens));
            for await (const event of await stream(this.path, this.body(), signal))
                this.#take(event);
            return true;
        } catch (error) {
            const nothing = this.targets.every(
                (target, i) => target.text === before[i].text && !target.thinking,
            );
            if (error instanceof Unreachable || (error instanceof Lost && nothing)) {
                this.#tell("wait", { reason: "lost" });
                await connection.back(signal);
            } else if (error instanceof Refused && error.status === 401) {
                this.#tell("wait", { reason: "key" });
                await this.hands.askForKey(signal);
            } else if (error instanceof Refused && (error.status === 429 || error.status === 503)) {
                await countDown(error.retryAfter ?? 5, signal, (seconds) =>
                    this.#tell("wait", {
                        reason: error.status === 429 ? "full" : "busy",
                        seconds,
                        message: error.message,
                    }),
                );
            } else if (!(error instanceof Refused && this.hands.onRefused?.(error))) {
                throw error;
            }
            this.#tell("wait", { reason: "again" });
            return false;
        }
    }

    #take(event) {
        if (event.error)
            throw new Refused(
                event.error.type === "server_error" ? 500 : 400,
                event.error.message,
                null,
            );
        if (event.usage) this.#finish(event.usage);
        for (const choice of event.choices ?? []) {
            const target = this.targets[choice.index];
            const { content, reasoning_content: thinking } = choice.delta ?? {
                content: choice.text,
            };
            if (thinking) target.thinking += thinking;
            if (content) target.text += content;
            if (choice.logprobs) (target.tokens ??= []).push(...tokensOf(choice.logprobs));
            if (content || thinking) this.#lastAt = performance.now();
            if (!this.#firstAt && (content || thinking)) {
                this.#firstAt = this.#lastAt;
                this.#tell("wait", null);
            }
            if (choice.finish_reason)
                target.status = choice.finish_reason === "length" ? "cut" : "done";
            target.response = { id: event.id, choice: choice.index };
            target.model = event.model;
            this.#tell("change", target);
        }
    }

    #finish(usage) {
        const stats = {
            first: Math.max(0, this.#firstAt - this.#begun) / 1000,
            seconds: (this.#lastAt - this.#firstAt) / 1000,
            tokens: usage.completion_tokens,
            texts: this.targets.length,
            prompt: usage.prompt_tokens,
            cached: usage.prompt_tokens_details?.cached_tokens ?? 0,
        };
        for (const target of this.targets) target.stats = stats;
    }

    #tell(type, detail = null) {
        this.dispatchEvent(new CustomEvent(type, { detail }));
    }
}

/** Return tokens of either form as triples: see tree.js. */
function tokensOf(logprobs) {
    if (logprobs.content) {
        return logprobs.content.map((each) => [
            each.token,
            each.logprob,
            each.top_logprobs.map((top) => [top.token, top.logprob]),
        ]);
    }
    return logprobs.tokens.map((token, i) => [
        token,
        logprobs.token_logprobs[i] ?? 0,
        Object.entries(logprobs.top_logprobs?.[i] ?? {}),
    ]);
}

/** Say why nothing comes, in a line. */
export function waitLine({ reason, seconds }) {
    if (reason === "lost")
        return "The server does not answer. It is asked again as soon as it does.";
    if (reason === "key") return "The server asks for a key.";
    if (reason === "full")
        return `The server is full, and you wait in line. Next try in ${seconds} s.`;
    if (reason === "busy") return `The server cannot do it now. Next try in ${seconds} s.`;
    return "Asking again …";
}

/** Say how fast it was, in a line. */
export function speedLine({ first, seconds, tokens, texts, prompt, cached }) {
    // What came at once says nothing of how fast it was written; then the reading counts, too.
    const speed = seconds < LEAST_SECONDS ? tokens / (first + seconds) : (tokens - texts) / seconds;
    const parts = [
        `${speed.toFixed(speed < 10 ? 1 : 0)} tokens/s${texts > 1 ? " together" : ""}`,
        `first after ${first.toFixed(first < 10 ? 2 : 0)} s`,
        `${tokens} tokens`,
        `prompt ${prompt}, ${cached} cached`,
    ];
    return parts.map((part) => part.replaceAll(" ", "\u00a0")).join(" · ");
}
