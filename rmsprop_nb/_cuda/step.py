"""A step of the optimizer on arrays on a CUDA device; `rmsprop_nb._training.host_step` is the one for the host.

Arrays of the same formats on the same stream are a group, which is checked in one launch and updated in one for each
variant of the rule. Kernels are launched on the stream that the parameters name in their
``__cuda_array_interface__``. Nothing waits for them but the check of gradients and clip_norm, which bring a few numbers
back to the host.
"""

from __future__ import annotations

import itertools
import math
import os
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from rmsprop_nb._core.options import Rule
from rmsprop_nb._cuda.array_table import ArrayTable
from rmsprop_nb._cuda.arrays import (
    DeviceVector,
    check_device,
    check_vector,
    device_vector,
    device_zeros,
    host_values,
    marks_of,
)
from rmsprop_nb._cuda.memory import real_of
from rmsprop_nb._cuda.native import address_of, cuda, is_capturing, require_device, set_zero
from rmsprop_nb._cuda.step_plan import DeviceLeaf, Group, GroupPlan, Launch, Plan
from rmsprop_nb._cuda.update import ArrayRow, Formats, NumberRow
from rmsprop_nb._training.arrays import NamedArray, Span, check_spans, is_on_device
from rmsprop_nb._training.pytree import leaves, names, paths
from rmsprop_nb._training.rows import GradientRows
from rmsprop_nb._training.state import LeafState, RMSpropState
from rmsprop_nb._training.step import (
    ArrayOptions,
    Keeps,
    OptimizerStep,
    Rates,
    check_leaf_state,
    check_missing,
    is_exact_enough,
    largest_accepted,
    raise_unusable,
    sum_of_parts,
    vectors_needed,
)

# Powers of two that bring the squares of very large and of very small gradients into the range of double precision.
_SHRINK, _GROW = 2.0**-600, 2.0**600


# -- the state --------------------------------------------------------------------------------------------------------


def new_device_leaves(named: Sequence[NamedArray], rules: Sequence[Rule], keeps: Keeps) -> list[LeafState]:
    """Make the state for arrays of parameters, on their device."""
    require_device()
    vectors = [device_vector(array, path, writes=True) for path, array in named]
    check_spans(
        vector.span(path, is_written=True) for (path, _), vector in zip(named, vectors, strict=True) if vector.size
    )
    made = [_new_leaf(vector, rule, keeps) for vector, rule in zip(vectors, rules, strict=True)]
    cuda.synchronize()  # the streams of later steps do not wait for the one that copies
    return made


def _new_leaf(found: DeviceVector, rule: Rule, keeps: Keeps) -> LeafState:
    """Make the state for one array of parameters."""
    dtype = real_of(found.format)
    made: list[Any] = [
        device_zeros(found.size, dtype) if is_needed else None for is_needed in vectors_needed(rule, keeps).values()
    ]
    leaf = LeafState(found.shape, *made)
    if rule.initial_accumulator:
        square_avg: Any = leaf.square_avg
        square_avg.copy_to_device(np.full(found.size, rule.initial_accumulator, dtype))
    return leaf


# -- the step ---------------------------------------------------------------------------------------------------------


class DeviceWork(NamedTuple):
    """What one step works on."""

    plan: Plan
    gradients: list[Any]  # as they were given


