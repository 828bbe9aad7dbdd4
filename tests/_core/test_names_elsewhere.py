"""Options by the names that they have in other libraries: the error gives the name that they have here."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import re

import numpy as np
import pytest
import scipy.optimize

import rmsprop_nb
from rmsprop_nb import (
    GradientRows,
    RMSprop,
    check_gradient,
    cuda,
    curve_fit,
    datasets,
    fit,
    jacobian,
    least_squares,
    load,
    minimize,
    minimize_batch,
    minimize_minibatch,
    multistart,
    plotting,
    rmsprop,
    save,
    schedules,
    testing,
    value_and_grad,
)
from rmsprop_nb._core.names_elsewhere import NAMES_ELSEWHERE, advice
from rmsprop_nb._drivers.minibatch_options import OPTION_NAMES
from rmsprop_nb._methods.registry import OPTIONS, option_names


def never(x):
    pytest.fail("the objective was called")


def test_every_name_here_exists():
    existing = {name for method in OPTIONS for name in option_names(method)} | set(OPTION_NAMES)
    modules = (rmsprop_nb, datasets, plotting, schedules, testing)
    existing.add("func")  # of rmsprop_nb.xarray.curvefit, which needs xarray
    functions = {getattr(module, name) for module in modules for name in module.__all__}
    for function in functions:
        if inspect.isfunction(function) or function in (RMSprop, GradientRows, schedules.ReduceOnPlateau):
            existing |= set(inspect.signature(function).parameters)
    assert {here for names in NAMES_ELSEWHERE.values() for here in names} <= existing


IN_MINIMIZE = {
    "lr": "here it is called 'learning_rate'",
    "rho": "here it is called 'beta'",
    "weightDecay": "here it is called 'weight_decay'",
    "momentum_decay": "here it is called 'momentum'",
    "epsilon": "here it is called 'eps'",
    "nesterovs": "here it is called 'nesterov'",
    "maxfun": "here it is called 'maxfev'",
    "max_nfev": "here it is called 'maxfev'",
    "max_iter": "here it is called 'maxiter'",
    "xatol": "the nearest here is 'xtol'",
    "fatol": "the nearest here is 'ftol'",
}


@pytest.mark.parametrize(("name", "remedy"), IN_MINIMIZE.items(), ids=IN_MINIMIZE)
def test_options_of_minimize(name, remedy):
    message = re.escape(f"Unknown option '{name}' for method 'rmsprop") + f".*; {remedy}. Known options: "
    with pytest.raises(ValueError, match=message):
        minimize(never, [1.0], options={name: 1})
    with pytest.raises(ValueError, match=message):
        minimize_batch(never, [[1.0]], options={name: 1})
    with pytest.raises(ValueError, match=message):
        multistart(never, [(0, 1)], 1, options={name: 1})


def test_scipys_door_says_so_in_its_warning():
    with pytest.warns(scipy.optimize.OptimizeWarning, match=r"options: lr \(here it is called 'learning_rate'\), foo$"):
        scipy.optimize.minimize(lambda x: x @ x, [1.0], method=rmsprop, options={"lr": 0.1, "foo": 1})


IN_RMSPROP = {
    "lr": "here it is called 'learning_rate'",
    "alpha": "here it is called 'beta'",
    "clipvalue": "here it is called 'clip_value'",
    "global_clipnorm": "here it is called 'clip_norm'",
    "clipnorm": "here it is called 'clip_array_norm'",
    "ema_momentum": "here it is called 'ema'",
    "accumulate": "here it is called 'accumulate_steps'",
}


@pytest.mark.parametrize(("name", "remedy"), IN_RMSPROP.items(), ids=IN_RMSPROP)
def test_options_of_the_optimizer(name, remedy):
    with pytest.raises(TypeError, match=rf"RMSprop\(\) got an unexpected keyword argument '{name}'; {remedy}\.$"):
        RMSprop(**{name: 0.5})
    with pytest.raises(TypeError, match=f"'{name}'; {remedy}"):
        RMSprop.preset("keras", **{name: 0.5})
    with pytest.raises(TypeError, match=f"'{name}'; {remedy}"):
        dataclasses.replace(RMSprop(), **{name: 0.5})


def test_options_of_blocks():
    with pytest.raises(ValueError, match="got 'lr'; here it is called 'learning_rate'"):
        RMSprop(per_block={"b": {"lr": 0.1}})


def test_the_optimizer_is_a_dataclass_as_before():
    optimizer = RMSprop(0.1, momentum=0.9)
    assert next(iter(inspect.signature(RMSprop).parameters)) == "learning_rate"
    assert repr(optimizer) == "RMSprop(learning_rate=0.1, momentum=0.9)"
    assert repr(dataclasses.replace(optimizer, momentum=0.5)) == "RMSprop(learning_rate=0.1, momentum=0.5)"
    for again in (pickle.loads(pickle.dumps(optimizer)), copy.deepcopy(optimizer)):
        assert repr(again) == repr(optimizer)
    with pytest.raises(TypeError, match=r"RMSprop\(\) got an unexpected keyword argument 'foo'\.$"):
        RMSprop(foo=1)


IN_MINI_BATCHES = {
    "lr": "here it is called 'learning_rate'",
    "clipnorm": "the nearest here is 'clip_norm'",
    "accumulate_steps": "here it is called 'accumulate'",
    "n_epochs": "here it is called 'epochs'",
    "maxiter": "the nearest here is 'epochs'",
    "seed": "here it is called 'rng'",
    "rho": "here it is an option: options={'beta': ...}",
    "beta": "here it is an option: options={'beta': ...}",
}


@pytest.mark.parametrize(("name", "remedy"), IN_MINI_BATCHES.items(), ids=IN_MINI_BATCHES)
def test_arguments_of_mini_batches(name, remedy):
    with pytest.raises(TypeError, match=re.escape(f"unexpected keyword argument '{name}'; {remedy}.")):
        minimize_minibatch(never, [1.0], np.ones(3), **{name: 1})


@pytest.mark.parametrize(("name", "option"), [("maxiter", "maxiter"), ("lr", "learning_rate"), ("memory", "memory")])
def test_options_are_no_arguments(name, option):
    remedy = re.escape(f"unexpected keyword argument '{name}'; here it is an option: options={{'{option}': ...}}.")
    for call in (
        lambda **more: minimize(never, [1.0], **more),
        lambda **more: minimize_batch(never, [[1.0]], **more),
        lambda **more: multistart(never, [(0.0, 1.0)], 2, **more),
    ):
        with pytest.raises(TypeError, match=remedy):
            call(**{name: 1})
    with pytest.raises(TypeError, match="unexpected keyword argument 'n_jobs'; here it is called 'workers'"):
        minimize_batch(never, [[1.0]], n_jobs=2)


def test_options_of_mini_batches():
    with pytest.raises(ValueError, match=r"Unknown option 'lr' .*; here it is the argument learning_rate. Known"):
        minimize_minibatch(never, [1.0], np.ones(3), options={"lr": 0.1})
    with pytest.raises(ValueError, match=r"Unknown option 'clip_norm' .*; here it is the argument clip_norm. Known"):
        minimize_minibatch(never, [1.0], np.ones(3), options={"clip_norm": 0.1})


IN_OTHERS = {
    fit: {
        "func": "here it is called 'f'",
        "x": "here it is called 'xdata'",
        "yerr": "here it is called 'sigma'",
        "weights": "the nearest here is 'sigma'",
        "maxfev": "here it is an option: options={'maxfev': ...}",
        "max_nfev": "here it is an option: options={'maxfev': ...}",
        "fatol": "the nearest here is an option: options={'ftol': ...}",
        "n_jobs": "here it is called 'workers'",
        "x0": "here it is called 'p0'",
    },
    curve_fit: {
        "y": "here it is called 'ydata'",
        "maxfun": "here it is called 'maxfev'",
        "lr": "here it is an option: options={'learning_rate': ...}",
        "ftol_rel": "the nearest here is 'ftol'",
        "foo": "$",
    },
    least_squares: {
        "maxfev": "here it is called 'max_nfev'",
        "maxiter": "here it is an option: options={'maxiter': ...}",
        "func": "here it is called 'fun'",
        "Dfun": "here it is called 'jac'",
        "n_jobs": "here it is called 'workers'",
        "p0": "here it is called 'x0'",
    },
    minimize: {
        "num_epochs": "the nearest here is an option: options={'maxiter': ...}",
        "gradient": "here it is called 'jac'",
        "callbacks": "here it is called 'callback'",
        "bound": "the most similar name here is 'bounds'",
    },
    minimize_minibatch: {
        "num_epochs": "here it is called 'epochs'",
        "minibatch_size": "here it is called 'batch_size'",
    },
    multistart: {"seed": "here it is called 'rng'", "n": "here it is called 'n_starts'"},
    check_gradient: {"grad": "here it is called 'jac'", "x0": "$", "func": "here it is called 'fun'"},
    value_and_grad: {"f": "here it is called 'fun'"},
    jacobian: {"chunks": "the most similar name here is 'chunk'"},
    save: {"file": "here it is called 'path'", "state": "here it is called 'obj'"},
    load: {"filename": "here it is called 'path'"},
    GradientRows: {"indices": "here it is called 'rows'"},
    cuda.device_rule: {"rho": "here it is called 'beta'", "foo": "$"},
    schedules.constant: {"lr": "here it is called 'learning_rate'"},
    schedules.exponential_decay: {
        "gamma": "here it is called 'decay_rate'",
        "steps": "here it is called 'decay_steps'",
    },
    schedules.inverse_time_decay: {"initial_value": "$", "init_value": "here it is called 'learning_rate'"},
    schedules.cosine_decay: {"T_max": "here it is called 'decay_steps'", "eta_min": "here it is called 'final'"},
    schedules.linear_decay: {"end_value": "here it is called 'final'"},
    schedules.warm_up: {"warmup_steps": "here it is called 'steps'"},
    schedules.piecewise: {"milestones": "here it is called 'boundaries'"},
    schedules.one_cycle: {"max_lr": "here it is called 'largest'", "pct_start": "here it is called 'rising'"},
    schedules.ReduceOnPlateau: {"gamma": "here it is called 'factor'", "min_lr": "here it is called 'least'"},
    datasets.load_nist: {"names": "the most similar name here is 'name'"},
    testing.reference_rmsprop: {"lr": "here it is called 'learning_rate'", "grads": "here it is called 'gradients'"},
    plotting.plot_convergence: {"axes": "here it is called 'ax'"},
    plotting.plot_trajectory: {"f": "here it is called 'fun'"},
    plotting.plot_fits: {"ax": "here it is called 'axes'", "popt": "here it is called 'result'"},
    plotting.plot_profile: {"index": "here it is called 'k'"},
}


@pytest.mark.parametrize(
    ("function", "name"), [(function, name) for function, remedies in IN_OTHERS.items() for name in remedies]
)
def test_arguments_of_the_other_functions(function, name):
    remedy = IN_OTHERS[function][name]
    text = f"{function.__name__}() got an unexpected keyword argument '{name}'"
    with pytest.raises(TypeError) as raised:
        function(**{name: 1})
    assert str(raised.value) == text + ("." if remedy == "$" else f"; {remedy}.")


def test_arguments_of_xarrays_curvefit():
    pytest.importorskip("xarray")
    from rmsprop_nb.xarray import curvefit

    with pytest.raises(TypeError, match=r"'sigma'; here it is an argument of fit: kwargs={'sigma': \.\.\.}\.$"):
        curvefit(sigma=1.0)
    with pytest.raises(TypeError, match=r"'f'; here it is called 'func'\.$"):
        curvefit(f=1.0)


def test_no_public_function_is_left_out():
    """Those without arguments, the doors for SciPy, which warn, and a device function aside."""
    asides = {"load_breast_cancer", "load_digits", "rmsprop", "rmsprop_lbfgs", "team_sum"}
    for module in (rmsprop_nb, cuda, datasets, plotting, schedules, testing):
        for name in set(module.__all__) - asides:
            if inspect.isfunction(function := getattr(module, name)):
                with pytest.raises(TypeError, match=r"got an unexpected keyword argument 'foo'\.$"):
                    function(foo=1)


def test_nobody_can_tell():
    assert advice("foo", ("beta", "eps")) == ""
