"""RMSprop for users of NumPy, SciPy and Numba.

``minimize(fun, x0, method="rmsprop")`` has the interface of ``scipy.optimize.minimize``. Objectives compiled with Numba
are minimized without returning to Python. See the README for a first example.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # importing it from typing takes time; type checkers know the name

__version__ = "0.1.0"

if not getattr(sys, "_is_gil_enabled", lambda: True)():
    _msg = "rmsprop_nb needs the global interpreter lock; start Python with PYTHON_GIL=1, or use a build that has it."
    raise ImportError(_msg)

__all__ = [
    "GradientRows",
    "IncompleteBatchError",
    "RMSprop",
    "RMSpropState",
    "RankError",
    "Status",
    "__version__",
    "check_gradient",
    "cuda",
    "curve_fit",
    "datasets",
    "fit",
    "jacobian",
    "least_squares",
    "load",
    "make_solver",
    "minimize",
    "minimize_batch",
    "minimize_minibatch",
    "multistart",
    "plotting",
    "rmsprop",
    "rmsprop_lbfgs",
    "save",
    "schedules",
    "testing",
    "value_and_grad",
    "xarray",
]

if TYPE_CHECKING:
    from typing import Any

    from rmsprop_nb import cuda, datasets, plotting, schedules, testing, xarray
    from rmsprop_nb._api.batch import minimize_batch
    from rmsprop_nb._api.check_gradient import check_gradient
    from rmsprop_nb._api.checkpoint import load, save
    from rmsprop_nb._api.curve_fit import curve_fit
    from rmsprop_nb._api.fit import fit
    from rmsprop_nb._api.gradients import jacobian, value_and_grad
    from rmsprop_nb._api.least_squares import least_squares
    from rmsprop_nb._api.minibatch import minimize_minibatch
    from rmsprop_nb._api.minimize import minimize
    from rmsprop_nb._api.multistart import multistart
    from rmsprop_nb._api.optimizer import RMSprop
    from rmsprop_nb._api.scipy_methods import rmsprop, rmsprop_lbfgs
    from rmsprop_nb._api.solver import make_solver
    from rmsprop_nb._core.status import Status
    from rmsprop_nb._drivers.batch_result import IncompleteBatchError
    from rmsprop_nb._drivers.ranks import RankError
    from rmsprop_nb._training.rows import GradientRows
    from rmsprop_nb._training.state import RMSpropState

# Imported at first use, so that importing the package is fast and does not import Numba.
_DEFINED_IN = {
    "IncompleteBatchError": "_drivers.batch_result",
    "RMSprop": "_api.optimizer",
    "GradientRows": "_training.rows",
    "RMSpropState": "_training.state",
    "RankError": "_drivers.ranks",
    "Status": "_core.status",
    "check_gradient": "_api.check_gradient",
    "curve_fit": "_api.curve_fit",
    "fit": "_api.fit",
    "jacobian": "_api.gradients",
    "least_squares": "_api.least_squares",
    "load": "_api.checkpoint",
    "make_solver": "_api.solver",
    "minimize": "_api.minimize",
    "minimize_batch": "_api.batch",
    "minimize_minibatch": "_api.minibatch",
    "multistart": "_api.multistart",
    "rmsprop": "_api.scipy_methods",
    "rmsprop_lbfgs": "_api.scipy_methods",
    "save": "_api.checkpoint",
    "value_and_grad": "_api.gradients",
}
_MODULES = ("cuda", "datasets", "plotting", "schedules", "testing", "xarray")


def __getattr__(name: str) -> Any:
    import importlib

    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _DEFINED_IN:
        value = getattr(importlib.import_module(f"{__name__}.{_DEFINED_IN[name]}"), name)
        globals()[name] = value
        return value
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
