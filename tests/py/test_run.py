"""`rwkv run` and `rwkv models`, with a hub on the loopback address."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forks import Ended, Forks
from hub_server import Hub, serve
from rwkv_py import Session, models
from rwkv_py.errors import FetchError, InvalidArgumentError
from terminal import Terminal

RWKV = str(Path(sys.executable).parent / "rwkv")
G1 = "BlinkDL/rwkv7-g1"
FILE = "rwkv7-g1d-0.4b-20260210-ctx8192.pth"
KEPT = f"{G1}/{FILE.removesuffix('.pth')}-q4_0.bin"


class Home:
    """A user's folders, and the hub that they reach."""

    def __init__(self, folder: Path, hub: Hub, forks: Forks) -> None:
        self.cache = folder / "cache"
        self.hub = hub
        self.config = folder / "config" / "rwkv" / "models.toml"
        self.config.parent.mkdir(parents=True)
        self._forks = forks
        self.env = {
            "RWKV_CACHE": str(self.cache),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "XDG_STATE_HOME": str(folder / "state"),
            "HF_HOME": str(folder / "hf"),
            "HF_ENDPOINT": hub.url,
            "HF_HUB_DISABLE_XET": "1",
            "COLUMNS": "200",
        }

    def rwkv(self, *args: str, stdin: bytes = b"", **env: str) -> Ended:
        return self._forks.run(*args, stdin=stdin, env={**self.env, **env})

    def start(self, *args: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([RWKV, *args], env={**os.environ, **self.env}, stdin=-3, stdout=-3)

    def files(self) -> set[str]:
        """Everything in the cache, by name."""
        found = (path for path in self.cache.rglob("*") if path.is_file())
        return {path.relative_to(self.cache).as_posix() for path in found}

    def fetched(self) -> list[str]:
        """What was asked of the hub's files, and given."""
        asked = (r for r in self.hub.requests if r.startswith("GET") and "/resolve/" in r)
        return [request.rpartition("/")[2] for request in asked]


@pytest.fixture(scope="module")
def pth(examples: Path) -> bytes:
    return (examples / "rwkv7-pydoc-L6-D256.pth").read_bytes()


@pytest.fixture
def home(tmp_path: Path, pth: bytes, forks: Forks) -> Iterator[Home]:
    files = {
        "README.md": b"# A model",
        "rwkv7-g1c-0.4b-20260110-ctx4096.pth": b"an older one",
        FILE: pth,
        "rwkv7-g1d-0.1b-20260129-ctx8192.pth": pth[:-1000],  # damaged
    }
    with serve({G1: files, "owner/one": {"model.pth": pth}}) as hub:
        yield Home(tmp_path, hub, forks)


def test_first_run_fetches_converts_and_chats(home: Home, converted: Callable[[str], Path]) -> None:
    said = b"What is json?\n"
    first = home.rwkv("run", "g1-0.4b", "--seed", "3", "-n", "30", stdin=said)
    assert first.code == 0
    assert first.stderr is not None
    assert re.match(
        rf"g1-0\.4b: {re.escape(FILE)} of {G1}\n"
        r"  to fetch   11 MB\n"
        rf"  to keep    about 331 MB, in q4_0, in {re.escape(str(home.cache / G1))}\n"
        r"  memory     about 431 MB of [\d.]+ GB\n",
        first.stderr,
    )
    # What stays is the model file, and nothing else.
    assert home.files() == {KEPT}
    assert (home.cache / KEPT).read_bytes() == converted("q4_0").read_bytes()
    assert home.fetched() == [FILE]

    before = len(home.hub.requests)
    again = home.rwkv("run", "g1-0.4b", "--seed", "3", "-n", "30", stdin=said)
    assert (again.code, again.stdout) == (0, first.stdout)
    assert "g1-0.4b" not in (again.stderr or "")
    assert len(home.hub.requests) == before  # the hub is not asked

    # The format and the settings are those of the known model.
    by_hand = home.rwkv(
        "chat", str(home.cache / KEPT), "--format", "g1-fast-think", "--temperature", "1",
        "--top-p", "0.28", "--top-k", "32", "--seed", "3", "-n", "30", stdin=said,
    )  # fmt: skip
    assert by_hand.stdout == first.stdout
    other = home.rwkv("run", "g1-0.4b", "-f", "world", "--seed", "3", "-n", "30", stdin=said)
    assert other.stdout != first.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "args",
    [
        ["info", "{}"],
        ["generate", "{}", "Hi", "-n", "3"],
        ["tokenize", "{}", "Hi"],
        ["bench", "{}", "--seconds", "0.05"],
        ["compare", "{0}", "{0}", "{text}"],
        ["perplexity", "{}", "{text}"],
        ["lambada", "{}", "{lines}"],
    ],
    ids=lambda args: args[0],
)
def test_every_command_takes_a_name(args: list[str], home: Home, tmp_path: Path) -> None:
    text, lines = tmp_path / "text", tmp_path / "lines"
    text.write_text("The documentation of the library.")
    lines.write_text(json.dumps({"text": "Return the value"}) + "\n")
    ended = home.rwkv(*(a.format("g1d-0.4b", text=text, lines=lines) for a in args))
    assert ended.code == 0, ended
    assert ended.stdout
    assert home.files() == {KEPT}


