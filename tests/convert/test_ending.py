"""How the command ends: whatever its streams, signals, environment and arguments are."""

import json
import os
import pty
import signal
import subprocess
import sys
import termios

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convert.checkpoint_writers import views, write_pth
from rwkv_convert.cli import main
from rwkv_convert.ending import in_options
from twin import synth

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX streams and signals")

FULL = "cannot be written: No space left on device"
CLOSED = "cannot be written: it is closed"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A small checkpoint."""
    tensors = views(synth.checkpoint("7", n_layer=1), "fp32")
    return write_pth(tmp_path_factory.mktemp("source") / "in.pth", tensors)


def shell(script, source, folder, **environment):
    """Exit code, stdout and stderr of `script`, in which $RUN is the command and $IN a model."""
    variables = {"RUN": f"{sys.executable} -m rwkv_convert", "IN": str(source), **environment}
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail\n{script}"],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, **variables},
        timeout=60,
    )
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


# What is written last is what stderr must hold; "" is silence.
STREAMS = {
    # The file is what was asked for: it is there, and whoever reads about it does not matter.
    "$RUN $IN a.bin | true": (0, ""),
    "$RUN $IN a.bin > /dev/full": (0, f"warning: standard output: {FULL}"),
    "$RUN $IN a.bin >&-": (0, ""),
    "$RUN $IN a.bin <&- >&- 2>&-": (0, ""),
    "$RUN $IN a.bin <&-": (0, ""),
    "$RUN $IN a.bin 2>&-": (0, ""),
    "$RUN $IN a.bin 2> /dev/full": (0, ""),
    "$RUN $IN a.bin > /dev/full 2> /dev/full": (0, ""),
    "$RUN $IN a.bin 1< /dev/null": (0, "warning: standard output: cannot be written: Bad file"),
    # So is what was asked for in words.
    "$RUN $IN a.bin --json | true": (1, ""),
    "$RUN $IN a.bin --json > /dev/full": (1, f"error: standard output: {FULL}"),
    "$RUN --info $IN | true": (1, ""),
    "$RUN --info $IN | cat": (0, ""),
    "$RUN --info $IN > /dev/full": (1, f"error: standard output: {FULL}"),
    "$RUN --info $IN >&-": (1, f"error: standard output: {CLOSED}"),
    "$RUN --info $IN >&- 2>&-": (1, ""),
    "$RUN --info $IN --json > /dev/full 2> /dev/full": (1, ""),
    "$RUN --help > /dev/full": (1, f"error: standard output: {FULL}"),
    "$RUN --version >&-": (1, f"error: standard output: {CLOSED}"),
    "$RUN --help <&- 2>&-": (0, ""),
    # Errors that nobody can be told are errors.
    "$RUN missing a.bin 2> /dev/full": (1, ""),
    "$RUN missing a.bin 2>&-": (1, ""),
    "$RUN missing a.bin 2>&1 >&- | true": (1, ""),
    "$RUN --unknown 2> /dev/full": (2, ""),
    "$RUN --unknown 2>&-": (2, ""),
}


@pytest.mark.parametrize(
    ("script", "unbuffered"),
    [
        pytest.param(script, "", marks=[pytest.mark.slow] * (place % 4 != 0))
        for place, script in enumerate(STREAMS)
    ]
    + [pytest.param(script, "1", marks=pytest.mark.slow) for script in STREAMS if "full" in script],
)
def test_streams(source, tmp_path, script, unbuffered):
    # In a pipeline that ends with `true`, the reader must have gone before anything is written.
    gone = "(trap '' PIPE; while echo; do :; done) 2> /dev/null"
    late = script.replace("$RUN", f"{{ {gone}; $RUN").replace("| true", "; } | true")
    code, message = STREAMS[script]
    found, _, errors = shell(
        late if "| true" in script else script, source, tmp_path, PYTHONUNBUFFERED=unbuffered
    )
    assert found == code
    if message:
        assert errors.startswith(f"rwkv-convert: {message}") and errors.count("\n") == 1
    else:
        assert errors == ""
    written = "$IN a.bin" in script
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"] * written
    if written:
        assert shell("$RUN --info a.bin", source, tmp_path)[0] == 0


def test_closed_descriptors_are_not_those_of_files(source, tmp_path):
    """Or else what a library says would end up in the model."""
    code = "import os, rwkv_convert.ending as e; e.run(lambda: print(os.fstat(0), os.fstat(2)))"
    script = f"{sys.executable} -c '{code}' <&- 2>&-"
    assert shell(script, source, tmp_path)[0] == 0


def test_python_dash_m_is_the_command(source, tmp_path):
    code, output, errors = shell("$RUN $IN a.bin --json", source, tmp_path)
    assert (code, errors, json.loads(output)["path"]) == (0, "", "a.bin")
    assert shell("$RUN", source, tmp_path)[2].startswith("usage: rwkv-convert [")


# --------------------------------------------------------------------------------------------------
# Signals

# At the n-th call of a function since the command began, a signal comes; a few later, another.
SWEEP = """
import os, signal, sys
import rwkv_convert.cli, rwkv_convert.__main__ as command
source, folder, first, step, stop = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
for at in range(first, stop, step):
    kind = at % len(numbers)
    out = os.path.join(folder, str(at))
    os.mkdir(out)
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.path.join(folder, f"{at}.err"), os.O_CREAT | os.O_WRONLY), 2)
        calls = 0
        def count(frame, event, argument):
            global calls
            calls += event == "call"
            if event == "call" and calls in (at, at + 7):
                signal.raise_signal(numbers[(kind + calls - at) % len(numbers)])
        sys.argv = ["rwkv-convert", source, os.path.join(out, "a.bin"), "--quiet", "--threads", "2"]
        try:
            sys.setprofile(count)
            command.main()
        except SystemExit as error:
            sys.setprofile(None)
            os._exit(error.code if calls < at + 8 or error.code else 100)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(at, 128 + numbers[kind], code, flush=True)
    if code == 100:
        break
