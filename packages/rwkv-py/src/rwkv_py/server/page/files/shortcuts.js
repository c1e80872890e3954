/** What the keyboard does, wherever one is on the page. */

import { el } from "./dom.js";
import { dialog } from "./dialogs.js";

const KEYS = [
    ["Enter", "sends"],
    ["Shift + Enter", "begins another line"],
    ["Esc", "stops what is being written, or closes what is open"],
    ["↑", "in an empty message: edits the last question"],
    ["Alt + ← →", "opens the branch before or after"],
    ["Ctrl + Enter", "in a text: goes on with it"],
    ["← →", "among tokens: tells how probable each was"],
    ["Ctrl + K", "searches conversations"],
    ["Ctrl + Shift + O", "begins a conversation"],
    ["Ctrl + ,", "opens the settings"],
    ["?", "shows this list"],
];

const isTyping = (target) => target.matches("input, textarea, select");

/**
 * @param {{stop: () => boolean, turn: (step: number) => void, search: () => void, newChat: () => void, settings: () => void}} hands
 * @returns {{show: () => void}}
 */
export function shortcuts(hands) {
    const rows = KEYS.map(([keys, does]) =>
        el(
            "div.shortcut",
            {},
            el("dt", {}, ...keys.split(" + ").map((key) => el("kbd", { text: key }))),
            el("dd", { text: does }),
        ),
    );
    const list = dialog("Keyboard shortcuts", "small", el("dl.shortcuts", {}, ...rows));
    const show = () => list.showModal();
    document.addEventListener("keydown", (event) => {
        if (document.querySelector("dialog[open]") || event.isComposing) return;
        const control = event.ctrlKey || event.metaKey;
        if (event.key === "Escape" && hands.stop()) event.preventDefault();
        else if (
            event.altKey &&
            !control &&
            ["ArrowLeft", "ArrowRight"].includes(event.key) &&
            !(isTyping(event.target) && event.target.value)
        )
            hands.turn(event.key === "ArrowLeft" ? -1 : 1);
        else if (control && !event.shiftKey && event.key.toLowerCase() === "k") hands.search();
        else if (control && event.shiftKey && event.key.toLowerCase() === "o") hands.newChat();
        else if (control && event.key === ",") hands.settings();
        else if (event.key === "?" && !isTyping(event.target)) show();
        else return;
        event.preventDefault();
    });
    return { show };
}
