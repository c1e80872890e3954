// Runs before the page is drawn, so that it is never drawn in the wrong colours.
"use strict";
try {
    const theme = JSON.parse(localStorage.getItem("rwkv.theme"));
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
    // A browser that keeps nothing: the page follows the system.
}
