"""Every option and argument of every front end on a device works, or is refused; see test_simulator.py."""

from __future__ import annotations

import dataclasses
import inspect

import numpy as np
import pytest
from numba import cuda
from option_table import FILE, RULE, Ignored, Made, Refused, Works, check, say

import rmsprop_nb.cuda
from rmsprop_nb import RMSprop, minimize, minimize_batch
from rmsprop_nb._drivers.ranks import SingleProcess
from rmsprop_nb._methods.registry import OPTIONS as METHODS

ROUNDS_AS_THE_CPU = Ignored(True, "ound as the CPU does")  # as the simulator always does


# -- minimize ---------------------------------------------------------------------------------------------------------


@cuda.jit
def slope(x, grad, shift):
    i = cuda.grid(1)
    if i < x.size:
        grad[i] = x[i] - 1.0 + shift


def bowl(x, grad, shift=0.0):
    slope[1, 8](x, grad, shift)
    return 0.5 * float(np.sum((x.copy_to_host() - 1.0 + shift) ** 2))


def print_x(xk):
    say(xk.copy_to_host())


def on_host(name, value):
    return Refused(value, f"{name} is not for x0 on a device, got .*; leave it out, or copy x0 to the host")


X0 = np.array([3.0, -2.0, 0.5])
NOT_SHARED = "comm, data and weight are not for x0 on a device; leave them out, or copy x0 to the host"
MINIMIZE = {
    "fun": Works(lambda x, grad: 1.0 + bowl(x, grad)),
    "x0": Works(X0 + 1.0),
    "args": Works((0.5,)),
    "method": Refused("rmsprop-lbfgs", "x0 on a device needs method='rmsprop'"),
    "jac": Refused(True, "jac must be 'inplace' with x0 on a device"),
    "bounds": Refused([(0.0, 1.0)] * 3, "bounds are not for x0 on a device; copy x0 to the host"),
    "tol": Works(2.0),
    "callback": Works(print_x),
    "options": Works({"beta": 0.5}),
    "comm": Refused(SingleProcess(), NOT_SHARED),
    "weight": Refused(1.0, NOT_SHARED),
    "data": Refused(X0, NOT_SHARED),
    "deterministic": ROUNDS_AS_THE_CPU,
    "hess": Refused(np.eye, "leave out hess and hessp"),
    "hessp": Refused(np.dot, "leave out hess and hessp"),
    "constraints": Refused([{"type": "eq", "fun": print}], "constraints other than bounds; use SciPy's"),
}
OPTIONS = {
    **RULE,
    "learning_rate": Works(0.2),
    "gtol": Works(2.0),
    "f_target": Works(5.0),
    "maxiter": Works(2),
    "maxfev": Works(2),
    "maxtime": Works(0.0),
    "check_every": Works(1, {"callback": print_x}),
    "disp": Works(True),
    "ftol": on_host("ftol", 0.5),
    "xtol": on_host("xtol", 0.5),
    "patience": on_host("patience", 1),
    "x_scale": Refused(7.0, "x_scale has no meaning with learning_rate=.*; leave it out"),
    "f_noise": Refused(1.0, "f_noise has no meaning with learning_rate=.*; leave it out"),
    "finite_diff_rel_step": on_host("finite_diff_rel_step", 0.1),
    "history": on_host("history", True),
    "return_all": on_host("return_all", True),
    "state": on_host("state", "any"),
    "progress": on_host("progress", True),
    "checkpoint": on_host("checkpoint", FILE),
    "checkpoint_every": on_host("checkpoint_every", 1.0),
    "parallel": on_host("parallel", True),
}


def run_minimize(**chosen):
    arguments = {"fun": bowl, "x0": X0, "jac": "inplace"}
    arguments |= {name: chosen.pop(name) for name in MINIMIZE if name in chosen}
    options = {"learning_rate": 0.1, "maxiter": 9, "check_every": 4, **chosen, **arguments.pop("options", {})}
    if arguments.get("method") == "rmsprop-lbfgs":
        options = {}
    return minimize(arguments.pop("fun"), cuda.to_device(arguments.pop("x0")), options=options, **arguments)


