"""GGUF files as llama.cpp's tools make them, read under our names."""

import hashlib
import re
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rwkv_convert
from convert.checkpoint_writers import views, write_pth
from convert.flipping import flipped
from rwkv_convert import CheckpointError, ModelError
from rwkv_convert.containers import open_checkpoint
from rwkv_convert.identify import identify
from rwkv_convert.official_names import find_model
from rwkv_convert.weight_types import GGUF_TYPES, WEIGHT_TYPES
from twin import gguf, synth
from twin.block_types import Tensor, dequantize, quantize

SIZES = {"n_layer": 2, "n_embd": 128, "head_size": 64, "n_vocab": 40}


def tensors(checkpoint, type="fp32", **options):
    """llama.cpp's tensors: matrices in a type, all else fp32."""
    return {
        name: quantize(x, type if x.ndim == 2 and "first" not in name else "fp32")
        for name, x in gguf.transform(checkpoint, **options).items()
    }


def write(path, version="7", type="fp32", *, file_version=3, change=None, **options):
    """A file of a random checkpoint; `change` may alter values and tensors before."""
    checkpoint = synth.checkpoint(version, **{**SIZES, **options})
    values = gguf.values(checkpoint, version, SIZES["head_size"])
    found = tensors(checkpoint, type)
    if change is not None:
        change(values, found)
    return gguf.write(path, values, found, version=file_version)


def converted(source, **options):
    """The bytes of the model file made of a source."""
    out = source.with_suffix(".out")
    rwkv_convert.convert(source, out, force=True, threads=1, **options)
    return out.read_bytes()


@pytest.mark.parametrize("version", ["6", "7"])
@pytest.mark.parametrize("type", ["fp32", "fp16"])
@pytest.mark.parametrize("dtype", ["fp32", "fp16", "q4_0"])
def test_gguf_gives_the_same_file_as_its_checkpoint(tmp_path, version, type, dtype):
    checkpoint = synth.checkpoint(version, **SIZES, layer0_v=True)
    if type == "fp16":  # that all numbers are the same in both
        checkpoint = {n: x.astype(np.float16).astype(np.float32) for n, x in checkpoint.items()}
    source = write_pth(tmp_path / "a.pth", views(checkpoint, "fp32"))
    values = gguf.values(checkpoint, version, SIZES["head_size"])
    other = gguf.write(tmp_path / "a.gguf", values, tensors(checkpoint, type))
    assert converted(other, dtype=dtype) == converted(source, dtype=dtype)


@pytest.mark.parametrize("options", [{"file_version": 2}, {"alignment": 128}])
def test_versions_and_alignments(tmp_path, options):
    checkpoint = synth.checkpoint("7", **SIZES)
    values = gguf.values(checkpoint, "7", 64)
    if "alignment" in options:
        values["general.alignment"] = options["alignment"]
    else:
        options = {"version": options["file_version"]}
    other = gguf.write(tmp_path / "a.gguf", values, tensors(checkpoint), **options)
    assert converted(other) == converted(write(tmp_path / "b.gguf"))


def test_rescaled_matrices_of_version_6_are_as_they_were(tmp_path):
    checkpoint = synth.checkpoint("6", **{**SIZES, "n_layer": 5})
    values = gguf.values(checkpoint, "6", 64) | {"rwkv6.rescale_every_n_layers": 2}
    rescaled = tensors(checkpoint, rescale_every=2)
    one = gguf.write(tmp_path / "a.gguf", values, rescaled)
    two = write_pth(tmp_path / "b.pth", views(checkpoint, "fp32"))
    assert converted(one, dtype="fp32") == converted(two, dtype="fp32")


def test_rescaled_blocks_are_not_copied(tmp_path):
    checkpoint = synth.checkpoint("6", **SIZES)
    values = gguf.values(checkpoint, "6", 64) | {"rwkv6.rescale_every_n_layers": 1}
    path = gguf.write(tmp_path / "a.gguf", values, tensors(checkpoint, "q8_0", rescale_every=1))
    with pytest.raises(
        ModelError,
        match=r"att\.output\.weight', expected fp32 or fp16, got q8_0 to be multiplied by 2",
    ):
        converted(path, dtype="q8_0")
    converted(path, dtype="fp32")


