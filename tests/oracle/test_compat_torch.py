"""Tensors in, tensors out: `rwkv_py.compat` where torch is installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rwkv_py import Session
from rwkv_py.compat.rwkv import PIPELINE, RWKV
from rwkv_py.compat.rwkv_cpp import sampling
from rwkv_py.compat.rwkv_cpp.rwkv_cpp_model import RWKVModel
from rwkv_py.compat.rwkv_cpp.rwkv_cpp_shared_library import load_rwkv_shared_library


@pytest.fixture
def model(converted: Callable[[str], Path]) -> RWKVModel:
    return RWKVModel(load_rwkv_shared_library(), str(converted("q4_0")))


def test_results_are_of_the_kind_of_what_is_given(model: RWKVModel) -> None:
    logits, state = model.eval(72, None)
    assert isinstance(logits, torch.Tensor) and isinstance(state, torch.Tensor)
    expected = Session(model._ctx.opened.model).feed([72])
    np.testing.assert_array_equal(logits.numpy(), expected)
    again, after = model.eval_sequence([105, 33], state.clone(), use_numpy=True)
    assert isinstance(again, torch.Tensor)
    same = model.eval_sequence_in_chunks([105, 33], state, state, logits)
    assert same[0] is logits and same[1] is state
    assert torch.equal(again, logits) and torch.equal(after, state)
    arrays = model.eval(72, None, use_numpy=True)
    assert all(isinstance(each, np.ndarray) for each in arrays)
    assert all(isinstance(each, np.ndarray) for each in model.eval(72, arrays[1]))


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(101376, dtype=torch.float64), "not of type float32"),
        (torch.zeros(5), "invalid shape"),
        (torch.zeros(2 * 101376)[::2], "not contiguous"),
        (torch.zeros(101376, device="meta"), "not on CPU"),
    ],
)
def test_tensors_that_do_not_fit(tensor: Any, message: str, model: RWKVModel) -> None:
    with pytest.raises(ValueError, match=f"state_in: .*{message}"):
        model.eval(1, tensor)


def test_sampling_takes_tensors_and_leaves_them(model: RWKVModel) -> None:
    logits, _ = model.eval(72, None)
    before = logits.clone()
    assert sampling.sample_logits(logits, temperature=0) == int(logits.argmax())
    assert sampling.sample_logits(logits.bfloat16(), temperature=0.5, top_p=0.5) < 256
    assert torch.equal(logits, before)


def test_kinds_of_a_new_state(converted: Callable[[str], Path]) -> None:
    path = converted("q4_0")
    assert isinstance(RWKV(path).forward([1])[0], torch.Tensor)  # torch has been imported
    assert isinstance(RWKV(path, tensors="numpy").forward([1])[0], np.ndarray)
    rwkv = RWKV(path, tensors="torch")
    assert all(isinstance(part, torch.Tensor) for part in rwkv.generate_zero_state())
    logits, state = rwkv.forward([1], None)
    # Of any type, on any device, or arrays: what comes back is of the same kind.
    halves = [part.bfloat16() for part in state]
    near, after = rwkv.forward([2], halves)
    exact, _ = rwkv.forward([2], state)
    assert isinstance(near, torch.Tensor) and after[0].dtype == torch.float32
    assert 0 < (near - exact).abs().max() < 1
    arrays, _ = rwkv.forward([2], [part.numpy() for part in state])
    assert isinstance(arrays, np.ndarray)
    np.testing.assert_array_equal(arrays, exact.numpy())
    assert PIPELINE(rwkv, "bytes").sample_logits(logits, temperature=0) == int(logits.argmax())
