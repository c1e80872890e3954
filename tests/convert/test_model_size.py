"""What a model file will take, beside files that were written."""

import pytest

import rwkv_convert
from convert.checkpoint_writers import views, write_pth
from rwkv_convert import OptionError, model_file_bytes
from twin import synth


@pytest.mark.parametrize("version", synth.VERSIONS)
@pytest.mark.parametrize("dtype", ["fp32", "fp16", "q4_0", "q8_0"])
def test_size_is_that_of_the_file(version, dtype, tmp_path):
    ranks = {"rank": 32, "rank_wide": 64 if version == "6" else 32}
    shape = {"n_layer": 3, "n_embd": 128, "n_vocab": 64}
    checkpoint = synth.checkpoint(version, **shape, **ranks)
    source = write_pth(tmp_path / "m.pth", views(checkpoint, "fp32"))
    summary = rwkv_convert.convert(source, tmp_path / "m.bin", dtype=dtype)
    types = summary.types.values()
    reckoned = model_file_bytes(summary.source.version, **shape, dtype=dtype)
    assert reckoned == sum(use.bytes for use in types)
    # The rest is names and shapes: of real models a share that nobody sees.
    assert 0 < summary.file_bytes - reckoned < 100 * sum(use.tensors for use in types)


@pytest.mark.parametrize(
    ("n_layer", "n_embd", "parameters"),
    [(12, 768, 191_034_624), (24, 2048, 1_527_404_544)],  # as their publishers count them
)
def test_parameters_of_released_models(n_layer, n_embd, parameters):
    assert model_file_bytes("7", n_layer=n_layer, n_embd=n_embd, dtype="fp32") == 4 * parameters


def test_types_of_gguf(tmp_path):
    shape = {"n_layer": 2, "n_embd": 256, "n_vocab": 256}
    source = write_pth(
        tmp_path / "m.pth", views(synth.checkpoint("7", **shape, rank_wide=64), "fp32")
    )
    summary = rwkv_convert.convert(source, tmp_path / "m.gguf", dtype="q4_K_M")
    reckoned = model_file_bytes("7", **shape, dtype="q4_K_M")
    # Not counted are vectors and ranks that only GGUF has in layer 0.
    assert reckoned == pytest.approx(sum(use.bytes for use in summary.types.values()), rel=0.03)


def test_what_there_is_not():
    with pytest.raises(OptionError, match=r"version: expected one of 4, 5\.1, .*, got '8'"):
        model_file_bytes("8", n_layer=1, n_embd=64)
    with pytest.raises(OptionError, match=r"dtype: expected one of fp32.*got 'q3'"):
        model_file_bytes("7", n_layer=1, n_embd=64, dtype="q3")
