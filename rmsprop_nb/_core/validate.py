"""What users pass, turned into valid values or a clear error before anything is computed.

An error names the argument, the rule, the value and the remedy.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
import os
from collections.abc import Collection, Mapping, Sized
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from rmsprop_nb._core.names_elsewhere import advice

CHECKPOINT_SECONDS = 60.0
"""The seconds between two checkpoints, by default."""

MANY = 32

_LARGEST = np.iinfo(np.int64).max
_SWITCHES = (bool, type(None), int, float, np.number, np.bool)

GRADIENT_FORMS = ("2-point", "3-point", "cs", "inplace", "autodiff")
"""What `jac` may be besides a callable, True and None."""


def as_array(name: str, value: Any, dtype: Any = None) -> NDArray[Any]:
    """Return `value` as an array, without a copy if it is one of that dtype."""
    try:
        return np.asarray(value, dtype)
    except (TypeError, ValueError) as error:  # rows of unequal lengths, and whatever refuses to be an array
        msg = f"{name} must be an array, got {type(value).__name__}: {error}"
        raise ValueError(msg) from error


def as_start(x0: Any, name: str = "x0") -> NDArray[Any]:
    """Return a fresh contiguous copy of x0, which the user knows by `name`, float32 or float64, of shape (n,)."""
    refuse_device(name, x0)
    refuse_mask(name, x0, f"pass {name}.compressed() or {name}.filled(...)")
    array = as_array(name, x0)
    if array.dtype.kind not in "fiub":
        remedy = "split it into real and imaginary parts" if array.dtype.kind == "c" else "pass numbers"
        msg = f"{name} must be real numbers, got dtype {array.dtype}; {remedy}."
        raise TypeError(msg)
    if array.dtype.kind == "f" and array.dtype.itemsize not in (4, 8):
        msg = f"{name} must be float32 or float64, got {array.dtype}; convert it with {name}.astype(np.float64)."
        raise TypeError(msg)
    if array.ndim > 1:
        msg = f"{name} must have one dimension, got shape {array.shape}; pass {name}.ravel() and reshape inside fun."
        raise ValueError(msg)
    if array.size == 0:
        msg = f"{name} must have at least one element, got none."
        raise ValueError(msg)
    keeps_single = array.dtype.kind == "f" and array.dtype.itemsize == 4
    x = np.array(array, dtype=np.float32 if keeps_single else np.float64, order="C", copy=True, ndmin=1, subok=False)
    if not np.isfinite(x).all():
        k = int(np.flatnonzero(~np.isfinite(x))[0])
        msg = f"{name} must be finite, got {x[k]} at index {k}."
        raise ValueError(msg)
    return x


def as_options(options: Any, name: str = "options") -> dict[str, Any]:
    """Return a copy of a dict of options."""
    if options is not None and not isinstance(options, Mapping):
        msg = f"{name} must be a dict of names and values, got {type(options).__name__}."
        raise TypeError(msg)
    return dict(options or {})


def check_callable(name: str, value: Any, optional: str = "") -> None:
    """Raise unless `value` can be called."""
    if not callable(value):
        msg = f"{name} must be callable{optional}, got {type(value).__name__}."
        raise TypeError(msg)


def refuse_device(name: str, array: Any) -> None:
    """Raise for an array on a CUDA device, before NumPy is asked to make one of it."""
    if hasattr(array, "__cuda_array_interface__"):
        msg = f"{name} must be a host array, got a CUDA array; copy it to the host first."
        raise TypeError(msg)


def refuse_mask(name: str, array: Any, remedy: str) -> None:
    """Raise for a masked array, of which NumPy would silently take what is behind the mask."""
    if isinstance(array, np.ma.MaskedArray):
        msg = f"{name} must not be a masked array, because the mask would be lost; {remedy}."
        raise TypeError(msg)


def as_args(args: Any) -> tuple[Any, ...]:
    """Return args as a tuple; a single argument need not be wrapped."""
    return args if isinstance(args, tuple) else (args,)


def as_data(name: str, data: Any) -> tuple[Any, ...]:
    """Return the arrays, checked and without copies of what is an array already."""
    if isinstance(data, list) and any(isinstance(part, np.ndarray) or scipy.sparse.issparse(part) for part in data):
        msg = f"{name} must be a tuple of arrays, or one array, got a list of arrays; give tuple({name})."
        raise TypeError(msg)
    parts = data if isinstance(data, tuple) else (data,)
    for part in parts:
        refuse_mask(name, part, "leave out the rows that are masked, or pass their weights as one more array")
    arrays = tuple(part.tocsr() if scipy.sparse.issparse(part) else as_array(name, part) for part in parts)
    lengths = [a.shape[0] if a.ndim else None for a in arrays]
    if not arrays or None in lengths or len(set(lengths)) != 1 or lengths[0] == 0:
        msg = f"{name} must be arrays with the same number of rows, at least one, got {lengths} rows."
        raise ValueError(msg)
    return arrays


def check_is_no_data(args: Any, data: tuple[Any, ...]) -> None:
    """Raise if the argument `args` is an array with a row for each row of the data: what belongs to a row is data."""
    if isinstance(args, np.ndarray) and args.ndim and len(args) == data[0].shape[0]:
        msg = (
            f"args is an array of {len(args)} rows, as many as data has, and fun would get all of it with every batch. "
            "Give arrays whose rows belong together as one tuple, data=(X, y); if it is meant, args=(array,)."
        )
        raise TypeError(msg)


def split_rows(data: tuple[Any, ...], validation: Any) -> tuple[tuple[Any, ...], tuple[Any, ...] | None]:
    """Return the data to learn from, and those to validate on, which are other arrays or the last rows of `data`."""
    if validation is None:
        return data, None
    if isinstance(validation, tuple) or scipy.sparse.issparse(validation) or as_array("validation", validation).ndim:
        held_out = as_data("validation", validation)
        if [a.shape[1:] for a in held_out] != [a.shape[1:] for a in data]:
            shapes = [a.shape for a in held_out]
            msg = f"validation must be arrays whose rows are like those of data, got shapes {shapes}."
            raise ValueError(msg)
        return data, held_out
    count = data[0].shape[0]
    kept = round(as_number("validation", validation, 0.0, 1.0, open_low=True, open_high=True) * count)
    if not 0 < kept < count:
        msg = (
            f"validation={validation!r} leaves {count - kept} of {count} rows to learn from and {kept} to validate on; "
            "give another fraction, or arrays."
        )
        raise ValueError(msg)
    return tuple(a[: count - kept] for a in data), tuple(a[count - kept :] for a in data)


def check_jac(jac: Any) -> Any:
    """Return `jac` in its canonical form."""
    if jac is None or jac is False:
        return None
    if jac is True or callable(jac) or (isinstance(jac, str) and jac in GRADIENT_FORMS):
        return jac
    known = ", ".join(map(repr, GRADIENT_FORMS))
    msg = f"jac must be a callable, True, None or one of {known}, got {jac!r}."
    raise ValueError(msg)


def place_of(wrong: NDArray[np.bool_]) -> str:
    """Return where the first wrong element is: "index 1", or "index 1 of problem 3"."""
    *problem, k = (int(k) for k in np.argwhere(wrong)[0])
    return f"index {k} of problem {problem[0]}" if problem else f"index {k}"


def as_number(
    name: str, value: Any, low: float, high: float, *, open_low: bool = False, open_high: bool = False
) -> float:
    """Return `value` as a float after checking its range."""
    try:
        number = float(value) if not isinstance(value, str) else math.nan
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    inside = low <= number <= high and not (open_low and number == low) and not (open_high and number == high)
    if not inside:
        interval = f"{'(' if open_low else '['}{low:g}, {high:g}{')' if open_high else ']'}"
        msg = f"{name} must be a number in {interval}, got {value!r}."
        raise ValueError(msg)
    return number


def as_count(name: str, value: Any, default: int, least: int = 0) -> int:
    """Return `value` as an int; None and infinity, a limit that is never reached, are `default`."""
    if value is None or (not isinstance(value, np.ndarray) and value == math.inf):
        return default
    try:
        count = operator.index(int(value) if isinstance(value, float) and value.is_integer() else value)
    except TypeError:
        count = least - 1
    if count < least:
        msg = f"{name} must be an integer of at least {least}, or None, got {value!r}."
        raise ValueError(msg)
    return min(count, _LARGEST)


def as_rel_steps(value: Any, n: int) -> NDArray[np.float64]:
    """Return the relative steps of difference gradients for each variable; None, for automatic ones, has size 0."""
    if value is None:
        return np.empty(0)
    refuse_mask("finite_diff_rel_step", value, "pass finite_diff_rel_step.filled(...)")
    steps = as_array("finite_diff_rel_step", value)
    if steps.dtype.kind not in "fiu" or steps.ndim > 1 or steps.size not in (1, n):
        shape = f"dtype {steps.dtype} and shape {steps.shape}"
        msg = f"finite_diff_rel_step must be a number, or an array of one for each of the {n} variables, got {shape}."
        raise ValueError(msg)
    for step in steps.ravel():
        as_number("finite_diff_rel_step", step, 0.0, 1.0, open_low=True)
    return np.array(np.broadcast_to(steps.astype(np.float64), (n,)))


def typical_sizes(x_scale: Any, x: NDArray[Any], lower: NDArray[Any], upper: NDArray[Any]) -> NDArray[Any]:
    """Return the typical sizes of variables in the dtype and shape of x, where x may have an axis of problems before.

    "auto" is |x|; where x is 0, the width of the box, or its finite end if that is not 0; otherwise 1. MANY variables
    are seldom in units of their own, and often drawn at random: they all have the geometric mean of these sizes.
    """
    if not (isinstance(x_scale, str) and x_scale == "auto"):
        return check_sizes(x_scale, x)
    sizes: NDArray[Any] = np.abs(x)
    if lower.size and not sizes.all():
        sizes = np.where(sizes > 0, sizes, _room(lower, upper)).astype(x.dtype, copy=False)
        sizes[sizes < np.sqrt(np.finfo(x.dtype).tiny)] = 0  # the metric would overflow
    if x.shape[-1] >= MANY:
        logs = np.log(sizes, out=np.zeros_like(sizes), where=sizes > 0).sum(axis=-1, keepdims=True)
        known = np.count_nonzero(sizes, axis=-1, keepdims=True)
        return np.array(np.broadcast_to(np.exp(logs / np.maximum(known, 1)), x.shape), dtype=x.dtype)
    return sizes if sizes.all() else np.where(sizes > 0, sizes, sizes.dtype.type(1))


def _room(lower: NDArray[Any], upper: NDArray[Any]) -> NDArray[Any]:
    """Return the width of the box, or the size of its finite end; 0 without one."""
    with np.errstate(over="ignore", invalid="ignore"):
        width = upper - lower
    end = np.where(np.isfinite(lower), np.abs(lower), np.where(np.isfinite(upper), np.abs(upper), 0))
    return np.where(np.isfinite(width), width, end)


def check_sizes(x_scale: Any, x: NDArray[Any]) -> NDArray[Any]:
    """Return the user's typical sizes in the dtype and shape of x; each problem may have its own, as x has."""
    refuse_mask("x_scale", x_scale, "pass x_scale.filled(...)")
    try:
        sizes = np.asarray(x_scale)
    except ValueError:  # rows of unequal lengths
        sizes = np.empty(0, object)
    fits = sizes.dtype.kind in "fiu" and sizes.shape in ((), (1,), x.shape[-1:], x.shape)
    with np.errstate(over="ignore", under="ignore"):
        cast = sizes.astype(x.dtype) if fits else None
    wrong = np.zeros(0, bool) if cast is None else ~(np.isfinite(cast) & (cast > 0))
    if cast is None or wrong.any():
        shapes = f"shape {x.shape[-1:]}, one for each variable"
        if x.ndim > 1:
            shapes += f", or {x.shape}, also for each problem"
        got = repr(x_scale)[:100]
        if sizes.ndim == 2:
            got = f"shape {sizes.shape}" if cast is None else f"{sizes[wrong][0]} at {place_of(wrong)}"
        msg = f"x_scale must be 'auto', a positive number, or positive numbers of {shapes}, got {got}."
        raise ValueError(msg)
    return np.array(np.broadcast_to(cast, x.shape), order="C")  # another order, another kernel


