/** Elements. Text only ever becomes text: no string is read as markup anywhere on this page. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * Make an element.
 * @param {string} name such as "button" or "p.quiet.small"
 * @param {Object<string, any>} [properties] attributes; `on…` are listeners, `text` is the text;
 *   of true there is the attribute, of false, null and undefined there is none
 * @param {...(Node|string|null|undefined|false)} children those that are nothing are left out
 * @returns {HTMLElement}
 */
export function el(name, properties = {}, ...children) {
    const [tag, ...classes] = name.split(".");
    const element = document.createElement(tag);
    if (classes.length) element.className = classes.join(" ");
    for (const [key, value] of Object.entries(properties)) {
        if (key === "text") element.textContent = value;
        else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
        else if (key === "value") element.value = value;
        else if (value !== false && value !== null && value !== undefined) {
            element.setAttribute(key, value === true ? "" : String(value));
        }
    }
    element.append(...children.filter((child) => child || child === ""));
    return element;
}

// Each drawn in a square of 24, with lines of 1.8.
const ICONS = {
    add: "M12 5v14M5 12h14",
    back: "M15 6l-6 6 6 6",
    check: "M5 13l4 4L19 7",
    close: "M6 6l12 12M18 6L6 18",
    columns: "M4 5h16v14H4zM12 5v14",
    copy: "M9 9h11v11H9zM5 15H4V4h11v1",
    edit: "M4 20h4L19 9l-4-4L4 16zM13 7l4 4",
    forth: "M9 6l6 6-6 6",
    keep: "M6 4h12v16l-6-4-6 4z",
    menu: "M4 7h16M4 12h16M4 17h16",
    moon: "M20 14A8 8 0 0 1 10 4a8 8 0 1 0 10 10z",
    more: "M5 11.2a.8.8 0 1 0 0 1.6.8.8 0 0 0 0-1.6zM12 11.2a.8.8 0 1 0 0 1.6.8.8 0 0 0 0-1.6zM19 11.2a.8.8 0 1 0 0 1.6.8.8 0 0 0 0-1.6z",
    probability: "M5 20v-6M10 20V4M15 20v-9M20 20v-4",
    redo: "M20 11a8 8 0 1 0-2 6M20 5v6h-6",
    search: "M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14zM16 16l4 4",
    send: "M12 19V5M6 11l6-6 6 6",
    settings:
        "M4 8h8M17 8h3M4 16h3M12 16h8M14.5 5.5a2.5 2.5 0 1 0 0 5 2.5 2.5 0 0 0 0-5zM9.5 13.5a2.5 2.5 0 1 0 0 5 2.5 2.5 0 0 0 0-5z",
    stop: "M7 7h10v10H7z",
    sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2v3M12 19v3M2 12h3M19 12h3M5 5l2 2M17 17l2 2M19 5l-2 2M7 17l-2 2",
    text: "M5 6h14M5 11h14M5 16h8",
    trash: "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13",
};

/**
 * Draw an icon; who reads the page aloud does not see it.
 * @param {keyof typeof ICONS} name
 */
export function icon(name) {
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", "0 0 24 24");
    svg.setAttribute("class", `icon icon-${name}`);
    svg.setAttribute("aria-hidden", "true");
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", ICONS[name]);
    svg.append(path);
    return svg;
}

/**
 * Make a button that shows an icon, and is named in words.
 * @param {keyof typeof ICONS} name of the icon
 * @param {string} label
 * @param {(event: Event) => any} onclick
 * @param {Object<string, any>} [properties]
 */
export function iconButton(name, label, onclick, properties = {}) {
    const { class: extra, ...rest } = properties;
    const button = el(
        "button.icon-button",
        { type: "button", "aria-label": label, title: label, onclick, ...rest },
        icon(name),
    );
    if (extra) button.classList.add(...extra.split(" "));
    return button;
}

/** Make a button that shows words. */
export function button(label, onclick, properties = {}) {
    return el("button.button", { type: "button", onclick, ...properties }, label);
}

/** Copy a text, also where the page came over a network without encryption. */
export async function copyText(text) {
    if (navigator.clipboard) return navigator.clipboard.writeText(text);
    const area = el("textarea", { class: "hidden", value: text });
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    const before = document.activeElement;
    area.select();
    document.execCommand("copy");
    area.remove();
    before?.focus();
}

/** Let an element have these children and no others. */
export function fill(element, ...children) {
    element.replaceChildren(...children.filter((child) => child || child === ""));
    return element;
}

/**
 * The same, for children of which some are there already: those stay where they are, with the focus in
 * them and as far as they are scrolled.
 */
export function arrange(element, children) {
    for (const child of [...element.childNodes]) if (!children.includes(child)) child.remove();
    children.forEach((child, i) => {
        if (element.childNodes[i] !== child)
            element.insertBefore(child, element.childNodes[i] ?? null);
    });
}

/** Return a function that runs at most once a frame, with its last arguments. */
export function oncePerFrame(run) {
    let waiting = null;
    return (...given) => {
        const first = waiting === null;
        waiting = given;
        if (first) {
            requestAnimationFrame(() => {
                const last = waiting;
                waiting = null;
                run(...last);
            });
        }
    };
}

/** Make a text area as high as its text, up to what its style allows. */
export function fitHeight(area) {
    area.style.height = "auto";
    area.style.height = `${area.scrollHeight + area.offsetHeight - area.clientHeight}px`;
}
