"""Objectives compiled for a device: their values and machine code, and what a device lacks."""

from __future__ import annotations

import functools
import gc
import math
import weakref

import numpy as np
import pytest
from batch_jobs import problem_of
from numba import cuda, njit, typeof
from objectives import bowl, decay
from offline_compiler import ARCHITECTURES, machine_code, ptx, standing_in
from ptx_interpreter import run

from rmsprop_nb._core.options import RmspropOptions
from rmsprop_nb._cuda import native as _cuda_native
from rmsprop_nb._cuda import objective as _objective
from rmsprop_nb._cuda.objective import check_objective
from rmsprop_nb._drivers.batch_threads import Job

pytestmark = pytest.mark.thorough


@njit
def half_square(a):
    return a * a / (a - a + 2)


def curve_of(rate):
    def curve(x, grad, data):
        t, y = data  # a tuple of arrays
        f = x[0] - x[0]
        grad[:] = f
        for i in range(len(t)):
            e = math.exp(-rate * t[i])  # a constant from outside
            r = x[0] * e - y[i]
            f += half_square(r)
            grad[0] += r * e
        return f

    return curve


def tail(x, grad, a):
    rest, slope = x[1:], grad[1:]
    f = half_square(x[0] - a[0, 0])
    grad[0] = x[0] - a[0, 0]
    for i, v in enumerate(rest):
        slope[i] = v - a[0, 1] if abs(v) < 1.0e3 else v
        f += half_square(slope[i])
    return f


DATA = np.linspace(0.0, 1.0, 4), np.array([2.0, 1.0, 0.5, 0.2])
MATRIX = np.array([[1.0, -2.0]])
OBJECTIVES = ((curve_of(2.0), (DATA,)), (tail, (MATRIX,)), (decay, (DATA[0], 2.0, DATA[1])), (bowl, ()))


@functools.cache
def all_objectives():
    """A kernel that evaluates each of them at the same point, and its arguments."""
    of_curve, of_tail, of_decay, of_bowl = (_cuda_native.device_function(fun) for fun, _ in OBJECTIVES)

    @cuda.jit
    def evaluate(x, grads, f, data, matrix):
        f[0] = of_curve(x, grads[0], data)
        f[1] = of_tail(x, grads[1], matrix)
        f[2] = of_decay(x, grads[2], data[0], 2.0, data[1])
        f[3] = of_bowl(x, grads[3])

    return evaluate, (np.array([0.7, -0.3, 0.2]), np.zeros((4, 3)), np.zeros(4), DATA, MATRIX)


def test_objectives_of_all_kinds_have_the_values_of_the_cpu():
    kernel, arguments = all_objectives()
    x, grads, f, *_ = arguments
    run(ptx(kernel, tuple(map(typeof, arguments))), 1, 1, arguments)
    for k, (fun, args) in enumerate(OBJECTIVES):
        grad = np.zeros(3)
        assert f[k] == pytest.approx(getattr(fun, "py_func", fun)(x, grad, *args), rel=1e-14)
        np.testing.assert_allclose(grads[k], grad, rtol=1e-14)


@pytest.mark.parametrize("capability", ARCHITECTURES, ids=str)
def test_machine_code_of_objectives(capability):
    kernel, arguments = all_objectives()
    code = machine_code(kernel, tuple(map(typeof, arguments)), capability)
    assert code.spilled == code.stack == 0


# -- what is checked before a launch -----------------------------------------------------------------------------------


def checked(fun, dtype=np.float64, args=()):
    job = Job(problem_of(fun, dtype, *args), np.ones((2, 2), dtype), (), RmspropOptions())
    with standing_in((9, 0)):
        check_objective(job, "C", (9, 0))


def with_rest(x, grad, *args):
    grad[0] = x[0]
    return x[0] * x[0] + len(args)


def with_default(x, grad, a=2.0):
    grad[0] = a
    return x[0] * a


@pytest.mark.parametrize("args", [(), (1.0,), (1.0, 2.0)], ids=len)
def test_objective_may_take_any_number_of_arguments(args):
    checked(with_rest, args=args)
    checked(njit(with_rest), args=args)


def test_objective_may_have_defaults():
    checked(with_default)
    checked(with_default, args=(1.0,))


@pytest.mark.filterwarnings("ignore:fun computes in float64")
def test_objective_is_compiled_once_for_each_form_of_its_arguments(monkeypatch):
    calls = []
    compiled_for = _objective.compiled_for
    monkeypatch.setattr(_objective, "compiled_for", lambda *given: calls.append(given) or compiled_for(*given))
    fun = curve_of(3.0)
    for _ in range(2):
        checked(fun, args=(DATA,))
        checked(fun, np.float32, (DATA,))
    assert len(calls) == 2
    del calls[:]
    known, gone = len(_objective._KNOWN), weakref.ref(fun)
    del fun
    gc.collect()
    assert gone() is None
    assert len(_objective._KNOWN) < known


# -- what a device lacks ----------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
def test_objective_of_float32_that_computes_in_float64_is_warned_of():
    def with_literals(x, grad):
        grad[0] = 0.3 + 0.1 * x[0]
        return x[0] * x[0]

    with pytest.warns(RuntimeWarning, match=r"fun computes in float64 \(\d+ instructions\)"):
        checked(with_literals, np.float32)
    checked(with_literals, np.float64)
    checked(bowl, np.float32)


def of_exp(x, grad):
    return np.exp(x[0])


def of_dot(x, grad):
    return np.dot(x, grad)


def of_matmul(x, grad):
    return x @ grad


def of_expression(x, grad):
    grad[:] = 2.0 * x
    return x[0]


def of_copy(x, grad):
    grad[:] = x
    return x[0]


def of_zeros(x, grad):
    return np.zeros(2)[0]


def of_list(x, grad):
    parts = [x[0], x[1]]
    return parts[0]


def of_dict(x, grad):
    parts = {1: x[0]}
    return parts[1]


def of_string(x, grad):
    return x[0] + len(f"{x.size}")


def of_try(x, grad):
    try:
        return x[0]
    except ValueError:
        return x[1]


@njit
def exp_of(a):
    return np.exp(a)


def of_helper(x, grad):
    return exp_of(x[0])


LACKING = {
    of_exp: r"no np\.exp\b",
    of_dot: r"no np\.dot\b",
    of_matmul: "no @",
    of_expression: "no array expressions",
    of_copy: r"no .*copies of arrays by slices.*\(test_device_objective.py, line \d+\)",
    of_zeros: r"no np\.zeros\b",
    of_list: r"no lists.*\(test_device_objective.py, line \d+\)",
    of_dict: "no lists, dicts",
    of_string: "no strings",
    of_try: "no try and except",
    of_helper: r"no np\.exp\b",
}


@pytest.mark.parametrize("fun", LACKING, ids=lambda fun: fun.__name__)
def test_constructs_that_a_device_lacks_are_named(fun):
    with pytest.raises(TypeError, match=f"fun cannot be compiled for the device, which has {LACKING[fun]}"):
        checked(fun)


def test_objective_must_return_a_number():
    def forgets(x, grad):
        grad[0] = x[0]

    with pytest.raises(
        TypeError, match="fun must return f, a number, with jac='inplace'; on the device it returns none"
    ):
        checked(forgets)
    with pytest.raises(TypeError, match="cannot be compiled for the device"):
        checked(bowl, args=(1.0,))
