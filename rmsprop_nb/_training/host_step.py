"""One step of an optimizer, array by array: which kernel runs on what, worked out once for an optimizer and a state.

A block is an array of parameters with everything that belongs to it. Whatever can go wrong goes wrong in `Plan.take`,
`Plan.check_gradients` and `Plan.scheduled_rates`; what comes after them only computes.
"""

from __future__ import annotations

import bisect
import itertools
import math
import os
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._core.options import Rule, largest_gradient
from rmsprop_nb._kernels.update import PARALLEL_MIN_SIZE, bias_after, make_parallel_update, make_update
from rmsprop_nb._kernels.vectors import address, largest, parallel_largest, sum_of_squares
from rmsprop_nb._numba.thread_safety import in_turn, usable_threads
from rmsprop_nb._training.arrays import check_no_overlap, computed_in, gradient_vector, parameter_vector
from rmsprop_nb._training.pytree import Structure, leaves, names, places
from rmsprop_nb._training.state import AVERAGES, LeafState, RMSpropState

_NDARRAY = np.ndarray
_PAGE = 4096

Rate = float | Callable[[int], float] | NDArray[Any]


class Block(NamedTuple):
    """An array of parameters, what is kept for it, and what a step does with it."""

    place: str  # as the params are indexed to reach it
    shape: tuple[int, ...]
    dtype: Any
    kernel: Any
    vectors: tuple[NDArray[Any], ...]  # square_avg, grad_avg, momentum_buffer; unused ones have size 0
    gradient_sum: NDArray[Any] | None
    hyper: NDArray[Any]  # the numbers of a Hyper
    beta: float | None  # for bias correction
    rate: float | Callable[[int], float]
    rates: NDArray[Any] | None  # of each element; they multiply `rate`, which is 1 then
    threads: int
    largest_gradient: float


Work = list[tuple[Block, Any, Any]]  # each block with its parameters and its gradient, both vectors


def new_leaf(array: NDArray[Any], rule: Rule, accumulates: bool) -> LeafState:
    """Make the state for an array of parameters."""
    variant = rule.variant

    def vector(needed: bool, rank: int) -> NDArray[Any] | None:
        return _apart_from(array, rank) if needed else None

    square_avg = _apart_from(array, 1)
    square_avg.fill(rule.initial_accumulator)
    return LeafState(
        array.shape, square_avg, vector(variant.centered, 2), vector(variant.momentum, 3), vector(accumulates, 2)
    )


