"""What other libraries call our options and arguments, so that an error can give the name that they have here."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

T = TypeVar("T", bound=Callable[..., Any])

_LEARNING_RATE = ("learning_rate",)
_BETA = ("beta",)
_EPOCHS = ("epochs",)
_ITERATIONS = ("maxiter",)
_EVALUATIONS = ("maxfev",)
_ACCUMULATE = ("accumulate_steps", "accumulate")

NAMES_ELSEWHERE: dict[str, tuple[str, ...]] = {
    "lr": _LEARNING_RATE,
    "eta": _LEARNING_RATE,
    "eta0": _LEARNING_RATE,
    "learningrateinit": _LEARNING_RATE,
    "stepsize": _LEARNING_RATE,
    "alpha": _BETA,
    "rho": _BETA,
    "decay": _BETA,
    "decayrate": _BETA,
    "beta2": _BETA,
    "b2": _BETA,
    "epsilon": ("eps",),
    "epsinsqrt": ("eps_inside_sqrt",),
    "mu": ("momentum",),
    "momentumdecay": ("momentum",),
    "nesterovs": ("nesterov",),
    "nesterovmomentum": ("nesterov",),
    "nesterovsmomentum": ("nesterov",),
    "usenesterov": ("nesterov",),
    "initialscale": ("initial_accumulator",),
    "initialaccumulatorvalue": ("initial_accumulator",),
    "wd": ("weight_decay",),
    "weightdecayrate": ("weight_decay",),
    "clipvalue": ("clip_value",),
    "gradientclipval": ("clip_norm",),
    "globalclipnorm": ("clip_norm",),
    "maxgradnorm": ("clip_norm",),
    "clipnorm": ("clip_array_norm",),
    "emamomentum": ("ema",),
    "emadecay": ("ema",),
    "useema": ("ema",),
    "gradientaccumulationsteps": _ACCUMULATE,
    "accumulationsteps": _ACCUMULATE,
    "accumulatesteps": _ACCUMULATE,
    "accumulate": _ACCUMULATE,
    "everykschedule": _ACCUMULATE,
    "maxiterations": _ITERATIONS,
    "niter": _ITERATIONS,
    "maxfun": _EVALUATIONS,
    "maxnfev": _EVALUATIONS,
    "maxeval": _EVALUATIONS,
    "maxevals": _EVALUATIONS,
    "maxtimeseconds": ("maxtime",),
    "timelimit": ("maxtime",),
    "timeout": ("maxtime",),
    "maxcor": ("memory",),
    "historysize": ("memory",),
    "memorysize": ("memory",),
    "iprint": ("disp",),
    "verbose": ("disp", "progress"),
    "diffstep": ("finite_diff_rel_step",),
    "fmin": ("f_target",),
    "stopval": ("f_target",),
    "nepochs": _EPOCHS,
    "numepochs": _EPOCHS,
    "maxepochs": _EPOCHS,
    "niternochange": ("patience",),
    "seed": ("rng",),
    "randomstate": ("rng",),
    "njobs": ("workers",),
    "numworkers": ("workers",),
    "numthreads": ("workers",),
}
"""Names elsewhere, without case and underscores, and what this package calls the same thing, which may differ between
functions."""

_NEAREST: dict[str, tuple[str, ...]] = {
    "clipnorm": ("clip_norm",),  # Keras clips each array by its own norm
    "xatol": ("xtol",),
    "xrtol": ("xtol",),
    "fatol": ("ftol",),
    "frtol": ("ftol",),
    "pgtol": ("gtol",),
    "maxiter": _EPOCHS,
}
"""Names elsewhere of what is not quite the same here."""


def advice(name: str, known: Collection[str], more: Mapping[str, Collection[str]] | None = None) -> str:
    """Return what to write instead of a name that does not exist, or an empty string if nobody can tell.

    `known` are the names that could have been meant, and `more` has further ones, each group with its text for an error
    in which ``{}`` is the name.
    """
    for text, names in {"here it is called {!r}": known, **(more or {})}.items():
        here = _same(name, names)
        if here is not None:
            return text.format(here)
    nearest = next((here for here in _NEAREST.get(plain_name(name), ()) if here in known), None)
    return f"the nearest here is {nearest!r}" if nearest else ""


def _same(name: str, known: Collection[str]) -> str | None:
    plain = plain_name(name)
    if name in known:
        return name
    named = (here for here in NAMES_ELSEWHERE.get(plain, ()) if here in known)
    spelled = (here for here in known if plain_name(here) == plain and here not in _NEAREST.get(plain, ()))
    return next(named, None) or next(spelled, None)


def plain_name(name: str) -> str:
    """Return a name without case and separators."""
    return "".join(letter for letter in str(name).lower() if letter.isalnum())


def explain_keywords(more: Mapping[str, Collection[str]] | None = None) -> Callable[[T], T]:
    """Make a decorator after which the TypeError for an unknown keyword says what it is called here.

    `more` is as for `advice`. Of a class, the decorator changes ``__init__``, and its signature stays as it is.
    """

    def decorate(thing: T) -> T:
        if not isinstance(thing, type):
            return _explaining(thing, thing.__name__, more)
        wrapped: Any = thing
        wrapped.__init__ = _explaining(wrapped.__init__, thing.__name__, more)
        return thing

    return decorate


def _explaining(function: T, name: str, more: Mapping[str, Collection[str]] | None) -> T:
    known = inspect.signature(function).parameters

    @functools.wraps(function)
    def call(*args: Any, **given: Any) -> Any:
        for keyword in given:
            if keyword not in known:
                remedy = advice(keyword, known, more)
                msg = f"{name}() got an unexpected keyword argument {keyword!r}{remedy and '; '}{remedy}."
                raise TypeError(msg)
        return function(*args, **given)

    explained: Any = call
    return explained  # type: ignore[no-any-return]
