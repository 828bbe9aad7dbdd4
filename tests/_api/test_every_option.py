"""Every option and argument of every front end on the host works, or is refused with what to do instead."""

from __future__ import annotations

import dataclasses
import inspect

import numba
import numpy as np
import pytest
import scipy.optimize
from numba import njit
from option_table import FILE, STATE, Ignored, Made, Refused, Works, check, say

import rmsprop_nb
from rmsprop_nb import RMSprop, minimize, minimize_batch, minimize_minibatch, multistart, schedules
from rmsprop_nb._methods.registry import OPTIONS as METHODS

NEEDS_THREADS = pytest.mark.skipif(numba.get_num_threads() < 2, reason="there is one thread")
LARGE = np.full(100_000, 0.5)


def value(x, *shifts):
    return np.sum((x - 1.0) ** 4) + 10.0 * (x[0] - x[-1]) ** 2 + sum(np.mean(shift) for shift in shifts) * x[0]


def gradient(x, *shifts):
    g = 4.0 * (x - 1.0) ** 3
    g[0] += 20.0 * (x[0] - x[-1]) + sum(np.mean(shift) for shift in shifts)
    g[-1] -= 20.0 * (x[0] - x[-1])
    return g


class Printing:
    """The communicator of one rank, which prints what it sends."""

    def Get_rank(self):
        return 0

    def Allreduce(self, sent, received):
        say(sent)
        received[:] = sent

    def allgather(self, item):
        return [item]


def printing_map(function, parts):
    say("map")
    return map(function, parts)


NO_USE = "has no meaning with learning_rate='auto'"
DIFFERENCES = {"jac": "3-point"}
DECAYING = schedules.exponential_decay(0.1, 2, 0.5)


# -- options of methods -----------------------------------------------------------------------------------------------

LIMITS = {
    "gtol": Works(1e3),
    "ftol": Works(0.99),
    "xtol": Works(0.99),
    "f_target": Works(1e3),
    "maxiter": Works(2),
    "maxfev": Works(2),
    "finite_diff_rel_step": Works(1e-2, DIFFERENCES),
}
ONE_RUN = {
    "maxtime": Works(0.0),
    "history": Works(True),
    "return_all": Works(True),
    "disp": Works(True),
    "progress": Works(True),
    "checkpoint": Works(FILE),
    "checkpoint_every": Works(0.0, {"checkpoint": FILE}),
    "state": Works(STATE),
}
RULE = {
    "beta": Works(0.5),
    "eps": Works(0.1),
    "momentum": Works(0.5),
    "nesterov": Works(True, {"momentum": 0.5}),
    "centered": Works(True),
    "eps_inside_sqrt": Works(True, {"eps": 0.1}),
    "bias_correction": Works(True),
    "initial_accumulator": Works(1.0),
    "weight_decay": Works(0.1),
    "decoupled_weight_decay": Works(True, {"weight_decay": 0.1}),
    "lr_in_momentum": Works(True, {"momentum": 0.5, "learning_rate": DECAYING}),
}
RATE = {"learning_rate": Works(0.2)}
NOT_FOR_AUTO = {
    "momentum": Refused(0.5, f"momentum=0.5 {NO_USE}"),
    "nesterov": Refused(True, f"nesterov=True {NO_USE}"),
    "centered": Refused(True, f"centered=True {NO_USE}"),
    "eps_inside_sqrt": Refused(True, f"eps_inside_sqrt=True {NO_USE}"),
    "bias_correction": Refused(True, f"bias_correction=True {NO_USE}"),
    "initial_accumulator": Refused(1.0, f"initial_accumulator=1.0 {NO_USE}"),
    "weight_decay": Refused(0.1, f"weight_decay=0.1 {NO_USE}"),
    "decoupled_weight_decay": Refused(True, f"decoupled_weight_decay=True {NO_USE}"),
    "lr_in_momentum": Refused(True, f"lr_in_momentum=True {NO_USE}"),
    "parallel": Refused(True, f"parallel=True {NO_USE}"),
}
HOST = {"check_every": Refused(10, "check_every is for x0 on a CUDA device, got 10; leave it out")}

