/**
 * A conversation: a tree of messages, of which one path is open. Plain data, which is kept and
 * exported as it stands; nothing here knows of the browser.
 *
 * @typedef {Object} Message
 * @property {string} id
 * @property {string|null} parent null: of the root
 * @property {string[]} children what was said next, in the order in which it was said
 * @property {string|null} chosen which of them is open
 * @property {boolean} compare whether they are shown side by side
 * @property {"root"|"user"|"assistant"} role
 * @property {string} text
 * @property {string} thinking what was reasoned before
 * @property {"done"|"cut"|"stopped"|"broken"|"failed"|"writing"} status how the text ended
 * @property {string} [error] what was wrong
 * @property {string} [model] which wrote it
 * @property {Token[]} [tokens]
 * @property {Object} [stats] see job.js
 * @property {{id: string, choice: number}} [response] what the server calls it
 * @property {State} [state] what the server keeps of it
 *
 * @typedef {[string, number, [string, number][]]} Token its text, the logarithm of its probability,
 *   and the same of the most probable ones
 *
 * @typedef {{id: string, name: string, system: string}} State `system` is what the model was told
 *   before all, when it was kept
 *
 * @typedef {Object} Conversation
 * @property {string} id
 * @property {"chat"} kind
 * @property {string} title
 * @property {boolean} named whether the title was given, and not made of the first question
 * @property {number} created milliseconds since 1970
 * @property {number} changed
 * @property {string|null} model null: the server's first
 * @property {string} system what the model is told before all
 * @property {State|null} state where it begins on the server, if not at nothing
 * @property {string} draft what stands in the composer
 * @property {Object<string, Message>} nodes
 */

export const ROOT = "root";

const ROLES = ["user", "assistant"];
const ENDS = ["done", "cut", "stopped", "broken", "failed"];

/** @returns {string} */
export const newId = () =>
    crypto.randomUUID?.() ??
    Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
        byte.toString(16).padStart(2, "0"),
    ).join("");

function newNode(id, parent, role, fields) {
    return {
        id,
        parent,
        children: [],
        chosen: null,
        compare: false,
        role,
        text: "",
        thinking: "",
        status: "done",
        ...fields,
    };
}

/**
 * Begin a conversation.
 * @param {Partial<Conversation>} [fields]
 * @returns {Conversation}
 */
export function newConversation(fields = {}) {
    const now = Date.now();
    return {
        id: newId(),
        kind: "chat",
        title: "",
        named: false,
        created: now,
        changed: now,
        model: null,
        system: "",
        state: null,
        draft: "",
        nodes: { [ROOT]: newNode(ROOT, null, "root", {}) },
        ...fields,
    };
}

/**
 * Say something after a message, and open it.
 * @param {Conversation} conversation
 * @param {string} parent
 * @param {"user"|"assistant"} role
 * @param {Partial<Message>} [fields]
 * @returns {Message}
 */
export function addMessage(conversation, parent, role, fields = {}) {
    const node = newNode(newId(), parent, role, fields);
    conversation.nodes[node.id] = node;
    conversation.nodes[parent].children.push(node.id);
    conversation.nodes[parent].chosen = node.id;
    conversation.changed = Date.now();
    if (role === "user" && !conversation.named && !conversation.title)
        conversation.title = titleOf(node.text);
    return node;
}

/** Return a title for what begins with a text: its first line, cut where a word ends. */
export function titleOf(text) {
    const line = text.trim().split("\n")[0].trim();
    if (line.length <= 60) return line;
    const words = line.slice(0, 60);
    return `${words.slice(0, words.lastIndexOf(" ") > 20 ? words.lastIndexOf(" ") : 60)}…`;
}

/** Return the open path, from the first message to the last. */
export function openPath(conversation) {
    const path = [];
    let node = conversation.nodes[ROOT];
    while (node.chosen) {
        node = conversation.nodes[node.chosen];
        path.push(node);
    }
    return path;
}

/** Return the messages that lead to one, with it. */
export function pathTo(conversation, id) {
    const path = [];
    for (
        let node = conversation.nodes[id];
        node.role !== "root";
        node = conversation.nodes[node.parent]
    )
        path.unshift(node);
    return path;
}

/** Return the messages that were said in the place of one, with it. */
export function siblings(conversation, id) {
    const { parent } = conversation.nodes[id];
    return conversation.nodes[parent].children.map((child) => conversation.nodes[child]);
}

/** Open the path that leads through a message. */
export function choose(conversation, id) {
    for (
        let node = conversation.nodes[id];
        node.role !== "root";
        node = conversation.nodes[node.parent]
    ) {
        conversation.nodes[node.parent].chosen = node.id;
    }
}

/** Open the sibling that stands `step` places after a message; return it, or null at the end. */
export function chooseBeside(conversation, id, step) {
    const all = siblings(conversation, id);
    const beside = all[all.findIndex((node) => node.id === id) + step];
    if (!beside) return null;
    choose(conversation, beside.id);
    return beside;
}