class DeviceStep(OptimizerStep[DeviceWork]):
    """What `RMSprop.step` does with a state on a device."""

    def __init__(
        self,
        owner: Any,
        state: RMSpropState,
        choose: Callable[[str], ArrayOptions],
        *,
        keeps: Keeps,
        clipped_to: float | None,
        deterministic: bool,
    ) -> None:
        require_device()
        self.owner = weakref.ref(owner)
        self.process = os.getpid()
        self.structure = state._structure
        self.deterministic = deterministic
        self.leaves = [
            _leaf(path, kept, choose(name), keeps, clipped_to)
            for name, path, kept in zip(names(self.structure), paths(self.structure), state._leaves, strict=True)
        ]
        self._rates = Rates(self.leaves)
        self._state_spans = [
            _span_of(vector, f"state of params{leaf.path}")
            for leaf, kept in zip(self.leaves, state._leaves, strict=True)
            for vector in kept[1:]
            if vector is not None and vector.size
        ]
        self._groups: dict[Any, list[Group]] = {}
        self._last: tuple[list[Any], Plan] | None = None  # the marks of the last arrays, and the plan for them
        self._sums: tuple[Plan, Plan] | None = None  # a plan, and that for the sums of its gradients
        self._constant_numbers: list[NumberRow] | None = None
        self._needs_host = _needs_host(owner, self.leaves)

    def take(self, params: Any, grads: Any) -> DeviceWork:
        """Check params and grads, and return what to do with them."""
        arrays = leaves(self.structure, params, "params")
        gradients = leaves(self.structure, grads, "grads")
        marks = marks_of((*arrays, *gradients))
        if self._last is None or self._last[0] != marks:
            self._last = marks, self._checked_plan(arrays, gradients)
        if self._needs_host and any(is_capturing(group.stream) for group in self._last[1].groups):
            msg = (
                "a step cannot be captured in a CUDA graph, which repeats it without the host, with "
                f"{self._needs_host}."
            )
            raise RuntimeError(msg)
        return DeviceWork(self._last[1], gradients)

    def _checked_plan(self, arrays: list[Any], gradients: list[Any]) -> Plan:
        """Check arrays that are not in the memory of the last ones, and return the plan for them."""
        first = self.leaves[0]
        check_device(first.kept.square_avg, f"state of params{first.path}")
        pairs = [_checked(*found) for found in zip(self.leaves, arrays, gradients, strict=True)]
        xs, gs = [x for x, _ in pairs], [g for _, g in pairs]
        self._check_memory(xs, gs)
        return self._plan(xs, gs)

    def _check_memory(self, xs: list[DeviceVector], gs: list[DeviceVector | None]) -> None:
        """Raise if an array that is written shares memory with another."""
        spans = list(self._state_spans)
        for leaf, x, g in zip(self.leaves, xs, gs, strict=True):
            if x.size:
                spans.append(x.span(f"params{leaf.path}", is_written=True))
            if g is not None and g.size:
                spans.append(g.span(f"grads{leaf.path}", is_written=False))
        check_spans(spans)

    def check_gradients(self, work: DeviceWork) -> None:
        """Raise FloatingPointError for a gradient that is NaN, infinite, or too large to be squared."""
        for group in work.plan.groups:
            sizes = group.locate().largest(group.formats.grads, group.stream)
            for k, size in zip(group.positions, sizes, strict=True):
                if not size <= self.leaves[k].largest_gradient:
                    found = work.plan.grads[k]._replace(stream=group.stream)
                    raise_unusable(self.leaves[k], host_values(found, work.gradients[k]))

    def rates_of_step(self, step: int, rate: float | None) -> list[float]:
        """Return the learning rate of each array in this step."""
        return self._rates.of_step(step, rate)

    def accumulate(self, work: DeviceWork) -> DeviceWork:
        """Add the gradients to their sums, and return the work with the sums as the gradients."""
        plan = work.plan
        for group in plan.groups:
            group.locate().add(group.formats.grads, group.stream)
        if self._sums is None or self._sums[0] is not plan:
            sums: list[DeviceVector | None] = [leaf.sums(x) for leaf, x in zip(self.leaves, plan.params, strict=True)]
            self._sums = plan, self._plan(plan.params, sums)
        return DeviceWork(self._sums[1], [leaf.gradient_sum for leaf in self.leaves])

    def norm(self, work: DeviceWork) -> float:
        """Return the Euclidean norm of all gradients together, even where their squares over- or underflow."""
        total = self._sum_of_squares(work, 1.0)
        if is_exact_enough(total) or math.isnan(total) or not any(leaf.dtype == np.float64 for leaf in self.leaves):
            return math.sqrt(total)  # in double precision, squares of float32 stay in range
        scale = _SHRINK if total == math.inf else _GROW
        return math.sqrt(self._sum_of_squares(work, scale)) / scale

    def norms(self, work: DeviceWork) -> list[float]:
        """Raise: the optimizer refuses options that need this."""
        raise NotImplementedError

    def _sum_of_squares(self, work: DeviceWork, scale: float) -> float:
        """Return the sum of the squares of all gradients, which are multiplied by `scale` before."""
        return sum_of_parts(
            group.locate().sum_of_squares(group.formats.grads, group.stream, scale) for group in work.plan.groups
        )

    def update(self, work: DeviceWork, rates: list[float], count: int, scale: Any, limit: float | None) -> None:
        """Apply the rule to every array; this is update number `count`, counted from 1."""
        numbers = self._numbers(rates, count)
        adjusts = scale is not None or limit is not None
        for group in work.plan.groups:
            if len(group.positions) == 1:
                k = group.positions[0]
                launch = group.update(self.leaves[k], adjusts, self.deterministic)
                rate, correction, *_ = numbers[k]
                if rate == 0.0:
                    continue
                launch.set_last(
                    (rate, correction, 1.0 if scale is None else scale, math.inf if limit is None else limit)
                )
                launch()
                continue
            table = group.locate()
            group.send_numbers(numbers)
            for variant, rows in group.launches:
                table.update(variant, group.formats, rows, scale, limit, group.stream, deterministic=self.deterministic)

    def _numbers(self, rates: list[float], count: int) -> list[NumberRow]:
        """Return the numbers of every array in update number `count`."""
        are_constant = rates is self._rates.constant and all(leaf.beta is None for leaf in self.leaves)
        if are_constant and self._constant_numbers is not None:
            return self._constant_numbers
        numbers = [leaf.numbers(rate, count) for leaf, rate in zip(self.leaves, rates, strict=True)]
        if are_constant:
            self._constant_numbers = numbers
        return numbers

    def forget_sums(self, work: DeviceWork) -> None:
        """Set the sums of gradients to zero."""
        for leaf, x in zip(self.leaves, work.plan.params, strict=True):
            set_zero(leaf.gradient_sum, x.stream)

    def _plan(self, xs: list[DeviceVector], gs: list[DeviceVector | None]) -> Plan:
        """Return the plan for these vectors; tables are kept, because arrays come and go but their formats stay."""
        keys = _group_keys(xs, gs)
        if keys not in self._groups:
            by_key: dict[Any, list[int]] = {}
            for k in sorted(range(len(self.leaves)), key=lambda k: self.leaves[k].variant):
                if keys[k] is not None:
                    by_key.setdefault(keys[k], []).append(k)
            self._groups[keys] = [self._new_group(positions, key.formats) for key, positions in by_key.items()]
        return Plan(xs, gs, [self._group_plan(group, xs, gs) for group in self._groups[keys]])

    def _group_plan(self, group: Group, xs: list[DeviceVector], gs: list[Any]) -> GroupPlan:
        rows = [self.leaves[k].row(xs[k], gs[k]) for k in group.positions]
        return GroupPlan(group, rows, xs[group.positions[0]].stream)

    def _new_group(self, positions: list[int], formats: Formats) -> Group:
        """Make a group of these arrays, which are in the order of their variants."""
        launches: list[Launch] = []
        begin = 0
        for variant, same in itertools.groupby(self.leaves[k].variant for k in positions):
            end = begin + len(list(same))
            launches.append(Launch(variant, range(begin, end)))
            begin = end
        sizes = [math.prod(self.leaves[k].shape) for k in positions]
        return Group(positions, formats, launches, ArrayTable(sizes, real_of(formats.params)))