OPTIONS = {
    "auto": {**LIMITS, **ONE_RUN, "patience": Works(1), "beta": RULE["beta"], "eps": RULE["eps"], **NOT_FOR_AUTO}
    | {**HOST, "learning_rate": Works(0.1)},
    "textbook": {**LIMITS, **ONE_RUN, "patience": Works(1, {"learning_rate": 1.0}), **RULE, **RATE, **HOST}
    | {"parallel": Works(True, {"x0": LARGE, "maxiter": 1})},
    "lbfgs": {**LIMITS, **ONE_RUN, "patience": Works(1), "beta": Works(0.5), "eps": Works(0.1), "memory": Works(1)},
}
METHOD_OF = {"auto": "rmsprop", "textbook": "rmsprop", "lbfgs": "rmsprop-lbfgs"}
CHOSEN = {"auto": {}, "textbook": {"learning_rate": 0.1, "maxiter": 9}, "lbfgs": {}}
ARGUMENTS = ("fun", "x0", "args", "jac", "bounds", "tol", "callback")  # of SciPy's contract
OURS = ("method", "comm", "weight", "data", "deterministic")


def given(kind, names, chosen):
    """Sort what is chosen into arguments and the dict of options."""
    chosen = {**CHOSEN[kind], **chosen}
    arguments = {name: chosen.pop(name) for name in names if name in chosen}
    fun, x0 = arguments.pop("fun", value), arguments.pop("x0", np.array([3.0, -1.0, 0.5]))
    return fun, x0, {"jac": gradient, **arguments, "options": chosen}


def run_minimize(kind, **chosen):
    fun, x0, arguments = given(kind, ARGUMENTS + OURS, chosen)
    return minimize(fun, x0, **{"method": METHOD_OF[kind], **arguments})


def run_scipy(kind, **chosen):
    method = rmsprop_nb.rmsprop_lbfgs if kind == "lbfgs" else rmsprop_nb.rmsprop
    fun, x0, arguments = given(kind, (*ARGUMENTS, "hess", "hessp", "constraints"), chosen)
    return scipy.optimize.minimize(fun, x0, method=method, **arguments)


DOORS = {"minimize": run_minimize, "scipy": run_scipy}


def rows(table):
    marks = {"parallel": NEEDS_THREADS, "workers": NEEDS_THREADS}
    return [
        pytest.param(*keys, id="-".join(keys), marks=[marks[keys[-1]]] if keys[-1] in marks else [])
        for keys in ((*kind, name) for kind, options in table.items() for name in options)
    ]


@pytest.mark.parametrize(
    ("door", "kind", "name"), rows({(door, kind): OPTIONS[kind] for door in DOORS for kind in OPTIONS})
)
def test_option_of_a_method(door, kind, name, tmp_path):
    def run(**chosen):
        return DOORS[door](kind, **chosen)

    check(name, OPTIONS[kind][name], run, "", tmp_path)


@pytest.mark.parametrize("kind", OPTIONS)
def test_every_option_of_a_method_has_a_row(kind):
    assert set(OPTIONS[kind]) == {field.name for field in dataclasses.fields(METHODS[METHOD_OF[kind]])}


ONLY_WITH_MOMENTUM = "It matters only with momentum and a learning rate that changes."
NINE_STEPS = {"learning_rate": DECAYING, "maxiter": 9}
IGNORED = {
    "finite_diff_rel_step": Ignored(1e-2, "As in SciPy, it is ignored with any other `jac`."),
    "initial_accumulator": Ignored(1.0, "`initial_accumulator` is not used", {**NINE_STEPS, "state": STATE}),
    "lr_in_momentum": Ignored(True, ONLY_WITH_MOMENTUM, NINE_STEPS),
    "decoupled_weight_decay": Ignored(True, "Without weight_decay it changes nothing.", NINE_STEPS),
}


