"""A step of the optimizer on arrays on a CUDA device; `rmsprop_nb._training.host_step` is the one for the host.

Arrays of one format are a group, which is checked in one launch and updated in one for each variant of the rule.
Kernels are launched on the stream that the parameters name in their ``__cuda_array_interface__``, and nothing waits for
them but the check of gradients and clip_norm, which bring a few numbers back to the host.
"""

from __future__ import annotations

import itertools
import math
import os
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from rmsprop_nb._core.options import Rule, largest_gradient
from rmsprop_nb._core.settings import Hyper, Variant
from rmsprop_nb._cuda.array_table import Many
from rmsprop_nb._cuda.arrays import DeviceVector, check_device, check_vector, device_vector, device_zeros, host_values
from rmsprop_nb._cuda.memory import real_of
from rmsprop_nb._cuda.native import address_of, cuda, require_device, set_zero
from rmsprop_nb._cuda.update import launch_update
from rmsprop_nb._kernels.update import bias_after
from rmsprop_nb._training.host_step import Rate, check_averages, check_scheduled, new_leaf, raise_unusable
from rmsprop_nb._training.pytree import leaves, names, places
from rmsprop_nb._training.state import LeafState, RMSpropState


class DeviceBlock(NamedTuple):
    """What is kept for an array of parameters, and what a step does with it."""

    place: str
    shape: tuple[int, ...]
    dtype: Any  # of the arithmetic and the state
    variant: Variant
    hyper: Hyper
    averages: tuple[int, int, int]  # addresses of square_avg, grad_avg and momentum_buffer; 0 without one
    gradient_sum: Any
    beta: float | None  # for bias correction
    rate: float | Callable[[int], float]
    largest_gradient: float


class Item(NamedTuple):
    """A block with its parameters and its gradient."""

    block: DeviceBlock
    x: DeviceVector
    g: DeviceVector


class Group(NamedTuple):
    """Places in the work of arrays that one launch can take, in the order of their rows in the tables of `many`."""

    places: list[int]
    variants: list[tuple[Variant, range]]  # which rows are updated in one launch
    many: Many


def new_device_leaves(named: Sequence[tuple[str, Any]], rules: Sequence[Rule], accumulates: bool) -> list[LeafState]:
    """Make the state for arrays of parameters, on their device."""
    require_device()
    found = [device_vector(array, name, writes=True) for name, array in named]
    made = [_new_leaf(vector, rule, accumulates) for vector, rule in zip(found, rules, strict=True)]
    cuda.synchronize()  # the streams of later steps do not wait for the one that copies
    return made


