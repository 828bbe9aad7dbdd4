"""Every option and argument of batches and multistart works, or is refused with what to do instead."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from numba import njit
from option_rows import CHOSEN, METHOD_OF, OPTIONS, flattened, gradient, printing_map, value
from option_table import FILE, Made, Refused, Works, check

from rmsprop_nb import minimize_batch, multistart


def value_inplace(x, grad, shift, constant=0.0):
    grad[:] = 4.0 * (x - 1.0) ** 3
    grad[0] += 20.0 * (x[0] - x[2]) + shift
    grad[2] -= 20.0 * (x[0] - x[2])
    return np.sum((x - 1.0) ** 4) + 10.0 * (x[0] - x[2]) ** 2 + shift * x[0] + constant


def value_of_x(x, shift):
    return np.sum((x - 1.0) ** 4) + 10.0 * (x[0] - x[2]) ** 2 + shift * x[0]


def in_a_batch(name):
    return f"Unknown option '{name}' for method .* in a batch: "


LOOK = "call minimize for the problem that you want to look at"
ARGUMENT = "it is an argument of minimize_batch instead"
NOT_IN_A_BATCH = {
    "maxtime": Refused(0.0, in_a_batch("maxtime") + "set maxiter or maxfev"),
    "history": Refused(True, in_a_batch("history") + LOOK),
    "return_all": Refused(True, in_a_batch("return_all") + LOOK),
    "disp": Refused(True, in_a_batch("disp") + LOOK),
    "progress": Refused(True, in_a_batch("progress") + ARGUMENT),
    "checkpoint": Refused(FILE, in_a_batch("checkpoint") + ARGUMENT),
    "checkpoint_every": Refused(1.0, in_a_batch("checkpoint_every") + ARGUMENT),
    "state": Refused(None, in_a_batch("state") + ARGUMENT),
}
NOT_IN_A_BATCH_OF_RMSPROP = {
    "parallel": Refused(True, in_a_batch("parallel") + "problems run side by side with workers=-1"),
    "check_every": Refused(1, in_a_batch("check_every") + "it is for x0 on a CUDA device in minimize"),
}
IN_A_BATCH = {
    kind: table | NOT_IN_A_BATCH | ({} if kind == "lbfgs" else NOT_IN_A_BATCH_OF_RMSPROP)
    for kind, table in OPTIONS.items()
}
OBJECTIVES = {
    "python": (value_inplace, value_of_x),
    "compiled": (njit(value_inplace), njit(value_of_x)),
}
STARTS = np.array([[3.0, -1.0, 0.5], [0.5, 0.0, -2.0]])


def run_batch(objective, kind, options):
    inplace, of_x = OBJECTIVES[objective]
    chosen = {**CHOSEN[kind], **options}
    jac = chosen.pop("jac", "inplace")
    fun = inplace if jac == "inplace" else of_x
    args = (0.0, 1e12) if chosen.pop("fun", None) is flattened else (0.0,)
    return minimize_batch(fun, STARTS, args, method=METHOD_OF[kind], jac=jac, options=chosen)


# Each switch of the textbook rule is a kernel to compile, and test_loop.py looks at what they do in compiled code; the
# others show that a batch takes the kernel that they ask for.
ONLY_INTERPRETED = {"centered", "weight_decay", "bias_correction", "lr_in_momentum", "eps_inside_sqrt"}


@pytest.mark.parametrize(
    ("objective", "kind", "name"),
    [
        pytest.param(objective, kind, name, marks=[pytest.mark.exhaustive] if objective == "compiled" else [])
        for objective in OBJECTIVES
        for kind in IN_A_BATCH
        for name in IN_A_BATCH[kind]
        if (objective, kind) != ("compiled", "textbook") or name not in ONLY_INTERPRETED
    ],
)
def test_option_in_a_batch(objective, kind, name, tmp_path):
    def run(**options):
        return run_batch(objective, kind, options)

    check(name, IN_A_BATCH[kind][name], run, "", tmp_path)


@pytest.mark.parametrize("kind", IN_A_BATCH)
def test_every_option_in_a_batch_has_a_row(kind):
    assert set(IN_A_BATCH[kind]) == set(OPTIONS[kind])


def changed_result(folder, run):
    result = run()
    result.fun[0] += 1.0
    return result


BATCH = {
    "fun": Works(lambda x, grad, shift: 1.0 + value_inplace(x, grad, shift)),
    "X0": Works(STARTS + 0.5),
    "args": Works((0.5,)),
    "batch_args": Works((np.array([0.5, 0.0]),), {"args": ()}),
    "method": Works("rmsprop-lbfgs"),
    "jac": Works("3-point", {"fun": lambda x, *args: value(x) if len(args) == 1 else value_inplace(x, *args)}),
    "bounds": Works([(None, 0.5)] * 3),
    "tol": Works(0.5),
    "options": Works({"maxiter": 2}),
    "workers": Works(printing_map),
    "device": Refused("gpu", "device must be 'cpu' or 'cuda'"),
    "progress": Works(True),
    "checkpoint": Works(FILE),
    "checkpoint_every": Works(0.0, {"checkpoint": FILE}),
    "state": Works(Made(changed_result)),
}


@pytest.mark.parametrize("name", BATCH)
def test_argument_of_minimize_batch(name, tmp_path):
    if name == "batch_args":
        run_with = {"fun": lambda x, grad, *shift: value_inplace(x, grad, shift[0] if shift else 0.0)}
    else:
        run_with = {}

    def run(**arguments):
        arguments = {"fun": value_inplace, "X0": STARTS, "args": (0.0,), "jac": "inplace", **run_with, **arguments}
        return minimize_batch(**arguments)

    check(name, BATCH[name], run, "", tmp_path)


MULTISTART = {
    "fun": Works(lambda x, *shifts: 1.0 + value(x, *shifts)),
    "bounds": Works([(-1.0, 0.5)] * 2),
    "n_starts": Works(3),
    "args": Works((0.5,)),
    "method": Works("rmsprop-lbfgs"),
    "jac": Works(gradient),
    "tol": Works(0.5),
    "options": Works({"maxiter": 2}),
    "workers": Works(printing_map),
    "rng": Works(2),
    "distance": Works(1e-12),
}


@pytest.mark.parametrize("name", MULTISTART)
def test_argument_of_multistart(name, tmp_path):
    def run(**arguments):
        return multistart(**{"fun": value, "bounds": [(-3.0, 3.0)] * 2, "n_starts": 4, "rng": 1, **arguments})

    check(name, MULTISTART[name], run, "", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"distance": -1.0}, r"distance must be a number in \[0, inf\], got -1.0"),
        ({"bounds": None}, r"bounds must be a box .*, got None; give a pair \(min, max\)"),
        ({"options": {"history": True}}, "Unknown option 'history' .* in a batch"),
    ],
)
def test_bad_arguments_of_multistart(arguments, message):
    with pytest.raises(ValueError, match=message):
        multistart(**{"fun": value, "bounds": [(-3.0, 3.0)] * 2, "n_starts": 4, **arguments})


def test_every_argument_of_batches_has_a_row():
    assert set(BATCH) == set(inspect.signature(minimize_batch).parameters)
    assert set(MULTISTART) == set(inspect.signature(multistart).parameters)
