"""One problem whose vectors are on a CUDA device: textbook RMSprop, around an objective that launches its own kernels.

The host only looks every so many iterations, because a look waits for all kernels before it. What it looks at are f and
the largest component of the gradient; the best point so far is the best of those looked at.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from rmsprop_nb._core.options import Options, RmspropOptions, largest_gradient
from rmsprop_nb._core.result import Result
from rmsprop_nb._core.settings import StoppingTests
from rmsprop_nb._core.status import MESSAGES, Status
from rmsprop_nb._core.validate import as_args, as_count, check_callable
from rmsprop_nb._cuda.array_table import ArrayTable
from rmsprop_nb._cuda.arrays import copy_like, device_array, device_zeros, stream_of
from rmsprop_nb._cuda.native import address_of
from rmsprop_nb._cuda.update import ArrayRow, Formats, StepNumbers, launch_update
from rmsprop_nb._kernels.update import bias_after
from rmsprop_nb._methods.points import returns_best
from rmsprop_nb._numba.decorators import plain

# Options that would need a look at every iteration, or that keep something on the host.
_ON_HOST_ONLY = (
    "ftol", "xtol", "patience", "history", "return_all", "state", "checkpoint", "progress", "parallel",
)  # fmt: skip


def minimize_on_device(given: Any, options: Options, deterministic: bool) -> Result:
    """Minimize from a device array, of which a copy is made; `given` are the Arguments of `minimize`."""
    run = _Run(given, _checked(given, options), deterministic)
    try:
        status = run.until_done(given.callback)
    except KeyboardInterrupt:
        if not math.isfinite(run.f_best):
            raise
        status = Status.INTERRUPTED
    return run.result(status)


def _checked(given: Any, options: Options) -> RmspropOptions:
    """The options, if they and the arguments are for a device."""
    check_callable("fun", given.fun)
    if given.callback is not None:
        check_callable("callback", given.callback, " or None")
    if given.jac != "inplace":
        msg = f"jac must be 'inplace' with x0 on a device: fun(x, grad, *args) fills grad there; got {given.jac!r}."
        raise ValueError(msg)
    if given.bounds is not None:
        msg = "bounds are not for x0 on a device; copy x0 to the host."
        raise ValueError(msg)
    if not isinstance(options, RmspropOptions) or options.auto:
        msg = (
            "x0 on a device needs method='rmsprop' with a learning_rate that is a number or a schedule, because "
            "nothing searches there; give options={'learning_rate': 1e-3}, say."
        )
        raise ValueError(msg)
    default = {field.name: field.default for field in dataclasses.fields(options)}
    for name in _ON_HOST_ONLY:
        if getattr(options, name) != default[name]:
            msg = f"{name} is not for x0 on a device, got {getattr(options, name)!r}; leave it out."
            raise ValueError(msg)
    return options


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
        self.x, self.grad, self.x_best, self.g_best = (copy_like(x0) for _ in range(4))  # of the library of x0
        self._x, self._g = device_array(self.x, "x0"), device_array(self.grad, "x0")
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
        self.nit = self.nfev = 0
        self.f_best, self.f, self.gnorm = math.inf, math.nan, math.nan

    def until_done(self, callback: Callable[..., Any] | None) -> Status:
        """Iterate until a test is met."""
        tests, start = self.options.stopping_tests(self.dtype), time.perf_counter()
        every = as_count("check_every", self.options.check_every, 0, least=1)
        rate, maxfev = self.options.learning_rate, tests.maxfev
        for self.nit in itertools.count():
            f = self.fun(self.x, self.grad, *self.args)
            self.nfev += 1
            last = self.nit >= tests.maxiter or self.nfev >= maxfev
            if last or self.nit % every == 0:
                status = self._look(f, tests)
                if status is None and callback is not None and self._stops(callback):
                    status = Status.CALLBACK_STOP
                if status is None and time.perf_counter() - start >= self.options.seconds:
                    status = Status.MAXTIME
                if status is None and last:
                    status = Status.MAXITER if self.nit >= tests.maxiter else Status.MAXFEV
                if status is not None:
                    return status
            self._step(rate(self.nit) if callable(rate) else float(rate))
        raise AssertionError

    def _look(self, f: Any, tests: StoppingTests) -> Status | None:
        """Bring f and the largest component of the gradient to the host, and keep the best point."""
        # first, because it waits for the stream on which f is computed
        self.gnorm = self._table.largest(self.dtype.name, self.stream)[0]
        self.f = float(f.copy_to_host().item() if hasattr(f, "copy_to_host") else f)
        if not (math.isfinite(self.f) and self.gnorm <= largest_gradient(self.dtype)):
            return Status.NONFINITE
        if self.f < self.f_best:
            self.f_best = self.f
            device_array(self.x_best, "x").copy_to_device(self._x, stream=self.stream)
            device_array(self.g_best, "x").copy_to_device(self._g, stream=self.stream)
        if self.gnorm <= tests.gtol:
            return Status.GTOL
        return Status.F_TARGET if self.f <= tests.f_target else None

    def _stops(self, callback: Callable[..., Any]) -> bool:
        try:
            callback(copy_like(self.x))
        except StopIteration:
            return True
        return False

    def _step(self, rate: float) -> None:
        options = self.options
        hyper = options.hyper(self.dtype)
        correction = bias_after(float(hyper.beta), self.nit + 1) if options.bias_correction else 1.0
        launch_update(
            options.variant,
            Formats(self.dtype.name, self.dtype.name),
            self._row,
            StepNumbers(rate, correction, hyper),  # gradients are neither scaled nor clipped
            self.stream,
            deterministic=self.deterministic,
        )

    def result(self, status: Status) -> Result:
        """The point that met the test on the gradient, otherwise the best of those looked at."""
        best = plain(returns_best)(status, self.f_best)
        return Result(
            x=self.x_best if best else self.x,
            fun=self.f_best if best else self.f,
            jac=self.g_best if best else self.grad,
            nit=self.nit,
            nfev=self.nfev,
            njev=self.nfev,
            status=int(status),
            success=status.success,
            message=MESSAGES[status],
        )
