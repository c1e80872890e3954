/** Asking the model: what is said becomes messages of a tree, and a job that writes the answers. */

import * as api from "./api.js";
import { Job, N_TOP } from "./job.js";
import { requestFields } from "./presets.js";
import { settings } from "./store.js";
import { addMessage, forgetState, whatToSend } from "./tree.js";

/** Tells `begin` (a job), `change` (a message has more), `wait` and `end`; `detail` has the conversation. */
export class Talk extends EventTarget {
    #jobs = new Map();
    #library;
    #askForKey;
    #models;

    /**
     * @param {import("./library.js").Library} library
     * @param {(signal: AbortSignal) => Promise<void>} askForKey
     * @param {() => string[]} models the names of what is served
     */
    constructor(library, askForKey, models) {
        super();
        this.#library = library;
        this.#askForKey = askForKey;
        this.#models = models;
    }

    /** @returns {Job|null} what is being written of a conversation */
    jobOf(id) {
        return this.#jobs.get(id) ?? null;
    }

    /** The model that a conversation asks. */
    modelOf(conversation) {
        const names = this.#models();
        return names.includes(conversation.model)
            ? conversation.model
            : (names[0] ?? conversation.model);
    }

    /** Say something after a message, and let it be answered. */
    ask(conversation, parent, text, n = 1) {
        const question = addMessage(conversation, parent, "user", { text });
        return this.answer(conversation, question.id, n);
    }

    /** Let a question be answered: once, or so many times side by side. */
    answer(conversation, question, n = 1) {
        const before = conversation.nodes[question].children.length;
        const answers = Array.from({ length: n }, () =>
            addMessage(conversation, question, "assistant"),
        );
        const node = conversation.nodes[question];
        node.chosen = answers[0].id;
        if (n > 1) node.compare = true;
        return this.#write(conversation, question, answers, { seeds: before });
    }

    /** Go on with an answer where it ends. */
    goOn(conversation, answer) {
        return this.#write(conversation, answer, [conversation.nodes[answer]], {});
    }

    /** Go on with a text by itself: `target.text` grows. */
    complete(document, target) {
        const body = () => ({
            model: this.modelOf(document),
            prompt: target.text,
            ...(settings.probabilities ? { logprobs: N_TOP } : {}),
            ...requestFields(settings),
        });
        const job = new Job([target], "v1/completions", body, { askForKey: this.#askForKey });
        job.addEventListener("change", () => {
            document.text = target.text;
        });
        return this.#run(document, job);
    }

    /** Let the server keep what an answer ended in. */
    async keep(conversation, answer, name) {
        const node = conversation.nodes[answer];
        const { id } = await api.states.keep(node.response, name);
        node.state = { id, name, system: conversation.system };
        this.#library.save(conversation);
    }

    #write(conversation, at, answers, { seeds = 0 }) {
        const body = () => {
            const model = this.modelOf(conversation);
            const { messages, state } = whatToSend(conversation, at, model);
            const fields = { ...requestFields(settings) };
            if (fields.seed !== undefined) fields.seed += seeds; // another answer, and the same the next time
            if (settings.effort) fields.reasoning_effort = settings.effort;
            if (settings.probabilities)
                Object.assign(fields, { logprobs: true, top_logprobs: N_TOP });
            if (state) fields.state = state.id;
            if (answers.length > 1) fields.n = answers.length;
            return { model, messages, ...fields };
        };
        const onRefused = (error) => {
            const { state } = whatToSend(conversation, at, this.modelOf(conversation));
            if (!state || state === conversation.state || !error.message.startsWith("state: "))
                return false;
            forgetState(conversation, state.id); // all that was said is here, and is read again
            return true;
        };
        return this.#run(
            conversation,
            new Job(answers, "v1/chat/completions", body, {
                askForKey: this.#askForKey,
                onRefused,
            }),
        );
    }

    #run(conversation, job) {
        const tell = (type, detail) =>
            this.dispatchEvent(new CustomEvent(type, { detail: { conversation, job, ...detail } }));
        this.#jobs.set(conversation.id, job);
        this.#library.save(conversation);
        job.addEventListener("change", ({ detail: target }) => {
            this.#library.saveSoon(conversation);
            tell("change", { target });
        });
        job.addEventListener("wait", ({ detail: why }) => tell("wait", { why }));
        job.addEventListener("end", () => {
            this.#jobs.delete(conversation.id);
            conversation.changed = Date.now();
            this.#library.save(conversation);
            tell("end");
        });
        tell("begin");
        return job.run();
    }
}
