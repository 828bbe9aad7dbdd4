"""What other libraries call our options and arguments, so that an error can give the name that they have here."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

T = TypeVar("T", bound=Callable[..., Any])

_LEARNING_RATE = ("learning_rate",)
_BETA = ("beta",)
_BY_KEYWORD = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_EPOCHS = ("epochs",)
_SIMILAR = 0.8  # of two names, one of which is a slip of the keyboard
_ACCUMULATE = ("accumulate_steps", "accumulate")


def _all(names: str, *here: str) -> dict[str, tuple[str, ...]]:
    """Return a table in which all these names mean the same thing."""
    return dict.fromkeys(names.split(), here)


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
    "maxnfev": ("maxfev",),
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
    **_all(
        "niter maxiterations iters iterations niterations numiter numiters numiterations nsteps numsteps maxsteps",
        "maxiter",
    ),
    **_all("maxfev maxfun maxeval maxevals", "maxfev", "max_nfev"),
    **_all("seed randomstate randomseed generator", "rng"),
    **_all("njobs nworkers numworkers nthreads numthreads threads processes nproc ncores", "workers"),
    **_all(
        "f fn func function objective objectivefunction costfunction lossfn lossfunction closure", "fun", "f", "func"
    ),
    **_all("fun model", "f", "func"),
    **_all("grad gradient fprime dfun jacobian jacfun", "jac"),
    **_all("grads", "gradients", "jac"),
    **_all("x0 init initialguess initialparams guess start startingpoint theta0 params p0", "x0", "X0", "p0"),
    **_all("x", "xdata", "x0", "X0"),
    **_all("y", "ydata"),
    **_all("yerr dy err sigmay ysigma uncertainties", "sigma"),
    **_all("nstarts numstarts starts restarts nrestarts numrestarts", "n_starts"),
    **_all("minibatchsize", "batch_size"),
    **_all("callbacks", "callback"),
    **_all("tolerance", "tol", "gtol"),
    **_all("lossfunction", "loss"),
    **_all("fargs extraargs", "args"),
    **_all("file filename fname", "path"),
    **_all("object result state", "obj"),
    **_all("index indices", "rows", "k"),
    **_all("initiallearningrate initvalue baselr", "learning_rate"),
    **_all("maxlr peakvalue", "largest"),
    **_all("gamma", "factor", "decay_rate"),
    **_all("milestones", "boundaries"),
    **_all("tmax transitionsteps totaliters steps", "decay_steps", "total_steps", "steps", "maxiter"),
    **_all("etamin minlr endvalue finallearningrate", "final", "least"),
    **_all("warmupsteps numwarmupsteps", "steps"),
    **_all("pctstart", "rising"),
    **_all("divfactor", "first_divisor"),
    **_all("finaldivfactor", "last_divisor"),
    **_all("axes", "ax"),
    **_all("ax", "axes"),
    **_all("popt fit", "result"),
    **_all("n num npoints numpoints", "points", "n_starts"),
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
    "tolerancegrad": ("gtol",),
    "tolerancechange": ("ftol",),
    "ftolrel": ("ftol",),
    "ftolabs": ("ftol",),
    "xtolrel": ("xtol",),
    "xtolabs": ("xtol",),
    "maxiter": _EPOCHS,
    "weights": ("sigma", "weight"),  # they are 1/sigma, or its square
    **_all("epochs nepochs numepochs maxepochs", "maxiter"),
}
"""Names elsewhere of what is not quite the same here."""


def advice(name: str, known: Collection[str], more: Mapping[str, Collection[str]] | None = None) -> str:
    """Return what to write instead of a name that does not exist, or an empty string if nobody can tell.

    `known` are the names that could have been meant, and `more` has further ones, each group with its text for an error
    that begins with "here it is" and in which ``{}`` is the name.
    """
    groups = {"here it is called {!r}": known, **(more or {})}
    for text, names in groups.items():
        here = _same(name, names)
        if here is not None:
            return text.format(here)
    for text, names in groups.items():
        nearest = next((here for here in _NEAREST.get(plain_name(name), ()) if here in names), None)
        if nearest:
            said = text.replace("here it is called", "the nearest here is").replace("here it is", "the nearest here is")
            return said.format(nearest)
    similar = difflib.get_close_matches(str(name), known, 1, _SIMILAR)
    return f"the most similar name here is {similar[0]!r}" if similar else ""


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


def explain_keywords(more: Mapping[str, Collection[str]] | None = None, also: Collection[str] = ()) -> Callable[[T], T]:
    """Make a decorator after which the TypeError for an unknown keyword says what it is called here.

    `more` is as for `advice`, and `also` are the keywords that a function with ``**kwargs`` takes. Of a class, the
    decorator changes ``__init__``, and its signature stays as it is.
    """

    def decorate(thing: T) -> T:
        if not isinstance(thing, type):
            return _explaining(thing, thing.__name__, more, also)
        wrapped: Any = thing
        wrapped.__init__ = _explaining(wrapped.__init__, thing.__name__, more, also)
        return thing

    return decorate


def _explaining(function: T, name: str, more: Mapping[str, Collection[str]] | None, also: Collection[str]) -> T:
    parameters = inspect.signature(function).parameters.values()
    known = (*(p.name for p in parameters if p.kind in _BY_KEYWORD), *also)

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