def as_generator(rng: Any) -> np.random.Generator:
    """Return a random generator, made from a seed or the user's own."""
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError) as error:
        msg = f"rng must be None, a seed or a numpy.random.Generator, got {rng!r}: {error}."
        raise type(error)(msg) from error


def check_scipy_only(hess: Any, hessp: Any, constraints: Any) -> None:
    """Raise unless what SciPy's minimize takes beside our arguments is left at its default."""
    if hess is not None or hessp is not None:
        msg = "RMSprop uses no second derivatives; leave out hess and hessp."
        raise ValueError(msg)
    if constraints is not None and not (isinstance(constraints, Sized) and len(constraints) == 0):
        msg = "RMSprop takes no constraints other than bounds; use SciPy's 'SLSQP' or 'trust-constr'."
        raise ValueError(msg)


def as_workers(value: Any) -> int:
    """Return a number of workers; -1 means one for each processor."""
    if not isinstance(value, np.ndarray) and value == -1:
        return os.cpu_count() or 1
    count = as_count("workers", value, 0 if value is not None else 1, least=1)
    if count == 0:
        msg = f"workers must be an integer of at least 1, or -1 for one for each processor, got {value!r}."
        raise ValueError(msg)
    return count


def check_switches_of(options: Any) -> None:
    """Raise for a switch among the fields of a dataclass that is neither on nor off."""
    dataclass: Any = type(options)
    check_switches(**{name: getattr(options, name) for name in _switches_of(dataclass)})


