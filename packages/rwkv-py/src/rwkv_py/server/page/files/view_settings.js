/** The settings: what the model is told, how tokens are chosen, how it looks, and what is kept. */

import { button, el, fill, fitHeight } from "./dom.js";
import { dialog } from "./dialogs.js";
import { DEFAULTS, EFFORTS, FIELDS, PRESETS, presetOf } from "./presets.js";
import { changeSettings, recall, remember, settings } from "./store.js";

const THEMES = [
    { id: "", label: "As the system" },
    { id: "light", label: "Light" },
    { id: "dark", label: "Dark" },
];

/** Let the page be light, dark, or as the system is (""). */
export function setTheme(theme) {
    remember("theme", theme || null);
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
}

/** Change from light to dark, or back. */
export function switchTheme() {
    const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    const now = document.documentElement.dataset.theme ?? system;
    setTheme(now === "dark" ? "light" : "dark");
}

/**
 * @typedef {Object} Hands
 * @property {() => string} system the system text of the open conversation
 * @property {(text: string) => void} setSystem
 * @property {() => void} redraw the settings show in messages
 * @property {() => void} exportAll
 * @property {() => void} importFile
 * @property {() => void} forgetKey
 */
export class SettingsView {
    #hands;
    #body = el("div.settings");
    #dialog;

    /** @param {Hands} hands */
    constructor(hands) {
        this.#hands = hands;
        this.#dialog = dialog("Settings", "panel", this.#body);
        this.#dialog.addEventListener("close", () => hands.redraw());
    }

    open() {
        this.#draw();
        this.#dialog.showModal();
        const area = this.#body.querySelector("textarea");
        if (area) fitHeight(area);
    }

    #draw() {
        fill(this.#body, this.#told(), this.#sampling(), this.#looks(), this.#kept());
    }

    #told() {
        const area = el("textarea", {
            rows: "3",
            value: this.#hands.system(),
            placeholder: "You explain Python in one sentence.",
        });
        area.addEventListener("input", () => {
            fitHeight(area);
            this.#hands.setSystem(area.value);
        });
        return section(
            "Before all",
            field(
                "System text",
                area,
                "What the model is told before the conversation. New conversations begin with it, too.",
            ),
            field(
                "Reasoning",
                choice(EFFORTS, settings.effort, (effort) => changeSettings({ effort })),
                "How much a model of the G1 series reasons before it answers.",
            ),
        );
    }

    #sampling() {
        const presets = [...PRESETS, { id: "own", label: "My own" }];
        const preset = choice(presets, presetOf(settings.values) ?? "own", (id) => {
            if (id === "own") return;
            changeSettings({ values: { ...PRESETS.find((each) => each.id === id).values } });
            this.#draw();
            this.#body.querySelector('[name="preset"]').focus();
        });
        preset.name = "preset";
        const numbers = FIELDS.map((each) =>
            this.#number(each, settings.values[each.name], (value) => {
                const values = { ...settings.values };
                if (value === null) delete values[each.name];
                else values[each.name] = value;
                changeSettings({ values });
                preset.value = presetOf(values) ?? "own";
            }),
        );
        const most = this.#number(
            {
                name: "max_tokens",
                label: "Most tokens",
                help: "How long an answer is at most, reasoning included.",
                min: 1,
                step: 1,
            },
            settings.max_tokens,
            (value) => changeSettings({ max_tokens: value ?? DEFAULTS.max_tokens }),
        );
        const seed = this.#number(
            {
                name: "seed",
                label: "Seed",
                help: "The same seed gives the same text.",
                min: 0,
                step: 1,
            },
            settings.seed,
            (value) => changeSettings({ seed: value }),
            "random",
        );
        const stop = el("input", {
            type: "text",
            value: settings.stop.map((text) => text.replaceAll("\n", "\\n")).join(", "),
            placeholder: "none",
        });
        stop.addEventListener("change", () => {
            const texts = stop.value
                .split(",")
                .map((text) => text.trim().replaceAll("\\n", "\n"))
                .filter(Boolean);
            changeSettings({ stop: texts });
        });
        return section(
            "How tokens are chosen",
            field("Preset", preset, "RWKV's own choices; change a number for one of your own."),
            el("div.numbers", {}, ...numbers, most, seed),
            field("Stop before", stop, "Texts, with commas between them; \\n is a new line."),
        );
    }

    #number({ name, label, help, min, max, step }, value, change, empty = "the server's") {
        const input = el("input", {
            type: "number",
            name,
            inputmode: "decimal",
            min,
            max,
            step: step === 1 ? 1 : "any",
            value: value ?? "",
            placeholder: empty,
        });
        input.addEventListener("change", () => {
            const number = input.value === "" ? null : Number(input.value);
            if (input.checkValidity()) change(number);
            input.setAttribute("aria-invalid", String(!input.checkValidity()));
        });
        return field(label, input, help);
    }

    #looks() {
        const theme = choice(THEMES, recall("theme", ""), setTheme);
        return section(
            "How it looks",
            field("Colours", theme),
            toggle(
                "Markdown",
                "Answers are shown with headings, lists and code.",
                settings.markdown,
                (markdown) => changeSettings({ markdown }),
            ),
            toggle(
                "Probabilities",
                "Answers come with how probable each token was.",
                settings.probabilities,
                (probabilities) => changeSettings({ probabilities }),
            ),
        );
    }

    #kept() {
        const { exportAll, importFile, forgetKey } = this.#hands;
        return section(
            "What is kept",
            el("p.help", {
                text: "Conversations are kept in this browser, and nowhere else. A key is kept until this tab is closed.",
            }),
            el(
                "div.rows",
                {},
                button("Export all conversations", exportAll),
                button("Import conversations", importFile),
                button("Forget the key", forgetKey),
            ),
        );
    }
}

function section(title, ...children) {
    return el("section", {}, el("h3", { text: title }), ...children);
}

let nFields = 0;

function field(label, control, help = "") {
    nFields += 1;
    control.id = `field-${nFields}`;
    if (help) control.setAttribute("aria-describedby", `help-${nFields}`);
    return el(
        "div.field",
        {},
        el("label", { for: control.id, text: label }),
        control,
        help && el("p.help", { id: `help-${nFields}`, text: help }),
    );
}

function choice(options, value, change) {
    const select = el(
        "select",
        {},
        ...options.map(({ id, label }) => el("option", { value: id, text: label })),
    );
    select.value = value;
    select.addEventListener("change", () => change(select.value));
    return select;
}

function toggle(label, help, value, change) {
    const input = el("input", { type: "checkbox" });
    input.checked = value;
    input.addEventListener("change", () => change(input.checked));
    return el(
        "label.toggle",
        {},
        input,
        el("span", {}, el("strong", { text: label }), el("span.help", { text: help })),
    );
}