class _GroupKey(NamedTuple):
    """What the arrays of a group have in common."""

    formats: Formats
    stream: int  # its number in the order in which the streams of the params are met


def _group_keys(xs: list[DeviceVector], gs: list[DeviceVector | None]) -> tuple[_GroupKey | None, ...]:
    """Return a key for each array, None for one without a gradient.

    Streams are numbered, because handles change and what is kept for them stays.
    """
    numbers: dict[int, int] = {}
    return tuple(
        None if g is None else _GroupKey(Formats(x.format, g.format), numbers.setdefault(int(x.stream), len(numbers)))
        for x, g in zip(xs, gs, strict=True)
    )


def _checked(leaf: DeviceLeaf, array: Any, gradient: Any) -> tuple[DeviceVector, DeviceVector | None]:
    """Return parameters and their gradient as vectors, if they are as they should be."""
    path, gradient_path = f"params{leaf.path}", f"grads{leaf.path}"
    x, real = device_vector(array, path, writes=True), leaf.dtype.name
    fits = real_of(x.format).name == real
    check_vector(x, leaf.shape, x.format if fits else real, path, "the params of init")
    if gradient is None:
        check_missing(leaf)
        return x, None
    if isinstance(gradient, GradientRows):
        msg = f"{gradient_path} must be an array on a device, got GradientRows, which are for arrays on the host."
        raise NotImplementedError(msg)
    g = device_vector(gradient, gradient_path)
    check_vector(g, leaf.shape, real if g.format == real else x.format, gradient_path, path)
    return x, g