"""


@pytest.mark.parametrize("step", [1501, pytest.param(97, marks=pytest.mark.slow)])
def test_signals_at_any_moment(source, tmp_path, step):
    """No half file, no traceback; whole files are whole."""
    done = subprocess.run(
        [sys.executable, "-c", SWEEP, source, tmp_path, "1", str(step), "20000"],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert main([str(source), str(tmp_path / "whole.bin"), "--quiet"]) == 0
    whole = (tmp_path / "whole.bin").read_bytes()
    results = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert len(results) > 5000 / step
    stopped = 0
    for at, number, code in results:
        left = list((tmp_path / str(at)).iterdir())
        errors = (tmp_path / f"{at}.err").read_text()
        # Below 0: it was killed, before it began its work or after it had cleaned up.
        assert code < 0 or code in (0, 100, number), (at, number, code)
        assert all(path.name == "a.bin" for path in left)
        assert left or code not in (0, 100)
        assert all(path.read_bytes() == whole for path in left)
        interrupted = "rwkv-convert: interrupted, no unfinished file remains\n"
        assert errors == interrupted if code == 130 else errors in ("", interrupted)
        stopped += not left
    assert stopped > 2000 / step


IMPATIENT = """
import os, pathlib, signal
from rwkv_convert import __main__, piece_reader
def read(self, view, buffer):
    os.kill(os.getpid(), signal.SIGINT)
unlink = pathlib.Path.unlink
def unlink_slowly(self):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.raise_signal(number)
    unlink(self)
piece_reader.PieceReader.read = read
pathlib.Path.unlink = unlink_slowly
__main__.main()
"""


def test_signals_while_a_signal_is_followed(source, tmp_path):
    """Ctrl-C again and again: the unfinished file is removed all the same."""
    command = [sys.executable, "-c", IMPATIENT, source, tmp_path / "a.bin"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 130 and list(tmp_path.iterdir()) == []
    assert done.stderr == "rwkv-convert: interrupted, no unfinished file remains\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_while_numpy_is_imported(source, tmp_path, number):
    """Before there is anything to convert with."""
    code = (
        "import builtins, signal, sys\n"
        "original = builtins.__import__\n"
        "def load(name, *rest):\n"
        "    if name == 'numpy' and 'rwkv_convert.ending' in sys.modules:\n"
        f"        signal.raise_signal({int(number)})\n"
        "    return original(name, *rest)\n"
        "builtins.__import__ = load\n"
        "from rwkv_convert.__main__ import main\n"
        "main()\n"
    )
    command = [sys.executable, "-c", code, source, tmp_path / "a.bin"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 128 + number
    assert done.stderr == "rwkv-convert: interrupted, no unfinished file remains\n" * (
        number == signal.SIGINT
    )


def test_signals_that_the_caller_ignores_stay_ignored(source, tmp_path):
    """As under nohup; and a shell's `command &` is not ended by Ctrl-C."""
    script = (
        "trap '' INT HUP\n"
        "$RUN $IN a.bin --quiet & child=$!\n"
        # It may have ended.
        "for _ in 1 2 3 4 5; do kill -INT $child; kill -HUP $child; sleep 0.05; done 2> /dev/null\n"
        "wait $child"
    )
    assert shell(script, source, tmp_path) == (0, "", "")


