/** What the server keeps: states, where conversations can begin. */

import { states } from "./api.js";
import { button, el, fill } from "./dom.js";
import { dialog } from "./dialogs.js";

const size = (bytes) =>
    bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;

export class StatesView {
    #hands;
    #body = el("div.states");
    #dialog;

    /** @param {{begin: (state: any) => void, tell: (text: string) => void}} hands */
    constructor(hands) {
        this.#hands = hands;
        this.#dialog = dialog(
            "States on the server",
            "panel",
            el("p.help", {
                text: "What the model remembers after an answer, kept by the server. A conversation that begins there has read all of it already.",
            }),
            this.#body,
        );
    }

    async open() {
        fill(this.#body, el("p.help", { text: "Asking the server …" }));
        this.#dialog.showModal();
        await this.#draw();
    }

    async #draw() {
        let found;
        try {
            found = await states.list();
        } catch (error) {
            fill(this.#body, el("p.error", { role: "alert", text: error.message }));
            return;
        }
        if (!found.length) {
            fill(
                this.#body,
                el("p.nothing", {
                    text: "None yet. “Keep the state here” is in the menu of each answer.",
                }),
            );
            return;
        }
        const rows = found.toReversed().map((state) => {
            const name = state.name || state.id;
            const begin = () => {
                this.#dialog.close();
                this.#hands.begin(state);
            };
            const remove = async () => {
                try {
                    await states.remove(state.id);
                } catch (error) {
                    this.#hands.tell(error.message);
                }
                await this.#draw();
                (
                    this.#body.querySelector("button") ?? this.#dialog.querySelector("button")
                ).focus();
            };
            const facts = [
                state.model,
                state.tokens === null ? null : `${state.tokens} tokens`,
                size(state.bytes),
                new Date(state.created * 1000).toLocaleString(),
            ];
            return el(
                "li.state",
                {},
                el("strong", { text: name }),
                el("span.help", { text: facts.filter(Boolean).join(" · ") }),
                el(
                    "div.rows",
                    {},
                    button("Begin here", begin, {
                        class: "button primary",
                        "aria-label": `Begin at ${name}`,
                    }),
                    button("Delete", remove, { "aria-label": `Delete ${name}` }),
                ),
            );
        });
        fill(this.#body, el("ul.state-list", {}, ...rows));
    }
}
