"""RMSprop of other libraries, in the options of this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rmsprop_nb._core.names_elsewhere import advice

_SQRT_AROUND_EPS = {"eps_inside_sqrt": True, "lr_in_momentum": True}

# Values that equal our own defaults are listed too where ours might change: these are facts about those libraries.
PRESETS: dict[str, dict[str, Any]] = {
    # torch/optim/rmsprop.py
    "torch": {"learning_rate": 0.01, "beta": 0.99, "eps": 1e-8},
    # keras/src/optimizers/rmsprop.py
    "keras": {"learning_rate": 0.001, "beta": 0.9, "eps": 1e-7, "decoupled_weight_decay": True, **_SQRT_AROUND_EPS},
    # optax/_src/alias.py; its weight decay is optax.add_decayed_weights before the rule
    "optax": {"beta": 0.9, "eps": 1e-8, "initial_accumulator": 0.0, **_SQRT_AROUND_EPS},
    # tensorflow/python/training/rmsprop.py
    "tensorflow1": {"beta": 0.9, "eps": 1e-10, "initial_accumulator": 1.0, **_SQRT_AROUND_EPS},
}
_OTHER_NAMES = {
    "pytorch": "torch",
    "tensorflow": "keras",
    "tf": "keras",
    "tf.keras": "keras",
    "jax": "optax",
    "flax": "optax",
}

_ROUND_TO_FLOAT32 = ("tensorflow1",)


def preset_options(library: str, overrides: Mapping[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    """Return the options of a library's RMSprop, with some of them replaced.

    Raises
    ------
    TypeError
        If an override is not among the `known` options.
    ValueError
        If there is no preset for the library.
    """
    if library not in PRESETS:
        named = _OTHER_NAMES.get(str(library).lower())
        remedy = f"; its RMSprop is preset({named!r})" if named else ""
        msg = f"library must be one of {', '.join(map(repr, PRESETS))}, got {library!r}{remedy}."
        raise ValueError(msg)
    for name in overrides:
        if name not in known:
            remedy = advice(name, known) or f"options are {', '.join(sorted(known))}"
            msg = f"preset({library!r}) got the unknown option {name!r}; {remedy}."
            raise TypeError(msg)
    options = {**PRESETS[library], **overrides}
    return _through_float32(options) if library in _ROUND_TO_FLOAT32 else options


def _through_float32(options: Mapping[str, Any]) -> dict[str, Any]:
    """Round the options that are numbers, and those that a schedule returns, to float32."""
    rounded = {name: float(np.float32(value)) if isinstance(value, float) else value for name, value in options.items()}
    schedule = options.get("learning_rate")
    if callable(schedule):
        rounded["learning_rate"] = _Rounded(schedule)
    return rounded


class _Rounded:
    """A schedule in single precision. A class and not a closure, so that an optimizer can be pickled."""

    def __init__(self, schedule: Callable[[int], float]) -> None:
        self.schedule = schedule

    def __call__(self, step: int) -> float:
        return float(np.float32(self.schedule(step)))

    def __repr__(self) -> str:
        return f"float32({self.schedule!r})"
