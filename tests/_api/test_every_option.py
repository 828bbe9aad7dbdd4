"""Every option and argument of `minimize` and of SciPy's door works, or is refused with what to do instead."""

from __future__ import annotations

import dataclasses
import inspect

import numpy as np
import pytest
import scipy.optimize
from option_rows import CHOSEN, METHOD_OF, OPTIONS, Printing, gradient, rows, value
from option_table import DECAYING, STATE, Ignored, Refused, Works, check

import rmsprop_nb
from rmsprop_nb import minimize
from rmsprop_nb._methods.registry import OPTIONS as METHODS

ARGUMENTS = ("fun", "x0", "args", "jac", "bounds", "tol", "callback")  # of SciPy's contract
OURS = ("method", "comm", "weight", "data", "deterministic", "hess", "hessp", "constraints")


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
REFUSED = {
    "hess": Refused(lambda x: np.eye(3), "leave out hess"),
    "hessp": Refused(lambda x, p: p, "leave out hess and hessp"),
    "constraints": Refused([{"type": "eq", "fun": value}], "constraints other than bounds; use SciPy's"),
}
ONLY_SCIPY = {**REFUSED, "options": Works({"maxiter": 2})}
MINIMIZE = {
    **SCIPY,
    **REFUSED,
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
        ({"weight": 2.0}, "weight=2.0 .* needs comm; leave it out"),
        ({"weight": 2.0, "data": np.arange(3.0)}, "weight=2.0 .* needs comm"),
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