/** Remove a message and all that was said after it; the sibling before it is open then. */
export function removeBranch(conversation, id) {
    const node = conversation.nodes[id];
    const parent = conversation.nodes[node.parent];
    const at = parent.children.indexOf(id);
    parent.children.splice(at, 1);
    if (parent.chosen === id) parent.chosen = parent.children[Math.max(0, at - 1)] ?? null;
    if (parent.children.length < 2) parent.compare = false;
    const left = [id];
    while (left.length) {
        const next = left.pop();
        left.push(...conversation.nodes[next].children);
        delete conversation.nodes[next];
    }
    conversation.changed = Date.now();
}

/**
 * Return what to send, so that the model goes on after a message.
 * @param {Conversation} conversation
 * @param {string} id of the message that it answers, or that it goes on with
 * @param {string} model that is asked: what the server keeps of another does not count
 * @returns {{messages: {role: string, content: string}[], state: State|null}}
 *   the messages after the last state that is kept, or all
 */
export function whatToSend(conversation, id, model) {
    const path = pathTo(conversation, id);
    const isKept = (node) =>
        node.state &&
        node.id !== id &&
        node.model === model &&
        node.state.system === conversation.system;
    const at = path.findLastIndex(isKept);
    const state = at >= 0 ? path[at].state : conversation.state;
    const said = path.slice(at + 1).filter((node) => node.text || node.id === id); // an answer that failed says nothing
    const messages = said.map((node) => ({ role: node.role, content: node.text }));
    if (conversation.system && !state)
        messages.unshift({ role: "system", content: conversation.system });
    return { messages, state };
}

/** Forget a state that the server has not any more. */
export function forgetState(conversation, stateId) {
    for (const node of Object.values(conversation.nodes))
        if (node.state?.id === stateId) delete node.state;
}

/** Whether a conversation has these words, in any branch. */
export function mentions(conversation, words) {
    const texts = [
        conversation.title,
        ...Object.values(conversation.nodes ?? {}).map((node) => node.text),
        conversation.text ?? "",
    ];
    const all = texts.join("\n").toLocaleLowerCase();
    return words
        .toLocaleLowerCase()
        .split(/\s+/)
        .every((word) => all.includes(word));
}

/**
 * Return a conversation made of what somebody gave us, with nothing in it that is not one's.
 * @param {any} given
 * @returns {Conversation}
 * @throws {Error} it is no conversation
 */
export function checked(given) {
    const text = (value) => (typeof value === "string" ? value : "");
    if (given?.nodes?.[ROOT] === undefined)
        throw new Error("conversation: expected a tree of messages, got another value");
    const conversation = newConversation({
        title: text(given.title),
        named: given.named === true,
        system: text(given.system),
    });
    for (const name of ["created", "changed"])
        if (Number.isFinite(given[name])) conversation[name] = given[name];
    if (typeof given.model === "string") conversation.model = given.model;
    conversation.state = stateOf(given.state);
    const names = new Map([[ROOT, ROOT]]);
    const left = [ROOT];
    while (left.length) {
        const from = given.nodes[left[0]];
        const to = conversation.nodes[names.get(left.shift())];
        for (const child of Array.isArray(from.children) ? from.children : []) {
            const node = Object.hasOwn(given.nodes, child) ? given.nodes[child] : null;
            if (!node || names.has(child) || !ROLES.includes(node.role)) {
                throw new Error(
                    `conversation: expected a message of a user or an assistant once, got ${JSON.stringify(child)}`,
                );
            }
            const made = newNode(newId(), to.id, node.role, {
                text: text(node.text),
                thinking: text(node.thinking),
                status: ENDS.includes(node.status) ? node.status : "stopped",
                compare: false,
            });
            if (typeof node.model === "string") made.model = node.model;
            if (stateOf(node.state)) made.state = stateOf(node.state);
            const tokens = tokensOf(node.tokens);
            if (tokens.length) made.tokens = tokens;
            conversation.nodes[made.id] = made;
            to.children.push(made.id);
            names.set(child, made.id);
            left.push(child);
        }
        to.compare = from.compare === true && to.children.length > 1;
        to.chosen = names.get(from.chosen) ?? to.children.at(-1) ?? null;
        if (to.chosen && !to.children.includes(to.chosen)) to.chosen = to.children.at(-1) ?? null;
    }
    return conversation;
}

function stateOf(given) {
    return typeof given?.id === "string"
        ? { id: given.id, name: String(given.name ?? ""), system: String(given.system ?? "") }
        : null;
}

function tokensOf(given) {
    const isPair = (pair) =>
        Array.isArray(pair) && typeof pair[0] === "string" && typeof pair[1] === "number";
    if (!Array.isArray(given)) return [];
    return given
        .filter(isPair)
        .map(([text, logprob, top]) => [
            text,
            logprob,
            Array.isArray(top) ? top.filter(isPair) : [],
        ]);
}
