/** Whether the server answers: asked again and again while it does not. */

import { isThere } from "./api.js";

const FIRST_SECONDS = 1;
const LONGEST_SECONDS = 15;

/** Wait; ends with an AbortError if the signal is given before. */
export function wait(milliseconds, signal) {
    return new Promise((resolve, reject) => {
        const timer = setTimeout(resolve, milliseconds);
        const end = () => {
            clearTimeout(timer);
            reject(new DOMException("cancelled", "AbortError"));
        };
        if (signal?.aborted) end();
        signal?.addEventListener("abort", end, { once: true });
    });
}

/** Count seconds down: `tell` gets what is left, each second. */
export async function countDown(seconds, signal, tell) {
    for (let left = Math.ceil(seconds); left > 0; left -= 1) {
        tell(left);
        await wait(1000, signal);
    }
}

/** Tells `lost` (with the seconds until it is asked again) and `found`. */
class Connection extends EventTarget {
    #watching = null;

    /** Whether the server answered when it was last asked. */
    get isLost() {
        return this.#watching !== null;
    }

    /** Somebody got no answer: ask until there is one. The promise is that of all who wait. */
    lost() {
        this.#watching ??= this.#watch().finally(() => {
            this.#watching = null;
            this.dispatchEvent(new Event("found"));
        });
        return this.#watching;
    }

    /** Wait for the server, or for the signal. */
    async back(signal) {
        const cancelled = new Promise((_, reject) => {
            const end = () => reject(new DOMException("cancelled", "AbortError"));
            if (signal.aborted) end();
            signal.addEventListener("abort", end, { once: true });
        });
        await Promise.race([this.lost(), cancelled]);
    }

    async #watch() {
        let seconds = FIRST_SECONDS;
        do {
            await countDown(seconds, null, (left) =>
                this.dispatchEvent(new CustomEvent("lost", { detail: left })),
            );
            seconds = Math.min(seconds * 2, LONGEST_SECONDS);
        } while (!(await isThere()));
    }
}

export const connection = new Connection();