@pytest.mark.slow
def test_hub_source_checkpoint_and_names_in_the_cache(home: Home, examples: Path) -> None:
    pth = str(examples / "rwkv7-pydoc-L6-D256.pth")
    for model in ("hf://owner/one", "hf://owner/one/model.pth@v1", pth):
        ended = home.rwkv("info", model, "--json")
        assert ended.code == 0, ended
        assert home.rwkv("info", model, "--offline").stderr == ""
    names = home.files()
    (local,) = (name for name in names if name.startswith("@local/rwkv7-pydoc"))
    assert names == {"owner/one/one-q4_0.bin", "owner/one@v1/model-q4_0.bin", local}
    for name in names:
        assert home.rwkv("info", name, "--json").code == 0
    # A checkpoint that is another one now is converted anew.
    again = home.cache.parent / "again.pth"
    again.write_bytes(Path(pth).read_bytes())
    home.rwkv("info", str(again))
    os.utime(again, (1, 1))
    home.rwkv("info", str(again))
    assert len([name for name in home.files() if "again" in name]) == 2


@pytest.mark.slow
def test_model_files_on_a_hub_are_kept_as_they_are(
    home: Home, converted: Callable[[str], Path]
) -> None:
    ready = converted("q8_0").read_bytes()
    home.hub.repositories["owner/ready"] = {
        "model.bin": ready, "junk.bin": b"neither", "part-00001-of-00002.gguf": b"GGUF",
        "part-00002-of-00002.gguf": b"GGUF",
    }  # fmt: skip
    for _ in range(2):
        ended = home.rwkv("info", "hf://owner/ready/model.bin", "--json")
        assert json.loads(ended.stdout or "")["data_type"] == "q8_0"
    assert home.files() == {"owner/ready/model.bin"}
    assert (home.cache / "owner/ready/model.bin").read_bytes() == ready
    assert home.fetched() == ["model.bin"]
    for file, options, complaint in (
        ("part-00001-of-00002.gguf", [], "expected a GGUF file in one part, got 2 parts"),
        (
            "junk.bin",
            [],
            "expected a model file, got another one. Try to name a type, such as q4_0",
        ),
        ("junk.bin", ["--dtype", "q4_0"], "not a checkpoint, expected a .pth, "),
    ):
        ended = home.rwkv("info", f"hf://owner/ready/{file}", *options)
        assert (ended.code, ended.stdout) == (1, "")
        assert complaint in (ended.stderr or "").splitlines()[-1]
    assert home.fetched() == ["model.bin", "junk.bin"]
    assert home.files() == {"owner/ready/model.bin"}


