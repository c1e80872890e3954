/**
 * What is said to those who listen to the page: whole sentences of an answer, now and then, and not
 * each piece as it comes.
 */

const SECONDS_BETWEEN = 3;

/** Return how much of a text is whole sentences. */
export function wholeSentences(text) {
    const ends = [...text.matchAll(/[.!?。!?:](?=\s)|\n/g)];
    return ends.length ? ends.at(-1).index + 1 : 0;
}

/** Says things in a live region. */
export class Announcer {
    #region;
    #said = 0;
    #saidAt = 0;

    /** @param {HTMLElement} region an element with role="status" */
    constructor(region) {
        this.#region = region;
    }

    /** Say a sentence now. */
    say(text) {
        this.#region.textContent = text;
    }

    /** An answer begins. */
    begin() {
        this.#said = 0;
        this.#saidAt = performance.now();
        this.say("Answering");
    }

    /** The answer so far: what is whole of it is said, if it was quiet for a while. */
    more(text) {
        if (performance.now() - this.#saidAt < SECONDS_BETWEEN * 1000) return;
        const whole = wholeSentences(text);
        if (whole > this.#said) this.#tell(text, whole);
    }

    /** The answer is there: the rest is said. */
    end(text) {
        this.#tell(text, text.length);
    }

    #tell(text, end) {
        const rest = text.slice(this.#said, end).trim();
        this.#said = end;
        this.#saidAt = performance.now();
        this.say(rest || "The answer has ended");
    }
}