def _apart_from(array: NDArray[Any], rank: int) -> NDArray[Any]:
    """Make a vector of zeros as long as `array`, which begins `rank` quarters of a page after it, but for whole pages.

    Where addresses differ by little more than whole pages, processors take a load for one of what is still being
    stored, and wait: a fifth of the time of a step.
    """
    dtype = computed_in(array.dtype)
    if array.size * dtype.itemsize < _PAGE:
        return np.zeros(array.size, dtype)
    buffer = np.zeros(array.size * dtype.itemsize + _PAGE, np.uint8)
    start = (array.__array_interface__["data"][0] + rank * _PAGE // 4 - buffer.__array_interface__["data"][0]) % _PAGE
    start -= start % dtype.itemsize
    return buffer[start : start + array.size * dtype.itemsize].view(dtype)


class Plan:
    """What `RMSprop.step` does with a state, worked out when the two first meet."""

    def __init__(
        self,
        owner: Any,
        state: RMSpropState,
        choose: Callable[[str], tuple[Rule, Rate]],
        *,
        workers: int,
        accumulates: bool,
        bound: float | None,
    ) -> None:
        self.owner = weakref.ref(owner)
        self.process = os.getpid()
        self.structure: Structure = state._structure
        self.blocks: list[Block] = []
        # the arrays that were last found to share no memory, and where everything that is written lies
        self._known: list[Any] = [(_nothing, _nothing)] * len(state._leaves)
        self._starts: list[int] | None = []
        self._ends: list[int] = []
        for name, place, leaf in zip(names(self.structure), places(self.structure), state._leaves, strict=True):
            rule, rate = choose(name)
            _check_leaf(leaf, new_leaf(leaf.square_avg[:0], rule, accumulates), place)
            self.blocks.append(_block(place, leaf, rule, rate, workers, bound))
        self._schedules = list({id(block.rate): block.rate for block in self.blocks if callable(block.rate)}.values())

    def take(self, params: Any, grads: Any) -> tuple[Work, list[tuple[Any, Any]]]:
        """Check params and grads; return the work of a step, and which params have to be written back from a copy.

        The usual case, arrays that were here before or are made like them, is decided in a few comparisons.
        """
        arrays = leaves(self.structure, params, "params")
        gradients = leaves(self.structure, grads, "grads")
        work, copies = [], []
        other_params = other_grads = False
        for block, known, array, gradient in zip(self.blocks, self._known, arrays, gradients):  # noqa: B905 - costs 0.1 us
            _, shape, dtype, *_ = block
            if type(array) is _NDARRAY and array.dtype is dtype and array.shape == shape and array.flags.carray:
                x = array if len(shape) == 1 else array.ravel()
            else:
                x, copied = parameter_vector(array, shape, dtype, f"params{block.place}")
                if copied:
                    copies.append((array, x))
            if (
                type(gradient) is _NDARRAY
                and gradient.dtype is dtype
                and gradient.shape == shape
                and gradient.flags.carray
            ):
                g = gradient if len(shape) == 1 else gradient.ravel()
            else:
                g = gradient_vector(gradient, array, dtype, f"grads{block.place}", f"params{block.place}")
            work.append((block, x, g))
            if known[0]() is not array:
                other_params = True
            if known[1]() is not gradient:
                other_grads = True
        if other_params or other_grads:
            self._check_memory(arrays, gradients, work, other_params)
        return work, copies

    def _check_memory(self, arrays: list[Any], gradients: list[Any], work: Work, other_params: bool) -> None:
        """Look for common memory, where the arrays are not those of the last step; new grads meet what is written."""
        vectors = [g for _, _, g in work]
        if other_params or self._starts is None or any(map(self._touches_written, gradients, vectors)):
            self._look_at_all(arrays, gradients)
        self._known = [(weakref.ref(array), weakref.ref(g)) for array, g in zip(arrays, gradients, strict=True)]

    def _look_at_all(self, arrays: list[Any], gradients: list[Any]) -> None:
        written = [(f"params{block.place}", array) for block, array in zip(self.blocks, arrays, strict=True)]
        for block in self.blocks:
            kept = [*block.vectors, *([] if block.gradient_sum is None else [block.gradient_sum])]
            written += [(f"state of params{block.place}", vector) for vector in kept]
        read = [(f"grads{block.place}", array) for block, array in zip(self.blocks, gradients, strict=True)]
        check_no_overlap(written, read)
        bounds = sorted(np.lib.array_utils.byte_bounds(array) for _, array in written if array.size)
        apart = all(end <= start for (_, end), (start, _) in itertools.pairwise(bounds))
        self._starts = [start for start, _ in bounds] if apart else None
        self._ends = [end for _, end in bounds]

    def _touches_written(self, gradient: Any, g: NDArray[Any]) -> bool:
        """Whether the stretch of memory of a gradient reaches into one that is written."""
        if gradient.flags.carray and gradient.dtype is g.dtype:  # otherwise g may be a copy
            start = address(g)
            end = start + g.nbytes
        else:
            start, end = np.lib.array_utils.byte_bounds(gradient)
        k = bisect.bisect_right(self._starts, start)  # type: ignore[arg-type]
        starts: list[int] = self._starts  # type: ignore[assignment]
        return (k > 0 and self._ends[k - 1] > start) or (k < len(starts) and starts[k] < end)

    def check_gradients(self, work: Work) -> None:
        """Raise FloatingPointError for a gradient that is NaN, infinite, or too large to be squared."""
        for block, _, g in work:
            if block.threads == 1:
                size = largest(g)
            else:
                with in_turn():
                    size = _largest_of_parts(g, block.threads)
            if not size <= block.largest_gradient:
                raise_unusable(block, g)

    def scheduled_rates(self, step: int) -> dict[int, float]:
        """Ask each schedule, once, for the learning rate of this step; return them by the schedule's id."""
        if not self._schedules:
            return {}
        return {id(schedule): check_scheduled(schedule(step), step) for schedule in self._schedules}

    def accumulate(self, work: Work) -> Work:
        """Add gradients to the sums, and return the work with these in their place."""
        for block, _, g in work:
            np.add(block.gradient_sum, g, out=block.gradient_sum)  # type: ignore[arg-type]
        return [(block, x, block.gradient_sum) for block, x, _ in work]

    def forget_sums(self, work: Work) -> None:
        """Begin the sums of gradients anew."""
        for _, _, total in work:
            total.fill(0.0)

    def norm(self, work: Work) -> float:
        """Euclidean norm of all gradients together."""
        return _global_norm([g for _, _, g in work])

    def update(self, work: Work, rates: dict[int, float], step: int, scale: float | None, limit: float | None) -> None:
        """Apply the rule to every block; `step` counts from 1."""
        for block, x, g in work:
            _, _, _, kernel, vectors, _, hyper, beta, rate, each, threads, _ = block
            if rates:
                rate = rates.get(id(rate), rate)
            correction = 1.0 if beta is None else bias_after(beta, step)
            if threads == 1:
                kernel(x, g, *vectors, rate, correction, hyper, threads, each, scale, limit)
                continue
            with in_turn():
                kernel(x, g, *vectors, rate, correction, hyper, threads, each, scale, limit)


def _nothing() -> None:
    """Stand for a weak reference that leads nowhere."""


def _check_leaf(leaf: LeafState, expected: LeafState, place: str) -> None:
    """Raise unless the state keeps what the rule needs, and nothing else, in vectors that compiled code can index."""
    dtype, size = leaf.square_avg.dtype, math.prod(leaf.shape)
    for vector in leaf[1:]:
        if vector is not None and not (vector.dtype == dtype and vector.shape == (size,) and vector.flags.carray):
            msg = (
                f"state must be made by init or from_arrays; that of params{place} does not fit its shape {leaf.shape}."
            )
            raise ValueError(msg)
    check_averages(leaf, expected, place)


def check_averages(leaf: LeafState, expected: LeafState, place: str) -> None:
    """Raise unless the state has the averages that the options need, and no others."""
    for average in AVERAGES:
        found, wanted = getattr(leaf, average), getattr(expected, average)
        if (found is None) != (wanted is None):
            has, needs = ("no", "need one") if found is None else ("a", "have no use for it")
            msg = (
                f"state must be of these options: for params{place} it has {has} {average}, and they {needs}; "
                "make one with init, or use the options it was made with."
            )
            raise ValueError(msg)


def _block(place: str, leaf: LeafState, rule: Rule, rate: Rate, workers: int, bound: float | None) -> Block:
    dtype = leaf.square_avg.dtype
    threads = min(workers, usable_threads()) if leaf.square_avg.size >= PARALLEL_MIN_SIZE else 1
    none = np.empty(0, dtype)
    rates = None
    if isinstance(rate, np.ndarray):
        rates, rate = _rates_of_elements(rate, leaf.shape, dtype, place), 1.0
    usable = largest_gradient(dtype)
    hyper = rule.hyper(dtype)
    return Block(
        place=place,
        shape=leaf.shape,
        dtype=dtype,
        kernel=(make_parallel_update if threads > 1 else make_update)(rule.variant),
        vectors=tuple(none if vector is None else vector for vector in leaf[1:4]),
        gradient_sum=leaf.gradient_sum,
        hyper=np.array(hyper, dtype),
        beta=float(hyper.beta) if rule.bias_correction else None,
        rate=rate if callable(rate) else float(rate),  # an int would be another signature, and compile anew
        rates=rates,
        threads=threads,
        # what will be clipped need only be finite
        largest_gradient=usable if bound is None or bound > usable else float(np.finfo(dtype).max),
    )


def _rates_of_elements(rates: NDArray[Any], shape: tuple[int, ...], dtype: Any, place: str) -> NDArray[Any]:
    if rates.shape != shape:
        msg = f"learning_rate must be a number or have shape {shape}, that of params{place}, got shape {rates.shape}."
        raise ValueError(msg)
    return np.array(rates, dtype, order="C").ravel()


def check_scheduled(rate: Any, step: int) -> float:
    number = float(rate)
    if not (math.isfinite(number) and number >= 0.0):
        msg = f"learning_rate(step) must be finite and not negative, got {rate!r} at step {step}."
        raise ValueError(msg)
    return number


def _largest_of_parts(g: NDArray[Any], threads: int) -> float:
    found = np.empty(threads)
    parallel_largest(g, found)
    return float(found.max())


def raise_unusable(block: Any, g: NDArray[Any]) -> None:
    bad = ~(np.abs(g) <= block.largest_gradient)
    k = int(np.argmax(bad))
    index = tuple(map(int, np.unravel_index(k, block.shape)))
    where = f" at index {index[0] if len(index) == 1 else index}" if index else ""
    if np.isfinite(g[k]):
        rule = f"be at most {block.largest_gradient:.3g} in size, or its average of squares is soon infinite"
        remedy = "scale the objective, or clip gradients with clip_value or clip_norm"
    else:
        rule, remedy = "be finite", "leave out this gradient; nothing has been changed"
    msg = f"grads{block.place} must {rule}, got {g[k]}{where}; {remedy}."
    raise FloatingPointError(msg)


def _global_norm(vectors: Sequence[NDArray[Any]]) -> float:
    """Euclidean norm over all vectors together, in double precision; safe where squares over- or underflow."""
    total = math.fsum(sum_of_squares(v) for v in vectors)
    if np.finfo(np.float64).smallest_normal < total < math.inf:
        return math.sqrt(total)
    scale = max((largest(v) for v in vectors), default=0.0)
    if not (0.0 < scale < math.inf):
        return float(scale)
    return float(scale) * math.sqrt(math.fsum(sum_of_squares(v.astype(np.float64) / scale) for v in vectors))