# --------------------------------------------------------------------------------------------------
# Environment and arguments

ENVIRONMENTS = [
    {"COLUMNS": "1"},
    {"COLUMNS": "-5"},
    {"COLUMNS": "many", "LINES": "few"},
    {"TQDM_MININTERVAL": "soon", "TQDM_DISABLE": "perhaps"},
    {"PYTHONIOENCODING": "ascii:strict", "LC_ALL": "C"},
    {"PYTHONIOENCODING": "utf-16"},
    {"PYTHONUTF8": "0", "LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0"},
    {"HOME": "/nonexistent", "TERM": "nonsense", "TMPDIR": "/nonexistent"},
    {"OMP_NUM_THREADS": "-1", "OPENBLAS_NUM_THREADS": "1000000000"},
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment", ENVIRONMENTS, ids=lambda e: " ".join(map("=".join, e.items()))
)
def test_environment(source, tmp_path, environment):
    assert shell("$RUN $IN $'\\xff模.bin' > told", source, tmp_path, **environment)[::2] == (0, "")
    assert shell("$RUN --help > told", source, tmp_path, **environment)[::2] == (0, "")


@pytest.mark.parametrize("environment", [{}, {"TQDM_MININTERVAL": "soon"}])
def test_progress_bar_on_a_terminal(source, tmp_path, environment):
    terminal, side = pty.openpty()
    termios.tcsetwinsize(side, (24, 80))
    command = [sys.executable, "-m", "rwkv_convert", source, tmp_path / "a.bin"]
    done = subprocess.run(
        command, stdout=subprocess.DEVNULL, stderr=side, env={**os.environ, **environment}
    )
    os.close(side)
    shown = os.read(terminal, 10_000).decode()
    os.close(terminal)
    assert done.returncode == 0
    assert ("no progress bar: TQDM_ in the environment" if environment else "converting") in shown


def test_remedies_name_options():
    assert in_options("Try another name, or force=True to replace") == (
        "Try another name, or --force to replace"
    )
    assert in_options("Try it as time_state=, beside") == "Try it as --time-state, beside"


PATHS = ". / /dev/null /dev/zero /dev/full /proc/self/mem /proc/x/y in.pth missing/a.bin fifo loop"
WORDS = "0 -1 1000000000 1.5 １ q4_0 fp32 rwkv.cpp -- --d"
ODD = ["", "a\0b", "a\nb", "\udcff", "x" * 256, "x" * 5000, "9" * 5000]
VALUES = st.one_of(
    st.sampled_from([*PATHS.split(), *WORDS.split(), *ODD]),
    st.text(max_size=8).filter(lambda text: "/" not in text),
)
TYPE_OPTIONS = ["--dtype", "--head-dtype", "--emb-dtype", "--lowrank-dtype", "--layout"]
OTHER_OPTIONS = ["--time-state", "--threads", "--info", "--json", "--quiet", "--force", "--help"]
OPTIONS = st.sampled_from([*TYPE_OPTIONS, *OTHER_OPTIONS, "--version", "-h"])


@given(arguments=st.lists(st.one_of(VALUES, OPTIONS), max_size=8))
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_arguments(source, tmp_path_factory, capsys, arguments):
    """Any arguments: a code, one line about an error, and no more files than the one asked for."""
    folder = tmp_path_factory.getbasetemp() / "arguments"
    if not folder.exists():
        folder.mkdir()
        os.mkfifo(folder / "fifo")
        (folder / "loop").symlink_to("loop")
    (folder / "in.pth").write_bytes(source.read_bytes())
    before = {path.name for path in folder.iterdir()}
    here = os.getcwd()
    os.chdir(folder)
    try:
        code = main(arguments)
        output, errors = capsys.readouterr()
        created = {path.name for path in folder.iterdir()} - before
    finally:
        os.chdir(here)
    lines = errors.splitlines()
    assert all(line.isprintable() for line in [*lines, *output.splitlines()])
    told = [line for line in lines if line.startswith("rwkv-convert: error: ")]
    assert (code, len(told)) in [(0, 0), (1, 1), (2, 1)]
    assert code != 1 or len(lines) == 1
    assert len(created) == 0 or (code == 0 and len(created) == 1)
    for name in created:
        (folder / name).unlink()
