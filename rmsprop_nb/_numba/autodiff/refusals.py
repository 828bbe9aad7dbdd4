"""Why a function cannot be differentiated, in words for the user."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from numba.core.errors import TypingError

_PACKAGE = str(Path(__file__).parents[2])
_MARK = "rmsprop_nb: "
_UNKNOWN = re.compile(r"No implementation of function Function\(<?(?:\S+ )*?'?([\w.]+)'?(?: at \w+)?>?\) found")
_PLACE = re.compile(r"(?:During: typing of .*? at|lowering .*? at) (\S+) \((\d+)\)")
_ATTRIBUTE = re.compile(r"Unknown attribute '(\w+)' of type (.*Dual.*)")


class CannotDifferentiateError(TypingError, TypeError):
    """Raised where a function contains what cannot be differentiated."""


def refuse(message: str) -> Any:
    """Raise an error of which `explain` finds the message again within Numba's."""
    text = f"{_MARK}{message}."
    raise TypingError(text)


def explain(error: Exception, fun: Any) -> str:
    """Return what stands in the way, where, and what to do about it."""
    text = str(error)
    name = getattr(fun, "__name__", "fun")
    return f"{name} cannot be differentiated: {_construct(text)}{_place(text)}. {_remedy(text)}"


def refusal_in(text: str) -> str:
    """Return what `refuse` said, from the text of Numba's error; nothing if that is about something else."""
    marked = re.search(rf"{_MARK}(.*?)\.\s*$", text, re.MULTILINE)
    return marked[1] if marked else ""


def _construct(text: str) -> str:
    refused = refusal_in(text)
    if refused:
        return refused
    unknown = _UNKNOWN.findall(text)
    if unknown:
        return f"{unknown[-1]} has no derivative here"
    attribute = _ATTRIBUTE.search(text)
    if attribute:
        return f"the attribute {attribute[1]} of an array that depends on x has no derivative here"
    lines = [line for line in text.splitlines() if line and not line.startswith("Failed in")]
    return lines[0].rstrip(".") if lines else type(text).__name__


def _place(text: str) -> str:
    for path, line in _PLACE.findall(text):
        if _PACKAGE not in str(Path(path).resolve()):
            return f" ({path}, line {line})"
    return ""


def _remedy(text: str) -> str:
    if _MARK in text:
        return "Otherwise give the gradient, or use jac='2-point'."
    return "Write it with the functions that docs/gradients.md lists, give the gradient, or use jac='2-point'."