@pytest.mark.parametrize("name", IGNORED)
def test_option_that_changes_nothing_is_said_to(name, tmp_path):
    def run(**chosen):
        return run_minimize("auto", **chosen)

    check(name, IGNORED[name], run, rmsprop_nb.rmsprop.__doc__ or IGNORED[name].words, tmp_path)


# -- arguments of minimize and of SciPy's door ------------------------------------------------------------------------


def other(x, *shifts):
    return value(x, *shifts) + 1.0


SCIPY = {
    "fun": Works(other),
    "x0": Works([1.0, 2.0]),
    "args": Works((0.5,)),
    "jac": Works("2-point"),
    "bounds": Works([(None, 0.5)] * 3),
    "tol": Works(0.5),
    "callback": Works(print),
}
ONLY_SCIPY = {
    "hess": Refused(lambda x: np.eye(3), "leave out hess"),
    "hessp": Refused(lambda x, p: p, "leave out hess and hessp"),
    "constraints": Refused([{"type": "eq", "fun": value}], "constraints other than bounds; use SciPy's"),
    "options": Works({"maxiter": 2}),
}
MINIMIZE = {
    **SCIPY,
    "method": Works("rmsprop-lbfgs"),
    "options": Works({"maxiter": 2}),
    "comm": Works(Printing()),
    "weight": Works(3.0, {"comm": Printing()}),
    "data": Works(np.array([0.5, 1.5])),
    "deterministic": Works(True, {"data": np.arange(3.0)}),
}


def with_options(run):
    return lambda options=None, **arguments: run("auto", **(options or {}), **arguments)


@pytest.mark.parametrize("name", MINIMIZE)
def test_argument_of_minimize(name, tmp_path):
    check(name, MINIMIZE[name], with_options(run_minimize), "", tmp_path)


@pytest.mark.parametrize("name", SCIPY | ONLY_SCIPY)
def test_argument_of_scipys_door(name, tmp_path):
    check(name, (SCIPY | ONLY_SCIPY)[name], with_options(run_scipy), "", tmp_path)


def test_every_argument_has_a_row():
    assert set(MINIMIZE) == set(inspect.signature(minimize).parameters)
    for method in (rmsprop_nb.rmsprop, rmsprop_nb.rmsprop_lbfgs):
        assert set(SCIPY | ONLY_SCIPY) == set(inspect.signature(method).parameters)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": 2.0}, "weight=2.0 has no meaning without comm.*; leave it out"),
        ({"weight": 2.0, "data": np.arange(3.0)}, "weight=2.0 has no meaning without comm"),
        (
            {"weight": 2.0, "data": np.arange(3.0), "deterministic": True},
            "deterministic=True needs data, .* weight=2.0",
        ),
        ({"deterministic": True}, "deterministic=True needs data"),
        ({"checkpoint_every": 1.0}, "checkpoint_every=1.0 has no meaning without checkpoint; give the path"),
        ({"nesterov": True, "learning_rate": 0.1}, "nesterov=True needs momentum > 0, .*; give momentum=0.9"),
    ],
)
def test_what_means_nothing_alone_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        run_minimize("auto", **arguments)


def test_gtol_counts_more_than_tol_as_in_scipy():
    expected = run_minimize("auto", gtol=1e-3)
    np.testing.assert_array_equal(run_minimize("auto", gtol=1e-3, tol=0.5).x, expected.x)
    assert "`gtol`" in (minimize.__doc__ or "`gtol`")


# -- batches ----------------------------------------------------------------------------------------------------------


