from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rwkv_py import (
    InvalidArgumentError,
    KernelsError,
    Model,
    ModelFileError,
    ModelOptionError,
    RwkvError,
    Session,
    TokenOutOfRangeError,
)


def test_opening_tells_its_progress(converted: Callable[[str], Path]) -> None:
    told: list[tuple[int, int]] = []
    Model(converted("q4_0"), progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1] > 0

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Model(converted("q4_0"), progress=stop)


def test_the_library_s_notes_go_to_logging(
    model_file: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    """That rwkv.cpp computes version 5 otherwise is said once, where it can be heard."""
    path = model_file("5.2", n_vocab=64)
    Model(path)
    Model(path, ln_x_eps=1e-5)
    Model(path, ln_x_eps="rwkv.cpp")
    Model(model_file("6", n_vocab=64))
    (record,) = caplog.records
    assert record.name == "rwkv_py"
    assert record.levelname == "WARNING"
    assert "1e-5" in record.getMessage()


def test_info(trained: Model, converted: Callable[[str], Path]) -> None:
    info = trained.info
    assert (info.version, info.n_vocab, info.n_embd, info.n_layer) == ("7", 256, 256, 6)
    assert (info.n_head, info.head_size, info.n_ffn) == (4, 64, 1024)
    assert info.data_type == "q4_0"
    assert info.state_size == trained.state_size == 6 * (2 * 256 + 4 * 64 * 64)
    assert info.n_parameters == 5_354_752
    assert info.file_bytes == converted("q4_0").stat().st_size
    assert info.weight_bytes > 0
    assert info.n_threads >= 1
    assert info.ln_x_eps == pytest.approx(64e-5)
    assert trained.n_vocab == 256
    assert trained.path == str(converted("q4_0"))


def test_threads_change_nothing(converted: Callable[[str], Path]) -> None:
    path = converted("q4_0")
    tokens = [*b"import json\n"] * 5
    one, three = Model(path, threads=1), Model(path, threads=3)
    assert (one.info.n_threads, three.info.n_threads) == (1, 3)
    assert np.array_equal(Session(one).feed(tokens), Session(three).feed(tokens))


@pytest.mark.parametrize("threads", [0, -1])
def test_threads_out_of_range(threads: int) -> None:
    with pytest.raises(InvalidArgumentError, match=f"threads: expected 1 to 1024, got {threads}"):
        Model("model.bin", threads=threads)


def test_ln_x_eps(model_file: Callable[..., Path]) -> None:
    path = model_file("5.2")
    official, other = Model(path), Model(path, ln_x_eps=1e-5)
    assert official.info.ln_x_eps == pytest.approx(64e-5)
    assert other.info.ln_x_eps == pytest.approx(1e-5)
    assert not np.array_equal(Session(official).feed([1, 2]), Session(other).feed([1, 2]))
    assert np.array_equal(Session(path, ln_x_eps=1e-5).feed([1, 2]), Session(other).feed([1, 2]))


@pytest.mark.parametrize(
    ("version", "eps"), [("4", 0), ("5.1", 1e-5), ("5.2", 1e-5), ("6", 64e-5), ("7", 64e-5)]
)
def test_ln_x_eps_of_rwkv_cpp(version: str, eps: float, model_file: Callable[..., Path]) -> None:
    """One word for all versions, which nobody knows before the file is open."""
    model = Model(model_file(version), ln_x_eps="rwkv.cpp")
    assert model.info.ln_x_eps == pytest.approx(eps)


def test_ln_x_eps_of_v4_is_an_error(model_file: Callable[..., Path]) -> None:
    path = model_file("4")
    assert Model(path).info.ln_x_eps == 0
    with pytest.raises(ModelOptionError, match="ln_x_eps"):
        Model(path, ln_x_eps=1e-5)


@pytest.mark.parametrize("eps", [0.0, -1e-5, float("nan"), float("inf")])
def test_ln_x_eps_out_of_range(eps: float) -> None:
    with pytest.raises(ValueError, match="ln_x_eps: expected a number above 0"):
        Model("model.bin", ln_x_eps=eps)


@pytest.mark.parametrize("version", ["4", "5.1", "5.2", "6", "7"])
def test_every_version_opens(version: str, model_file: Callable[..., Path]) -> None:
    model = Model(model_file(version))
    assert model.info.version == version
    assert np.isfinite(Session(model).feed([1, 2, 3])).all()


# ---- bad files


def test_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "missing.bin"
    with pytest.raises(ModelFileError, match=r"missing\.bin") as caught:
        Model(path)
    assert caught.value.path == str(path)
    assert caught.value.tensor is None
    assert isinstance(caught.value, RwkvError)


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>404</html>" * 9, b"fmgg", b"\0" * 100],
    ids=["empty", "html", "short", "zeros"],
)
def test_not_a_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "not.bin"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"not\.bin: "):
        Session(path)


