"""Errors for assignments to objects that never change."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, TypeVar

from rmsprop_nb._core.names_elsewhere import advice

T = TypeVar("T", bound=type)


def explain_assignment(frozen: T) -> T:
    """Let a frozen dataclass say, in its error for an assignment, how to make a changed copy; a decorator."""
    cls: Any = frozen
    refuse = cls.__setattr__

    @functools.wraps(refuse)
    def assign(self: Any, name: str, value: Any) -> None:
        try:
            refuse(self, name, value)
        except dataclasses.FrozenInstanceError:
            msg = f"cannot assign to field {name!r}; {_remedy(type(self), name)}."
            raise dataclasses.FrozenInstanceError(msg) from None

    cls.__setattr__ = assign
    return frozen


def _remedy(cls: Any, name: str) -> str:
    fields = [field.name for field in dataclasses.fields(cls)]
    if name not in fields:
        return advice(name, fields) or f"{cls.__name__} has the fields {', '.join(sorted(fields))}"
    remedy = (
        f"an object of {cls.__name__} never changes. dataclasses.replace(optimizer, {name}=...) makes another, which "
        "goes on with the same state unless it needs other buffers"
    )
    if name == "learning_rate":
        remedy += "; a rate that changes from step to step can be a schedule, step -> rate"
    return remedy