@pytest.mark.slow
def test_types(home: Home) -> None:
    for dtype, kept in (("Q8_0", "q8_0.bin"), ("q4_k_m", "q4_K_M.gguf")):
        ended = home.rwkv("info", "g1-0.4b", "--dtype", dtype, "--json")
        assert ended.code == 0, ended
        assert KEPT.replace("q4_0.bin", kept) in home.files()
    # What there is already is taken, and the default's type first.
    assert ": to fetch" not in (home.rwkv("info", "g1-0.4b").stderr or "")
    assert len(home.files()) == 2
    assert home.rwkv("info", "g1-0.4b", "--dtype", "q4_0").code == 0
    facts = json.loads(home.rwkv("info", "g1-0.4b", "--json").stdout or "")
    assert facts["path"] == str(home.cache / KEPT)
    wrong = home.rwkv("info", "g1-0.4b", "--dtype", "q3")
    assert wrong.code == 2
    assert "Invalid value for '--dtype': expected one of fp32, " in (wrong.stderr or "")
    wrong = home.rwkv("info", str(home.cache / KEPT), "--dtype", "q8_0")
    assert wrong.code == 2
    assert "expected none for the model file" in (wrong.stderr or "")


@pytest.mark.slow
def test_newer_one_is_fetched_if_asked_for(home: Home, pth: bytes) -> None:
    home.rwkv("info", "g1-0.4b")
    newer = "rwkv7-g1e-0.4b-20260801-ctx8192"
    home.hub.repositories[G1][f"{newer}.pth"] = pth
    assert home.rwkv("info", "g1-0.4b").stderr == ""
    assert newer in (home.rwkv("info", "g1-0.4b", "--update").stderr or "")
    facts = json.loads(home.rwkv("info", "g1-0.4b", "--json").stdout or "")
    assert newer in facts["path"]
    assert home.rwkv("info", "g1-0.4b", "--update").stderr == ""
    # The older one is there under the name of its release.
    facts = json.loads(home.rwkv("info", "g1d-0.4b", "--json").stdout or "")
    assert facts["path"] == str(home.cache / KEPT)


def test_offline(home: Home) -> None:
    for options, env in (
        (["--offline"], {}),
        ([], {"HF_HUB_OFFLINE": "1"}),
        ([], {"HF_ENDPOINT": "http://127.0.0.1:9"}),
    ):
        ended = home.rwkv("run", "g1-0.4b", *options, **env)
        assert (ended.code, ended.stdout) == (1, "")
        assert ended.stderr is not None and ended.stderr.count("\n") == 1
    assert home.hub.requests == []
    told = home.rwkv("run", "g1-0.4b", "--offline").stderr
    assert told == (
        f"rwkv: g1-0.4b: expected it in {home.cache / G1}, got nothing, and nothing is to be "
        "fetched\n"
    )
    home.rwkv("info", "g1-0.4b")
    assert home.rwkv("run", "g1-0.4b", "--offline").code == 0


@pytest.mark.slow
def test_what_is_in_the_cache_of_huggingface_hub_is_not_fetched_again(home: Home) -> None:
    get = "import huggingface_hub as h, sys; h.hf_hub_download(*sys.argv[1:])"
    subprocess.run(
        [sys.executable, "-c", get, G1, FILE], env={**os.environ, **home.env}, check=True
    )
    before = len(home.hub.requests)
    assert home.rwkv("info", "g1-0.4b", "--offline").code == 0
    assert len(home.hub.requests) == before
    assert home.files() == {KEPT}


# ---- what is stopped


