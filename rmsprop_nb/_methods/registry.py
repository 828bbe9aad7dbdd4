"""The methods there are."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from rmsprop_nb._core.options import Options
from rmsprop_nb._methods import conjugate_gradient, lbfgs, minibatch, textbook
from rmsprop_nb._methods.method import Kind, Method

_METHODS: tuple[Method, ...] = (conjugate_gradient.METHOD, textbook.METHOD, lbfgs.METHOD)

_KINDS: dict[str, Kind] = {kind.name: kind for kind in (*_METHODS, minibatch.KIND)}

OPTIONS: dict[str, type[Options]] = {method.method: method.options for method in _METHODS}
"""The methods that users can name, each with the class of its options."""


@functools.cache
def option_names(method: str) -> tuple[str, ...]:
    """Return the names of a method's options."""
    return tuple(field.name for field in dataclasses.fields(OPTIONS[method]))


def method_of(options: Options) -> Method:
    """Return the method that these options ask for."""
    return next(method for method in _METHODS if method.name == options.kind[0])


def kind_of(kind: Any) -> Kind:
    """Return the description of this kind of state; raise a ValueError if the kind is unknown."""
    found = _KINDS.get(kind[0]) if isinstance(kind, tuple) and kind and isinstance(kind[0], str) else None
    if found is None or not found.has(kind[1:]):
        msg = f"state.kind must be that of a run of this version of rmsprop_nb, got {str(kind)[:200]}."
        raise ValueError(msg)
    return found
