/** The settings of sampling, and RWKV's own choices of them. */

/**
 * @typedef {Object} Field
 * @property {string} name as the server calls it
 * @property {string} label
 * @property {string} help
 * @property {number} [min]
 * @property {number} [max]
 * @property {number} step
 */

/** @type {Field[]} */
export const FIELDS = [
    {
        name: "temperature",
        label: "Temperature",
        help: "How daring the choice is; 0 takes the most probable token.",
        min: 0,
        step: 0.05,
    },
    {
        name: "top_p",
        label: "Top-p",
        help: "Choose of the most probable, until they add up to it; 1 is off.",
        min: 0,
        max: 1,
        step: 0.05,
    },
    {
        name: "top_k",
        label: "Top-k",
        help: "Choose of so many at most; 0 is off.",
        min: 0,
        step: 1,
    },
    {
        name: "min_p",
        label: "Min-p",
        help: "Choose of those with this share of the most probable; 0 is off.",
        min: 0,
        max: 1,
        step: 0.01,
    },
    {
        name: "typical_p",
        label: "Typical-p",
        help: "Choose of the most typical, until they add up to it; 1 is off.",
        min: 0,
        max: 1,
        step: 0.05,
    },
    {
        name: "presence_penalty",
        label: "Presence penalty",
        help: "Taken from the logits of tokens that came before; 0 is off.",
        step: 0.1,
    },
    {
        name: "frequency_penalty",
        label: "Frequency penalty",
        help: "The same, times how often they came; 0 is off.",
        step: 0.1,
    },
    {
        name: "penalty_decay",
        label: "Penalty decay",
        help: "What is left of each count after another token; 1 never forgets.",
        min: 0,
        max: 1,
        step: 0.001,
    },
    {
        name: "repetition_penalty",
        label: "Repetition penalty",
        help: "Divides the logits of tokens that came before; 1 is off.",
        min: 0.01,
        step: 0.05,
    },
    {
        name: "mirostat_tau",
        label: "Mirostat τ",
        help: "Bits of surprise to keep, in place of top-p, top-k, min-p and typical-p; 0 is off.",
        min: 0,
        step: 0.5,
    },
    {
        name: "mirostat_eta",
        label: "Mirostat η",
        help: "How fast mirostat follows.",
        min: 0,
        step: 0.05,
    },
];

/** @type {{id: string, label: string, values: Object<string, number>}[]} */
export const PRESETS = [
    { id: "server", label: "As the server has it", values: {} },
    {
        id: "world",
        label: "World chat",
        values: {
            temperature: 1,
            top_p: 0.3,
            presence_penalty: 0.5,
            frequency_penalty: 0.5,
            penalty_decay: 0.996,
        },
    },
    {
        id: "g1",
        label: "G1 chat",
        values: {
            temperature: 0.96,
            top_p: 0.76,
            top_k: 32,
            presence_penalty: 1,
            frequency_penalty: 0.1,
            penalty_decay: 0.988,
        },
    },
    {
        id: "g1-think",
        label: "G1 reasoning",
        values: {
            temperature: 1,
            top_p: 0.5,
            presence_penalty: 0,
            frequency_penalty: 0,
            penalty_decay: 0.997,
        },
    },
    {
        id: "g1-fast",
        label: "G1 without reasoning",
        values: {
            temperature: 1,
            top_p: 0.28,
            top_k: 32,
            presence_penalty: 0,
            frequency_penalty: 0,
            penalty_decay: 0.996,
        },
    },
    {
        id: "exact",
        label: "Exact: the most probable",
        values: { temperature: 0, presence_penalty: 0, frequency_penalty: 0 },
    },
];

/** How much to reason before the answer: what is sent as `reasoning_effort`. */
export const EFFORTS = [
    { id: "", label: "As the server has it" },
    { id: "none", label: "Not at all" },
    { id: "low", label: "A little" },
    { id: "medium", label: "Normally" },
    { id: "high", label: "A lot" },
];

/** Settings as they are before anybody changes them. */
export const DEFAULTS = {
    preset: "server",
    values: {},
    effort: "",
    max_tokens: 1024,
    seed: null,
    stop: [],
    system: "",
    answers: 1,
    probabilities: true,
    markdown: true,
};

/** Return the preset that has these values, or null. */
export function presetOf(values) {
    const same = ({ values: own }) => {
        const names = new Set([...Object.keys(own), ...Object.keys(values)]);
        return [...names].every((name) => own[name] === values[name]);
    };
    return PRESETS.find(same)?.id ?? null;
}

/** Return the fields of a request that the settings stand for, for both kinds of text. */
export function requestFields(settings) {
    const fields = { ...settings.values, max_tokens: settings.max_tokens };
    if (settings.seed !== null) fields.seed = settings.seed;
    if (settings.stop.length) fields.stop = settings.stop;
    return fields;
}