@pytest.mark.parametrize("type", ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0"])
def test_blocks_are_copied_or_dequantised(tmp_path, type):
    source = write(tmp_path / "a.gguf", type=type)
    options = {"head_dtype": type, "emb_dtype": type, "lowrank_dtype": type}
    once = write_pth(tmp_path / "b.pth", views(synth.checkpoint("7", **SIZES), "fp32"))
    assert converted(source, dtype=type, **options) == converted(once, dtype=type, **options)
    values = {
        n: dequantize(t).reshape(t.shape)
        for n, t in tensors(synth.checkpoint("7", **SIZES), type).items()
    }
    fp32 = write(
        tmp_path / "c.gguf",
        change=lambda v, t: t.update({n: quantize(x, "fp32") for n, x in values.items()}),
    )
    assert converted(source, dtype="fp32") == converted(fp32, dtype="fp32")


@pytest.mark.parametrize("type", ["q4_K", "q5_K", "q6_K", "iq4_nl", "bf16"])
def test_types_that_only_gguf_has(tmp_path, type):
    """Random blocks, and the numbers that they stand for as fp32, give the same file."""
    kind = WEIGHT_TYPES[type]
    random = np.random.default_rng(5)
    blocks = {}

    def change(values, found):
        for name, tensor in found.items():
            if name.endswith("key.weight"):
                n = int(np.prod(tensor.shape)) // kind.block
                raw = random.integers(0, 100, (n, kind.size), np.uint8)
                blocks[name] = raw
                found[name] = Tensor(type, tensor.shape, raw.reshape(-1))

    sizes = {"n_embd": 256}
    source = write(tmp_path / "a.gguf", change=change, **sizes)

    def plain(values, found):
        for name, raw in blocks.items():
            if type == "bf16":
                x = (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
            else:
                x = kind.dequantize(raw)
            found[name] = quantize(np.ascontiguousarray(x.reshape(found[name].shape)), "fp32")

    other = write(tmp_path / "b.gguf", change=plain, **sizes)
    assert converted(source, dtype="fp32") == converted(other, dtype="fp32")
    assert rwkv_convert.info(source).types[type].tensors == 4
    if type != "bf16":
        with pytest.raises(
            ModelError, match=f"expected q4_0, fp32 or fp16, got {type}: quantising"
        ):
            converted(source, dtype="q4_0")


def test_info_tells_what_the_file_says(tmp_path):
    found = rwkv_convert.info(write(tmp_path / "a.gguf"))
    assert (found.container, found.version, found.name) == ("gguf", "7", "twin")
    assert (found.n_tokens, found.chat_template) == (40, "rwkv-world")
    assert (found.n_layer, found.n_head, found.head_size, found.unused) == (2, 2, 64, ())


# --------------------------------------------------------------------------------------------------
# Several parts


def split(tmp_path, count=3, names=None, total=None):
    """The same model in several files."""
    checkpoint = synth.checkpoint("7", **SIZES)
    values = gguf.values(checkpoint, "7", 64)
    everything = list(tensors(checkpoint).items())
    paths = []
    for i in range(count):
        extra = {
            "split.no": i,
            "split.count": count,
            "split.tensors.count": total or len(everything),
        }
        path = tmp_path / (names or "m-{:05}-of-{:05}.gguf").format(i + 1, count)
        paths.append(path)
        gguf.write(path, {**(values if i == 0 else {}), **extra}, dict(everything[i::count]))
    return paths


def test_parts_are_one_model(tmp_path):
    first = split(tmp_path)[0]
    assert converted(first) == converted(write(tmp_path / "b.gguf"))
    assert rwkv_convert.info(first).file_bytes == sum(
        path.stat().st_size for path in tmp_path.glob("m-*.gguf")
    )


def test_parts_that_are_not_all_there_are_refused(tmp_path):
    paths = split(tmp_path)
    with pytest.raises(CheckpointError, match=r"part 2 of 3, expected the first\. Try m-00001-of"):
        rwkv_convert.info(paths[1])
    paths[2].unlink()
    with pytest.raises(CheckpointError, match=r"m-00003-of-00003\.gguf: cannot be opened"):
        rwkv_convert.info(paths[0])
    with pytest.raises(
        CheckpointError, match="one of 3 parts, expected a name that ends in -00001"
    ):
        rwkv_convert.info(paths[0].rename(tmp_path / "m.gguf"))
    with pytest.raises(CheckpointError, match="expected 99 tensors in all parts, got"):
        rwkv_convert.info(split(tmp_path, total=99)[0])
    paths = split(tmp_path)
    paths[1].write_bytes(paths[0].read_bytes())
    with pytest.raises(CheckpointError, match=r"00002.*expected each name once, got it twice"):
        rwkv_convert.info(paths[0])


def test_output_that_is_a_part_is_refused(tmp_path):
    paths = split(tmp_path)
    with pytest.raises(rwkv_convert.OutputError, match="is the input"):
        rwkv_convert.convert(paths[0], paths[2], force=True)


# --------------------------------------------------------------------------------------------------
# What is refused


def _set(**changes):
    def change(values, found):
        for key, value in changes.items():
            key = key.replace("__", ".")
            values.pop(key) if value is None else values.update({key: value})

    return change


def _move(old, new):
    def change(values, found):
        found[new] = found.pop(old)

    return change


REFUSED = {
    "another architecture": (
        _set(general__architecture="llama"),
        "architecture, expected rwkv6 or rwkv7, got 'llama'",
    ),
    "a relative": (_set(general__architecture="arwkv7"), "expected rwkv6 or rwkv7, got 'arwkv7'"),
    "no architecture": (_set(general__architecture=None), "architecture, expected .*, got none"),
    "no head size": (
        _set(rwkv7__wkv__head_size=None),
        "wkv.head_size', expected a count, got none",
    ),
    "odd head size": (_set(rwkv7__wkv__head_size=96), "expected a divisor of 128, got 96"),
    "width": (_set(rwkv7__embedding_length=64), "expected 64 columns, got"),
    "layers": (_set(rwkv7__block_count=3), "expected 3 layers, got 2"),
    "epsilon": (
        _set(rwkv7__attention__layer_norm_epsilon=1e-6),
        "layer_norm_epsilon', expected 1e-05, got",
    ),
    "alignment": (_set(general__alignment=33), "expected a power of two from 8 on, got 33"),
    "missing": (
        _move("blk.1.time_mix_w1.weight", "blk.1.x.weight"),
        "missing 'blocks.1.att.w1'",
    ),
    "missing gate": (_move("blk.1.channel_mix_key.weight", "x"), "missing 'blocks.1.ffn.key"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_such_model_is_refused(tmp_path, case):
    change, message = REFUSED[case]
    with pytest.raises(rwkv_convert.ConvertError, match=message):
        rwkv_convert.info(write(tmp_path / "a.gguf", change=change))


def _patch(path, at, format, *values):
    data = bytearray(path.read_bytes())
    struct.pack_into("<" + format, data, at, *values)
    path.write_bytes(data)


PATCHES = {
    "version": (4, "I", 1, "GGUF version, expected 2 or 3, got 1"),
    "byte order": (4, "I", 3 << 24, "byte order, expected little, got big"),
    "tensors": (8, "Q", 2**60, "expected at most 20000 tensors"),
    "values": (16, "Q", 2**60, "expected at most 20000 tensors and 10000 values"),
    "length of a key": (24, "Q", 2**62, "truncated, expected 4611686018427387904 bytes for a key"),
    "kind": (24 + 8 + 20, "I", 13, "value of 'general.architecture', expected a kind from 0 to 12"),
}


@pytest.mark.parametrize("case", PATCHES)
def test_damaged_header_is_refused(tmp_path, case):
    at, format, value, message = PATCHES[case]
    path = write(tmp_path / "a.gguf")
    _patch(path, at, format, value)
    with pytest.raises(CheckpointError, match=message):
        rwkv_convert.info(path)


@pytest.mark.parametrize(
    ("number", "name"), [(10, "q2_K"), (23, "iq4_xs"), (4, "number 4"), (999, "number 999")]
)
def test_types_that_we_do_not_read_are_named(tmp_path, number, name):
    path = write(tmp_path / "a.gguf", n_embd=256)
    data = path.read_bytes()
    at = data.index(b"blk.1.time_mix_key.weight") + 25 + 4 + 16
    assert number not in GGUF_TYPES
    _patch(path, at, "I", number)
    with pytest.raises(CheckpointError, match=rf"time_mix_key.weight': type, .*q4_K.*, got {name}"):
        rwkv_convert.info(path)


def contents(path):
    """What a file means: its tensors, and the bytes of each."""
    found = open_checkpoint(path)
    data = path.read_bytes()
    model = identify(find_model(found))
    digest = hashlib.sha256()
    for tensor in model.tensors:
        for part in tensor.parts:
            size = part.type.bytes_of(part.count)
            digest.update(repr((tensor.name, tensor.shape, part.type.name, part.scale)).encode())
            digest.update(data[part.offset : part.offset + size])
    return digest.hexdigest()


TINY = {"n_layer": 2, "n_embd": 32, "head_size": 32, "n_vocab": 8, "rank": 4, "rank_wide": 4}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    checkpoint = synth.checkpoint("7", **TINY)
    path = tmp_path_factory.mktemp("tiny") / "a.gguf"
    values = gguf.values(checkpoint, "7", 32)
    gguf.write(
        path, values, {n: quantize(x, "fp32") for n, x in gguf.transform(checkpoint).items()}
    )
    return path


def test_gguf_cut_anywhere_is_refused(tiny, tmp_path):
    data = tiny.read_bytes()
    path = tmp_path / "a.gguf"
    table = data.index(b"output.weight")
    sizes = {*range(0, table, 7), *range(table, len(data), 997), len(data) - 1, len(data) + 1}
    for size in sorted(sizes):
        path.write_bytes((data + b"\0")[:size])
        with pytest.raises(CheckpointError):
            contents(path)


@pytest.mark.parametrize("step", [37, pytest.param(1, marks=pytest.mark.slow)])
def test_flipped_bits_are_refused_or_do_not_matter(tiny, tmp_path, step):
    """Of the first 4 KiB: names, sizes, types, offsets."""
    data = tiny.read_bytes()
    expected = contents(tiny)
    assert min(v.offset for v in open_checkpoint(tiny).tensors.values()) > 4096
    path = tmp_path / "a.gguf"
    path.write_bytes(data)
    refused = 0
    for bit in range(0, 8 * 4096, step):
        with flipped(path, bit):
            try:
                assert contents(path) == expected, bit
            except rwkv_convert.ConvertError as error:
                refused += 1
                assert str(error).isprintable() and len(str(error)) < 2000
    assert refused > 20_000 / step


@given(
    edits=st.lists(
        st.tuples(
            st.integers(0, 4000), st.sampled_from("BHIQ"), st.sampled_from([0, 1, 2**31, 2**64 - 1])
        ),
        min_size=1,
        max_size=4,
    )
)
def test_absurd_numbers_anywhere(tiny, edits):
    path = tiny.with_name("b.gguf")
    data = bytearray(tiny.read_bytes())
    for at, format, value in edits:
        struct.pack_into("<" + format, data, at, value % 2 ** (8 * struct.calcsize(format)))
    path.write_bytes(data)
    try:
        rwkv_convert.info(path)
    except rwkv_convert.ConvertError as error:
        assert str(error).isprintable() and len(str(error)) < 2000


def test_every_name_of_a_type_we_read_is_in_the_message(tmp_path):
    path = write(tmp_path / "a.gguf")
    data = path.read_bytes()
    _patch(path, data.index(b"output.weight") + 13 + 4 + 16, "I", 3_000_000_000)
    with pytest.raises(CheckpointError) as error:
        rwkv_convert.info(path)
    listed = re.search(r"expected one of (.*), got", str(error.value))
    assert listed and listed[1].split(", ") == [type.name for type in GGUF_TYPES.values()]