@pytest.mark.parametrize("name", MINIMIZE | OPTIONS)
def test_minimize(name, tmp_path):
    check(name, (MINIMIZE | OPTIONS)[name], run_minimize, minimize.__doc__, tmp_path)


def test_every_option_of_minimize_has_a_row():
    assert set(MINIMIZE) == set(inspect.signature(minimize).parameters)
    assert set(OPTIONS) == {field.name for field in dataclasses.fields(METHODS["rmsprop"])}


def test_automatic_learning_rates_are_refused():
    with pytest.raises(ValueError, match="needs method='rmsprop' with a learning_rate that is a number or a schedule"):
        run_minimize(learning_rate="auto")


# -- batches ----------------------------------------------------------------------------------------------------------


def misfit(x, grad, shift):
    f = x[0] - x[0]
    for i in range(x.size):
        d = x[i] - 1.0 + (i + 1) * shift
        f += d * d * d * d
        grad[i] = 4.0 * d * d * d
    return f


def plus_one(x, grad, shift):
    return misfit(x, grad, shift) + 1.0


def flattened(x, grad, shift):
    """As `misfit`, but most iterations do not change it."""
    return misfit(x, grad, shift) + 1e12


def shifted(x, grad, *shift):
    return misfit(x, grad, shift[0] if len(shift) else 0.0)


def changed_result(folder, run):
    result = run()
    result.fun[0] += 1.0
    return result


STARTS = np.array([[3.0, -1.0], [0.5, -2.0]])
BATCH = {
    "fun": Works(plus_one),
    "X0": Works(STARTS + 0.5),
    "args": Works((0.5,)),
    "batch_args": Works((np.array([0.5, 0.0]),), {"args": (), "fun": shifted}),
    "method": Works("rmsprop-lbfgs"),
    "jac": Refused(True, "device='cuda' needs jac='inplace'"),
    "bounds": Works([(None, 0.5)] * 2),
    "tol": Works(1e3),
    "options": Works({"maxiter": 2}),
    "workers": Refused(2, "workers must be 1 with device='cuda'"),
    "device": Refused("gpu", "device must be 'cpu' or 'cuda'"),
    "progress": Works(True),
    "checkpoint": Works(FILE),
    "checkpoint_every": Works(0.0, {"checkpoint": FILE}),
    "state": Works(Made(changed_result)),
}
LIMITS = {
    "gtol": Works(1e3),
    "ftol": Works(0.99),
    "xtol": Works(0.99),
    "f_target": Works(1e3),
    "maxiter": Works(2),
    "maxfev": Works(2),
    "finite_diff_rel_step": Refused(1e-2, "finite_diff_rel_step has no meaning with device='cuda'.*; leave it out"),
}
SIZES = {"x_scale": Works(7.0), "f_noise": Works(1e3)}
NO_SIZES = {
    "x_scale": Refused(7.0, "x_scale has no meaning with learning_rate=.*; leave it out"),
    "f_noise": Refused(1.0, "f_noise has no meaning with learning_rate=.*; leave it out"),
}
IN_A_BATCH = {
    "auto": {
        **LIMITS,
        **SIZES,
        "patience": Works(1, {"fun": flattened, "maxiter": 100, "gtol": 0.0}),
        "beta": Works(0.5),
        "eps": Works(0.1),
        "learning_rate": Works(0.1),
    },
    "textbook": {
        **LIMITS,
        **NO_SIZES,
        **RULE,
        "learning_rate": Works(0.2),
        "patience": Works(1, {"learning_rate": 3.0}),
    },
    "lbfgs": {
        **LIMITS,
        **SIZES,
        "patience": Works(1, {"fun": flattened, "maxiter": 100, "gtol": 0.0}),
        "beta": Works(0.5),
        "eps": Works(0.1),
        "memory": Works(1),
    },
}
CHOSEN = {
    "auto": {"method": "rmsprop", "options": {"maxiter": 5}},
    "textbook": {"method": "rmsprop", "options": {"maxiter": 5, "learning_rate": 0.1}},
    "lbfgs": {"method": "rmsprop-lbfgs", "options": {"maxiter": 5}},
}


