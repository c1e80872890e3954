"""The command: exit codes, sentences, summaries."""

import json
import zipfile

import numpy as np
import pytest

from convert.checkpoint_writers import integer, views, write_pth
from convert.hostile_pickles import hostile_pickles
from rwkv_convert.cli import main
from twin import ggmf, synth


def run(capsys, *arguments):
    """Exit code, stdout and stderr of the command, run in this process."""
    code = main([str(argument) for argument in arguments])
    output = capsys.readouterr()
    return code, output.out, output.err


def test_convert(run_cli, make_pth, tmp_path):
    """The installed command, as a user types it."""
    done = run_cli("rwkv-convert", make_pth("6", "bf16"), tmp_path / "a.bin", "--dtype", "Q5_1")
    assert (done.returncode, done.stderr) == (0, "")
    for words in ("RWKV-6", "2 layers", "width 128", "vocabulary 64", " -> ", "q5_1", "q8_0"):
        assert words in done.stdout
    assert ggmf.read(tmp_path / "a.bin").type == "q5_1"


def test_dtype_defaults_to_fp16(capsys, make_pth, tmp_path):
    assert run(capsys, make_pth(), tmp_path / "a.bin")[0] == 0
    assert ggmf.read(tmp_path / "a.bin").type == "fp16"


@pytest.mark.parametrize("form", ["{} {} FP32", "--quiet {} {} fp32", "{} {} fp32 --force"])
def test_dtype_may_stand_last(form, capsys, make_pth, tmp_path):
    """As in rwkv.cpp's scripts."""
    arguments = form.format(make_pth(), tmp_path / "a.bin").split()
    assert run(capsys, *arguments)[0] == 0
    assert ggmf.read(tmp_path / "a.bin").type == "fp32"


def test_all_options_reach_convert(capsys, make_pth, tmp_path):
    options = [
        "--dtype",
        "q4_0",
        "--head-dtype",
        "q5_0",
        "--emb-dtype",
        "fp16",
        "--lowrank-dtype",
        "float32",
    ]
    options += ["--threads", "1", "--force", "--quiet"]
    (tmp_path / "a.bin").touch()
    assert run(capsys, make_pth(), tmp_path / "a.bin", *options) == (0, "", "")
    types = {n: t.type for n, t in ggmf.read(tmp_path / "a.bin").tensors.items()}
    wanted = {"head.weight": "q5_0", "emb.weight": "fp16", "blocks.1.att.g2": "fp32"}
    assert wanted.items() <= types.items()


def test_layout_option(capsys, make_pth, tmp_path):
    code, _, _ = run(
        capsys, make_pth(), tmp_path / "a.bin", "--dtype", "q4_0", "--layout", "rwkv.cpp"
    )
    assert code == 0
    assert ggmf.read(tmp_path / "a.bin").tensors["head.weight"].type == "fp16"


def test_json_summary(capsys, make_pth, tmp_path):
    code, output, errors = run(capsys, make_pth("4"), tmp_path / "a.bin", "--json")
    summary = json.loads(output)
    assert (code, errors, summary["source"]["version"]) == (0, "", "4")
    assert summary["file_bytes"] == (tmp_path / "a.bin").stat().st_size


def test_warnings_are_said_on_stderr(capsys, tmp_path):
    checkpoint = synth.checkpoint("7", n_layer=1)
    checkpoint["head.weight"][0, 0] = np.nan
    tensors = {**views(checkpoint, "fp32"), "epoch": integer(3)}
    source = write_pth(tmp_path / "in.pth", tensors)
    code, _, errors = run(capsys, source, tmp_path / "a.bin", "--dtype", "q4_0")
    assert code == 0
    assert errors.splitlines() == [
        f"rwkv-convert: warning: {source}: tensor 'epoch' is not used by RWKV-7 and left out",
        f"rwkv-convert: warning: {source}: tensor 'head.weight' holds NaN or infinite values",
    ]


