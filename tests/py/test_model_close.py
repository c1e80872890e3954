"""`Model.close`: memory comes back at once, and whatever still needs the model says so."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from rwkv_py import Engine, InvalidArgumentError, Model, PrefixCache, RwkvError, Session

ModelFile = Callable[..., Path]

CLOSED = r"model\.bin: the model was closed, expected an open one$"


@pytest.fixture
def model(converted: Callable[[str], Path], tmp_path: Path) -> Model:
    path = tmp_path / "model.bin"
    path.symlink_to(converted("q4_0"))
    return Model(path)


def test_end_of_a_with_block_closes(model: Model) -> None:
    assert not model.closed
    with model as same:
        assert same is model
        Session(model).feed("a")
    assert model.closed
    assert repr(model).endswith(", closed>")
    model.close()  # twice is no error
    assert model.info.version == "7"


def test_an_exception_closes_too_and_passes(model: Model) -> None:
    with pytest.raises(ZeroDivisionError), model:
        raise ZeroDivisionError
    assert model.closed


def test_all_that_needs_the_model_is_refused(model: Model, tmp_path: Path) -> None:
    cache = PrefixCache(model)
    session = Session(model, cache=cache)
    session.feed("The documentation of the Python standard library.")
    forked = session.fork()
    state = session.state
    session.save_state(tmp_path / "a.state")
    writing = forked.fork()
    stream = writing.stream("b", max_tokens=50, temperature=0)
    next(stream)
    model.close()
    uses: list[Callable[[], object]] = [
        lambda: session.feed("a"),
        lambda: session.generate("a"),
        lambda: next(stream),
        lambda: session.state,
        lambda: setattr(session, "state", state),
        lambda: session.save_state(tmp_path / "b.state"),
        lambda: session.load_state(tmp_path / "a.state"),
        session.fork,
        session.reset,
        lambda: session.copy_from(forked),
        lambda: model.step([(session, [1])]),
        lambda: Session(model),
        lambda: Session(model, cache=cache),
    ]
    for use in uses:
        with pytest.raises(InvalidArgumentError, match=CLOSED):
            use()
    assert not (tmp_path / "b.state").exists()


def test_requests_of_an_engine_end_with_the_error(model: Model) -> None:
    with Engine(model) as engine:
        under_way = engine.submit("a", max_tokens=10**6, stop_tokens=())
        next(iter(under_way))
        model.close()
        with pytest.raises(InvalidArgumentError, match=CLOSED):
            under_way.result()
        with pytest.raises(InvalidArgumentError, match=CLOSED):
            engine.submit("b").result()


def test_memory_comes_back_though_sessions_live(model_file: ModelFile) -> None:
    model = Model(model_file("4", n_vocab=65536, n_embd=64))  # 33 MB
    sessions = [Session(model), Session(model).fork()]
    before = resident_bytes()
    model.close()
    assert before - resident_bytes() > 20e6
    assert all(session.model is model for session in sessions)


def test_a_step_in_another_thread_is_finished_first(converted: Callable[[str], Path]) -> None:
    """Nothing is pulled away from under a thread that computes."""
    for _ in range(8):
        model = Model(converted("q4_0"))
        session = Session(model)
        begun = threading.Event()
        ends: list[RwkvError] = []

        def read(session: Session, begun: threading.Event, ends: list[RwkvError]) -> None:
            try:
                while True:
                    session.feed("a" * 300)
                    begun.set()
            except RwkvError as error:
                ends.append(error)

        thread = threading.Thread(target=read, args=(session, begun, ends))
        thread.start()
        begun.wait()
        model.close()
        thread.join()
        assert isinstance(ends[0], InvalidArgumentError)


def resident_bytes() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * 4096