@pytest.mark.slow
def test_killed_while_fetching(home: Home, pth: bytes) -> None:
    home.hub.stall = 3_000_000
    process = home.start("run", "g1-0.4b")
    assert home.hub.stalled.wait(60)
    while sum(p.stat().st_size for p in home.cache.rglob("*.part")) < 3_000_000:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    home.hub.stall = None
    home.hub.go_on.set()
    listed = home.rwkv("models").stdout or ""
    assert re.search(rf"3 MB of 11 MB +unfinished +{re.escape(f'{G1}/{FILE}')}", listed)
    assert home.rwkv("run", "g1-0.4b", "--offline").code == 1

    ended = home.rwkv("run", "g1-0.4b")
    assert ended.code == 0
    assert "to fetch   11 MB, 3 MB of it is there\n" in (ended.stderr or "")
    assert home.hub.sent == len(pth)
    assert home.files() == {KEPT}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_while_fetching(number: signal.Signals, home: Home, pth: bytes) -> None:
    home.hub.stall = 1_000_000
    process = home.start("run", "g1-0.4b")
    assert home.hub.stalled.wait(60)
    process.send_signal(number)
    assert process.wait() == 128 + number
    home.hub.stall = None
    home.hub.go_on.set()
    assert home.rwkv("run", "g1-0.4b").code == 0
    assert home.files() == {KEPT}
    assert home.hub.sent <= len(pth) + 1_000_000


@pytest.mark.slow
def test_killed_while_converting(home: Home) -> None:
    """What was fetched is whole then, and converted without the hub."""
    stop = (
        "import os, sys, rwkv_convert\nfrom rwkv_py import models\n"
        "rwkv_convert.convert = lambda *a, **k: os.kill(os.getpid(), 9)\n"
        "models.fetch('g1-0.4b')"
    )
    killed = subprocess.run([sys.executable, "-c", stop], env={**os.environ, **home.env})
    assert killed.returncode == -9
    assert not any(name.endswith(".bin") for name in home.files())
    before = len(home.hub.requests)
    assert home.rwkv("info", "g1-0.4b", "--offline").code == 0
    assert len(home.hub.requests) == before
    assert home.files() == {KEPT}


@pytest.mark.slow
def test_two_at_once_fetch_once(home: Home) -> None:
    home.hub.stall = 1_000_000
    first = home.start("info", "g1-0.4b")
    assert home.hub.stalled.wait(60)
    second = home.start("info", "g1-0.4b")
    while len([r for r in home.hub.requests if r.startswith("GET /api/models")]) < 2:
        time.sleep(0.01)
    time.sleep(0.2)
    home.hub.stall = None
    home.hub.go_on.set()
    assert (first.wait(60), second.wait(60)) == (0, 0)
    assert home.files() == {KEPT}
    assert home.fetched() == [FILE] * 2  # the second is where the first's connection was cut


# ---- what cannot be