@pytest.mark.parametrize("version", synth.VERSIONS)
def test_info(capsys, make_pth, version):
    code, output, errors = run(capsys, "--info", make_pth(version))
    assert (code, errors) == (0, "")
    shown = {"5.1-gate": "5.2"}.get(version, version)
    assert f"RWKV-{shown}, pth (zip)" in output
    heads = "no heads" if version == "4" else "2 heads of 64"
    assert heads in output and "layers      2" in output and "fp32" in output


def test_info_json(capsys, make_pth):
    code, output, _ = run(capsys, "--info", make_pth("6", "bf16"), "--json")
    found = json.loads(output)
    assert code == 0
    assert (found["version"], found["n_layer"], found["n_head"], found["head_size"]) == (
        "6",
        2,
        2,
        64,
    )
    assert found["types"]["bf16"]["parameters"] == found["parameters"]
    assert found["types"]["bf16"]["bytes"] == 2 * found["parameters"]


def test_info_of_a_quantised_file(capsys, make_pth, tmp_path):
    run(capsys, make_pth(), tmp_path / "a.bin", "--dtype", "q4_0")
    code, output, _ = run(capsys, "--info", tmp_path / "a.bin")
    assert code == 0 and "ggmf" in output and "q4_0" in output


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["in.pth"],
        ["in.pth", "out.bin", "more"],
        ["in.pth", "out.bin", "q4_0", "more"],
        ["in.pth", "out.bin", "q4_0", "--dtype", "q4_0"],
        ["in.pth", "out.bin", "--dtype", "q4_K"],
        ["in.pth", "out.bin", "--dtype"],
        ["in.pth", "out.bin", "--layout", "gguf"],
        ["in.pth", "out.bin", "--layout", "rwkv.cpp", "--head-dtype", "fp16"],
        ["in.pth", "out.bin", "--threads", "0"],
        ["in.pth", "out.bin", "--threads", "x"],
        ["in.pth", "out.bin", "--unknown"],
        ["--info"],
        ["--info", "a.bin", "b.bin"],
    ],
)
def test_usage_errors(capsys, arguments):
    code, output, errors = run(capsys, *arguments)
    assert (code, output) == (2, "")
    assert errors.startswith("usage: rwkv-convert") and "Traceback" not in errors


def test_version_and_help(capsys):
    assert run(capsys, "--version")[1].startswith("rwkv-convert 0.")
    code, output, _ = run(capsys, "--help")
    assert code == 0 and "--lowrank-dtype" in output


# --------------------------------------------------------------------------------------------------
# Every bad input: one sentence, exit code 1, nothing left behind


def _good(path, version="7", **changes):
    tensors = views(synth.checkpoint(version, n_layer=2), "fp32")
    for name, change in changes.items():
        if change is not None:
            change.storage = name
        tensors[name.replace("__", ".")] = change
    return write_pth(path, {n: v for n, v in tensors.items() if v is not None})


def _misshaped(*shape):
    return views({"other": np.zeros(shape, np.float32)}, "fp32")["other"]


def _cut(path, keep):
    _good(path)
    data = path.read_bytes()
    path.write_bytes(data[:keep] if keep > 0 else data[: len(data) + keep])


def _zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


