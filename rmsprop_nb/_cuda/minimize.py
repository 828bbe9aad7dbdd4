"""One problem whose vectors are on a CUDA device: textbook RMSprop, around an objective that launches its own kernels.

The host tests f and the gradient's max-norm only every `check_every` iterations, because a test waits for all kernels
before it. The best point so far is the best of those that were tested.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from typing import Any

import numpy as np

from rmsprop_nb._core.callbacks import Observe, make_observer
from rmsprop_nb._core.options import Options, RmspropOptions, largest_gradient
from rmsprop_nb._core.rates import scheduled_rate
from rmsprop_nb._core.result import Result, print_summary
from rmsprop_nb._core.settings import StoppingTests
from rmsprop_nb._core.status import Status
from rmsprop_nb._core.validate import as_args, as_count, check_callable
from rmsprop_nb._cuda.array_table import ArrayTable
from rmsprop_nb._cuda.arrays import copy_like, device_array, device_zeros, stream_of
from rmsprop_nb._cuda.native import address_of
from rmsprop_nb._cuda.update import ArrayRow, Formats, prepare_update
from rmsprop_nb._kernels.update import bias_after
from rmsprop_nb._methods.points import returns_best
from rmsprop_nb._methods.registry import MANY_ITERATIONS, message_of

CHECK_EVERY = 32
"""Iterations between two tests, unless the user says otherwise."""

# Options that need a test at every iteration, keep something on the host, or are about differences.
_ON_HOST_ONLY = (
    "ftol", "xtol", "patience", "finite_diff_rel_step", "history", "return_all", "state", "checkpoint",
    "checkpoint_every", "progress", "parallel",
)  # fmt: skip


def minimize_on_device(given: Any, options: Options, deterministic: bool) -> Result:
    """Minimize from a device array, of which a copy is made; `given` are the Arguments of `minimize`."""
    observe = make_observer(given.callback)
    run = _Run(given, _checked(given, options), deterministic)
    try:
        status = run.until_done(observe)
    except KeyboardInterrupt:
        if not math.isfinite(run.best.f):
            raise
        status = Status.INTERRUPTED
    result, gradient_norm = run.result(status)
    if options.disp:
        print_summary(result, gradient_norm)
    return result


def _checked(given: Any, options: Options) -> RmspropOptions:
    """Return the options, if they and the arguments are for a device."""
    check_callable("fun", given.fun)
    if given.jac != "inplace":
        msg = f"jac must be 'inplace' with x0 on a device: fun(x, grad, *args) fills grad there; got {given.jac!r}."
        raise ValueError(msg)
    if given.bounds is not None:
        msg = "bounds are not for x0 on a device; copy x0 to the host."
        raise ValueError(msg)
    if not isinstance(options, RmspropOptions) or options.auto:
        msg = (
            "x0 on a device needs method='rmsprop' with a learning_rate that is a number or a schedule, because "
            "no line search runs there; give options={'learning_rate': 1e-3}, say."
        )
        raise ValueError(msg)
    options.refuse(_ON_HOST_ONLY, "is not for x0 on a device", "leave it out, or copy x0 to the host")
    return options


@dataclasses.dataclass
class _Point:
    """A point where f and the gradient were brought to the host; its vectors are of the library of x0."""

    x: Any
    g: Any
    f: float = math.nan
    gradient_norm: float = math.nan


class _Run:
    """The vectors and counters of a run."""

    def __init__(self, given: Any, options: RmspropOptions, deterministic: bool) -> None:
        x0 = given.x0
        found = device_array(x0, "x0")
        if len(found.shape) != 1 or found.size == 0:
            msg = f"x0 must have one dimension and at least one element, got shape {found.shape}."
            raise ValueError(msg)
        self.dtype = np.dtype(found.dtype)
        self.stream = stream_of(found)
        self.options, self.deterministic = options, deterministic
        self.fun, self.args = given.fun, as_args(given.args)
        self.now = _Point(copy_like(x0), copy_like(x0))
        self.best = _Point(copy_like(x0), copy_like(x0), f=math.inf)
        self._x, self._g = device_array(self.now.x, "x0"), device_array(self.now.g, "x0")
        variant, size = options.variant, found.size
        self.averages = tuple(
            device_zeros(size if used else 0, self.dtype, self.stream)
            for used in (True, variant.centered, variant.momentum)
        )
        if options.initial_accumulator:
            self.averages[0].copy_to_device(np.full(size, options.initial_accumulator, self.dtype), stream=self.stream)
        x, g, square_avg, grad_avg, momentum_buffer = map(address_of, (self._x, self._g, *self.averages))
        self._row = ArrayRow(x, g, square_avg, grad_avg, momentum_buffer, size=size)
        self._table = ArrayTable([size], self.dtype)
        self._table.set_addresses([self._row], self.stream)
        self._hyper = options.hyper(self.dtype)
        formats = Formats(self.dtype.name, self.dtype.name)
        self._update = prepare_update(
            variant, formats, self._row, self._hyper, self.stream, deterministic=self.deterministic
        )
        self.nit = self.nfev = 0

    def until_done(self, observe: Observe | None) -> Status:
        """Iterate until a test is met."""
        tests, start = self.options.stopping_tests(self.dtype), time.perf_counter()
        every = as_count("check_every", self.options.check_every, CHECK_EVERY, least=1)
        for self.nit in itertools.count():
            f = self.fun(self.now.x, self.now.g, *self.args)
            self.nfev += 1
            last = self.nit >= tests.maxiter or self.nfev >= tests.maxfev
            if last or self.nit % every == 0:
                status = self._test(f, tests)
                if status is None and observe is not None and observe(copy_like(self.now.x), self.now.f):
                    status = Status.CALLBACK_STOP
                if status is None and time.perf_counter() - start >= self.options.seconds:
                    status = Status.MAXTIME
                if status is None and last:
                    status = Status.MAXITER if self.nit >= tests.maxiter else Status.MAXFEV
                if status is not None:
                    return status
            self._step()
        raise AssertionError

    def _test(self, f: Any, tests: StoppingTests) -> Status | None:
        """Bring f and the gradient's max-norm to the host, keep the best point, and return the status of a met test."""
        now, best = self.now, self.best
        # first, because it waits for the stream on which f is computed
        now.gradient_norm = self._table.largest(self.dtype.name, self.stream)[0]
        now.f = float(f.copy_to_host().item() if hasattr(f, "copy_to_host") else f)
        if not (math.isfinite(now.f) and now.gradient_norm <= largest_gradient(self.dtype)):
            return Status.NONFINITE
        if now.f < best.f:
            best.f, best.gradient_norm = now.f, now.gradient_norm
            device_array(best.x, "x").copy_to_device(self._x, stream=self.stream)
            device_array(best.g, "x").copy_to_device(self._g, stream=self.stream)
        if now.gradient_norm <= tests.gtol:
            return Status.GTOL
        return Status.F_TARGET if now.f <= tests.f_target else None

    def _step(self) -> None:
        options, chosen = self.options, self.options.learning_rate
        rate = scheduled_rate(chosen, self.nit) if callable(chosen) else float(chosen)
        correction = bias_after(float(self._hyper.beta), self.nit + 1) if options.bias_correction else 1.0
        self._update.set_last((rate, correction, 1.0, math.inf))  # gradients are neither scaled nor clipped
        self._update()

    def result(self, status: Status) -> tuple[Result, float]:
        """Return the result and its gradient's max-norm, at the point that met gtol or else the best one tested."""
        found = self.best if returns_best(status, self.best.f) else self.now
        result = Result(
            x=found.x,
            fun=found.f,
            jac=found.g,
            nit=self.nit,
            nfev=self.nfev,
            njev=self.nfev,
            status=int(status),
            success=status.success,
            message=message_of(status, self.options, is_long=self.nit > MANY_ITERATIONS),
        )
        return result, found.gradient_norm
