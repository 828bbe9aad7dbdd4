"""A step of the optimizer on arrays that are on a CUDA device; what `rmsprop_nb._blocks` is for those on the host.

Kernels are launched on the stream that the parameters name in their ``__cuda_array_interface__``, and nothing waits for
them but the check of gradients and clip_norm, which bring one number each back to the host.
"""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import cuda

from rmsprop_nb._blocks import Rate, check_averages, check_scheduled, new_leaf, raise_unusable
from rmsprop_nb._cpu import bias_after
from rmsprop_nb._cuda_arrays import device_vector, device_zeros, largest_of, stream_of, to_host
from rmsprop_nb._cuda_native import address_of, require_device
from rmsprop_nb._cuda_update import BLOCK, add_to, grid, launch_update, sum_of_squares
from rmsprop_nb._options import Rule, largest_gradient
from rmsprop_nb._state import LeafState, RMSpropState
from rmsprop_nb._tree import leaves, names, places

__all__ = ["DevicePlan", "new_device_leaf"]


class DeviceBlock(NamedTuple):
    """An array of parameters, what is kept for it, and what a step does with it."""

    place: str
    shape: tuple[int, ...]
    dtype: Any
    rule: Rule
    vectors: tuple[Any, ...]  # square_avg, grad_avg, momentum_buffer; unused ones have size 0
    gradient_sum: Any
    beta: float | None  # for bias correction
    rate: float | Callable[[int], float]
    largest_gradient: float


DeviceWork = list[tuple[DeviceBlock, Any, Any]]  # each block with its parameters and its gradient, both vectors


def new_device_leaf(array: Any, rule: Rule, accumulates: bool) -> LeafState:
    """Make the state for an array of parameters, on its device."""
    like = np.empty(0, np.dtype(array.dtype))
    wanted = new_leaf(like, rule, accumulates)
    size = math.prod(array.shape)
    made = (None if vector is None else device_zeros(size, like.dtype) for vector in wanted[1:])
    leaf = LeafState(tuple(array.shape), *made)  # type: ignore[arg-type]
    if rule.initial_accumulator:
        leaf.square_avg.copy_to_device(np.full(size, rule.initial_accumulator, like.dtype))  # type: ignore[attr-defined]
    cuda.synchronize()  # the streams of later steps do not wait for the one that copies
    return leaf


