/** The page: its parts, made and held together. */

import * as api from "./api.js";
import { Announcer } from "./announce.js";
import { connection } from "./connection.js";
import { Teller, askLine } from "./dialogs.js";
import { button, el, fill, icon, iconButton } from "./dom.js";
import { chooseFile, fromJson, newText, save, toJson, toMarkdown } from "./files.js";
import { Library } from "./library.js";
import { menuButton } from "./menu.js";
import { shortcuts } from "./shortcuts.js";
import { changeSettings, drafts, settings } from "./store.js";
import { Talk } from "./talk.js";
import { newConversation } from "./tree.js";
import { ChatView } from "./view_chat.js";
import { Composer } from "./view_composer.js";
import { SettingsView, switchTheme } from "./view_settings.js";
import { Sidebar } from "./view_sidebar.js";
import { StatesView } from "./view_states.js";
import { TextView } from "./view_text.js";

const FOUND_MS = 4000;

class App {
    #models = [];
    #open = null;
    #asking = null;

    #teller = new Teller();
    #live = el("div.hidden", { role: "status", id: "live" });
    #announcer = new Announcer(this.#live);
    #banner = el("div.banner", { role: "status" });
    #title = el("h1.title");
    #model = el("div.model");
    #main = el("div.main-body");

    #library = new Library((id) => this.#talk.jobOf(id) !== null);
    #talk = new Talk(
        this.#library,
        (signal) => this.#askForKey(signal),
        () => this.#models,
    );
    #composer = new Composer({
        send: (text) => this.#talk.ask(this.#open, this.#chat.last, text, this.#composer.answers),
        stop: () => this.#stop(),
        editLast: () => this.#chat.editLast(),
        draft: (text) => {
            this.#open.draft = text;
            if (this.#library.get(this.#open.id)) drafts.keep(this.#open.id, text);
        },
        announce: (text) => this.#announcer.say(text),
    });
    #chat = new ChatView(this.#talk, this.#library, {
        announcer: this.#announcer,
        answers: () => this.#composer.answers,
        askName: (title, label, value) => askLine(title, label, { value, submit: "Keep" }),
        empty: (conversation) => this.#empty(conversation),
        focusComposer: () => this.#composer.focus(),
        tell: (text, undo) => this.#teller.tell(text, undo),
    });
    #text = new TextView(this.#talk, this.#library, {
        announce: (text) => this.#announcer.say(text),
    });
    #settings = new SettingsView({
        system: () => this.#open.system ?? settings.system,
        setSystem: (system) => {
            changeSettings({ system });
            if (this.#open.kind === "chat") this.#open.system = system;
            this.#saveIfBegun();
        },
        redraw: () => this.#draw(),
        exportAll: () =>
            save(toJson(this.#library.find("")), "rwkv-conversations.json", "application/json"),
        importFile: () => this.#import(),
        forgetKey: () => api.key.set(""),
    });
    #states = new StatesView({
        begin: (state) =>
            this.#show(
                newConversation({
                    model: state.model,
                    system: settings.system,
                    title: state.name ? `After ${state.name}` : "",
                    state: { id: state.id, name: state.name ?? state.id, system: settings.system },
                }),
            ),
        tell: (text) => this.#teller.tell(text),
    });
    #shortcuts = shortcuts({
        stop: () => this.#stop(),
        turn: (step) => this.#open.kind === "chat" && this.#chat.turnLast(step),
        search: () => {
            this.#sidebarShown(true);
            this.#sidebar.search();
        },
        newChat: () => this.#newChat(),
        settings: () => this.#settings.open(),
    });
    #sidebar = new Sidebar(this.#library, {
        newChat: () => this.#newChat(),
        newText: () => this.#show(newText()),
        open: (id) => this.#show(this.#library.get(id)),
        rename: (id) => this.#rename(this.#library.get(id)),
        remove: (id) => this.#remove(id),
        states: () => this.#states.open(),
        settings: () => this.#settings.open(),
        theme: switchTheme,
        shortcuts: () => this.#shortcuts.show(),
    });

    async start() {
        const actions = menuButton("more", "This conversation", () => [
            { label: "Rename", run: () => this.#rename(this.#open) },
            {
                label: "Export as Markdown",
                run: () =>
                    save(
                        toMarkdown(this.#open),
                        `${this.#open.title || "conversation"}.md`,
                        "text/markdown",
                    ),
            },
            {
                label: "Export as JSON",
                run: () =>
                    save(
                        toJson([this.#open]),
                        `${this.#open.title || "conversation"}.json`,
                        "application/json",
                    ),
            },
            this.#library.get(this.#open.id) && {
                label: "Delete",
                run: () => this.#remove(this.#open.id),
                danger: true,
            },
        ]);
        const opener = iconButton("menu", "Conversations", () => this.#sidebarShown(), {
            class: "opener",
            "aria-expanded": "false",
            "aria-controls": "sidebar",
        });
        const head = el("header.head", {}, opener, this.#title, this.#model, actions);
        const shade = el("div.shade", { onclick: () => this.#sidebarShown(false) });
        document.body.append(
            el("a.skip", {
                href: "#main",
                text: "To the conversation",
                onclick: (event) => this.#skip(event),
            }),
            this.#sidebar.element,
            shade,
            el("main.main", { id: "main", tabindex: "-1" }, head, this.#banner, this.#main),
            this.#teller.element,
            this.#live,
        );
        this.#watch();
        await this.#library.load();
        this.#route();
        addEventListener("hashchange", () => this.#route());
        await this.#askModels();
        if (!this.#library.keeps)
            this.#teller.tell(
                "This browser keeps nothing: conversations are gone when the page is left",
            );
    }

    #watch() {
        this.#library.addEventListener("elsewhere", ({ detail }) => {
            if (detail !== this.#open?.id) return; // nothing is open before the page has begun
            const found = this.#library.get(detail) ?? this.#fresh();
            if (this.#open.draft) found.draft = this.#open.draft; // what is typed here stays
            this.#show(found);
        });
        this.#library.addEventListener("full", () =>
            this.#teller.tell(
                "The browser has no room for this conversation: export or delete some",
            ),
        );
        this.#talk.addEventListener(
            "wait",
            ({ detail }) => detail.conversation === this.#open && this.#composer.waits(detail.why),
        );
        for (const type of ["begin", "end"]) {
            this.#talk.addEventListener(type, ({ detail }) => {
                if (detail.conversation !== this.#open) return;
                this.#composer.busy(type === "begin");
                this.#drawHead();
            });
        }
        let timer = 0;
        connection.addEventListener("lost", ({ detail }) => {
            clearTimeout(timer);
            if (!this.#banner.firstChild) this.#announcer.say("The server does not answer");
            fill(
                this.#banner,
                el("p.lost", {
                    "aria-hidden": "true",
                    text: `The server does not answer. Next try in ${detail} s.`,
                }),
            );
        });
        connection.addEventListener("found", () => {
            fill(this.#banner, el("p.found", { text: "The server answers again." }));
            timer = setTimeout(() => fill(this.#banner), FOUND_MS);
            this.#askModels();
        });
        addEventListener("offline", () => connection.lost());
    }

    /** Open what the address names. */
    #route() {
        const id = /^#\/(.+)$/.exec(location.hash)?.[1];
        const known = id && this.#library.get(id);
        if (known && known === this.#open) return;
        this.#show(known || this.#fresh());
    }

    #fresh() {
        return newConversation({ system: settings.system });
    }

    #newChat() {
        this.#show(this.#fresh());
    }

    #show(conversation) {
        this.#open = conversation;
        const isKept = this.#library.get(conversation.id) !== null;
        history.replaceState(
            null,
            "",
            isKept ? `#/${conversation.id}` : location.pathname + location.search,
        );
        this.#sidebarShown(false);
        const busy = this.#talk.jobOf(conversation.id) !== null;
        if (conversation.kind === "text") {
            fill(this.#main, this.#text.element);
            this.#text.show(conversation);
            this.#text.focus();
        } else {
            fill(this.#main, this.#chat.element, this.#composer.element);
            this.#composer.busy(busy);
            this.#chat.show(conversation);
            this.#composer.show(conversation.draft);
            this.#composer.focus();
        }
        this.#drawHead();
    }

    #draw() {
        if (this.#open.kind === "chat") this.#chat.draw();
        this.#drawHead();
    }

    #drawHead() {
        const { id, title, kind } = this.#open;
        const name = title || (kind === "text" ? "New text" : "New chat");
        this.#title.textContent = name;
        document.title = `${name} – RWKV`;
        this.#sidebar.show(id);
        if (this.#library.get(id) && !location.hash.endsWith(id))
            history.replaceState(null, "", `#/${id}`);
        const current = this.#talk.modelOf(this.#open);
        if (this.#models.length < 2) {
            fill(this.#model, current && el("span.model-name", { text: current }));
            return;
        }
        const select = el(
            "select",
            { "aria-label": "Model" },
            ...this.#models.map((model) => el("option", { value: model, text: model })),
        );
        select.value = current;
        select.addEventListener("change", () => {
            this.#open.model = select.value;
            this.#saveIfBegun();
            this.#draw();
        });
        fill(this.#model, select);
    }

    #empty(conversation) {
        if (conversation.state)
            return el(
                "div.empty",
                {},
                icon("keep"),
                el("h2", { text: conversation.state.name }),
                el("p", {
                    text: "The model has read what came before this state. Go on from there.",
                }),
            );
        const model = this.#talk.modelOf(conversation);
        const facts = [
            "Conversations are kept in this browser.",
            "A branch costs nothing: ask for several answers at once, edit any turn, and go on from whichever you like.",
        ];
        return el(
            "div.empty",
            {},
            el("h2", { text: model ? `Talk with ${model}` : "No model yet" }),
            ...facts.map((text) => el("p", { text })),
            button("How to use the keyboard", () => this.#shortcuts.show(), {
                class: "button quiet",
            }),
        );
    }

    /** Keep the open conversation, if anything was said in it. */
    #saveIfBegun() {
        const { id, kind, nodes, text } = this.#open;
        if (this.#library.get(id) || (kind === "text" ? text : Object.keys(nodes).length > 1))
            this.#library.save(this.#open);
    }

    #stop() {
        const job = this.#talk.jobOf(this.#open.id);
        job?.stop();
        if (job) this.#composer.focus();
        return job !== null;
    }

    async #rename(conversation) {
        const title = await askLine("Rename", "Title", {
            value: conversation.title,
            submit: "Rename",
        });
        if (title === null) return;
        Object.assign(conversation, { title, named: true });
        this.#library.save(conversation);
        this.#drawHead();
    }

    #remove(id) {
        this.#talk.jobOf(id)?.stop();
        const conversation = this.#library.remove(id);
        if (id === this.#open.id) this.#newChat();
        this.#teller.tell(`“${conversation.title || "Without a title"}” is deleted`, () => {
            this.#library.save(conversation);
            this.#show(conversation);
        });
    }

    async #import() {
        const text = await chooseFile();
        if (text === null) return;
        try {
            const found = fromJson(text);
            for (const conversation of found) this.#library.save(conversation);
            this.#teller.tell(
                found.length === 1
                    ? "1 conversation is here"
                    : `${found.length} conversations are here`,
            );
        } catch (error) {
            this.#teller.tell(error.message);
        }
    }

    /** Ask what is served, as long as it takes. */
    async #askModels() {
        try {
            this.#models = await api.models();
            this.#draw();
        } catch (error) {
            if (error instanceof api.Unreachable) connection.lost();
            else if (error.status === 401)
                this.#askForKey().catch(() => {}); // then they are asked again
            else this.#teller.tell(error.message);
        }
    }

    /** Get a key from whoever sits there; all who want one wait for the same. */
    #askForKey(signal) {
        const help = api.key.get()
            ? "The server does not know the key that was given."
            : "The server answers only those who have a key. It is kept until this tab is closed.";
        this.#asking ??= askLine("API key", "Key", {
            type: "password",
            help,
            submit: "Use it",
            signal,
        })
            .then((given) => {
                if (given === null) throw new DOMException("no key was given", "AbortError");
                api.key.set(given);
                if (!this.#models.length) this.#askModels();
            })
            .finally(() => {
                this.#asking = null;
            });
        return this.#asking;
    }

    #sidebarShown(shown = !document.body.classList.contains("with-sidebar")) {
        document.body.classList.toggle("with-sidebar", shown);
        document.querySelector(".opener")?.setAttribute("aria-expanded", String(shown));
    }

    #skip(event) {
        event.preventDefault();
        if (this.#open.kind === "text") this.#text.focus();
        else this.#composer.focus();
    }
}

new App().start();
