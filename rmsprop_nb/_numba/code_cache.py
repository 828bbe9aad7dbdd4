"""Caches of what is compiled around functions, which notice when Numba compiles one of these anew."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from numba.core.dispatcher import Dispatcher

F = TypeVar("F", bound=Callable[..., Any])

_GENERATION = "_rmsprop_nb_generation"


def cached_by_code(function: F) -> F:
    """Cache the results of a function of hashable arguments, of which some are compiled functions.

    ``recompile()`` of one of these, which is how Numba takes in new values of globals, makes its results forgotten.
    """

    @functools.lru_cache(maxsize=256)
    def made(_generations: Any, args: Any, kwargs: Any) -> Any:
        return function(*args, **dict(kwargs))

    @functools.wraps(function)
    def found(*args: Any, **kwargs: Any) -> Any:
        generations = tuple([_generation(arg) for arg in (*args, *kwargs.values()) if isinstance(arg, Dispatcher)])
        return made(generations, args, tuple(kwargs.items()))

    found.cache_info = made.cache_info  # type: ignore[attr-defined]
    return found  # type: ignore[return-value]


def _generation(dispatcher: Any) -> int:
    """Return how often a function was compiled anew since it was first seen here."""
    if _GENERATION not in vars(dispatcher):
        _count_recompilations(dispatcher)
    return int(vars(dispatcher)[_GENERATION])


def _count_recompilations(dispatcher: Any) -> None:
    """Count on the function itself: Numba keeps no trace of it if nothing had been compiled for a call from Python."""
    weak = weakref.ref(dispatcher)  # no cycle that keeps the function's code in memory

    @functools.wraps(type(dispatcher).recompile)
    def recompile() -> None:
        itself: Any = weak()
        vars(itself)[_GENERATION] += 1
        type(itself).recompile(itself)

    vars(dispatcher)[_GENERATION] = 0
    dispatcher.recompile = recompile
