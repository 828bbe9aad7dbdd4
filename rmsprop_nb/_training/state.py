"""The state of an optimizer: what it remembers of the gradients, nested like the parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._training.pytree import Structure, from_json, names, rebuild, to_json

if TYPE_CHECKING:
    from rmsprop_nb._training.step import OptimizerStep


class LeafState(NamedTuple):
    """What is kept for one array of parameters: contiguous vectors, None where the rule has no use for them."""

    shape: tuple[int, ...]
    square_avg: NDArray[Any]
    grad_avg: NDArray[Any] | None
    momentum_buffer: NDArray[Any] | None
    gradient_sum: NDArray[Any] | None
    params_avg: NDArray[Any] | None = None


VECTORS = LeafState._fields[1:]
_COUNTERS = ("step", "accumulated")
_MOST_STEPS = 2**62  # no loop gets there, and int64 has room for more


class RMSpropState:
    """What `RMSprop` remembers between steps; made by `RMSprop.init` and changed in place by `RMSprop.step`.

    The properties give views, nested like the parameters: setting elements of them changes the state.

    Attributes
    ----------
    step : int
        Number of updates made.
    accumulated : int
        Number of gradients collected since the last update; 0 unless ``accumulate_steps`` is more than 1.
    square_avg : ndarray or nested containers of ndarray
        Averages of squared gradients, with the shapes and dtypes of the parameters.
    grad_avg, momentum_buffer, gradient_sum, params_avg : ndarray, nested containers of ndarray, or None
        Averages of gradients (``centered=True``), momentum, sums of the gradients collected, and averages of the
        parameters (`ema`); None where the options do not need them.
    """

    def __init__(
        self, structure: Structure, leaves: tuple[LeafState, ...], step: int = 0, accumulated: int = 0
    ) -> None:
        self._structure = structure
        self._leaves = leaves
        self._step = step
        self._accumulated = accumulated
        self._prepared: OptimizerStep[Any] | None = None  # by the optimizer that used this state last

    @property
    def step(self) -> int:
        """Number of updates made."""
        return self._step

    @property
    def accumulated(self) -> int:
        """Number of gradients collected since the last update."""
        return self._accumulated

    @property
    def square_avg(self) -> Any:
        """Averages of squared gradients."""
        return self._nested("square_avg")

    @property
    def grad_avg(self) -> Any:
        """Averages of gradients, or None."""
        return self._nested("grad_avg")

    @property
    def momentum_buffer(self) -> Any:
        """Momentum, or None."""
        return self._nested("momentum_buffer")

    @property
    def gradient_sum(self) -> Any:
        """Sums of the gradients collected since the last update, or None."""
        return self._nested("gradient_sum")

    @property
    def params_avg(self) -> Any:
        """Moving averages of the parameters, or None."""
        return self._nested("params_avg")

    def _nested(self, name: str) -> Any:
        vectors = [getattr(leaf, name) for leaf in self._leaves]
        if all(vector is None for vector in vectors):
            return None
        shaped = (
            None if vector is None else vector.reshape(leaf.shape)
            for leaf, vector in zip(self._leaves, vectors, strict=True)
        )
        return rebuild(self._structure, shaped)

    def copy(self) -> RMSpropState:
        """Return an independent copy.

        Returns
        -------
        state : RMSpropState
            Shares no memory with this one.
        """
        on_device = not isinstance(self._leaves[0].square_avg, np.ndarray)
        return self.to_device() if on_device else self._with(np.copy)

    def to_device(self) -> RMSpropState:
        """Return an independent copy on the current CUDA device, for parameters that are there.

        Returns
        -------
        state : RMSpropState
            Shares no memory with this one.
        """
        from rmsprop_nb._cuda.native import cuda

        state = self._with(lambda vector: cuda.to_device(_on_host(vector)))
        cuda.synchronize()  # the streams of later steps do not wait for the one that copies
        return state

    def _with(self, change: Callable[[Any], Any]) -> RMSpropState:
        """Return the same state with `change` of every vector."""
        leaves = tuple(
            LeafState(leaf.shape, *(None if vector is None else change(vector) for vector in leaf[1:]))  # type: ignore[arg-type]
            for leaf in self._leaves
        )
        return RMSpropState(self._structure, leaves, self._step, self._accumulated)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything as plain arrays, for ``np.savez`` and the like.

        Returns
        -------
        arrays : dict of str to ndarray
            "step" and "accumulated", 0-d arrays of int64; "structure", the nesting in JSON as a 0-d array of unicode;
            and the averages in use by their names: "square_avg/W", or "momentum_buffer/layers/0/b". They share no
            memory with the state, and none needs pickle. A slash in the key of a dict is written "~1", a tilde "~0".

        Examples
        --------
        >>> import numpy as np
        >>> from rmsprop_nb import RMSprop, RMSpropState
        >>> state = RMSprop().init({"W": np.zeros((2, 3)), "b": np.zeros(3)})
        >>> arrays = state.to_arrays()
        >>> sorted(arrays)
        ['accumulated', 'square_avg/W', 'square_avg/b', 'step', 'structure']
        >>> RMSpropState.from_arrays(arrays)
        <RMSpropState: 2 arrays, 9 parameters, step 0>
        """
        arrays: dict[str, NDArray[Any]] = {name: np.array(getattr(self, name), np.int64) for name in _COUNTERS}
        arrays["structure"] = np.array(to_json(self._structure))
        for name, leaf in zip(names(self._structure), self._leaves, strict=True):
            for vector_name, vector in zip(VECTORS, leaf[1:], strict=True):
                if vector is not None:
                    arrays[_key(vector_name, name)] = _on_host(vector).reshape(leaf.shape)
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> RMSpropState:
        """Make a state from what `to_arrays` returned, or from a file with that.

        Parameters
        ----------
        arrays : mapping of str to array_like
            As from `to_arrays`; ``np.load`` of an .npz file gives such a mapping.

        Returns
        -------
        state : RMSpropState
            A state that continues where the saved one stopped. Where the parameters had a NamedTuple, its nested views
            have one of the same name and fields.

        Raises
        ------
        ValueError
            If an entry is missing, unknown, of a shape or dtype that does not fit the others, or not finite; or if an
            average of squares is negative.
        """
        missing = [name for name in (*_COUNTERS, "structure") if name not in arrays]
        if missing:
            msg = f"arrays must have the entry {missing[0]!r}, as to_arrays gives it."
            raise ValueError(msg)
        structure = from_json(str(np.asarray(arrays["structure"])))
        leaf_names = names(structure)
        known = {_key(vector_name, name) for vector_name in VECTORS for name in leaf_names}
        unknown = [name for name in arrays if name not in known and name not in (*_COUNTERS, "structure")]
        if unknown:
            msg = f"arrays must have entries for its structure only, got {unknown[0]!r}; was it changed?"
            raise ValueError(msg)
        step, accumulated = (_read_counter(name, arrays[name]) for name in _COUNTERS)
        return cls(structure, tuple(_read_leaf(arrays, name) for name in leaf_names), step, accumulated)

    def __repr__(self) -> str:
        count, size = len(self._leaves), sum(leaf.square_avg.size for leaf in self._leaves)
        arrays, parameters = f"{count} array{'s' * (count != 1)}", f"{size} parameter{'s' * (size != 1)}"
        return f"<RMSpropState: {arrays}, {parameters}, step {self._step}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return RMSpropState.from_arrays, (self.to_arrays(),)  # plain arrays outlive a change of the attributes here