@functools.cache
def _switches_of(dataclass: Any) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(dataclass) if field.type == "bool")


def check_switches(**switches: Any) -> None:
    """Raise for what is neither on nor off: an array, text."""
    for name, value in switches.items():
        if not isinstance(value, _SWITCHES):
            msg = f"{name} must be True or False, got {value!r}."
            raise ValueError(msg)  # noqa: TRY004 - a wrong value, whatever its type


def as_checkpoint_seconds(every: Any, path: Any) -> float:
    """Return the seconds between two checkpoints, which have a meaning only with a file."""
    if path is not None and not isinstance(path, str | bytes | os.PathLike):
        msg = f"checkpoint must be the path of a file, got {type(path).__name__}."
        raise TypeError(msg)
    seconds = as_number("checkpoint_every", every, 0.0, math.inf)
    if path is None and seconds != CHECKPOINT_SECONDS:
        msg = f"checkpoint_every={every!r} has no meaning without checkpoint; give the path of a file as checkpoint."
        raise ValueError(msg)
    return seconds


def check_known(
    options: Mapping[str, Any], known: tuple[str, ...], method: str, arguments: Collection[str] = ()
) -> None:
    """Raise for an option that the method does not have, and say what is meant if it is one of these arguments."""
    unknown = [name for name in options if name not in known]
    if unknown:
        remedy = advice(unknown[0], known, {"here it is the argument {}": arguments})
        msg = f"Unknown option {unknown[0]!r} for method {method!r}{remedy and '; '}{remedy}. "
        msg += f"Known options: {', '.join(sorted(known))}."
        raise ValueError(msg)


def check_learning_rate(value: Any, *, auto: bool = True, zero: bool = False) -> None:
    """Raise unless `value` is a positive number, a callable or, if these are allowed, "auto" or 0."""
    if callable(value) or (auto and isinstance(value, str) and value == "auto"):
        return
    try:
        rate = math.nan if isinstance(value, str) or np.ndim(value) else float(value)
    except (TypeError, ValueError, OverflowError):
        rate = math.nan
    if not ((rate > 0.0 or (zero and rate == 0.0)) and math.isfinite(rate)):
        choice = "'auto', " if auto else ""
        least = ", 0 (which leaves parameters as they are)" if zero else ""
        msg = f"learning_rate must be {choice}a positive number{least} or a callable step -> rate, got {value!r}."
        raise ValueError(msg)