def value_inplace(x, grad, shift):
    grad[:] = 4.0 * (x - 1.0) ** 3
    grad[0] += 20.0 * (x[0] - x[2]) + shift
    grad[2] -= 20.0 * (x[0] - x[2])
    return np.sum((x - 1.0) ** 4) + 10.0 * (x[0] - x[2]) ** 2 + shift * x[0]


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
    return minimize_batch(fun, STARTS, (0.0,), method=METHOD_OF[kind], jac=jac, options=chosen)


@pytest.mark.parametrize(
    ("objective", "kind", "name"),
    [
        pytest.param(objective, kind, name, marks=[pytest.mark.slow] if objective == "compiled" else [])
        for objective in OBJECTIVES
        for kind in IN_A_BATCH
        for name in IN_A_BATCH[kind]
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


# -- mini-batches -----------------------------------------------------------------------------------------------------

ROWS = np.linspace(-1.0, 2.0, 24)


def loss(x, rows, *shifts):
    return value(x, rows, *shifts), gradient(x, rows, *shifts)


def loss_of_x(x, rows):
    return value(x, rows)


def only_for(name, rate):
    return Refused(0.5, f"Unknown option '{name}' for minimize_minibatch .*: it needs a learning_rate that is {rate}")


TEXTBOOK_ROWS = {name: only_for(name, "a number or a schedule") for name in (*NOT_FOR_AUTO,)}
STEPS = {"finite_diff_rel_step": Works(1e-2, {"jac": "3-point", "fun": loss_of_x})}
MINIBATCH_OPTIONS = {
    "auto": {"beta": Works(0.5), "eps": Works(0.1), "first_distance": Works(0.1), **STEPS, **TEXTBOOK_ROWS},
    "auto-constant": {"beta": Works(0.5), "eps": Works(0.1), "first_distance": Works(0.1), **STEPS, **TEXTBOOK_ROWS},
    "number": {**RULE, **STEPS, "parallel": Works(True, {"x0": LARGE, "epochs": 1})},
    "each": {**RULE, **STEPS, "parallel": Works(True, {"x0": LARGE, "epochs": 1, "learning_rate": 0.1 * LARGE})},
    "schedule": {**RULE, **STEPS, "parallel": Works(True, {"x0": LARGE, "epochs": 1})},
}
for _table in ("number", "each", "schedule"):
    MINIBATCH_OPTIONS[_table]["first_distance"] = only_for("first_distance", "'auto' or 'auto-constant'")
RATES = {
    "auto": "auto",
    "auto-constant": "auto-constant",
    "number": 0.1,
    "each": np.array([0.1, 0.2, 0.0]),
    "schedule": DECAYING,
}
MINIBATCH = {
    "fun": Works(lambda x, rows: (1.0 + value(x, rows), gradient(x, rows))),
    "x0": Works([1.0, 2.0]),
    "data": Works(ROWS + 1.0),
    "args": Works((0.5,)),
    "batch_size": Works(4),
    "epochs": Works(2),
    "jac": Works("3-point", {"fun": lambda x, rows: Both(value(x, rows), gradient(x, rows))}),
    "bounds": Works([(None, 0.5)] * 3),
    "learning_rate": Works(0.1),
    "rng": Works(2),
    "shuffle": Works(False),
    "averaging": Works(True),
    "validation": Works(0.5),
    "patience": Works(1, {"validation": -5.0 * ROWS, "learning_rate": 0.5, "epochs": 20}),
    "clip_value": Works(0.1),
    "clip_norm": Works(0.1),
    "accumulate": Works(2),
    "callback": Works(print),
    "maxtime": Works(0.0),
    "history": Works(True),
    "final_evaluation": Works(False),
    "progress": Works(True),
    "checkpoint": Works(FILE),
    "checkpoint_every": Works(0.0, {"checkpoint": FILE}),
    "state": Works(STATE, {"epochs": 4, "maxtime": 0.0}),
    "options": Works({"beta": 0.5}),
    "comm": Works(Printing()),
    "deterministic": Works(True, {"fun": lambda x, rows: (say(rows.size), loss(x, rows))[1]}),
}


class Both(float):
    """A value that is taken with its gradient, or without."""

    def __new__(cls, f, g):
        both = super().__new__(cls, f)
        both.pair = (f, g)
        return both

    def __iter__(self):
        return iter(self.pair)


def run_minibatch(**arguments):
    chosen = {
        "fun": loss, "x0": np.array([3.0, -1.0, 0.5]), "data": ROWS, "batch_size": 8, "epochs": 3, "rng": 1, "jac": True
    }  # fmt: skip
    return minimize_minibatch(**chosen | arguments)


@pytest.mark.parametrize("name", MINIBATCH)
def test_argument_of_minimize_minibatch(name, tmp_path):
    check(name, MINIBATCH[name], run_minibatch, "", tmp_path)


@pytest.mark.parametrize(("kind", "name"), rows({(kind,): table for kind, table in MINIBATCH_OPTIONS.items()}))
def test_option_of_minimize_minibatch(kind, name, tmp_path):
    def run(**chosen):
        arguments = {key: chosen.pop(key) for key in ("x0", "epochs", "jac", "fun", "learning_rate") if key in chosen}
        return run_minibatch(**{"learning_rate": RATES[kind], **arguments}, options=chosen)

    check(name, MINIBATCH_OPTIONS[kind][name], run, "", tmp_path)


def test_every_argument_of_minimize_minibatch_has_a_row():
    assert set(MINIBATCH) == set(inspect.signature(minimize_minibatch).parameters)
    known = {"first_distance", "finite_diff_rel_step", "parallel", *RULE}
    for table in MINIBATCH_OPTIONS.values():
        assert set(table) == known
    with pytest.raises(ValueError, match="Unknown option 'lr'"):
        run_minibatch(options={"lr": 0.1})


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("rng", Ignored(2, "Not used with ``shuffle=False`` or `state`.", {"shuffle": False})),
        ("rng", Ignored(2, "Not used with ``shuffle=False`` or `state`.", {"state": STATE, "epochs": 4})),
    ],
)
def test_argument_of_minimize_minibatch_that_changes_nothing_is_said_to(name, row, tmp_path):
    check(name, row, run_minibatch, minimize_minibatch.__doc__ or row.words, tmp_path)


