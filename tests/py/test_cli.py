"""The `rwkv` command, as a user meets it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from rwkv_py import SamplingOptions, Session, Tokenizer, __version__
from rwkv_py.cli.sampling import SETTINGS
from terminal import Terminal

RunCli = Callable[..., CompletedProcess[str]]
PROMPT = ".. function:: "
RWKV = str(Path(sys.executable).parent / "rwkv")
COMMANDS = [
    "bench", "chat", "compare", "generate", "info", "lambada", "models", "perplexity", "run",
    "tokenize",
]  # fmt: skip


@pytest.fixture(scope="module")
def model(converted: Callable[[str], Path]) -> Path:
    return converted("q4_0")


def test_generate_is_what_session_generates(model: Path, run_cli: RunCli) -> None:
    done = run_cli(
        "rwkv", "generate", model, "--prompt", PROMPT, "--max-tokens", "80", "--seed", "3",
        "--temperature", "0.8", "--top-p", "0.9", check=True,
    )  # fmt: skip
    session = Session(model)
    text = session.generate(PROMPT, max_tokens=80, seed=3, temperature=0.8, top_p=0.9)
    assert done.stdout == text + "\n"
    assert done.stderr == ""


def test_generate_every_option(model: Path, run_cli: RunCli) -> None:
    sampling = {
        "temperature": 1.5,
        "top_p": 0.9,
        "top_k": 30,
        "min_p": 0.01,
        "typical_p": 0.9,
        "repetition_penalty": 1.1,
        "presence_penalty": 0.3,
        "frequency_penalty": 0.2,
        "penalty_decay": 0.99,
        "seed": 4,
        "mirostat_tau": 0,
        "mirostat_eta": 0.2,
    }
    options = [f"--{name.replace('_', '-')}={value}" for name, value in sampling.items()]
    options += ["--logit-bias", "97=1.5,98=-2", "--logit-bias", "99=0.5"]
    options += ["--banned-tokens", "10,0", "--banned-tokens", "122"]
    options += ["--stop", "``", "--stop", r"\t::\\"]
    args = ("-p", PROMPT, "-n", "50", "--threads", "1")
    done = run_cli("rwkv", "generate", model, *args, *options, check=True)
    sampling |= {
        "logit_bias": {97: 1.5, 98: -2, 99: 0.5},
        "banned_tokens": [10, 0, 122],
        "stop": ["``", "\t::\\"],
    }
    text = Session(model).generate(PROMPT, max_tokens=50, **sampling)
    assert done.stdout == text + "\n"
    assert set(sampling) == set(SETTINGS)


@pytest.mark.parametrize(
    ("option", "keywords"),
    [
        (["--top-k", "3"], {"top_k": 3}),
        (["--min-p", "0.3"], {"min_p": 0.3}),
        (["--typical-p", "0.2"], {"typical_p": 0.2}),
        (["--mirostat-tau", "2", "--mirostat-eta", "0.3"],
         {"mirostat_tau": 2, "mirostat_eta": 0.3}),
        (["--repetition-penalty", "1.5"], {"repetition_penalty": 1.5}),
        (["--presence-penalty", "2"], {"presence_penalty": 2}),
        (["--frequency-penalty", "3", "--penalty-decay", "1"],
         {"frequency_penalty": 3, "penalty_decay": 1}),
        (["--logit-bias", "32=-100,101=3"], {"logit_bias": {32: -100, 101: 3}}),
        (["--banned-tokens", "32,101"], {"banned_tokens": [32, 101]}),
        (["--stop", "e", "--stop", r"\n"], {"stop": ["e", "\n"]}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)  # fmt: skip
def test_generate_each_option_matters(
    option: list[str], keywords: dict[str, Any], model: Path, run_cli: RunCli
) -> None:
    done = run_cli(
        "rwkv", "generate", model, "-p", PROMPT, "-n", "60", "--seed", "4", *option, check=True
    )
    plain = Session(model).generate(PROMPT, max_tokens=60, seed=4)
    text = Session(model).generate(PROMPT, max_tokens=60, seed=4, **keywords)
    assert done.stdout == text + "\n" != plain + "\n"


def test_every_sampling_option_of_python_is_one_of_the_command_line() -> None:
    assert set(SETTINGS) == {*SamplingOptions.__annotations__, "stop"}


@pytest.mark.parametrize("command", ["generate", "chat"])
def test_help_has_every_setting_under_a_heading(command: str, run_cli: RunCli) -> None:
    text = run_cli("rwkv", command, "--help", check=True, env={"COLUMNS": "160"}).stdout
    for setting in SETTINGS.values():
        panel = re.search(rf"─ {setting.panel} ─.*?╰─", text, re.DOTALL)
        assert panel is not None
        option = f"--{setting.name.replace('_', '-')} "
        (line,) = (line for line in panel[0].splitlines() if f" {option}" in line)
        assert setting.help in line
    default = {"generate": "0.85", "chat": "the format's"}[command]
    assert re.search(rf"--top-p .* \[default: \({default}\)\]", text)
    assert re.search(r"--threads .* \[default: \(the physical cores\)\]", text)


@pytest.mark.parametrize(
    "command",
    [["generate", "-p", "x"], pytest.param(["chat"], marks=pytest.mark.slow)],
    ids=["generate", "chat"],
)
@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("--temperature=-1", "expected a number from 0 to 1e+06, got -1. Try 0.8"),
        ("--temperature=hot", "expected a number, got 'hot'. Try 0.8"),
        ("--temperature=nan", "expected a number from 0 to 1e+06, got nan. Try 0.8"),
        ("--top-p=1.5", "expected a number from 0 to 1, got 1.5. Try 0.9"),
        ("--top-k=2.5", "expected a whole number, got '2.5'. Try 40"),
        ("--top-k=-2", "expected 0 (all) or more, got -2. Try 40"),
        ("--min-p=2", "expected a number from 0 to 1, got 2. Try 0.05"),
        ("--penalty-decay=2", "expected a number from 0 to 1, got 2. Try 0.996"),
        ("--repetition-penalty=0", "got 0. Try 1.1"),
        ("--seed=-1", "expected 0 to 2**64 - 1, got -1. Try 1"),
        ("--logit-bias=11", "expected tokens and what to add, such as 11=-2.5,261=1, got '11'"),
        ("--logit-bias=11=nan", "such as 11=-2.5,261=1, got '11=nan'. Try 11=-2.5"),
        ("--banned-tokens=0,,1", "expected tokens, such as 0,11, got '0,,1'. Try 0"),
        ("--banned-tokens=-3", "expected tokens, such as 0,11, got '-3'. Try 0"),
        ("--stop=", "expected a text, got ''."),
    ],
)
def test_wrong_settings_are_refused_before_the_model_is_opened(
    command: list[str], option: str, complaint: str, tmp_path: Path, run_cli: RunCli
) -> None:
    done = run_cli(
        "rwkv", command[0], tmp_path / "no.bin", *command[1:], option, env={"COLUMNS": "160"}
    )
    assert (done.returncode, done.stdout) == (2, "")
    name = option.split("=")[0]
    assert f"Invalid value for '{name}'" in done.stderr
    assert complaint in done.stderr


def test_generate_takes_bytes_that_are_not_utf8(model: Path, run_cli: RunCli) -> None:
    args = ("-n", "8", "--seed", "1", "--json")
    by_option = run_cli("rwkv", "generate", model, "-p", "a\udcff", *args, check=True)
    facts = json.loads(by_option.stdout)
    stream = Session(model).stream(b"a\xff", max_tokens=8, seed=1)
    assert (facts["prompt"], facts["text"]) == ("a\ufffd", "".join(stream))
    command = [RWKV, "generate", str(model), "-p", "-", *args]
    by_stdin = subprocess.run(command, input=b"a\xff", capture_output=True, check=True)
    assert json.loads(by_stdin.stdout) == facts


def test_output_that_cannot_show_a_character(model: Path, run_cli: RunCli) -> None:
    """A terminal that is not of UTF-8 shows question marks."""
    args = ("-p", "x", "-n", "4", "--logit-bias", "169=100", "--temperature", "0")
    done = run_cli("rwkv", "generate", model, *args, env={"PYTHONIOENCODING": "ascii"}, check=True)
    assert done.stdout == "????\n"


def test_generate_mirostat(model: Path, run_cli: RunCli) -> None:
    args = ("-p", PROMPT, "-n", "30", "--seed", "4", "--mirostat-tau", "2", "--mirostat-eta", "0.3")
    done = run_cli("rwkv", "generate", model, *args, check=True)
    text = Session(model).generate(PROMPT, max_tokens=30, seed=4, mirostat_tau=2, mirostat_eta=0.3)
    assert done.stdout == text + "\n"


@pytest.mark.parametrize("typed", [[PROMPT], ["-"], ["-p", "-"], ["--prompt", PROMPT]])
def test_generate_prompt(typed: list[str], model: Path, run_cli: RunCli) -> None:
    """Where fingers type it, as an option, or from stdin."""
    args = ("-n", "20", "--temperature", "0")
    done = run_cli("rwkv", "generate", model, *typed, *args, check=True, stdin=PROMPT)
    expected = Session(model).generate(PROMPT, max_tokens=20, temperature=0)
    assert done.stdout == expected + "\n"


def test_generate_streams(model: Path) -> None:
    """Text comes while the command is still writing, without waiting for a full buffer."""
    command = [RWKV, "generate", str(model), "-p", PROMPT, "-n", "1000000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(10)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130


def test_generate_in_a_terminal_and_ctrl_c(model: Path) -> None:
    terminal = Terminal(RWKV, "generate", str(model), "-p", PROMPT, "-n", "1000000")
    terminal.wait_for(r"[^\n]{10}.*\n")  # text, after the message that the model is being opened
    terminal.type("\x03")
    assert terminal.exit_code() == 130
    assert "Traceback" not in terminal.screen
    assert "Aborted" not in terminal.screen
    terminal.close()


@pytest.mark.parametrize(
    ("args", "begun"),
    [
        pytest.param(["bench", "{model}", "--seconds", "1000"], "Measuring", id="bench"),
        pytest.param(["generate", "{model}", "-p", "-"], None, id="generate"),
        pytest.param(["perplexity", "{model}", "{long}"], "Reading", id="perplexity"),
        pytest.param(["lambada", "{model}", "{passages}"], "Guessing", id="lambada"),
    ],
)
def test_ctrl_c_ends_what_takes_long(
    args: list[str], begun: str | None, model: Path, tmp_path: Path
) -> None:
    """Minutes each; `begun` is what it says at work, where it says something."""
    long, passages = tmp_path / "long.txt", tmp_path / "passages.jsonl"
    long.write_text("All work and no play makes Jack a dull boy. " * 100_000)
    passages.write_text((json.dumps({"text": "All work, no play. " * 100}) + "\n") * 10_000)
    files = {"model": model, "long": long, "passages": passages}
    terminal = Terminal(RWKV, *(arg.format(**files) for arg in args))
    if begun is None:
        time.sleep(1.5)  # if it has not begun by then, it ends in the same way
    else:
        terminal.wait_for(begun)
    terminal.type("\x03")
    typed = time.monotonic()
    assert terminal.exit_code() == 130
    assert time.monotonic() - typed < 60
    assert "Traceback" not in terminal.screen
    terminal.close()


def test_generate_json(model: Path, run_cli: RunCli) -> None:
    args = ("-p", PROMPT, "-n", "30", "--seed", "4", "--stop", "\n\n", "--json")
    facts = json.loads(run_cli("rwkv", "generate", model, *args, check=True).stdout)
    stream = Session(model).stream(PROMPT, max_tokens=30, seed=4, stop="\n\n")
    assert facts == {
        "prompt": PROMPT,
        "text": "".join(stream),
        "finish_reason": stream.finish_reason,
        "tokens": stream.tokens,
    }


def test_json_has_null_for_what_is_no_number(model: Path, tmp_path: Path, run_cli: RunCli) -> None:
    """A word as improbable as this has a perplexity that no float64 holds."""
    file = tmp_path / "lambada.jsonl"
    file.write_text(json.dumps({"text": f"import {'你' * 200}"}))
    done = run_cli("rwkv", "lambada", model, file, "--json", check=True)
    facts = json.loads(done.stdout, parse_constant=pytest.fail)
    assert facts["perplexity"] is None
    assert facts["accuracy"] == 0
    assert "inf" in run_cli("rwkv", "lambada", model, file, check=True).stdout


def test_tokenize(model: Path, run_cli: RunCli) -> None:
    world = run_cli("rwkv", "tokenize", "--tokenizer", "world", 'Hello, "né"\n', check=True)
    lines = [line.split(None, 1) for line in world.stdout.splitlines()]
    assert Tokenizer.world().decode([int(token) for token, _ in lines]) == 'Hello, "né"\n'
    assert "".join(json.loads(piece) for _, piece in lines) == 'Hello, "né"\n'
    assert run_cli("rwkv", "tokenize", model, "ab", check=True).stdout == '    97 "a"\n    98 "b"\n'


def test_tokenize_json_and_stdin(model: Path, run_cli: RunCli) -> None:
    done = run_cli("rwkv", "tokenize", model, "-", "--json", check=True, stdin="né")
    facts = json.loads(done.stdout)
    pieces = ["n", r"\xc3", r"\xa9"]
    assert facts == {"n_tokens": 3, "tokens": [110, 195, 169], "pieces": pieces}


def test_tokenize_vocabulary_file(tmp_path: Path, run_cli: RunCli) -> None:
    (tmp_path / "v.txt").write_text("1 'a' 1\n2 'ab' 2\n")
    args = ("tokenize", "aba", "--json", "--tokenizer", tmp_path / "v.txt")
    assert json.loads(run_cli("rwkv", *args, check=True).stdout)["tokens"] == [2, 1]


@pytest.mark.parametrize(
    "args", [["text alone"], ["{model}", "text", "--tokenizer", "world"], ["a", "b", "c"]]
)
def test_tokenize_wrong_usage(args: list[str], model: Path, run_cli: RunCli) -> None:
    done = run_cli("rwkv", "tokenize", *(arg.format(model=model) for arg in args))
    assert done.returncode == 2
    assert "expected MODEL and TEXT" in done.stderr


def test_bench(model: Path, run_cli: RunCli) -> None:
    args = ("rwkv", "bench", model, "--seconds", "0.05", "--threads", "1", "--batch", "3")
    facts = json.loads(run_cli(*args, "--json", check=True).stdout)
    for work in ("decode", "prefill", "batch"):
        assert facts[f"{work}_tokens_per_s"] > 1
    assert (facts["n_batch"], facts["n_threads"], facts["data_type"]) == (3, 1, "q4_0")
    text = run_cli(*args, check=True).stdout
    for fact in ("writing one text", "reading a prompt", "writing 3 texts", "tokens/s", "threads"):
        assert fact in text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("rwkv ", COMMANDS),
        ("rwkv per", ["perplexity"]),
        ("rwkv info --j", ["--json"]),
        ("rwkv generate --mirostat", ["--mirostat-tau", "--mirostat-eta"]),
        ("rwkv chat model.bin --format g1", ["g1", "g1-think", "g1-fast-think"]),
    ],
)
def test_shell_completion(words: str, expected: list[str], run_cli: RunCli) -> None:
    """What bash asks for when one presses Tab."""
    env = {
        "_RWKV_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    offered = run_cli("rwkv", env=env).stdout.split()
    assert set(expected) <= set(offered)
    assert all(offer.startswith(words.split(" ")[-1]) for offer in offered)


def test_shell_completion_script(run_cli: RunCli) -> None:
    done = run_cli("rwkv", env={"_RWKV_COMPLETE": "source_bash"})
    assert "complete -o default -F _rwkv_completion rwkv" in done.stdout


def test_info(model: Path, run_cli: RunCli) -> None:
    text = run_cli("rwkv", "info", model, check=True).stdout
    for fact in ("RWKV-7", "q4_0", "5,354,752", "4 of 64", "256 tokens"):
        assert fact in text
    facts = json.loads(run_cli("rwkv", "info", model, "--json", check=True).stdout)
    assert facts["version"] == "7"
    assert facts["n_vocab"] == 256
    assert facts["path"] == str(model)
    assert facts["ln_x_eps"] == 0.00064
    assert int(facts["fingerprint"], 16) == Session(model).model.info.fingerprint
    assert facts["fingerprint"] in text


def test_info_of_v4_has_no_heads(model_file: Callable[..., Path], run_cli: RunCli) -> None:
    text = run_cli("rwkv", "info", model_file("4"), check=True).stdout
    assert "RWKV-4" in text
    assert "heads" not in text
    assert "ln_x_eps" not in text


def test_version(run_cli: RunCli) -> None:
    assert run_cli("rwkv", "--version", check=True).stdout == f"rwkv {__version__}\n"


@pytest.mark.parametrize("command", [[], *([command] for command in COMMANDS)])
def test_help(command: list[str], run_cli: RunCli) -> None:
    for flag in ("--help", "-h"):
        assert "Usage: rwkv" in run_cli("rwkv", *command, flag, check=True).stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["info", "{tmp}/missing.bin"], r"missing\.bin: .*No such file"),
        (["generate", "{tmp}/missing.bin", "-p", "x"], r"missing\.bin: .*No such file"),
        (["info", "{tmp}"], r"rwkv: "),
        (["generate", "{model}", "-p", "x", "--banned-tokens", "256"],
         r"banned_tokens: token: expected 0 to 255, got 256"),
        (["chat", "{model}", "--logit-bias", "300=1"],
         r"logit_bias: token: expected 0 to 255, got 300"),
        (["generate", "{model}", "-p", "x", "--tokenizer", "{tmp}/v.txt"], r"v\.txt: .*No such"),
        (["generate", "{unknown}", "-p", "x"],
         r"has 64 tokens.*to know its tokenizer\. Try --tokenizer with its vocabulary file$"),
        (["tokenize", "{unknown}", "x"],
         r"has 64 tokens.*to know its tokenizer\. Try --tokenizer with its vocabulary file$"),
        (["generate", "{model}", "-p", "Hello", "--tokenizer", "world"],
         r"tokenizer: expected tokens 0 to 255 for .*, got 33155: it has 65530\. Try --tokenizer"),
        (["perplexity", "{model}", "{tmp}/text"], r"/text: cannot be opened: No such file"),
        (["generate", "{v4}", "-p", "x", "--ln-x-eps", "1e-5"], r"ln_x_eps"),
    ],
)  # fmt: skip
def test_errors_are_one_line(
    args: list[str],
    message: str,
    model: Path,
    model_file: Callable[..., Path],
    tmp_path: Path,
    run_cli: RunCli,
) -> None:
    files = {
        "tmp": tmp_path,
        "model": model,
        "unknown": model_file("7", n_vocab=64),
        "v4": model_file("4", n_vocab=256),
    }
    done = run_cli("rwkv", *(arg.format(**files) for arg in args))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("rwkv: ")
    assert done.stderr.count("\n") == 1
    assert re.search(message, done.stderr)
    assert not re.search(r"\w\(|\w=\)", done.stderr)  # Python, which is no help here


@pytest.mark.parametrize(
    "args",
    [
        ["generate"],
        ["nonsense"],
        ["info", "a", "b"],
        ["info", "a", "--nonsense"],
        ["bench", "a", "--seconds", "0"],
        ["bench", "a", "--seconds", "inf"],
        ["perplexity", "a", "b", "--ln-x-eps", "-1"],
        [],
    ],
)
def test_wrong_usage(args: list[str], run_cli: RunCli) -> None:
    done = run_cli("rwkv", *args)
    assert done.returncode == 2
    assert "Usage: rwkv" in done.stdout + done.stderr


def test_output_that_nobody_reads(model: Path) -> None:
    """`rwkv generate ... | head -c 5` ends quietly."""
    command = [RWKV, "generate", str(model), "-p", PROMPT, "-n", "5000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(5)
        process.stdout.close()
        complaint = process.stderr.read().decode()
    assert complaint == ""
    assert process.returncode == 1