def run_batch(**arguments):
    arguments = {"fun": misfit, "X0": STARTS, "args": (0.0,), "jac": "inplace", "device": "cuda", **arguments}
    return minimize_batch(**arguments)


@pytest.mark.parametrize("name", BATCH)
def test_minimize_batch(name, tmp_path):
    check(name, BATCH[name], run_batch, "", tmp_path)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, table in IN_A_BATCH.items() for name in table])
def test_option_in_a_batch(kind, name, tmp_path):
    def run(fun=misfit, **options):
        return run_batch(**{**CHOSEN[kind], "fun": fun, "options": {**CHOSEN[kind]["options"], **options}})

    check(name, IN_A_BATCH[kind][name], run, "", tmp_path)


def test_every_argument_of_minimize_batch_has_a_row():
    """Options that a batch refuses before it knows of a device have theirs in test_every_batch_option.py."""
    assert set(BATCH) == set(inspect.signature(minimize_batch).parameters)


# -- the optimizer, and the rule in kernels ---------------------------------------------------------------------------

OPTIMIZER = {
    **RULE,
    "learning_rate": Refused([0.1, 0.2, 0.0], "learning_rate must be a number or a schedule on a device"),
    "maximize": Works(True),
    "workers": Refused(2, "workers must be 1 for arrays on a CUDA device"),
    "clip_value": Works(0.1),
    "clip_norm": Works(0.1),
    "clip_array_norm": Refused(0.1, "clip_array_norm is for arrays on the host"),
    "ema": Refused(0.9, "ema is for arrays on the host"),
    "accumulate_steps": Works(2),
    "check_finite": Works(False, {"grads": np.array([1.0, np.nan, 0.0])}),
    "deterministic": ROUNDS_AS_THE_CPU,
    "per_block": Works({"b": {"learning_rate": 0.5}}),
}


def run_optimizer(grads=None, **options):
    optimizer = RMSprop(**{"learning_rate": 0.1, **options})
    params = {"W": cuda.to_device(X0), "b": cuda.to_device(np.ones(3))}
    state = optimizer.init(params)
    for _ in range(4):
        g = params["W"].copy_to_host() if grads is None else grads
        try:
            optimizer.step(params, {"W": cuda.to_device(g), "b": cuda.to_device(np.ones(3))}, state)
        except FloatingPointError as error:
            return str(error)
    return {"params": params, "arrays": state.to_arrays()}


@pytest.mark.parametrize("name", OPTIMIZER)
def test_optimizer(name, tmp_path):
    check(name, OPTIMIZER[name], run_optimizer, RMSprop.__doc__, tmp_path)


def test_every_option_of_the_optimizer_has_a_row():
    assert set(OPTIMIZER) == set(inspect.signature(RMSprop).parameters)


IN_A_KERNEL = {
    **RULE,
    "initial_accumulator": Refused(1.0, "initial_accumulator is not for device_rule, .*; leave it out, and fill"),
    "lr_in_momentum": Works(True, {"momentum": 0.5}),
    "dtype": Works(np.float64),
    "deterministic": ROUNDS_AS_THE_CPU,
}


def run_rule(**options):
    rule = rmsprop_nb.cuda.device_rule(**options)

    @cuda.jit
    def step(x, g):
        i = cuda.grid(1)
        if i < x.size:
            x[i], _, _, _ = rule(x[i], g[i], x[i] * x[i], x[i], x[i], x[i] / x[i] / 3, x[i] / x[i] / 2)

    real = options.get("dtype", np.float32)
    x = cuda.to_device(X0.astype(real))
    step[1, 8](x, cuda.to_device(np.array([0.1, 1.0, -2.0], real)))
    return x


@pytest.mark.parametrize("name", IN_A_KERNEL)
def test_rule_in_a_kernel(name, tmp_path):
    check(name, IN_A_KERNEL[name], run_rule, rmsprop_nb.cuda.device_rule.__doc__, tmp_path)
