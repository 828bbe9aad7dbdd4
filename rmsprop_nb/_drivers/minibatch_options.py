"""The options of runs over mini-batches, what compiled code gets from them, and the states of such runs."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._core.options import Rule, largest_gradient
from rmsprop_nb._core.progress import RunOptions
from rmsprop_nb._core.records import MINIBATCH_DTYPE, MinibatchArrays
from rmsprop_nb._core.settings import MinibatchSettings
from rmsprop_nb._core.status import Status
from rmsprop_nb._core.validate import (
    as_array,
    as_count,
    as_number,
    as_rel_steps,
    check_known,
    check_learning_rate,
    check_switches_of,
)
from rmsprop_nb._drivers.minibatch_loop import MinibatchAlgorithm
from rmsprop_nb._kernels.update import PARALLEL_MIN_SIZE
from rmsprop_nb._methods import minibatch, prodigy
from rmsprop_nb._methods.minibatch import make_tell, make_textbook_step
from rmsprop_nb._methods.registry import kind_of, told_apart
from rmsprop_nb._methods.run_state import RunState
from rmsprop_nb._numba.thread_safety import usable_threads

MOST_EPOCHS = 10**8

# The defaults: many rows in a batch where there are many, and enough steps to find the rate and then to converge.
_BATCH_SIZES = 16, 128
_BATCHES_OF_EPOCH = 20
_LEAST_EPOCHS = 10
_LEAST_STEPS = 1000

AUTO = ("auto", "auto-constant")
_AUTO_OPTIONS = ("beta", "eps", "finite_diff_rel_step", "first_distance")
_TEXTBOOK_OPTIONS = (*(field.name for field in dataclasses.fields(Rule)), "finite_diff_rel_step", "parallel")
OPTION_NAMES = tuple(dict.fromkeys(_AUTO_OPTIONS + _TEXTBOOK_OPTIONS))
"""The names of all options."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MinibatchOptions(RunOptions):
    """The options of `minimize_minibatch`, as the user gave them, and what follows from them."""

    learning_rate: Any
    batch_size: int | None
    epochs: int | None
    averaging: bool | None
    patience: int | None
    clip_value: float | None
    clip_norm: float | None
    accumulate: int
    options: dict[str, Any]

    def __post_init__(self) -> None:
        self._check_options()
        check_switches_of(self)
        if not self.auto and as_array("learning_rate", self.learning_rate).ndim == 0:
            check_learning_rate(self.learning_rate)
        for name in ("batch_size", "epochs", "accumulate"):
            given = getattr(self, name)
            if given is None and name != "accumulate":
                continue
            count = as_count(name, given, 0, least=1)
            if not 1 <= count < np.iinfo(np.int64).max:
                msg = f"{name} must be an integer of at least 1, got {given!r}."
                raise ValueError(msg)
            object.__setattr__(self, name, count)
        if self.epochs is not None and self.epochs > MOST_EPOCHS:
            msg = (
                f"epochs must be at most {MOST_EPOCHS}, because a run records two numbers for each, got {self.epochs}; "
                "maxtime ends a run earlier, and state=result.state goes on."
            )
            raise ValueError(msg)
        as_count("patience", self.patience, 0, least=1)
        for name in ("clip_value", "clip_norm"):
            self._limit(name)
        _ = self.rule, self.first_distance, self.seconds, self.stride, self.checkpoint_seconds

    def batch_size_for(self, n_rows: int) -> int:
        """Return the number of rows in a batch: by default what gives 20 batches, but no fewer than 16, or over 128."""
        least, most = _BATCH_SIZES
        return self.batch_size or min(most, max(least, n_rows // _BATCHES_OF_EPOCH))

    def for_batches(self, batches: int) -> MinibatchOptions:
        """Return the options with a number of epochs: by default 10, or as many as make a thousand steps."""
        if self.epochs is not None:
            return self
        return dataclasses.replace(self, epochs=max(_LEAST_EPOCHS, -(-_LEAST_STEPS // self.steps(batches))))

    def steps(self, batches: int) -> int:
        """Return the number of steps in an epoch."""
        return -(-batches // self.accumulate)

    def _check_options(self) -> None:
        """Raise for an option that does not exist, or that has no meaning with this learning rate."""
        known, other = (_AUTO_OPTIONS, _TEXTBOOK_OPTIONS) if self.auto else (_TEXTBOOK_OPTIONS, _AUTO_OPTIONS)
        for name in self.options:
            if name in other and name not in known:
                remedy = "a number or a schedule" if self.auto else " or ".join(map(repr, AUTO))
                msg = (
                    f"Unknown option {name!r} for minimize_minibatch with learning_rate={self.learning_rate!r}: "
                    f"it needs a learning_rate that is {remedy}."
                )
                raise ValueError(msg)
        arguments = [field.name for field in dataclasses.fields(self) if field.name != "options"]
        check_known(self.options, known, "minimize_minibatch", arguments)

    @property
    def auto(self) -> bool:
        """Whether the learning rate is chosen automatically."""
        return isinstance(self.learning_rate, str) and self.learning_rate in AUTO

    @property
    def falls(self) -> bool:
        """Whether the learning rate falls to 0 by the last epoch, by itself."""
        return self.auto and bool(self.learning_rate == "auto")

    @functools.cached_property
    def rule(self) -> Rule:
        """The numbers and switches of the rule."""
        defaults = {"beta": prodigy.BETA} if self.auto else {}
        fields = {field.name for field in dataclasses.fields(Rule)}
        return Rule(**{**defaults, **{name: value for name, value in self.options.items() if name in fields}})

    def own_steps(self, n: int) -> NDArray[np.float64]:
        """Return the user's relative steps of difference gradients, one for each variable; none have size 0."""
        return as_rel_steps(self.options.get("finite_diff_rel_step"), n)

    @property
    def first_distance(self) -> float:
        """The first estimate of the distance to the minimum, far too small on purpose: the estimate only grows."""
        value = self.options.get("first_distance", prodigy.FIRST_DISTANCE)
        return as_number("first_distance", value, 0.0, math.inf, open_low=True, open_high=True)

    @property
    def averages(self) -> bool:
        """Whether an average of the iterates is returned; by default only if the rate never falls."""
        if self.averaging is not None:
            return bool(self.averaging)
        return not (self.falls or callable(self.learning_rate))

    @property
    def schedule(self) -> Callable[[int], float] | None:
        """The learning rate as a function of the step."""
        return self.learning_rate if callable(self.learning_rate) else None

    def _limit(self, name: str) -> float:
        value = getattr(self, name)
        return math.inf if value is None else as_number(name, value, 0.0, math.inf, open_low=True)

    def scale(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return the learning rate of each parameter, of size 0 if all have the same."""
        if self.auto or callable(self.learning_rate) or np.ndim(self.learning_rate) == 0:
            return np.empty(0, x.dtype)
        rates = as_array("learning_rate", self.learning_rate, x.dtype).copy()
        if rates.shape != x.shape or not (np.isfinite(rates).all() and (rates >= 0.0).all()):
            msg = (
                f"learning_rate must have the shape {x.shape} of x0 and numbers that are finite and not negative, "
                f"got shape {rates.shape} and {rates!r}."
            )
            raise ValueError(msg)
        return rates

    def settings(self, x: NDArray[Any], batches: int) -> MinibatchSettings:
        """Return what compiled code is given besides the state."""
        one_rate = not (self.auto or callable(self.learning_rate)) and np.ndim(self.learning_rate) == 0
        clips = self.clip_value is not None or self.clip_norm is not None
        assert self.epochs is not None  # see for_batches
        steps = self.epochs * self.steps(batches)
        return MinibatchSettings(
            hyper=self.rule.hyper(x.dtype),
            rates=np.array([self.learning_rate if one_rate else 1.0], dtype=x.dtype),
            # a gradient that is clipped may be of any finite size
            largest_gradient=float(np.finfo(x.dtype).max) if clips else largest_gradient(x.dtype),
            clip_value=self._limit("clip_value"),
            clip_norm=self._limit("clip_norm"),
            accumulate=self.accumulate,
            batches=batches,
            epochs=self.epochs,
            horizon=steps if self.falls else 0,
            averaging=self.averages,
            keeps_lowest=self.patience is None,
            pieces=usable_threads() if self._parallel(x) else 1,
        )

    def _parallel(self, x: NDArray[Any]) -> bool:
        wanted = bool(self.options.get("parallel", False)) and x.size >= PARALLEL_MIN_SIZE
        return wanted and usable_threads() > 1

    def algorithm(self, x: NDArray[Any]) -> MinibatchAlgorithm:
        """Return the compiled step, and its name."""
        return _make_algorithm(None if self.auto else self.rule.variant, self._parallel(x), self.scale(x).size > 0)

    def kind(self, rows: int, batches: int) -> tuple[Any, ...]:
        """Return what a state must have in common with a run that resumes it."""
        return "minibatch", "auto" if self.auto else self.rule.variant, rows, batches


@functools.cache
def _make_algorithm(variant: Any, parallel: bool, scaled: bool) -> MinibatchAlgorithm:
    if variant is None:
        return MinibatchAlgorithm(("auto",), make_tell(("auto",), prodigy.step))
    name = (variant, parallel, scaled)
    return MinibatchAlgorithm(name, make_tell(name, make_textbook_step(*name)))


def new_state(
    options: MinibatchOptions,
    x: NDArray[Any],
    lower: NDArray[Any],
    upper: NDArray[Any],
    kind: tuple[Any, ...],
    seed: np.uint64,
) -> RunState:
    """Make the state of a new run."""
    start = x.copy()
    if lower.size:
        np.clip(start, lower, upper, out=start)
    vectors = kind_of(kind).layout(*kind[1:]).zeros(x.size, x.dtype)
    vectors |= {"x": start, "lower": lower, "upper": upper, "scale": options.scale(x)}
    assert options.epochs is not None
    vectors |= {name: np.full(options.epochs, np.nan) for name in ("epoch_fun", "validation_fun")}
    copies = {"start": options.auto, "x_avg": options.averages, "x_best": True}
    vectors |= {name: start.copy() for name, used in copies.items() if used}
    if options.accumulate > 1:
        vectors["g"] = np.zeros_like(x)
    vectors["g_eval"].fill(np.nan)  # shows an element that the objective never fills
    vectors["square_avg"].fill(options.rule.initial_accumulator)
    vectors["own_distance"].fill(options.first_distance)
    arrays = MinibatchArrays(**vectors)
    state = RunState(kind, arrays, np.zeros(1, MINIBATCH_DTYPE))
    p = state.progress
    p.seed, p.status = seed, int(Status.RUNNING)
    p.f, p.f_best = np.nan, np.inf
    p.distance = p.distance_before = options.first_distance
    return state


def resumed_state(state: Any, fresh: RunState, options: MinibatchOptions) -> RunState:
    """Copy the state of another run, after checking that it is sound and fits these arguments."""
    if not isinstance(state, RunState):
        msg = f"state must be the state of an earlier result, got {type(state).__name__}."
        raise TypeError(msg)
    if state.kind not in (fresh.kind, minibatch.for_any_data(fresh.kind)):
        same_rule = state.kind[:2] == fresh.kind[:2]
        remedy = ", or give state.for_other_data() to go on with others" if same_rule else ""
        msg = f"{told_apart(state.kind, fresh.kind)}; resume with the data and arguments that it began with{remedy}."
        raise ValueError(msg)
    copied = state.checked_copy()
    _check_arrays(copied.arrays, fresh.arrays)
    p = copied.progress
    if state.kind != fresh.kind and fresh.kind[1] == "auto":
        p.step = p.nit * options.steps(fresh.kind[3])  # the rate falls over the steps of all epochs
        p.cooling_steps = 0
    copied.kind = fresh.kind
    epochs = len(fresh.arrays.epoch_fun)
    p.status = int(Status.RUNNING if p.nit < epochs else Status.EPOCHS)
    copied.arrays = copied.arrays._replace(**_of_length(copied.arrays, epochs))
    return copied


def _check_arrays(found: Any, expected: MinibatchArrays) -> None:
    for name in MinibatchArrays._fields:
        old, new = getattr(found, name), getattr(expected, name)
        if old.dtype != new.dtype or (old.shape != new.shape and not name.endswith("_fun")):
            msg = (
                f"state.arrays.{name} must have shape {new.shape} and dtype {new.dtype}, as the run left it; resume "
                "with the x0 and options that it began with."
            )
            raise ValueError(msg)
    for name in ("lower", "upper", "scale"):
        if not np.array_equal(getattr(found, name), getattr(expected, name)):
            msg = "state was made with other bounds or learning rates; resume with those that it began with."
            raise ValueError(msg)


def _of_length(arrays: MinibatchArrays, epochs: int) -> dict[str, NDArray[np.float64]]:
    """Return the records of epochs, cut or lengthened: a resumed run may have another number of epochs."""
    records = {}
    for name in ("epoch_fun", "validation_fun"):
        old = getattr(arrays, name)
        records[name] = np.full(epochs, np.nan)
        records[name][: len(old)] = old[:epochs]
    return records
