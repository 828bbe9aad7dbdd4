"""One step of the optimizer on arrays on the host: which kernel runs on what is worked out once for each state."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import math
import os
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._core.rates import scheduled_decay
from rmsprop_nb._core.settings import Hyper
from rmsprop_nb._kernels.update import PARALLEL_MIN_SIZE, bias_after, make_parallel_update, make_update
from rmsprop_nb._kernels.vectors import address, largest, move_average, parallel_largest, sum_of_squares
from rmsprop_nb._numba.thread_safety import in_turn, usable_threads
from rmsprop_nb._training.arrays import NamedArray, as_reals, check_no_overlap, gradient_vector, parameter_vector
from rmsprop_nb._training.pytree import Structure, leaves, names, paths
from rmsprop_nb._training.rows import GradientRows, Rows, as_rows, picked, put_back
from rmsprop_nb._training.state import LeafState, RMSpropState
from rmsprop_nb._training.step import (
    ArrayOptions,
    Keeps,
    Leaf,
    OptimizerStep,
    Rates,
    Scale,
    check_leaf_state,
    check_missing,
    is_exact_enough,
    largest_accepted,
    raise_unusable,
    sum_of_parts,
    vectors_needed,
)

_NDARRAY = np.ndarray
_WEIGHT_DECAY = Hyper._fields.index("weight_decay")


# -- the step ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HostLeaf(Leaf):
    """An array of parameters, what is kept for it, and what a step does with it."""

    kernel: Any
    row_kernel: Any  # for a gradient of some rows
    decay: Callable[[int], float] | None
    params_avg: NDArray[Any] | None
    averages: tuple[NDArray[Any], ...]  # square_avg, grad_avg, momentum_buffer; unused ones have size 0
    hyper: NDArray[Any]  # the numbers of a Hyper
    rates: NDArray[Any] | None  # one for each element; they multiply `rate`, which is 1 then
    threads: int

    @property
    def vectors(self) -> list[NDArray[Any]]:
        """Everything that is kept for the array."""
        return [*self.averages, *(vector for vector in (self.gradient_sum, self.params_avg) if vector is not None)]


class Copied(NamedTuple):
    """An array of parameters that is not contiguous or of half precision, and the vector that is updated instead."""

    array: Any
    vector: NDArray[Any]


class HostWork(NamedTuple):
    """What one step works on: for each leaf its parameters and its gradient, as vectors."""

    params: list[NDArray[Any]]
    grads: list[NDArray[Any] | None]  # None leaves the parameters as they are
    copies: list[Copied]  # to be written back
    rows: dict[int, Rows] = {}  # noqa: RUF012 - gradients of some rows, by the index of their array


class _Written(NamedTuple):
    """The stretches of memory that a step writes, sorted; no two of them overlap."""

    begins: list[int]
    ends: list[int]

    def overlaps(self, begin: int, end: int) -> bool:
        """Return whether another stretch reaches into one of these."""
        k = bisect.bisect_right(self.begins, begin)
        return (k > 0 and self.ends[k - 1] > begin) or (k < len(self.begins) and self.begins[k] < end)


class HostStep(OptimizerStep[HostWork]):
    """What `RMSprop.step` does with a state on the host."""

    def __init__(
        self,
        owner: Any,
        state: RMSpropState,
        choose: Callable[[str], ArrayOptions],
        *,
        workers: int,
        keeps: Keeps,
        clipped_to: float | None,
        ema: float | None,
    ) -> None:
        self.owner = weakref.ref(owner)
        self.process = os.getpid()
        self.structure: Structure = state._structure
        self.leaves = [
            _leaf(path, kept, choose(name), workers, keeps, clipped_to)
            for name, path, kept in zip(names(self.structure), paths(self.structure), state._leaves, strict=True)
        ]
        self._rates = Rates(self.leaves)
        self._decaying = [leaf for leaf in self.leaves if leaf.decay is not None]
        self._decays: list[float] = []  # of the step under way
        self._ema = ema
        # The arrays that were last found to share no memory, and what of it is written; None if stretches overlap.
        self._last_params: list[Callable[[], Any]] = [_no_array] * len(self.leaves)
        self._last_grads: list[Callable[[], Any]] = [_no_array] * len(self.leaves)
        self._written: _Written | None = None

    def take(self, params: Any, grads: Any) -> HostWork:
        """Check params and grads; arrays that were here before, or are made like them, take a few comparisons."""
        arrays = leaves(self.structure, params, "params")
        gradients = leaves(self.structure, grads, "grads")
        vectors: list[NDArray[Any]] = []
        gradient_vectors: list[NDArray[Any] | None] = []
        rows: dict[int, Rows] = {}
        copies: list[Copied] = []
        new_params = new_grads = False
        for leaf, array, gradient, last_array, last_gradient in zip(  # noqa: B905 - strict costs 0.1 us
            self.leaves, arrays, gradients, self._last_params, self._last_grads
        ):
            shape, dtype = leaf.shape, leaf.dtype
            if type(array) is _NDARRAY and array.dtype is dtype and array.shape == shape and array.flags.carray:
                x = array if len(shape) == 1 else array.ravel()
            else:
                x, is_copy = parameter_vector(array, shape, dtype, f"params{leaf.path}")
                if is_copy:
                    copies.append(Copied(as_reals(array), x))
            if (
                type(gradient) is _NDARRAY
                and gradient.dtype is dtype
                and gradient.shape == shape
                and gradient.flags.carray
            ):
                g = gradient if len(shape) == 1 else gradient.ravel()
            elif gradient is None:
                check_missing(leaf)
                g = None
            elif type(gradient) is GradientRows:
                check_missing(leaf)
                k = len(vectors)
                rows[k] = as_rows(gradient, leaf.shape, dtype, f"grads{leaf.path}", f"params{leaf.path}")
                gradients[k] = gradient = g = None  # what is in `rows` shares no memory
            else:
                g = gradient_vector(gradient, array, dtype, f"grads{leaf.path}", f"params{leaf.path}")
            vectors.append(x)
            gradient_vectors.append(g)
            if last_array() is not array:
                new_params = True
            if last_gradient() is not gradient:
                new_grads = True
        if new_params or new_grads:
            self._check_memory(arrays, gradients, gradient_vectors, new_params)
        return HostWork(vectors, gradient_vectors, copies, rows)

    def _check_memory(self, arrays: list[Any], gradients: list[Any], vectors: list[Any], new_params: bool) -> None:
        """Look for common memory; where only grads are new, they are compared with what is written."""
        written = None if new_params else self._written
        if written is None or any(
            gradient is not None and written.overlaps(*_stretch(gradient, g))
            for gradient, g in zip(gradients, vectors, strict=True)
        ):
            self._check_all_memory(arrays, gradients)
        self._last_params = [weakref.ref(array) for array in arrays]
        self._last_grads = [_no_array if gradient is None else weakref.ref(gradient) for gradient in gradients]

    def _check_all_memory(self, arrays: list[Any], gradients: list[Any]) -> None:
        written = [NamedArray(f"params{leaf.path}", array) for leaf, array in zip(self.leaves, arrays, strict=True)]
        written += [NamedArray(f"state of params{leaf.path}", v) for leaf in self.leaves for v in leaf.vectors]
        read = [NamedArray(f"grads{leaf.path}", array) for leaf, array in zip(self.leaves, gradients, strict=True)]
        check_no_overlap(written, [named for named in read if named.array is not None])
        bounds = sorted(np.lib.array_utils.byte_bounds(array) for _, array in written if array.size)
        apart = all(end <= begin for (_, end), (begin, _) in itertools.pairwise(bounds))
        self._written = _Written([begin for begin, _ in bounds], [end for _, end in bounds]) if apart else None

    def check_gradients(self, work: HostWork) -> None:
        """Raise FloatingPointError for a gradient that is NaN, infinite, or too large to be squared."""
        for leaf, g in zip(self.leaves, work.grads):  # noqa: B905
            if g is None:
                continue
            if leaf.threads == 1:
                size = largest(g)
            else:
                with in_turn():
                    size = _largest_of_pieces(g, leaf.threads)
            if not size <= leaf.largest_gradient:
                raise_unusable(leaf, g)
        for k, rows in work.rows.items():
            if not largest(rows.gradient) <= self.leaves[k].largest_gradient:
                raise_unusable(self.leaves[k], rows.gradient, rows.indices)

    def rates_of_step(self, step: int, rate: float | None) -> list[float]:
        """Return the learning rate of each array in this step."""
        if self._decaying:
            self._decays = [scheduled_decay(leaf.decay, step) for leaf in self._decaying]
        return self._rates.of_step(step, rate)

    def accumulate(self, work: HostWork) -> HostWork:
        """Add the gradients to their sums, and return the work with the sums as the gradients."""
        sums = [leaf.gradient_sum for leaf in self.leaves]
        with np.errstate(over="ignore", invalid="ignore"):  # as in compiled code, without a warning halfway
            for total, g in zip(sums, work.grads, strict=True):
                np.add(total, g, out=total)  # type: ignore[arg-type]  # none is missing
        return HostWork(work.params, sums, work.copies)

    def norm(self, work: HostWork) -> float:
        """Return the Euclidean norm of all gradients together, even where their squares over- or underflow."""
        return _global_norm([*(g for g in work.grads if g is not None), *(r.gradient for r in work.rows.values())])

    def norms(self, work: HostWork) -> list[float]:
        """Return the Euclidean norm of each gradient. Where a gradient is missing, it is 0."""
        found = [0.0 if g is None else _global_norm([g]) for g in work.grads]
        for k, rows in work.rows.items():
            found[k] = _global_norm([rows.gradient])
        return found

    def update(self, work: HostWork, rates: list[float], count: int, scale: Scale, limit: float | None) -> None:
        """Apply the rule to every array; this is update number `count`, counted from 1."""
        if self._decaying:
            for leaf, decay in zip(self._decaying, self._decays, strict=True):
                leaf.hyper[_WEIGHT_DECAY] = decay
        scales = scale if isinstance(scale, list) else itertools.repeat(scale)
        for leaf, x, g, rate, factor in zip(self.leaves, work.params, work.grads, rates, scales):  # noqa: B905
            if g is None or rate == 0.0:
                continue
            beta, threads = leaf.beta, leaf.threads
            correction = 1.0 if beta is None else bias_after(beta, count)
            if threads == 1:
                leaf.kernel(x, g, *leaf.averages, rate, correction, leaf.hyper, threads, leaf.rates, factor, limit)
                continue
            with in_turn():
                leaf.kernel(x, g, *leaf.averages, rate, correction, leaf.hyper, threads, leaf.rates, factor, limit)
        for k, rows in work.rows.items():
            if rates[k]:
                factor = scale[k] if isinstance(scale, list) else scale
                _update_rows(self.leaves[k], work.params[k], rows, (rates[k], count), (factor, limit))
        if self._ema is not None:
            self._average(work, rates, 0.0 if count == 1 else self._ema)
        if work.copies:
            _write_back(work.copies)

    def _average(self, work: HostWork, rates: list[float], decay: float) -> None:
        """Take the parameters that were updated into their moving averages."""
        for k, leaf in enumerate(self.leaves):
            if rates[k] and (work.grads[k] is not None or k in work.rows):
                move_average(leaf.params_avg, work.params[k], decay)

    def forget_sums(self, work: HostWork) -> None:
        """Set the sums of gradients, which are the gradients of this work, to zero."""
        for total in work.grads:
            total.fill(0.0)  # type: ignore[union-attr]  # none is missing


def _update_rows(
    leaf: HostLeaf, x: NDArray[Any], g: Rows, step: tuple[float, int], clip: tuple[float | None, float | None]
) -> None:
    """Apply the rule to some rows of an array, in copies of them and of what is kept for them."""
    rate, count = step
    height = leaf.shape[0]
    changed = [x, *leaf.averages]
    copies = [picked(vector, g, height) for vector in changed]
    rates = None if leaf.rates is None else picked(leaf.rates, g, height)
    correction = 1.0 if leaf.beta is None else bias_after(leaf.beta, count)
    leaf.row_kernel(copies[0], g.gradient, *copies[1:], rate, correction, leaf.hyper, 1, rates, *clip)
    for vector, new in zip(changed, copies, strict=True):
        put_back(vector, g, height, new)


def _no_array() -> None:
    """Stand for a weak reference to an array that does not exist any more."""


def _leaf(
    path: str, kept: LeafState, options: ArrayOptions, workers: int, keeps: Keeps, clipped_to: float | None
) -> HostLeaf:
    rule, rate, is_own, decay = options
    check_leaf_state(kept, vectors_needed(rule, keeps), path, _is_plain)
    dtype = kept.square_avg.dtype
    threads = min(workers, usable_threads()) if kept.square_avg.size >= PARALLEL_MIN_SIZE else 1
    unused = np.empty(0, dtype)
    rates = None
    if isinstance(rate, np.ndarray):
        rates, rate = _rates_of_elements(rate, kept.shape, dtype, path), 1.0
    hyper = rule.hyper(dtype)
    return HostLeaf(
        path=path,
        shape=kept.shape,
        dtype=dtype,
        kernel=(make_parallel_update if threads > 1 else make_update)(rule.variant),
        row_kernel=make_update(rule.variant),
        decay=decay,
        averages=tuple(
            unused if vector is None else vector for vector in (kept.square_avg, kept.grad_avg, kept.momentum_buffer)
        ),
        gradient_sum=kept.gradient_sum,
        params_avg=kept.params_avg,
        hyper=np.array(hyper, dtype),
        beta=float(hyper.beta) if rule.bias_correction else None,
        has_own_rate=is_own,
        rate=rate if callable(rate) else float(rate),  # an int would be another signature, and compile anew
        rates=rates,
        threads=threads,
        largest_gradient=largest_accepted(dtype, clipped_to),
    )


def _is_plain(vector: Any) -> bool:
    """Return whether compiled code can index a vector of the state, and write it."""
    return isinstance(vector, np.ndarray) and bool(vector.flags.carray)


def _rates_of_elements(rates: NDArray[Any], shape: tuple[int, ...], dtype: Any, path: str) -> NDArray[Any]:
    if rates.shape != shape:
        msg = f"learning_rate must be a number or have shape {shape}, that of params{path}, got shape {rates.shape}."
        raise ValueError(msg)
    with np.errstate(under="ignore"):
        return np.array(rates, dtype, order="C").ravel()


def _stretch(gradient: Any, g: NDArray[Any]) -> tuple[int, int]:
    """Return where the memory of a gradient begins and ends; `g` is the same as a vector, or a copy."""
    if gradient.flags.carray and gradient.dtype is g.dtype:  # otherwise g may be a copy
        begin = address(g)
        return begin, begin + g.nbytes
    return np.lib.array_utils.byte_bounds(gradient)


def _largest_of_pieces(g: NDArray[Any], threads: int) -> float:
    found = np.empty(threads)
    parallel_largest(g, found)
    return float(found.max())


def _global_norm(vectors: Sequence[NDArray[Any]]) -> float:
    """Return the Euclidean norm over all vectors together, in double precision."""
    total = sum_of_parts(sum_of_squares(v) for v in vectors)
    if is_exact_enough(total) or math.isnan(total):
        return math.sqrt(total)
    scale = max((largest(v) for v in vectors), default=0.0)
    if not (0.0 < scale < math.inf):
        return float(scale)
    return float(scale) * math.sqrt(math.fsum(sum_of_squares(v.astype(np.float64) / scale) for v in vectors))


def _write_back(copies: list[Copied]) -> None:
    """Put into arrays what was computed in copies; as in compiled code, what is too large becomes infinite."""
    with np.errstate(over="ignore"):
        for array, vector in copies:
            array[...] = vector.reshape(array.shape)
