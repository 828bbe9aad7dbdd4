"""Whatever is given for an argument, it is taken, or refused in words that name the argument."""

from __future__ import annotations

import inspect
import warnings

import numpy as np
import pytest

import rmsprop_nb
from rmsprop_nb import IncompleteBatchError, schedules

WRONG = [None, object(), "nonsense", -1, 2.5, np.nan, True, [], {}, [[1.0], [2.0, 3.0]], np.zeros(5), np.array(["a"])]
WRONG += [np.ma.masked_array([1.0, 2.0], [1, 0]), type]

ROWS = np.arange(8.0).reshape(8, 1)


def square(x, *args):
    return float(np.sum((x - 1.0) ** 2))


def pair(x, rows):
    return float(np.sum((x - 1.0) ** 2)), 2.0 * (x - 1.0)


def residual(x):
    return x - 1.0


def decay(t, a, b):
    return a * np.exp(-b * t)


TIMES = np.linspace(0.0, 1.0, 6)
CALLS = {
    "minimize": {"fun": square, "x0": [0.0, 0.0], "options": {"maxiter": 5}},
    "minimize_batch": {"fun": square, "X0": [[0.0, 0.0]] * 2, "options": {"maxiter": 5}},
    "minimize_minibatch": {"fun": pair, "x0": [0.0, 0.0], "data": ROWS, "jac": True, "epochs": 2, "rng": 0},
    "multistart": {"fun": square, "bounds": [(0.0, 2.0)] * 2, "n_starts": 3, "rng": 0, "options": {"maxiter": 5}},
    "curve_fit": {"f": decay, "xdata": TIMES, "ydata": decay(TIMES, 2.0, 1.0), "p0": [1.0, 1.0]},
    "least_squares": {"fun": residual, "x0": [0.0, 0.0]},
    "check_gradient": {"fun": square, "x": [0.0, 0.0], "jac": lambda x, *args: 2.0 * (x - 1.0)},
    "RMSprop": {"learning_rate": 0.1},
}
HOSTS = {name: (getattr(rmsprop_nb, name), given) for name, given in CALLS.items()}
FEWEST = {"steps": 10, "decay_steps": 10, "total_steps": 10, "boundaries": [3], "learning_rates": [0.2, 0.1]}
FEWEST["schedule"] = schedules.constant(0.1)
for _name in set(schedules.__all__) - {"Schedule"}:
    _made = getattr(schedules, _name)
    _given = {
        p.name: FEWEST.get(p.name, 0.5) for p in inspect.signature(_made).parameters.values() if p.default is p.empty
    }
    HOSTS[f"schedules.{_name}"] = (_made, _given)

# What is wrong in a function of the user's own, or makes it wrong, is said by Python or NumPy.
OF_THE_USER = {"fun", "f", "jac", "args", "kwargs", "batch_args", "data", "xdata", "ydata", "callback"}


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(HOSTS))
def test_it_is_taken_or_refused_by_its_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a text may be the name of a checkpoint
    function, given = HOSTS[name]
    function(**given)
    for parameter in inspect.signature(function).parameters:
        for wrong in WRONG:
            try:
                with warnings.catch_warnings(), np.errstate(all="ignore"):
                    warnings.simplefilter("ignore")
                    function(**given | {parameter: wrong})
            except IncompleteBatchError:
                assert callable(wrong)  # a function in the place of `map`
            except OSError:
                assert parameter == "checkpoint"
            except RuntimeError:
                assert name == "curve_fit"  # as SciPy's, where no fit was found
            except (TypeError, ValueError) as refusal:
                assert parameter in str(refusal) or parameter in OF_THE_USER, (parameter, wrong)  # noqa: PT017