BAD_INPUTS = {
    "missing file": (lambda p: None, "cannot be opened: No such file or directory"),
    "folder": (lambda p: p.mkdir(), "expected a folder with one model, got nothing"),
    "empty": (lambda p: p.write_bytes(b""), "got an empty file"),
    "web page": (
        lambda p: p.write_text("<!DOCTYPE html><html>Sign in</html>"),
        "got a web page. Try the link that downloads the file itself",
    ),
    "web page, in capitals": (lambda p: p.write_text("\n <HTML>404"), "got a web page"),
    "git lfs pointer": (
        lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid x"),
        "got a Git LFS pointer. Try `git lfs pull`",
    ),
    "gguf": (lambda p: p.write_bytes(b"GGUF\3\0\0\0"), "truncated, expected 8 bytes"),
    "old ggml": (lambda p: p.write_bytes(b"lmgg" + bytes(99)), "ggml file of another program"),
    "gzip": (lambda p: p.write_bytes(b"\x1f\x8b" + bytes(99)), "got a compressed archive"),
    "zeros": (lambda p: p.write_bytes(bytes(1000)), "got zeros"),
    "bare pickle": (lambda p: p.write_bytes(b"\x80\x04}."), "a pickle that torch.save did not"),
    "text": (lambda p: p.write_text("hello\nworld"), r"a file that begins with 'hello\nworld'"),
    "escape codes": (lambda p: p.write_text("\x1b[31mred"), r"begins with '\x1b[31mred'"),
    "zip of something else": (_zip, "no checkpoint, expected one NAME/data.pkl"),
    "truncated zip": (lambda p: _cut(p, -5000), "truncated"),
    "truncated zip, only its head": (lambda p: _cut(p, 100), "truncated"),
    "hostile pickle": (
        lambda p: write_pth(p, {}, pickle=hostile_pickles(p.parent / "ran")["builtins.eval"]),
        "pickle names the global builtins.eval, which is refused",
    ),
    "missing tensor": (
        lambda p: _good(p, blocks__1__ffn__key__weight=None),
        "not a whole RWKV-7 model: missing 'blocks.1.ffn.key.weight'; found 'emb.weight'",
    ),
    "missing layer": (
        lambda p: write_pth(
            p,
            {
                n: v
                for n, v in views(synth.checkpoint("4"), "fp32").items()
                if not n.startswith("blocks.1.")
            },
        ),
        "missing 'blocks.1.ln1.weight'",
    ),
    "misshaped tensor": (
        lambda p: _good(p, blocks__1__ffn__key__weight=_misshaped(512, 64)),
        "shape of tensor 'blocks.1.ffn.key.weight', expected (512, 128), got (512, 64)",
    ),
    "misshaped embedding": (
        lambda p: _good(p, emb__weight=_misshaped(1, 9, 1)),
        "shape of tensor 'emb.weight', expected 2 dimensions, got (1, 9, 1)",
    ),
    "another architecture": (
        lambda p: write_pth(p, views({"lm_head.weight": np.zeros((3, 3), np.float32)}, "fp32")),
        "no RWKV version that we know: found 'lm_head.weight'; missing",
    ),
    "name with a line break": (
        lambda p: write_pth(p, views({"a\nb": np.zeros(3, np.float32)}, "fp32")),
        r"found 'a\nb'",
    ),
}


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_bad_input_is_refused(capsys, tmp_path, case):
    make, message = BAD_INPUTS[case]
    source, out = tmp_path / "in.pth", tmp_path / "out"
    out.mkdir()
    make(source)
    code, output, errors = run(capsys, source, out / "a.bin", "--dtype", "q4_0")
    assert (code, output) == (1, "")
    assert errors.startswith("rwkv-convert: error: ") and message in errors
    assert errors[:-1].isprintable() and errors.endswith("\n")  # one line
    assert list(out.iterdir()) == [] and not (tmp_path / "ran").exists()
    code, output, errors = run(capsys, "--info", source)
    assert (code, output) == (1, "") and message in errors


def test_good_files_still_convert(capsys, tmp_path):
    """The files that the bad ones above are made from."""
    assert run(capsys, _good(tmp_path / "in.pth"), tmp_path / "a.bin")[0] == 0


def test_output_that_exists_is_refused(capsys, make_pth, tmp_path):
    (tmp_path / "a.bin").write_text("precious")
    code, _, errors = run(capsys, make_pth(), tmp_path / "a.bin")
    assert (
        code == 1
        and "a.bin: exists, expected a new name. Try another name, or --force to" in errors
    )
    assert (tmp_path / "a.bin").read_text() == "precious"