class DevicePlan:
    """What `RMSprop.step` does with a state on a device, worked out when the two first meet."""

    def __init__(
        self,
        owner: Any,
        state: RMSpropState,
        choose: Callable[[str], tuple[Rule, Rate]],
        *,
        accumulates: bool,
        bound: float | None,
        deterministic: bool,
    ) -> None:
        require_device()
        self.owner = weakref.ref(owner)
        self.process = os.getpid()
        self.structure = state._structure
        self.deterministic = deterministic
        self.blocks = [
            _block(place, leaf, *choose(name), accumulates, bound)
            for name, place, leaf in zip(names(self.structure), places(self.structure), state._leaves, strict=True)
        ]
        self._schedules = list({id(block.rate): block.rate for block in self.blocks if callable(block.rate)}.values())

    def take(self, params: Any, grads: Any) -> tuple[DeviceWork, list[tuple[Any, Any]]]:
        """Check params and grads; return the work of a step. Nothing has to be written back."""
        arrays = leaves(self.structure, params, "params")
        gradients = leaves(self.structure, grads, "grads")
        work = []
        for block, array, gradient in zip(self.blocks, arrays, gradients, strict=True):
            name, other = f"params{block.place}", f"grads{block.place}"
            x = device_vector(array, block.shape, block.dtype, name, writes=True)
            g = device_vector(gradient, block.shape, block.dtype, other)
            work.append((block, x, g))
        self._check_overlap(work)
        return work, []

    def _check_overlap(self, work: DeviceWork) -> None:
        """Raise if an array that is written shares memory with another."""
        spans = []
        for block, x, g in work:
            kept = [a for a in (*block.vectors, block.gradient_sum) if a is not None]
            written = [(f"params{block.place}", x), *((f"state of params{block.place}", a) for a in kept)]
            spans += [(address_of(a), address_of(a) + _bytes(a), True, name) for name, a in written if a.size]
            spans += [(address_of(g), address_of(g) + _bytes(g), False, f"grads{block.place}")] if g.size else []
        spans.sort()
        for k, (_, end, writes, name) in enumerate(spans):
            for start, _, other_writes, other in spans[k + 1 :]:
                if start >= end:
                    break
                if writes or other_writes:
                    msg = f"{name} must not share memory with {other}, because step changes one in place; pass a copy."
                    raise ValueError(msg)

    def check_gradients(self, work: DeviceWork) -> None:
        """Raise FloatingPointError for a gradient that is NaN, infinite, or too large to be squared."""
        for block, x, g in work:
            if not largest_of(g, stream_of(x)) <= block.largest_gradient:
                raise_unusable(block, to_host(g, stream_of(x)))

    def scheduled_rates(self, step: int) -> dict[int, float]:
        """Ask each schedule, once, for the learning rate of this step; return them by the schedule's id."""
        return {id(schedule): check_scheduled(schedule(step), step) for schedule in self._schedules}

    def accumulate(self, work: DeviceWork) -> DeviceWork:
        """Add gradients to the sums, and return the work with these in their place."""
        for block, x, g in work:
            add_to[grid(g.size), BLOCK, stream_of(x)](block.gradient_sum, g)
        return [(block, x, block.gradient_sum) for block, x, _ in work]

    def forget_sums(self, work: DeviceWork) -> None:
        """Begin the sums of gradients anew."""
        for block, x, total in work:
            total.copy_to_device(np.zeros(total.size, block.dtype), stream=stream_of(x))

    def norm(self, work: DeviceWork) -> float:
        """Euclidean norm of all gradients together, in double precision."""
        total = 0.0
        for _, x, g in work:
            blocks, stream = grid(g.size), stream_of(x)
            sums = device_zeros(blocks * BLOCK, np.float64, stream)
            sum_of_squares[blocks, BLOCK, stream](g, sums)
            total += math.fsum(to_host(sums, stream))
        return math.sqrt(total)

    def update(
        self, work: DeviceWork, rates: dict[int, float], step: int, scale: float | None, limit: float | None
    ) -> None:
        """Apply the rule to every block; `step` counts from 1."""
        for block, x, g in work:
            correction = 1.0 if block.beta is None else bias_after(block.beta, step)
            rate = rates.get(id(block.rate), block.rate)
            launch_update(
                block.rule.variant,
                (x, g, *block.vectors),
                (rate, correction, 1.0 if scale is None else scale, math.inf if limit is None else limit),  # type: ignore[arg-type]
                block.rule.hyper(block.dtype),
                stream_of(x),
                adjusts=scale is not None or limit is not None,
                deterministic=self.deterministic,
            )


def _block(place: str, leaf: LeafState, rule: Rule, rate: Rate, accumulates: bool, bound: float | None) -> DeviceBlock:
    dtype = np.dtype(leaf.square_avg.dtype)
    check_averages(leaf, new_leaf(np.empty(0, dtype), rule, accumulates), place)
    if isinstance(rate, np.ndarray):
        msg = f"learning_rate must be a number or a schedule on a device, got an array for params{place}; scale grads."
        raise NotImplementedError(msg)
    usable = largest_gradient(dtype)
    none = device_zeros(0, dtype)
    return DeviceBlock(
        place=place,
        shape=leaf.shape,
        dtype=dtype,
        rule=rule,
        vectors=tuple(none if vector is None else vector for vector in leaf[1:4]),
        gradient_sum=leaf.gradient_sum,
        beta=float(rule.hyper(dtype).beta) if rule.bias_correction else None,
        rate=rate if callable(rate) else float(rate),
        # what will be clipped need only be finite
        largest_gradient=usable if bound is None or bound > usable else float(np.finfo(dtype).max),
    )


def _bytes(array: Any) -> int:
    return int(array.size * array.dtype.itemsize)
