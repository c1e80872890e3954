"""The output appears whole under its name, or not at all."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import rwkv_convert
from rwkv_convert import OutputError, write_ggmf

POSIX = pytest.mark.skipif(os.name != "posix", reason="POSIX signals and limits")


def convert(source, destination, **options):
    return rwkv_convert.convert(source, destination, dtype="q4_0", **options)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def out(tmp_path):
    """An empty folder to write into."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def test_output_is_the_only_thing_left(make_pth, out):
    convert(make_pth(), out / "a.bin")
    assert names(out) == ["a.bin"]


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_output_has_the_permissions_of_a_new_file(make_pth, out):
    (out / "other").touch()
    convert(make_pth(), out / "a.bin")
    assert (out / "a.bin").stat().st_mode == (out / "other").stat().st_mode


def test_existing_output_is_kept_without_force(make_pth, out):
    (out / "a.bin").write_text("precious")
    with pytest.raises(OutputError, match=r"a\.bin: exists\. Try another name, or --force"):
        convert(make_pth(), out / "a.bin")
    assert (out / "a.bin").read_text() == "precious"


def test_existing_output_is_kept_when_a_forced_conversion_fails(make_pth, out, tmp_path):
    (out / "a.bin").write_text("precious")
    source = make_pth()
    source.write_bytes(source.read_bytes()[:-1000])
    with pytest.raises(rwkv_convert.CheckpointError):
        convert(source, out / "a.bin", force=True)
    assert (out / "a.bin").read_text() == "precious" and names(out) == ["a.bin"]


def test_force_replaces(make_pth, out):
    (out / "a.bin").write_text("old")
    convert(make_pth(), out / "a.bin", force=True)
    assert rwkv_convert.info(out / "a.bin").version == "7"


def test_output_that_came_into_being_meanwhile_is_kept(make_pth, out):
    def progress(done, total):
        (out / "a.bin").write_text("precious")

    with pytest.raises(OutputError, match="exists"):
        convert(make_pth(), out / "a.bin", progress=progress)
    assert (out / "a.bin").read_text() == "precious" and names(out) == ["a.bin"]


def test_output_that_is_the_input_is_refused(make_pth):
    source = make_pth()
    before = source.read_bytes()
    with pytest.raises(OutputError, match="is the input"):
        convert(source, source, force=True)
    assert source.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "expected the name of a file to write, got a folder"),
        ("missing/a.bin", "the folder .*missing does not exist"),
        ("x" * 300 + ".bin", "cannot be written: File name too long"),
        ("a\0b.bin", "cannot be written"),
    ],
)
def test_output_that_cannot_be_is_refused(make_pth, out, name, message):
    with pytest.raises(OutputError, match=message):
        convert(make_pth(), f"{out}/{name}")
    assert names(out) == []


@POSIX
def test_output_that_is_a_device_is_refused(make_pth):
    with pytest.raises(OutputError, match="got a device or pipe"):
        convert(make_pth(), os.devnull, force=True)


@POSIX
def test_unwritable_folder_is_refused(make_pth, out):
    if os.geteuid() == 0:  # root may write everywhere but into the kernel's folders
        out = Path("/proc/self")
        if not out.is_dir():
            pytest.skip("root, and no /proc")
    else:
        out.chmod(0o500)
    with pytest.raises(OutputError, match=r"a\.bin: cannot be written: \w"):
        convert(make_pth(), out / "a.bin")


def test_failing_disk_leaves_nothing(make_pth, out, monkeypatch):
    def fail(handle):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(write_ggmf.os, "fsync", fail)
    with pytest.raises(OutputError, match=r"a\.bin: cannot be written: Input/output error"):
        convert(make_pth(), out / "a.bin")
    assert names(out) == []


def test_failing_progress_leaves_nothing(make_pth, out):
    def progress(done, total):
        raise RuntimeError("no more paper")

    with pytest.raises(RuntimeError, match="no more paper"):
        convert(make_pth(), out / "a.bin", progress=progress)
    assert names(out) == []


def test_input_that_shrinks_meanwhile_leaves_nothing(make_pth, out, monkeypatch):
    source = make_pth()
    original = write_ggmf.write_headers

    def shrink(file, plan):
        original(file, plan)
        os.truncate(source, 5000)

    # The package's attribute `convert` is the function.
    monkeypatch.setattr(sys.modules["rwkv_convert.convert"], "write_headers", shrink)
    with pytest.raises(rwkv_convert.CheckpointError, match="truncated"):
        convert(source, out / "a.bin")
    assert names(out) == []


@POSIX
def test_full_disk_leaves_nothing(make_pth, out):
    """A limit on the size of files fails as a full disk does: in the middle of a write."""
    source = make_pth("7", "bf16")
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "from rwkv_convert.cli import main\n"
        f"sys.exit(main([{str(source)!r}, {str(out / 'a.bin')!r}]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "a.bin: cannot be written: File too large" in done.stderr
    assert done.stderr.count("\n") == 1 and names(out) == []


SLOW = """
import sys, time
from rwkv_convert import checkpoint, cli
read = checkpoint.PieceReader.read
def slow(self, view, buffer):
    time.sleep(0.05)
    return read(self, view, buffer)
checkpoint.PieceReader.read = slow
sys.exit(cli.main(sys.argv[1:]))
"""


def interrupted(source, destination, number):
    """Starts a slow conversion, sends it a signal in its middle and waits for its end."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, source, destination], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 30
    while not names(destination.parent) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None and not destination.exists()
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    return process.returncode, errors


@POSIX
def test_ctrl_c_leaves_nothing(make_pth, out):
    code, errors = interrupted(make_pth(), out / "a.bin", signal.SIGINT)
    assert code == 130 and names(out) == []
    assert errors == "rwkv-convert: interrupted, nothing was written\n"


@POSIX
def test_sigterm_leaves_nothing(make_pth, out):
    code, _ = interrupted(make_pth(), out / "a.bin", signal.SIGTERM)
    assert code == 143 and names(out) == []


@POSIX
def test_sigkill_leaves_only_the_temporary_name(make_pth, out):
    interrupted(make_pth(), out / "a.bin", signal.SIGKILL)
    (left,) = names(out)
    assert left.startswith(".a.bin.") and left.endswith(".part")