def _leaf(path: str, kept: LeafState, options: ArrayOptions, keeps: Keeps, clipped_to: float | None) -> DeviceLeaf:
    rule, rate, is_own, decay = options
    if decay is not None:
        msg = f"weight_decay must be a number on a device, got a schedule for params{path}."
        raise NotImplementedError(msg)
    check_leaf_state(kept, vectors_needed(rule, keeps), path, _is_contiguous_on_device)
    if isinstance(rate, np.ndarray):
        msg = f"learning_rate must be a number or a schedule on a device, got an array for params{path}; scale grads."
        raise NotImplementedError(msg)
    dtype = np.dtype(kept.square_avg.dtype)
    hyper = rule.hyper(dtype)
    addresses = (0 if vector is None else address_of(vector) for vector in kept[1:5])
    return DeviceLeaf(
        path=path,
        shape=kept.shape,
        dtype=dtype,
        variant=rule.variant,
        hyper=hyper,
        kept=ArrayRow(0, 0, *addresses),
        gradient_sum=kept.gradient_sum,
        beta=float(hyper.beta) if rule.bias_correction else None,
        has_own_rate=is_own,
        rate=rate if callable(rate) else float(rate),
        largest_gradient=largest_accepted(dtype, clipped_to),
    )


def _needs_host(owner: Any, leaves: Sequence[DeviceLeaf]) -> str:
    """Return which options make the host read or count something in a step, nothing if none does."""
    options = {
        "check_finite=True": owner.check_finite,
        "clip_norm": owner.clip_norm is not None,
        "accumulate_steps": owner.accumulate_steps > 1,
        "a schedule as learning_rate": any(callable(leaf.rate) for leaf in leaves),
        "bias_correction": any(leaf.beta is not None for leaf in leaves),
    }
    return ", ".join(name for name, needed in options.items() if needed)


def _span_of(vector: Any, path: str) -> Span:
    """Return the stretch of memory of a vector of the state, which is written."""
    begin = address_of(vector)
    return Span(begin, begin + vector.size * vector.dtype.itemsize, True, path)


def _is_contiguous_on_device(vector: Any) -> bool:
    """Return whether kernels can index a vector of the state."""
    return is_on_device(vector) and bool(vector.is_c_contiguous())
