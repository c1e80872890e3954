/** A button that opens a menu. */

import { el, iconButton } from "./dom.js";

/**
 * @param {keyof import("./dom.js").ICONS} iconName
 * @param {string} label
 * @param {() => ({label: string, run: () => any, danger?: boolean}|false)[]} entries asked for each time it opens
 */
export function menuButton(iconName, label, entries) {
    const list = el("div.menu", { role: "menu", "aria-label": label, hidden: true });
    const opener = iconButton(iconName, label, () => (list.hidden ? open() : close()), {
        "aria-haspopup": "menu",
        "aria-expanded": "false",
    });
    const box = el("div.menu-box", {}, opener, list);
    const items = () => [...list.children];

    function open() {
        list.replaceChildren(
            ...entries()
                .filter(Boolean)
                .map(({ label: text, run, danger }) => {
                    const choose = () => {
                        close();
                        opener.focus();
                        run();
                    };
                    return el(`button.menu-item${danger ? ".danger" : ""}`, {
                        type: "button",
                        role: "menuitem",
                        tabindex: "-1",
                        onclick: choose,
                        text,
                    });
                }),
        );
        list.hidden = false;
        opener.setAttribute("aria-expanded", "true");
        const room = list.getBoundingClientRect();
        list.classList.toggle(
            "upwards",
            room.bottom > innerHeight - 8 && room.height < opener.getBoundingClientRect().top,
        );
        items()[0]?.focus();
        document.addEventListener("pointerdown", onPointer);
    }

    function close() {
        list.hidden = true;
        list.classList.remove("upwards");
        opener.setAttribute("aria-expanded", "false");
        document.removeEventListener("pointerdown", onPointer);
    }

    function onPointer({ target }) {
        if (!box.contains(target)) close();
    }

    list.addEventListener("keydown", (event) => {
        const all = items();
        const at = all.indexOf(document.activeElement);
        const to = {
            ArrowDown: (at + 1) % all.length,
            ArrowUp: (at + all.length - 1) % all.length,
            Home: 0,
            End: all.length - 1,
        }[event.key];
        if (to !== undefined) {
            event.preventDefault();
            all[to].focus();
        } else if (event.key === "Escape" || event.key === "Tab") {
            close();
            opener.focus();
            if (event.key === "Tab") return;
            event.preventDefault();
        } else return;
        event.stopPropagation();
    });
    return box;
}
