"""What GGUF files say of chats and of ends: Session, Engine, Chat and `rwkv chat` do it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rwkv_py import Chat, ChatFormat, Engine, InvalidArgumentError, Model, Session
from rwkv_py.chat_format import CHAT_FORMATS
from rwkv_py.chat_template import format_of_template
from twin import gguf, synth
from twin.block_types import quantize

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# In other words than llama.cpp's, so that it has to be run.
WORLD = (
    "{% for m in messages %}"
    "{% if m.role == 'system' %}System: {{ m.content }}\n\n"
    "{% elif m.role == 'user' %}User: {{ m.content }}\n\n"
    "{% else %}Assistant: {{ m.content }}\n\n{% endif %}{% endfor %}Assistant:"
)
NEWLINE, LETTER = 10, 65

GgufModel = Callable[..., Path]


@pytest.fixture(scope="module")
def gguf_model(tmp_path_factory: pytest.TempPathFactory) -> GgufModel:
    """A random model of bytes as a GGUF file, which says what it is told to."""
    folder = tmp_path_factory.mktemp("gguf")
    checkpoint = synth.checkpoint("7", n_layer=1, n_embd=32, head_size=32, n_vocab=256, rank=4)
    tensors = {name: quantize(x, "fp32") for name, x in gguf.transform(checkpoint).items()}

    def make(name: str = "model.gguf", **said: int | str) -> Path:
        values = gguf.values(checkpoint, "7", 32)
        del values["tokenizer.chat_template"]
        values["tokenizer.ggml.tokens"] = [repr(bytes([i]))[2:-1].encode() for i in range(256)]
        for key, value in said.items():
            values["tokenizer." + key.replace("__", ".")] = value
        return gguf.write(folder / name, values, tensors)

    return make


class Remembering(Session):
    """A session that remembers the bytes that it read."""

    read = b""

    def _read(self, prompt):  # type: ignore[no-untyped-def]
        self.read += bytes(prompt.tokens.tolist())
        super()._read(prompt)


# ---- ends


def test_a_text_ends_at_the_token_that_the_file_names(gguf_model: GgufModel) -> None:
    model = Model(gguf_model(ggml__eos_token_id=NEWLINE))
    assert model.end_tokens == (0, NEWLINE)
    options = {"max_tokens": 3, "temperature": 0, "logit_bias": {NEWLINE: 1e6}}
    stream = Session(model).stream("a", **options)
    assert "".join(stream) == ""
    assert stream.finish_reason == "end"
    with Engine(model) as engine:
        request = engine.submit("a", **options)
        assert (request.result(), request.finish_reason) == ("", "end")
        assert engine.submit("a", stop_tokens=[], **options).result() == "\n\n\n"
    assert Session(model).generate("a", stop_tokens=[0], **options) == "\n\n\n"
    options["logit_bias"] = {0: 1e6}
    assert Session(model).generate("a", **options) == ""


def test_files_that_name_no_end(trained: Model, gguf_model: GgufModel) -> None:
    assert trained.end_tokens == (0,)
    assert Model(gguf_model()).end_tokens == (0,)


@pytest.mark.parametrize(
    ("format", "answer"),
    [
        (None, "\n"),  # World: an empty line ends an answer, of which the token is only half
        ("world", "\n"),
        (ChatFormat(name="lines", user="{}>", end="\n", stop=("\n",)), ""),
        (ChatFormat(name="words", user="{}>", end=" ", stop=("!",)), ""),
        (ChatFormat(name="pages", user="{}>", end="\n#", stop=("\n#",)), "\n\n\n"),
    ],
)
def test_a_turn_ends_at_the_token_that_the_file_names(
    gguf_model: GgufModel, format: ChatFormat | str | None, answer: str
) -> None:
    """But for a format in which it may stand in an answer, and for what does not chat."""
    model = Model(gguf_model(ggml__eos_token_id=0, ggml__eot_token_id=NEWLINE))
    options = {"max_tokens": 3, "temperature": 0, "logit_bias": {NEWLINE: 1e6}}
    chat = Chat(model, format=format, **options)
    reply = chat.stream("a")
    reply.read()
    assert reply.tokens == list(answer.encode())
    assert Session(model).generate("a", **options) == "\n\n\n"


# ---- templates


@pytest.mark.parametrize("template", ["rwkv-world", "world", WORLD])
def test_templates_of_our_formats_are_these(template: str) -> None:
    assert format_of_template(template, "f.gguf") is CHAT_FORMATS["world"]


@pytest.mark.parametrize("spaces", ["", " "])
def test_the_template_of_llama_cpp_needs_no_jinja(
    spaces: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere")
    user = "{{- 'User: ' + message['content']|trim + '\\n\\n' -}}"
    template = f"{{%- for message in messages -%}}{spaces}{user}{{%- endfor -%}}Assistant:"
    assert format_of_template(template, "f.gguf") is CHAT_FORMATS["world"]


def test_a_chat_is_written_as_the_template_writes_it(gguf_model: GgufModel) -> None:
    model = Model(gguf_model(chat_template=CHATML))
    session = Remembering(model)
    chat = Chat(session, system="Be {kind}.", max_tokens=2, temperature=0)
    assert chat.format.name == "template"
    assert chat.format.stop == ("<|im_end|>",)
    letter = {LETTER: 1e6}
    assert chat.ask("{One}?", logit_bias=letter) == "AA"
    chat.ask("Two?", logit_bias=letter)
    assert session.read.decode() == (
        "<|im_start|>system\nBe {kind}.<|im_end|>\n"
        "<|im_start|>user\n{One}?<|im_end|>\n<|im_start|>assistant\nAA<|im_end|>\n"
        "<|im_start|>user\nTwo?<|im_end|>\n<|im_start|>assistant\nAA<|im_end|>\n"
    )


def test_beginning_opening_and_no_system_prompt(gguf_model: GgufModel) -> None:
    template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}Hello.\n"
        "{% for m in messages %}{{ '# ' if m.role == 'user' else 'A: ' }}{{ m.content }}\n"
        "{% endfor %}A: <think>"
    )
    session = Remembering(gguf_model(chat_template=template))
    chat = Chat(session, max_tokens=2, temperature=0, logit_bias={LETTER: 1e6})
    reply = chat.stream("1")
    reply.read()
    assert (reply.thinking, reply.text) == ("AA", "")
    assert session.read.decode() == "Hello.\n# 1\nA: <think>AA"
    chat.reset()
    assert Chat(session.model).format == chat.format
    with pytest.raises(InvalidArgumentError, match="system: expected none in the format template"):
        Chat(session.model, system="Be kind.")


def test_a_format_that_is_given_goes_before_the_file(gguf_model: GgufModel) -> None:
    model = Model(gguf_model(chat_template=CHATML))
    assert Chat(model, format="g1").format is CHAT_FORMATS["g1"]
    assert Chat(model).format.name == "template"
    assert Chat(Model(gguf_model("w.gguf", chat_template="rwkv-world"))).format.name == "world"


def test_chats_are_saved_and_loaded(gguf_model: GgufModel, tmp_path: Path) -> None:
    model = Model(gguf_model(chat_template=CHATML))
    chat = Chat(model, max_tokens=2, temperature=0)
    chat.ask("a")
    chat.save(tmp_path / "a.chat")
    other = Chat(model, max_tokens=2, temperature=0)
    other.load(tmp_path / "a.chat")
    assert other.messages == chat.messages
    assert other.ask("b") == chat.ask("b")


HOSTILE = {
    "broken": ("{% for m in messages %}", "TemplateSyntaxError"),
    "undefined": ("{{ messages[0].role.nothing.more }}", "UndefinedError"),
    "outside": ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "SecurityError"),
    "outside by name": ("{% include '/etc/passwd' %}", "TypeError"),
    "endless": (
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "comes to an end",
    ),
    "a number without end": ("{{ 9 ** (10 ** 10) }}", "comes to an end|MemoryError"),
    "memory": ("{{ 'a' * 10 ** 10 }}", "MemoryError"),
    "memory by a filter": ("{{ 'a' | center(9999999999) }}", "MemoryError"),
    "long": ("{{ 'a' * 10 ** 6 }}", "1000000 characters"),
    "deep": ("{% if a %}" * 3000 + "{% endif %}" * 3000, "RecursionError|comes to an end"),
    "silent": ("Hello.", "every turn alike"),
    "twice": ("{{ messages[0].content }}" + WORLD, "every turn alike"),
    "refuses": ("{{ raise_exception('I do not chat') }}", "every turn alike"),
    "forgets": ("User: {{ messages[-1].content }}\n\nAssistant:", "every turn alike"),
    "large": ("{# " + "a" * 300_000 + " #}", "at most 262144 bytes"),
}


@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=[pytest.mark.slow] * (k == "a number without end")) for k in HOSTILE],
)
def test_hostile_templates_are_refused(kind: str) -> None:
    template, complaint = HOSTILE[kind]
    began = time.monotonic()
    with pytest.raises(InvalidArgumentError, match=complaint) as caught:
        format_of_template(template, "f.gguf")
    assert time.monotonic() - began < 120
    assert caught.value.message.startswith("format: the chat template of f.gguf: ")
    assert caught.value.message.isprintable()
    assert "format=" in caught.value.remedy


def test_without_jinja(gguf_model: GgufModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an environment that has only this package."""
    run = subprocess.run

    def bare(command, **options):  # type: ignore[no-untyped-def]
        return run([command[0], "-S", *command[1:]], **options)

    monkeypatch.setattr(subprocess, "run", bare)
    complaint = r"expected the package jinja2 to run it, got none\. Try `pip install rwkv-py\[temp"
    with pytest.raises(InvalidArgumentError, match=complaint):
        Chat(gguf_model(chat_template=CHATML))
    Chat(gguf_model(chat_template=CHATML), format="world")
    Chat(gguf_model(chat_template="rwkv-world"))


def test_command(gguf_model: GgufModel) -> None:
    def chat(path: Path, *options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "rwkv_py", "chat", str(path), "-n", "2", *options]
        return subprocess.run(
            [*command, "--logit-bias", "65=1e6"], input="Hi\n", capture_output=True, text=True
        )

    done = chat(gguf_model(chat_template=CHATML))
    assert (done.returncode, done.stdout) == (0, "AA\n")
    done = chat(gguf_model(chat_template="{{ bad }"))
    assert done.returncode == 1
    assert "format: the chat template of " in done.stderr
    assert done.stderr.endswith("Try --format with the name of one, such as --format world\n")
    assert chat(gguf_model(chat_template="{{ bad }"), "--format", "g1").returncode == 0
