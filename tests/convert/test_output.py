"""The output appears whole under its name, or not at all."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import rwkv_convert
from rwkv_convert import CheckpointError, OutputError, conversion, output_file
from rwkv_convert.piece_reader import PieceReader
from rwkv_convert.sources import open_source

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
    with pytest.raises(OutputError, match=r"a\.bin: exists, .* Try another name, or force=True"):
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
    (source.parent / "link.pth").hardlink_to(source)
    with pytest.raises(OutputError, match="is the input"):
        convert(source, source.parent / "link.pth", force=True)
    assert source.read_bytes() == before


def test_input_that_vanishes_once_it_was_looked_at_is_named(make_pth, out, monkeypatch):
    def vanish(path, quiet):
        checkpoint = open_source(path, quiet=quiet)
        path.unlink()
        return checkpoint

    (out / "a.bin").write_text("old")
    monkeypatch.setattr(conversion, "open_source", vanish)
    with pytest.raises(CheckpointError, match=r"in\.pth: cannot be opened: No such file"):
        convert(make_pth().rename(out / "in.pth"), out / "a.bin", force=True)
    assert (out / "a.bin").read_text() == "old" and names(out) == ["a.bin"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "expected the name of a file to write, got a folder"),
        ("in.pth/a.bin", "expected a folder .*in.pth to write into, got none"),
        ("missing/a.bin", "expected a folder .*missing to write into, got none"),
        ("x" * 300 + ".bin", r"cannot be written: File name too long\. Try a shorter name"),
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

    monkeypatch.setattr(output_file.os, "fsync", fail)
    with pytest.raises(OutputError, match=r"a\.bin: cannot be written: Input/output error"):
        convert(make_pth(), out / "a.bin")
    assert names(out) == []


def test_failing_progress_leaves_nothing(make_pth, out):
    def progress(done, total):
        raise RuntimeError("no more paper")

    with pytest.raises(RuntimeError, match="no more paper"):
        convert(make_pth(), out / "a.bin", progress=progress)
    assert names(out) == []


def shrink(path):
    os.truncate(path, 5000)


def grow(path):
    with path.open("ab") as file:
        file.write(b"more")


def overwrite(path):
    with path.open("rb+") as file:
        file.seek(5000)
        file.write(bytes(1000))


def replace(path):
    (path.parent / "other").write_bytes(path.read_bytes())
    os.replace(path.parent / "other", path)


@pytest.mark.parametrize("change", [shrink, grow, overwrite, replace])
def test_input_that_changes_before_its_numbers_are_read_leaves_nothing(
    make_pth, out, monkeypatch, change
):
    source = make_pth()
    original = conversion.write_headers

    def write_headers(write_at, plan):
        original(write_at, plan)
        change(source)

    monkeypatch.setattr(conversion, "write_headers", write_headers)
    with pytest.raises(rwkv_convert.CheckpointError, match=r"pth: changed while it was read, .*"):
        convert(source, out / "a.bin")
    assert names(out) == []


@pytest.mark.parametrize("change", [shrink, grow, overwrite])
def test_input_that_changes_while_it_is_read_leaves_nothing(make_pth, out, monkeypatch, change):
    source = make_pth()
    original = PieceReader.read
    changes = iter([change])

    def read(self, view, buffer):
        result = original(self, view, buffer)
        for change in changes:
            change(source)
        return result

    monkeypatch.setattr(PieceReader, "read", read)
    with pytest.raises(rwkv_convert.CheckpointError, match=r"pth: changed while it was read, .*"):
        convert(source, out / "a.bin", threads=1)
    assert names(out) == []


def test_input_that_vanishes_is_named_as_the_input(make_pth, out, monkeypatch):
    source = make_pth()
    original = conversion.write_headers

    def write_headers(write_at, plan):
        original(write_at, plan)
        source.unlink()

    monkeypatch.setattr(conversion, "write_headers", write_headers)
    with pytest.raises(
        rwkv_convert.CheckpointError, match=r"7-fp32\.pth: cannot be opened: No such"
    ):
        convert(source, out / "a.bin")
    assert names(out) == []


@pytest.mark.parametrize("name", ["模" * 80 + ".bin", "x" * 255, "x", "." + "x" * 254])
def test_every_name_that_the_system_allows_can_be_written(make_pth, out, name):
    convert(make_pth(), out / name)
    assert names(out) == [name]


@pytest.mark.parametrize("name", ["模" * 80 + ".bin", "x" * 255])
def test_a_long_name_that_fails_leaves_nothing(make_pth, out, name):
    source = make_pth()
    source.write_bytes(source.read_bytes()[:-1000])
    with pytest.raises(rwkv_convert.CheckpointError):
        convert(source, out / name)
    assert names(out) == []


@POSIX
def test_symbolic_link_stays_and_its_file_is_replaced(make_pth, out, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "old.bin").write_text("old")
    (out / "a.bin").symlink_to(tmp_path / "elsewhere" / "old.bin")
    with pytest.raises(OutputError, match="exists"):
        convert(make_pth(), out / "a.bin")
    convert(make_pth(), out / "a.bin", force=True)
    assert (out / "a.bin").is_symlink() and names(tmp_path / "elsewhere") == ["old.bin"]
    assert rwkv_convert.info(tmp_path / "elsewhere" / "old.bin").version == "7"


def test_progress_that_cannot_be_shown_is_not_taken_for_a_full_disk(make_pth, out):
    def progress(done, total):
        raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        convert(make_pth(), out / "a.bin", progress=progress)
    assert names(out) == []


@pytest.mark.parametrize("allowed", [0, 1])
def test_system_without_threads_to_spare(make_pth, out, monkeypatch, allowed):
    """Fewer threads than asked for do the work; without any, it is refused."""
    start = threading.Thread.start
    allowance = iter(range(allowed))

    def limited(self):
        if next(allowance, None) is None:
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", limited)
    if allowed:
        convert(make_pth(), out / "a.bin", threads=8)
        assert names(out) == ["a.bin"]
    else:
        with pytest.raises(OutputError, match="threads: expected at least one to be started"):
            convert(make_pth(), out / "a.bin", threads=8)
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
from rwkv_convert import __main__, piece_reader
read = piece_reader.PieceReader.read
def slow(self, view, buffer):
    time.sleep(1)
    return read(self, view, buffer)
piece_reader.PieceReader.read = slow
__main__.main()
"""


def interrupted(source, destination, number):
    """Starts a slow conversion, sends it a signal in its middle and waits for its end."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, source, destination], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not names(destination.parent) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None and not destination.exists()
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


@POSIX
def test_ctrl_c_leaves_nothing(make_pth, out):
    code, errors = interrupted(make_pth(), out / "a.bin", signal.SIGINT)
    assert code == 130 and names(out) == []
    assert errors == "rwkv-convert: interrupted, no unfinished file remains\n"


@POSIX
def test_sigterm_leaves_nothing(make_pth, out):
    code, _ = interrupted(make_pth(), out / "a.bin", signal.SIGTERM)
    assert code == 143 and names(out) == []


@POSIX
def test_sigkill_leaves_only_the_temporary_name(make_pth, out):
    interrupted(make_pth(), out / "a.bin", signal.SIGKILL)
    (left,) = names(out)
    assert left.startswith(".rwkv-") and left.endswith(".part")
