"""What args may be."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from marks import needs_jit
from numba import njit
from numba.typed import List

from rmsprop_nb import minimize
from rmsprop_nb._numba.packing import Unpackable, pack
from rmsprop_nb._objectives.compiled import CompiledObjective, compile_objective
from rmsprop_nb._objectives.problem import Problem


class Scales(NamedTuple):
    a: float
    b: np.ndarray


class Nested(NamedTuple):
    pair: tuple[int, int]
    flag: bool


def compiled(function, gradient, args, dtype=np.float64):
    none = np.empty(0, dtype)
    return compile_objective(Problem(function, gradient, args, none, none), np.dtype(dtype))


@njit
def parabola(x, a, b):
    return 0.5 * a * np.sum((x - b) ** 2)


@njit
def parabola_grad(x, a, b):
    return a * (x - b)


PACKABLE = {
    "none": (),
    "scalars": (1, 2.5, True, 1j, np.float32(3), np.int8(-4), np.uint64(2**63)),
    "arrays": (np.arange(3.0), np.asfortranarray(np.ones((2, 3))), np.arange(10)[::-2], np.zeros(0), np.array(3.0)),
    "dtypes": tuple(np.ones(2, t) for t in ("f4", "i1", "u2", "c8", "c16", "?")),
    "read_only": (np.broadcast_to(1.0, 4),),
    "records": (np.zeros(2, [("a", "f8"), ("b", "i4")]),),
    "tuples": ((1, (2.0, np.ones(2))), (), (3.0, 3.0)),
    "named": (Scales(2.0, np.ones(3)), Nested((1, 2), False)),
    "nothing": (None,),
    "dates": (np.datetime64("2026-01-01"),),
}


@needs_jit
@pytest.mark.parametrize("args", PACKABLE.values(), ids=PACKABLE)
def test_packed_args_arrive_unchanged(args):
    from rmsprop_nb._numba.packing import load_args

    words, references, args_type = pack(args)
    read = njit(lambda data: load_args(data, args_type))
    back = read(words.ctypes.data)

    def compare(a, b):
        if isinstance(a, tuple):
            assert type(a) is type(b)
            assert len(a) == len(b)
            for left, right in zip(a, b, strict=True):
                compare(left, right)
        elif isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b)
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            assert a.size == 0 or a.strides == b.strides
            assert a.ctypes.data == b.ctypes.data
        else:
            assert a == b

    compare(args, back)
    assert len(references) >= sum(isinstance(a, np.ndarray) for a in args)


@needs_jit
@pytest.mark.parametrize(
    "args",
    [([1.0, 2.0],), ("text",), ({"a": 1},), (object(),), (List([1.0]),)],
    ids=["list", "text", "dict", "object", "typed list"],
)
def test_what_cannot_be_packed_says_so(args):
    with pytest.raises(Unpackable):
        pack(args)


@needs_jit
def test_args_of_every_kind_reach_a_compiled_objective():
    @njit
    def objective(x, grad, order, a, scales, matrix, pair, helper, nothing, flag):
        s = scales.a * scales.b[0] * order[0] if nothing is None else 0.0
        t = matrix[1, 0] + pair[0] + helper(pair[1][0]) + (1.0 if flag else 0.0)
        grad[:] = s * (x - t - a)
        return 0.5 * s * np.sum((x - t - a) ** 2)

    @njit
    def double(v):
        return 2.0 * v

    args = (np.array([3], np.int16), 1, Scales(0.5, np.ones(2, np.float32)), np.asfortranarray(np.eye(2)), (4, (2.0,)),
            double, None, True)  # fmt: skip
    assert isinstance(compiled(objective, "inplace", args), CompiledObjective)
    result = minimize(objective, [1.0, 2.0], args, jac="inplace")
    assert result.success
    np.testing.assert_allclose(result.x, 0.0 + 4 + 4 + 1 + 1, atol=1e-4)


@needs_jit
@pytest.mark.parametrize("data", [List([1.0, 2.0]), "text"], ids=["typed list", "string"])
def test_args_that_do_not_pack_run_interpreted(data):
    @njit
    def objective(x, data):
        return 0.5 * np.sum((x - len(data)) ** 2)

    assert compiled(objective, "2-point", (data,)) is None
    result = minimize(objective, [1.0], (data,))
    np.testing.assert_allclose(result.x, len(data), atol=1e-5)


def test_single_argument_needs_no_tuple():
    data = np.array([1.0, 2.0])
    result = minimize(lambda x, t: np.sum((x - t) ** 2), [0.0, 0.0], data)
    np.testing.assert_allclose(result.x, data, atol=1e-5)


def test_python_args_may_be_anything():
    result = minimize(lambda x, settings: (x[0] - settings["target"]) ** 2, [0.0], ({"target": 3.0},))
    np.testing.assert_allclose(result.x, 3.0, atol=1e-5)


@needs_jit
def test_changed_contents_of_args_are_seen():
    target = np.zeros(2)
    for value in (1.0, -2.0):
        target[:] = value
        result = minimize(parabola, [5.0, 5.0], (2.0, target), jac=parabola_grad)
        np.testing.assert_allclose(result.x, value, atol=1e-5)
