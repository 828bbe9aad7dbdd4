"""The private parts of the package that benchmarks need. No other file here imports a private module.

asv and gate.py measure old commits with the benchmarks of this checkout, so a private name is looked up wherever the
measured commit keeps it. If you move or rename something listed here, put its new place first and keep the old ones.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
from typing import Any

__all__ = ["COMPILE_AT_ONCE", "PLACES", "ask_and_tell", "compile_at_once", "private", "update_kernel"]

PLACES = {
    "LbfgsOptions": ("_methods.lbfgs:LbfgsOptions", "_options:LbfgsOptions"),
    "RmspropOptions": ("_core.options:RmspropOptions", "_options:RmspropOptions"),
    "algorithm_of": ("_drivers.solve:algorithm_of", "_solve:algorithm_of"),
    "launch_batch": ("_cuda.batch:_launch",),
    "make_parallel_update": ("_kernels.update:make_parallel_update", "_cpu:make_parallel_update"),
    "make_update": ("_kernels.update:make_update", "_cpu:make_update"),
    "width_for": ("_numba.autodiff.gradients:width_for",),
    "settings_of": ("_drivers.solve:settings_of", "_solve:settings_of"),
}
"""``module:name`` in each layout of the package, the newest first."""


def private(name: str) -> Any:
    """Return what PLACES calls `name`, from the first of its places that the measured commit has."""
    for place in PLACES[name]:
        module, attribute = place.split(":")
        try:
            return getattr(importlib.import_module(f"rmsprop_nb.{module}"), attribute)
        except (ModuleNotFoundError, AttributeError):
            continue
    msg = f"rmsprop_nb has {name} in none of {', '.join(PLACES[name])}; add its place to {__file__}"
    raise LookupError(msg)


def compile_at_once() -> None:
    """Let loops be compiled before their first step, so that what is timed does not depend on what is on disk."""
    with contextlib.suppress(ModuleNotFoundError):  # older commits have never done anything else
        importlib.import_module("rmsprop_nb._drivers.first_runs").STEPS = 0


COMPILE_AT_ONCE = f"import contextlib, importlib\n\n{inspect.getsource(compile_at_once)}\ncompile_at_once()\n"
"""Code that does this in another process."""


def update_kernel(variant: Any, parallel: bool = False) -> Any:
    """Return the compiled update for a variant of the rule.

    It is called as ``kernel(x, g, square_avg, grad_avg, momentum_buffer, rate, correction, hyper, blocks)``.
    """
    return private("make_parallel_update" if parallel else "make_update")(variant)


def ask_and_tell(method: str, options: dict[str, Any], x0: Any) -> tuple[Any, Any, Any]:
    """Return the compiled ask and tell of a method, and the settings that both take after arrays and record."""
    kind = {"rmsprop": "RmspropOptions", "rmsprop-lbfgs": "LbfgsOptions"}[method]
    checked = private(kind)(**options)
    algorithm = private("algorithm_of")(checked, False)
    return algorithm.ask, algorithm.tell, private("settings_of")(checked, x0)