def _on_host(vector: Any) -> NDArray[Any]:
    """Copy a vector to the host once the steps of all streams are done."""
    if isinstance(vector, np.ndarray):
        return vector.copy()
    from rmsprop_nb._cuda.native import cuda

    cuda.synchronize()
    return vector.copy_to_host()  # type: ignore[no-any-return]


def _key(vector_name: str, leaf_name: str) -> str:
    return f"{vector_name}/{leaf_name}" if leaf_name else vector_name


def _read_counter(name: str, value: Any) -> int:
    array = np.asarray(value)
    if array.ndim or array.dtype.kind not in "iu" or not 0 <= int(array) < _MOST_STEPS:
        msg = f"{name} must be an integer of at least 0 and below 2**62, got {value!r}."
        raise ValueError(msg)
    return int(array)


def _read_leaf(arrays: Mapping[str, Any], name: str) -> LeafState:
    if _key("square_avg", name) not in arrays:
        msg = f"arrays must have the entry {_key('square_avg', name)!r}, because its structure has that array."
        raise ValueError(msg)
    square_avg = np.asarray(arrays[_key("square_avg", name)])
    if square_avg.dtype.kind != "f" or square_avg.dtype.itemsize not in (4, 8):
        msg = f"{_key('square_avg', name)} must be float32 or float64, got dtype {square_avg.dtype}."
        raise ValueError(msg)
    found = (_read_vector(arrays, _key(vector_name, name), square_avg) for vector_name in VECTORS)
    leaf = LeafState(square_avg.shape, *found)  # type: ignore[arg-type]
    if (leaf.square_avg < 0.0).any():
        msg = f"{_key('square_avg', name)} must not be negative: it holds averages of squares."
        raise ValueError(msg)
    return leaf


def _read_vector(arrays: Mapping[str, Any], key: str, like: NDArray[Any]) -> NDArray[Any] | None:
    """Copy an entry into a vector in native byte order; return None if there is no entry."""
    if key not in arrays:
        return None
    array = np.asarray(arrays[key])
    if array.shape != like.shape or array.dtype != like.dtype:
        msg = f"{key} must have shape {like.shape} and dtype {like.dtype} like square_avg, "
        msg += f"got {array.shape} and {array.dtype}."
        raise ValueError(msg)
    if not np.isfinite(array).all():
        msg = f"{key} must be finite."
        raise ValueError(msg)
    return np.array(array, dtype=like.dtype.newbyteorder("="), order="C").ravel()