@pytest.mark.slow
def test_no_space(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files may not grow beyond a limit: first while fetching, then while converting."""
    for kbytes in (2000, 10_600):
        limited = ["bash", "-c", f'ulimit -f {kbytes}; exec "$@"', "bash", RWKV]
        ended = subprocess.run(
            [*limited, "info", "g1-0.4b"],
            env={**os.environ, **home.env}, capture_output=True, text=True,
        )  # fmt: skip
        if ended.returncode:
            assert ended.stderr.splitlines()[-1].endswith("cannot be written: File too large")
    assert home.rwkv("info", "g1-0.4b").code == 0
    assert home.files() == {KEPT}

    for name, value in home.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(models.memory, "disk_left", lambda folder: 100_000_000)
    found = models.find("g1-0.4b", dtype="q5_1")
    assert isinstance(found, models.Preparation)
    with pytest.raises(FetchError, match=r"expected \d+\.\d MB of free space, got 100\.0 MB\. Try"):
        found.carry_out()


def test_too_large_for_the_memory(home: Home) -> None:
    home.config.write_text(
        f'[[series]]\nname = "big"\nrepository = "{G1}"\npattern = "rwkv7-g1d-{{size}}-*.pth"\n'
        'version = "7"\n[series.sizes]\n"0.4b" = {layers = 1000, width = 102400}\n'
        '"0.1b" = {layers = 2, width = 64}\n'
    )
    ended = home.rwkv("run", "big-0.4b")
    assert (ended.code, home.files()) == (1, set())
    assert re.fullmatch(
        r"rwkv: big-0\.4b: expected \d+\.\d\d GB of memory, got \d+\.\d\d GB\. Try [\w.-]+\n",
        ended.stderr or "",
    )
    # Whoever names a type knows better; but there is no room on the disk.
    ended = home.rwkv("run", "big-0.4b", "--dtype", "q4_0")
    assert ended.code == 1
    assert "which is not enough\nrwkv: " in (ended.stderr or "")
    assert "of free space, got" in (ended.stderr or "")


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        ("g1d-0.5b", r"g1d-0\.5b: expected a model file, .* Try g1d-.*"),
        ("g1-2.9b", r"g1-2\.9b: expected a file rwkv7-g1\?-2\.9b-\*\.pth in .*\. Try g1\w-0\..*"),
        ("hf://owner", r"hf://owner: expected hf://OWNER/NAME\[/FILE\]\[@REVISION\], got .*"),
        ("hf://owner/none", r"hf://owner/none: cannot be fetched: .*"),
        ("hf://owner/one/../x.pth", r"hf://owner/one/\.\./x\.pth: expected hf://.*"),
        ("hf://owner/one//etc/x.pth", r"hf://owner/one//etc/x\.pth: expected hf://.*"),
        ("hf://owner/one/x.pth", r"hf://owner/one/x\.pth: expected a file 'x\.pth', got none"),
        (f"hf://{G1}", rf"hf://{G1}: expected a folder with one model, got .*"),
        ("none.bin", r"none\.bin: cannot be opened: No such file or directory.*"),
        ("no/such", r"no/such: cannot be opened: No such file or directory.*"),
    ],
)  # fmt: skip
def test_names_of_nothing(model: str, complaint: str, home: Home) -> None:
    ended = home.rwkv("run", model)
    assert (ended.code, ended.stdout) == (1, "")
    assert re.fullmatch(f"rwkv: {complaint}\n", ended.stderr or "")
    assert home.files() == set()


def test_damaged_checkpoint_is_not_kept(home: Home) -> None:
    ended = home.rwkv("run", "g1-0.1b")
    assert ended.code == 1
    assert "truncated, expected" in (ended.stderr or "")
    assert home.files() == set()


def test_without_the_converter(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rwkv_convert", None)
    for name, value in home.env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(FetchError, match=r"need rwkv-convert.*Try `pip install rwkv-py\[run\]`"):
        models.find("g1-0.4b")
    assert models.cached_models() == []


# ---- rwkv models


def test_models_are_listed_and_removed(home: Home) -> None:
    assert f"No models in {home.cache}" in (home.rwkv("models").stdout or "")
    for name in (KEPT, KEPT.replace("q4_0", "q8_0"), "owner/one/one-q4_0.bin"):
        path = home.cache / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(4_000_000))
    (home.cache / "notes.txt").write_text("mine")
    listed = (home.rwkv("models", COLUMNS="40").stdout or "").splitlines()
    assert re.fullmatch(rf"g1d-0\.4b +4 MB +q4_0 +{re.escape(KEPT)}", listed[1])
    assert listed[-1] == f"12 MB in {home.cache}"
    facts = json.loads(home.rwkv("models", "--json").stdout or "")
    assert [(m["known"], m["dtype"]) for m in facts["models"]] == [
        ("g1d-0.4b", "q4_0"), ("g1d-0.4b", "q8_0"), (None, "q4_0"),
    ]  # fmt: skip
    for args, left in (
        (["hf://owner/one"], 2),
        ([KEPT], 1),
        (["g1-0.4b"], 0),
    ):
        ended = home.rwkv("models", "remove", *args)
        assert (ended.code, ended.stderr) == (0, "")
        assert "removed, " in (ended.stdout or "")
        assert len(json.loads(home.rwkv("models", "--json").stdout or "")["models"]) == left
    assert home.files() == {"notes.txt"}
    ended = home.rwkv("models", "remove", "g1-0.4b")
    assert ended.stderr == f"rwkv: g1-0.4b: expected a model in {home.cache}, got none\n"


def test_unfinished_models_are_removed(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in home.env.items():
        monkeypatch.setenv(name, value)
    files = home.cache / ".unfinished" / "0123" / "files"
    files.mkdir(parents=True)
    plan = {"repository": G1, "commit": "c", "file": FILE, "sizes": {FILE: 200}}
    (files.parent / "plan.json").write_text(json.dumps(plan))
    (files / f"{FILE}.part").write_bytes(bytes(50))
    (home.cache / ".unfinished" / "4567").mkdir()  # of a process that has just begun
    (unfinished,) = models.unfinished()
    assert (unfinished.name, unfinished.repository) == (f"{G1}/{FILE}", G1)
    assert (unfinished.done_bytes, unfinished.total_bytes) == (50, 200)
    for name in (unfinished.name, "g1-0.4b", "g1d-0.4b", f"hf://{G1}/{FILE}"):
        assert models.find_kept(name) == [unfinished]
    with pytest.raises(FetchError, match=r"g1-0\.1b: expected a model in .*, got none"):
        models.find_kept("g1-0.1b")
    models.remove(unfinished)
    assert models.unfinished() == []
    with pytest.raises(FetchError, match="cannot be removed: No such file or directory"):
        models.remove(unfinished)


def test_known_models_are_listed(home: Home) -> None:
    home.config.write_text(
        '[[series]]\nname = "mine"\nrepository = "me/tuned"\npattern = "*.pth"\n'
    )
    listed = home.rwkv("models", "--known").stdout or ""
    for name in models.known_models():
        assert re.search(rf"(^| ){re.escape(name)}( |$)", listed, re.M)
    assert "\nmine\n" in listed
    facts = json.loads(home.rwkv("models", "--known", "--json").stdout or "")
    assert facts[-1]["name"] == "mine"


# ---- in Python, in a terminal


def test_fetch_in_python(home: Home, monkeypatch: pytest.MonkeyPatch, examples: Path) -> None:
    for name, value in home.env.items():
        monkeypatch.setenv(name, value)
    pth = examples / "rwkv7-pydoc-L6-D256.pth"
    told: list[tuple[str, int, int]] = []
    path = models.fetch(pth, progress=lambda *p: told.append(p))
    assert path.parent == home.cache / "@local"
    assert Session(path).generate("The ", max_tokens=5)
    assert told[-1][0] == "converting"
    assert told[-1][1] == told[-1][2]
    assert models.fetch(path) == path == models.fetch(pth)
    with pytest.raises(InvalidArgumentError, match="dtype: expected none for the model file"):
        models.fetch(path, dtype="q8_0")
    with pytest.raises(InvalidArgumentError, match="dtype: expected one of fp32"):
        models.fetch(pth, dtype="q3")


def test_in_a_terminal(home: Home) -> None:
    home.hub.stall = 5_000_000
    env = {name: value for name, value in home.env.items() if name != "COLUMNS"}
    chat = Terminal(RWKV, "run", "g1d-0.4b", "-n", "20", "--seed", "1", **env)
    chat.wait_for(r"g1d-0\.4b: rwkv7-g1d-0\.4b-20260210-ctx8192\.pth of BlinkDL/rwkv7-g1")
    chat.wait_for(r"Fetching .*5\.0/10\.8 MB")
    home.hub.stall = None
    home.hub.go_on.set()
    assert "Ctrl-D leaves" in chat.ready()
    chat.type("What is json?\r")
    chat.ready()
    chat.type("/set\r")
    assert "top_p = 0.28" in chat.ready()
    chat.type("\x04")
    assert chat.exit_code() == 0
    chat.close()
