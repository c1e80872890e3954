/** How probable each token of a text was: shown in colour, told on hover and by the arrow keys. */

import { el, icon } from "./dom.js";

const BANDS = [0.9, 0.6, 0.3, 0.1, 0.02]; // class p0 above the first, p5 below the last

const percent = (logprob) => {
    const share = 100 * Math.exp(logprob);
    return share < 0.05 && share > 0 ? "< 0.1 %" : `${share.toFixed(1)} %`;
};

/** Write a token so that what cannot be seen is seen. */
const shown = (text) =>
    text.replaceAll("\n", "↵").replaceAll("\t", "→").replace(/^ | $/g, "·") || "(the end)";

/** Words for one token: "json, 92.1 %". */
export const told = ([text, logprob]) => `${shown(text)}, ${percent(logprob)}`;

/**
 * Show tokens.
 * @param {import("./tree.js").Token[]} tokens
 * @returns {HTMLElement}
 */
export function tokensView(tokens) {
    const tip = el("div.tip", { role: "status", hidden: true });
    const spans = tokens.map((token, i) => {
        const band = BANDS.findIndex((least) => Math.exp(token[1]) >= least);
        const visible = token[0].startsWith("bytes:") ? "▯" : token[0].replace(/\n/g, "↵\n");
        return el(`span.token.p${band < 0 ? BANDS.length : band}`, {
            "data-at": i,
            text: visible || "∎",
        });
    });
    const text = el(
        "div.tokens-text",
        {
            tabindex: "0",
            role: "group",
            "aria-label":
                "Tokens and how probable they were: the arrow keys go from one to the next",
        },
        ...spans,
    );
    let current = null;
    const show = (i) => {
        spans[current]?.classList.remove("current");
        current = i;
        if (i === null) {
            tip.hidden = true;
            return;
        }
        spans[i].classList.add("current");
        tip.replaceChildren(...tipOf(tokens[i]));
        tip.hidden = false;
        place(tip, spans[i], box);
    };
    text.addEventListener("pointerover", ({ target }) => {
        if (target.dataset.at !== undefined) show(Number(target.dataset.at));
    });
    text.addEventListener("pointerleave", () => show(null));
    text.addEventListener("focusout", () => show(null));
    text.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (step === undefined || event.altKey) return;
        event.preventDefault();
        event.stopPropagation();
        const next = current === null ? (step > 0 ? 0 : spans.length - 1) : current + step;
        if (spans[next]) show(next);
    });
    const legend = el(
        "div.tokens-legend",
        { "aria-hidden": "true" },
        "likely",
        ...[0, 1, 2, 3, 4, 5].map((i) => el(`span.token.p${i}`, { text: " " })),
        "unlikely",
    );
    const box = el("div.tokens", {}, text, legend, tip);
    return box;
}

function tipOf([text, logprob, top]) {
    const rows = top.some(([each]) => each === text) ? top : [...top, [text, logprob]];
    return rows.map(([each, its]) => {
        const bar = el("span.bar");
        bar.style.inlineSize = `${(100 * Math.exp(its)).toFixed(1)}%`;
        const mark =
            each === text
                ? el("span.mark", { "aria-label": "chosen" }, icon("check"))
                : el("span.mark");
        return el(
            "div.tip-row",
            {},
            mark,
            el("code", { text: shown(each) }),
            el("span.bar-box", { "aria-hidden": "true" }, bar),
            el("span.share", { text: percent(its) }),
        );
    });
}

/** Let the tip stand below a token, inside the box. */
function place(tip, span, box) {
    const outer = box.getBoundingClientRect();
    const inner = span.getClientRects()[0] ?? span.getBoundingClientRect();
    tip.style.top = `${inner.bottom - outer.top + 6}px`;
    tip.style.left = `${Math.max(0, Math.min(inner.left - outer.left, outer.width - tip.offsetWidth))}px`;
}