# -- the optimizer ----------------------------------------------------------------------------------------------------

OPTIMIZER = {
    **RULE,
    "learning_rate": Works([0.1, 0.2, 0.0]),
    "maximize": Works(True),
    "workers": Works(2, {"x0": LARGE}),
    "clip_value": Works(0.1),
    "clip_norm": Works(0.1),
    "accumulate_steps": Works(2),
    "check_finite": Works(False, {"grads": np.array([1.0, 1e200, 0.0])}),
    "deterministic": Ignored(True, "On the host this is always so."),
    "per_block": Works({"b": {"learning_rate": 0.5}}),
}


def run_optimizer(x0=(3.0, -1.0, 0.5), grads=None, **options):
    optimizer = RMSprop(**{"learning_rate": 0.1, **options})
    params = {"W": np.array(x0, np.float64), "b": np.ones(3)}
    state = optimizer.init(params)
    for _ in range(4):
        g = np.array(gradient(params["W"]) if grads is None else grads)
        try:
            optimizer.step(params, {"W": g, "b": np.ones(3)}, state)
        except FloatingPointError as error:
            return str(error)
    return {"params": params, "arrays": state.to_arrays()}


@pytest.mark.parametrize("name", rows({(): OPTIMIZER}))
def test_option_of_the_optimizer(name, tmp_path):
    row = OPTIMIZER[name]
    check(name, row, run_optimizer, RMSprop.__doc__ or getattr(row, "words", ""), tmp_path)


def test_every_option_of_the_optimizer_has_a_row():
    assert set(OPTIMIZER) == set(inspect.signature(RMSprop).parameters)