def _new_leaf(found: DeviceVector, rule: Rule, accumulates: bool) -> LeafState:
    like = np.empty(0, real_of(found.format))
    wanted = new_leaf(like, rule, accumulates)
    made = (None if vector is None else device_zeros(found.size, like.dtype) for vector in wanted[1:])
    leaf = LeafState(found.shape, *made)  # type: ignore[arg-type]
    if rule.initial_accumulator:
        leaf.square_avg.copy_to_device(np.full(found.size, rule.initial_accumulator, like.dtype))  # type: ignore[attr-defined]
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
        self._state_spans = [
            (
                address_of(vector),
                address_of(vector) + vector.size * vector.dtype.itemsize,
                True,
                f"state of params{place}",
            )
            for place, leaf in zip(places(self.structure), state._leaves, strict=True)
            for vector in leaf[1:]
            if vector is not None and vector.size
        ]
        self._known: list[Any] = []  # where the arrays were that were last found to share no memory
        self._groups: dict[Any, list[Group]] = {}

    def take(self, params: Any, grads: Any) -> tuple[list[Item], list[tuple[Any, Any]]]:
        """Check params and grads; return the work of a step. Nothing has to be written back."""
        first = self.blocks[0]
        check_device(first.averages[0], f"state of params{first.place}")
        arrays = leaves(self.structure, params, "params")
        gradients = leaves(self.structure, grads, "grads")
        work = []
        for block, array, gradient in zip(self.blocks, arrays, gradients, strict=True):
            name, other = f"params{block.place}", f"grads{block.place}"
            x, g = device_vector(array, name, writes=True), device_vector(gradient, other)
            real = block.dtype.name
            fits = real_of(x.format).name == real
            check_vector(x, block.shape, x.format if fits else real, name, "the params of init")
            check_vector(g, block.shape, real if g.format == real else x.format, other, "the params of init")
            work.append(Item(block, x, g))
        spans = [(item.x.span, item.g.span) for item in work]
        if spans != self._known:
            self._check_overlap(work)
            self._known = spans
        return work, []

    def _check_overlap(self, work: list[Item]) -> None:
        """Raise if an array that is written shares memory with another."""
        spans = list(self._state_spans)
        for block, x, g in work:
            if x.size:
                spans += [(*x.span, True, f"params{block.place}"), (*g.span, False, f"grads{block.place}")]
        spans.sort()
        for k, (_, end, writes, name) in enumerate(spans):
            for start, _, other_writes, other in spans[k + 1 :]:
                if start >= end:
                    break
                if writes or other_writes:
                    msg = f"{name} must not share memory with {other}, because step changes one in place; pass a copy."
                    raise ValueError(msg)

    def _grouped(self, work: list[Item]) -> list[Group]:
        """The groups of the work; their tables are kept, because arrays come and go and formats stay."""
        streams: list[int] = []  # arrays on different streams are in different groups, whatever those are called today
        for _, x, _ in work:
            if int(x.stream) not in streams:
                streams.append(int(x.stream))
        keys = tuple((x.format, g.format, streams.index(int(x.stream))) for _, x, g in work)
        if keys not in self._groups:
            groups: dict[Any, list[int]] = {}
            for k in sorted(range(len(work)), key=lambda k: work[k].block.variant):
                groups.setdefault(keys[k], []).append(k)
            self._groups[keys] = [_group(work, chosen) for chosen in groups.values()]
        return self._groups[keys]

    def _found(self, work: list[Item], group: Group) -> list[Item]:
        """The items of a group, after its table has been told where they are."""
        items = [work[k] for k in group.places]
        addresses = [
            (x.address, g.address, *block.averages, 0 if block.gradient_sum is None else address_of(block.gradient_sum))
            for block, x, g in items
        ]
        group.many.find(addresses, items[0].x.stream)
        return items

    def check_gradients(self, work: list[Item]) -> None:
        """Raise FloatingPointError for a gradient that is NaN, infinite, or too large to be squared."""
        for group in self._grouped(work):
            items = self._found(work, group)
            sizes = group.many.largest(items[0].g.format, items[0].x.stream)
            for (block, x, g), size in zip(items, sizes, strict=True):
                if not size <= block.largest_gradient:
                    raise_unusable(block, host_values(g._replace(stream=x.stream)))

    def scheduled_rates(self, step: int) -> dict[int, float]:
        """Ask each schedule, once, for the learning rate of this step; return them by the schedule's id."""
        return {id(schedule): check_scheduled(schedule(step), step) for schedule in self._schedules}

    def accumulate(self, work: list[Item]) -> list[Item]:
        """Add gradients to the sums, and return the work with these in their place."""
        for group in self._grouped(work):
            items = self._found(work, group)
            group.many.add(items[0].g.format, items[0].x.stream)
        return [Item(block, x, _sums(block, x)) for block, x, _ in work]

    def forget_sums(self, work: list[Item]) -> None:
        """Begin the sums of gradients anew."""
        for block, x, _ in work:
            set_zero(block.gradient_sum, x.stream)

    def norm(self, work: list[Item]) -> float:
        """Euclidean norm of all gradients together, in double precision."""
        total = 0.0
        for group in self._grouped(work):
            items = self._found(work, group)
            total += group.many.sum_of_squares(items[0].g.format, items[0].x.stream)
        return math.sqrt(total)

    def update(
        self, work: list[Item], rates: dict[int, float], step: int, scale: float | None, limit: float | None
    ) -> None:
        """Apply the rule to every block; `step` counts from 1."""
        for group in self._grouped(work):
            if len(group.places) == 1:
                self._update_one(work[group.places[0]], rates, step, scale, limit)
                continue
            items = self._found(work, group)
            _, x, g = items[0]
            group.many.set_numbers([(*_scalars(b, rates, step), *b.hyper) for b, _, _ in items], x.stream)
            for variant, rows in group.variants:
                group.many.update(
                    variant, (x.format, g.format), rows, scale, limit, x.stream, deterministic=self.deterministic
                )

    def _update_one(
        self, item: Item, rates: dict[int, float], step: int, scale: float | None, limit: float | None
    ) -> None:
        """A single array needs no table."""
        block, x, g = item
        launch_update(
            block.variant,
            (x.format, g.format),
            ((x.address, g.address, *block.averages), x.size),
            (*_scalars(block, rates, step), 1.0 if scale is None else scale, math.inf if limit is None else limit),
            block.hyper,
            x.stream,
            adjusts=scale is not None or limit is not None,
            deterministic=self.deterministic,
        )


def _group(work: list[Item], chosen: list[int]) -> Group:
    """A group of these items, which are in the order of their variants."""
    rows, variants = 0, []
    for variant, same in itertools.groupby(chosen, key=lambda k: work[k].block.variant):
        count = len(list(same))
        variants.append((variant, range(rows, rows + count)))
        rows += count
    return Group(chosen, variants, Many([work[k].x.size for k in chosen], work[chosen[0]].block.dtype))


def _scalars(block: DeviceBlock, rates: dict[int, float], step: int) -> tuple[float, float]:
    """The learning rate and the bias correction of a step."""
    rate = rates.get(id(block.rate), block.rate)
    return rate, 1.0 if block.beta is None else bias_after(block.beta, step)  # type: ignore[return-value]


def _sums(block: DeviceBlock, x: DeviceVector) -> DeviceVector:
    """The sums of gradients as a gradient."""
    total = block.gradient_sum
    return DeviceVector(address_of(total), x.shape, block.dtype.name, x.stream, total)


def _block(place: str, leaf: LeafState, rule: Rule, rate: Rate, accumulates: bool, bound: float | None) -> DeviceBlock:
    dtype = np.dtype(leaf.square_avg.dtype)
    check_averages(leaf, new_leaf(np.empty(0, dtype), rule, accumulates), place)
    if isinstance(rate, np.ndarray):
        msg = f"learning_rate must be a number or a schedule on a device, got an array for params{place}; scale grads."
        raise NotImplementedError(msg)
    usable = largest_gradient(dtype)
    hyper = rule.hyper(dtype)
    return DeviceBlock(
        place=place,
        shape=leaf.shape,
        dtype=dtype,
        variant=rule.variant,
        hyper=hyper,
        averages=tuple(0 if vector is None else address_of(vector) for vector in leaf[1:4]),  # type: ignore[arg-type]
        gradient_sum=leaf.gradient_sum,
        beta=float(hyper.beta) if rule.bias_correction else None,
        rate=rate if callable(rate) else float(rate),
        # what will be clipped need only be finite
        largest_gradient=usable if bound is None or bound > usable else float(np.finfo(dtype).max),
    )
