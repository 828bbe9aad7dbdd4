"""The methods there are."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection
from typing import Any

from rmsprop_nb._core.names_elsewhere import plain_name
from rmsprop_nb._core.options import Options
from rmsprop_nb._core.status import GTOL_MESSAGE, MESSAGES, Status
from rmsprop_nb._methods import conjugate_gradient, lbfgs, levenberg_marquardt, minibatch, textbook
from rmsprop_nb._methods.method import Kind, Method

_METHODS: tuple[Method, ...] = (conjugate_gradient.METHOD, textbook.METHOD, lbfgs.METHOD)

_FOR_FITS: tuple[Method, ...] = (levenberg_marquardt.METHOD,)

_BY_NAME: dict[str, Method] = {method.name: method for method in (*_METHODS, *_FOR_FITS)}

_KINDS: dict[str, Kind] = {**_BY_NAME, minibatch.KIND.name: minibatch.KIND}

OPTIONS: dict[str, type[Options]] = {method.method: method.options for method in _METHODS}
"""The methods that users can name, each with the class of its options."""

FIT_OPTIONS: dict[str, type[Options]] = {method.method: method.options for method in _FOR_FITS} | OPTIONS
"""The methods for fits, the default first."""


MANY_ITERATIONS = 1000
_LIMITS = (Status.MAXITER, Status.MAXFEV, Status.MAXTIME)

ALL_OPTION_NAMES = tuple(
    dict.fromkeys(field.name for options in OPTIONS.values() for field in dataclasses.fields(options))
)
"""The names of the options of all methods."""


# Methods of other libraries that need smooth objectives, as ours with L-BFGS does; each name without separators.
_SMOOTH = ("bfgs", "cg", "dogleg", "lbfgs", "lbfgsb", "ncg", "newton", "newtoncg", "slsqp", "tnc", "trust")


def method_name(method: Any, known: Collection[str] = OPTIONS) -> str:
    """Return the name of a method as it is written here; None is the first, and case and separators do not matter.

    Raises
    ------
    ValueError
        If there is no such method.
    """
    if method is None:
        return next(iter(known))
    if isinstance(method, str):
        if method in known:
            return method
        plain = plain_name(method)
        for name in known:
            if plain_name(name) == plain:
                return name
    msg = f"method must be one of {', '.join(map(repr, known))}, got {method!r}; {_remedy(method)}."
    raise ValueError(msg)


def _remedy(method: Any) -> str:
    if not isinstance(method, str):
        return "give one of these names"
    plain = plain_name(method)
    smooth = plain in _SMOOTH or "lbfgs" in plain or plain.startswith("trust")
    nearest = lbfgs.METHOD.method if smooth else conjugate_gradient.METHOD.method
    return f"the nearest is {nearest!r}, and scipy.optimize.minimize has SciPy's own methods"


@functools.cache
def option_names(method: str) -> tuple[str, ...]:
    """Return the names of a method's options."""
    options = OPTIONS[method] if method in OPTIONS else FIT_OPTIONS[method]
    return tuple(field.name for field in dataclasses.fields(options))


def method_of(options: Options) -> Method:
    """Return the method that these options ask for."""
    return _BY_NAME[options.kind[0]]


def message_of(status: Status, options: Options, *, is_long: bool = False) -> str:
    """Return the message of a run that ended so, with advice if it was long or met a limit."""
    method = method_of(options)
    by_user = status is Status.GTOL and options.gtol is not None
    message = method.messages.get(status, GTOL_MESSAGE if by_user else MESSAGES[status])
    advice = method.advice
    return f"{message} {advice}" if advice and (is_long or status in _LIMITS) else message


def kind_of(kind: Any) -> Kind:
    """Return the description of this kind of state; raise a ValueError if the kind is unknown."""
    found = _KINDS.get(kind[0]) if isinstance(kind, tuple) and kind and isinstance(kind[0], str) else None
    if found is None or not found.has(kind[1:]):
        msg = f"state.kind must be that of a run of this version of rmsprop_nb, got {str(kind)[:200]}."
        raise ValueError(msg)
    return found


_RUNS = {
    "rmsprop": "method='rmsprop' with learning_rate='auto'",
    "textbook": "method='rmsprop' with a learning rate",
    "minibatch": "minimize_minibatch",
}
_PARAMETERS = {"rmsprop-lbfgs": ("memory",), "minibatch": ("", "rows of data", "batches in an epoch")}


def told_apart(kind: tuple[Any, ...], wanted: tuple[Any, ...]) -> str:
    """Say in words what a state is of, and what is wanted instead of it."""
    if kind[0] != wanted[0]:
        here, there = (_RUNS.get(name, f"method={name!r}") for name in (kind[0], wanted[0]))
        return f"state is of a run of {here}, and this is one of {there}"
    labels = _PARAMETERS.get(kind[0], ("",))
    parts = [
        f"{old} {label} then, {new} now" if label else f"{_rule(old)} then, {_rule(new)} now"
        for label, old, new in zip(labels, kind[1:], wanted[1:], strict=True)
        if old != new
    ]
    return f"state is of a run that differs: {' and '.join(parts)}"


def _rule(rule: Any) -> str:
    if isinstance(rule, str):
        return f"learning_rate={rule!r}"
    switches = [name for name, is_on in rule._asdict().items() if is_on]
    return f"the textbook rule with {', '.join(switches) or 'no options'}"
