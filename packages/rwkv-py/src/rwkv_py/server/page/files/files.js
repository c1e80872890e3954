/** Conversations as files: JSON, which can be read again, and Markdown, for people. */

import { checked, newId, openPath } from "./tree.js";

const FORMAT = "rwkv-conversations";

/** Return conversations as JSON. */
export function toJson(conversations) {
    return JSON.stringify({ format: FORMAT, version: 1, conversations }, null, 1);
}

/**
 * Read conversations from JSON, whoever wrote it.
 * @param {string} text
 * @returns {any[]}
 * @throws {Error} there are none
 */
export function fromJson(text) {
    let given;
    try {
        given = JSON.parse(text);
    } catch {
        throw new Error("file: expected JSON, got another text");
    }
    if (given?.format !== FORMAT || !Array.isArray(given.conversations)) {
        throw new Error(`file: expected conversations of this page, got another JSON`);
    }
    return given.conversations.map((each) =>
        each?.kind === "text" ? checkedText(each) : checked(each),
    );
}

function checkedText(given) {
    if (typeof given.text !== "string") throw new Error("text: expected one, got none");
    return newText({ title: typeof given.title === "string" ? given.title : "", text: given.text });
}

/** Begin a text by itself: what the model goes on with, without turns. */
export function newText(fields = {}) {
    const now = Date.now();
    return {
        id: newId(),
        kind: "text",
        title: "",
        named: false,
        created: now,
        changed: now,
        model: null,
        text: "",
        before: [],
        after: [],
        ...fields,
    };
}

/** Return the open path of a conversation as Markdown; of a text, the text. */
export function toMarkdown(conversation) {
    if (conversation.kind === "text")
        return `# ${conversation.title || "Text"}\n\n${conversation.text}\n`;
    const parts = [`# ${conversation.title || "Conversation"}`];
    if (conversation.system) parts.push(`> ${conversation.system.replaceAll("\n", "\n> ")}`);
    for (const node of openPath(conversation)) {
        parts.push(node.role === "user" ? "## You" : `## ${node.model ?? "Answer"}`);
        if (node.thinking)
            parts.push(
                `<details><summary>Reasoning</summary>\n\n${node.thinking.trim()}\n\n</details>`,
            );
        parts.push(node.text.trim());
    }
    return `${parts.join("\n\n")}\n`;
}

/** Let the browser save a text as a file. */
export function save(text, name, type) {
    const url = URL.createObjectURL(new Blob([text], { type }));
    const link = document.createElement("a");
    link.href = url;
    link.download = name.replace(/[^\p{L}\p{N}._ -]+/gu, "_").slice(0, 80);
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** Let somebody choose a file, and return its text; null if none is chosen. */
export function chooseFile() {
    return new Promise((resolve) => {
        const input = document.createElement("input");
        input.type = "file";
        input.accept = ".json,application/json";
        input.addEventListener("change", async () =>
            resolve(input.files.length ? await input.files[0].text() : null),
        );
        input.addEventListener("cancel", () => resolve(null));
        input.click();
    });
}