def test_bad_tensor_is_named(tmp_path: Path, model_file: Callable[..., Path]) -> None:
    content = model_file("7").read_bytes()
    path = tmp_path / "renamed.bin"
    name = b"blocks.1.att.key.weight"
    assert content.count(name) == 1
    path.write_bytes(content.replace(name, b"blocks.1.att.kez.weight"))
    with pytest.raises(ModelFileError) as caught:
        Model(path)
    assert caught.value.tensor in ("blocks.1.att.key.weight", "blocks.1.att.kez.weight")


def test_folder_and_odd_names(tmp_path: Path, converted: Callable[[str], Path]) -> None:
    with pytest.raises(ModelFileError):
        Model(tmp_path)
    with pytest.raises(InvalidArgumentError, match="zero character"):
        Model("a\0b")
    with pytest.raises(ModelFileError, match="\udcff"):
        Model(tmp_path / "missing \udcff.bin")
    link = tmp_path / "módel \udcff.bin"  # bytes that are no UTF-8 are names too
    link.symlink_to(converted("q4_0"))
    assert Model(link).n_vocab == 256


def test_unknown_kernels(converted: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RWKV_KERNELS", "sse9")
    with pytest.raises(KernelsError, match="sse9"):
        Model(converted("q4_0"))


# ---- step


def test_step_shapes(trained: Model) -> None:
    sessions = [Session(trained) for _ in range(3)]
    work = [(session, [*b"abc"]) for session in sessions]
    one, rows, none = trained.step(work, logits=["last", "all", None])
    assert one is not None
    assert rows is not None
    assert none is None
    assert one.shape == (256,)
    assert rows.shape == (3, 256)
    assert one.dtype == rows.dtype == np.float32
    assert np.array_equal(rows[-1], one)
    assert np.array_equal(sessions[2].state, sessions[0].state)


@pytest.mark.parametrize("wanted", ["last", "all", None])
def test_step_one_choice_for_all(trained: Model, wanted: str | None) -> None:
    work = [(Session(trained), [1, 2]), (Session(trained), [3])]
    shapes = [None if x is None else x.shape for x in trained.step(work, logits=wanted)]
    assert (
        shapes
        == {
            "last": [(256,), (256,)],
            "all": [(2, 256), (1, 256)],
            None: [None, None],
        }[wanted]
    )


def test_step_is_what_each_gets_alone(trained: Model) -> None:
    texts = [b"import os", b"a", b"def f(x):", b"The quick brown fox"]
    sessions = [Session(trained) for _ in texts]
    together = trained.step(
        (session, [*text]) for session, text in zip(sessions, texts, strict=True)
    )
    for session, text, logits in zip(sessions, texts, together, strict=True):
        alone = Session(trained)
        assert np.array_equal(alone.feed(text), logits)
        assert np.array_equal(alone.state, session.state)
        # The session knows its logits: generation goes on from them.
        assert alone.generate("", max_tokens=5, temperature=0) == session.generate(
            "", max_tokens=5, temperature=0
        )


def test_step_without_logits_leaves_those_that_come_next(trained: Model) -> None:
    session, other = Session(trained), Session(trained)
    session.feed("import ")
    trained.step([(session, [*b"json"])], logits=None)
    assert np.array_equal(session.logits, other.feed("import json"))
    assert session.generate("", max_tokens=5, seed=1) == other.generate("", max_tokens=5, seed=1)


def test_step_of_nothing(trained: Model) -> None:
    assert trained.step([]) == []


def test_step_refused_changes_nothing(trained: Model, converted: Callable[[str], Path]) -> None:
    a, b = Session(trained), Session(trained)
    foreign = Session(converted("q4_0"))
    fresh = a.state
    for work, error, message in [
        ([(a, [1]), (a, [2])], InvalidArgumentError, "each session once"),
        ([(a, [1]), (foreign, [2])], InvalidArgumentError, "sessions of .* another Model"),
        ([(a, [1]), (b, [])], InvalidArgumentError, "expected at least one"),
        ([(a, [1]), (b, [300])], TokenOutOfRangeError, "300"),
    ]:
        with pytest.raises(error, match=message):
            trained.step(work)
        assert np.array_equal(a.state, fresh)
    with pytest.raises(InvalidArgumentError, match="one choice for each of 1 sessions, got 2"):
        trained.step([(a, [1])], logits=["last", "all"])
    with pytest.raises(
        InvalidArgumentError, match="expected 'last', 'all', 'hidden' or None, got 'some'"
    ):
        trained.step([(a, [1])], logits=["some"])  # type: ignore[list-item]
