"""The front end for files of states and results: `save` and `load`."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from scipy.optimize import OptimizeResult

from rmsprop_nb._core import archive
from rmsprop_nb._core.names_elsewhere import explain_keywords
from rmsprop_nb._core.result import Result
from rmsprop_nb._core.status import MESSAGES, Status
from rmsprop_nb._drivers.batch_result import BatchResult, LoadedError, MultistartResult
from rmsprop_nb._methods.run_state import RunState
from rmsprop_nb._training.state import RMSpropState

STATES: dict[str, Any] = {state.__name__: state for state in (RMSpropState, RunState)}
"""Classes of states that can be saved.

Each has ``to_arrays() -> dict of arrays`` and a classmethod ``from_arrays``, which takes such a dict and raises a
ValueError if `to_arrays` cannot have returned it.
"""


@explain_keywords()
def save(path: str | os.PathLike[str], obj: Any) -> None:
    """Write a state or a result to a file.

    Parameters
    ----------
    path : str or path-like
        The file, by convention ``.npz``; the name is used as it is. An existing file is replaced when the new one is
        complete, so that a crash leaves one or the other.
    obj : RunState, RMSpropState or scipy.optimize.OptimizeResult
        The ``state`` of a result, the state of an `RMSprop` optimizer, or the result of `minimize`, `minimize_batch`,
        `multistart` or `minimize_minibatch`.

    Raises
    ------
    TypeError, ValueError
        If `obj` is or holds anything else.
    OSError
        If the file cannot be written; an existing one is unchanged.

    See Also
    --------
    load : Read it back.

    Notes
    -----
    The file is a NumPy archive of plain arrays and a description in JSON: nothing is pickled, and every bit is kept.
    The exceptions of a batch become instances of RuntimeError with the same text.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from rmsprop_nb import load, minimize, save
    >>> fun = lambda x: ((x - 1.0) ** 2).sum()
    >>> result = minimize(fun, [3.0, 4.0], options={"learning_rate": 0.1, "maxiter": 5})
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = pathlib.Path(directory) / "run.npz"
    ...     save(path, result.state)
    ...     state = load(path)
    >>> minimize(fun, [3.0, 4.0], options={"learning_rate": 0.1, "maxiter": 5, "state": state}).state.step
    10
    """
    archive.write(path, _to_tree(obj))


@explain_keywords()
def load(path: str | os.PathLike[str]) -> Any:
    """Read a state or a result from a file that `save` or a run with `checkpoint` has written.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    obj : RunState, RMSpropState, scipy.optimize.OptimizeResult
        An object equal to the one that was saved.

    Raises
    ------
    OSError
        If the file cannot be opened.
    ValueError
        If it is not such a file, is damaged, or was written by a later version. Nothing in a file is ever executed, and
        its contents are checked before compiled code relies on them.

    Examples
    --------
    >>> import numpy as np
    >>> from rmsprop_nb import RMSprop, load, save
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = pathlib.Path(directory) / "optimizer.npz"
    ...     save(path, RMSprop().init({"W": np.zeros((2, 3)), "b": np.zeros(3)}))
    ...     load(path)
    <RMSpropState: 2 arrays, 9 parameters, step 0>
    """
    tree = archive.read(path)
    with archive.damage(path):
        return _from_tree(tree)


def _to_tree(obj: Any) -> Any:
    name = type(obj).__name__
    if type(obj) is STATES.get(name):
        return archive.as_tree(obj)
    if type(obj) is BatchResult:
        return obj.to_tree()
    if isinstance(obj, OptimizeResult):
        _check_result(obj)
        fields = {field: _to_tree_if_known(value) for field, value in obj.items()}
        return {"class": "OptimizeResult", "fields": fields}
    msg = f"obj must be a state or a result of rmsprop_nb, got {name}."
    raise TypeError(msg)


def _to_tree_if_known(value: Any) -> Any:
    return _to_tree(value) if type(value) in STATES.values() or isinstance(value, OptimizeResult) else value


def _from_tree(tree: Any) -> Any:
    name = tree["class"]
    if name in STATES:
        return STATES[name].from_arrays(tree["arrays"])
    if name == "BatchResult":
        return _batch_result(tree["fields"], tree["exceptions"], tree.get("messages", {}))
    if name == "OptimizeResult":
        fields = {key: _from_tree_if_known(value) for key, value in tree["fields"].items()}
        result = MultistartResult(fields) if {"minima", "batch"} <= fields.keys() else Result(fields)
        _check_result(result)
        return result
    msg = f"it holds a {name!r}, which is unknown."
    raise ValueError(msg)


def _from_tree_if_known(value: Any) -> Any:
    return _from_tree(value) if isinstance(value, dict) and "class" in value else value


def _batch_result(fields: dict[str, Any], texts: dict[str, str], known: dict[str, str]) -> BatchResult:
    _check_batch_result(fields)
    messages = np.array([_message(int(status), known) for status in fields["status"]], dtype=object)
    exceptions = {int(k): LoadedError(text) for k, text in texts.items()}
    return BatchResult({**fields, "message": messages, "exceptions": exceptions})


def _message(status: int, known: dict[str, str]) -> str:
    return str(known.get(str(status), MESSAGES[Status(status)]))


# -- results ----------------------------------------------------------------------------------------------------------

_TYPES = {
    "x": np.ndarray, "jac": np.ndarray, "fun": float, "nit": int, "nfev": int, "njev": int, "status": int,
    "success": bool, "message": str, "state": RunState, "allvecs": list, "history": dict, "minima": np.ndarray,
    "minima_fun": np.ndarray, "batch": BatchResult, "gradient": str,
}  # fmt: skip
_BATCH_KINDS = {"x": "f", "jac": "f", "fun": "f", "nit": "i", "nfev": "i", "njev": "i", "status": "i", "success": "b"}


def _check_result(result: OptimizeResult) -> None:
    """Raise unless fields have their types, and arrays have shapes that fit together."""
    for field, expected in _TYPES.items():
        if field in result and not isinstance(result[field], expected):
            found = type(result[field]).__name__
            msg = f"result.{field} must be {expected.__name__}, got {found}: it is not a result of rmsprop_nb."
            raise ValueError(msg)
    x = result.get("x")
    if x is None or x.ndim != 1:
        msg = "result.x must be a vector."
        raise ValueError(msg)
    minima = result.get("minima", np.empty((0, x.size)))
    _check_shapes("minima", [minima], (len(minima), x.size))
    _check_shapes("minima_fun", [result.get("minima_fun", np.empty(0))], (len(minima),))
    for name, vectors in (("jac", [result.get("jac", x)]), ("allvecs", result.get("allvecs", []))):
        _check_shapes(name, vectors, x.shape)
    columns = list(result.get("history", {}).values())
    _check_shapes("history", columns, np.shape(columns[0]) if columns else ())
    if "status" in result:
        is_usable = bool(np.isfinite(x).all() and np.isfinite(result.get("fun", 0.0)))
        _check_success(np.array([result.get("success")]), [result.status], np.array([is_usable]))


def _check_success(success: Any, statuses: Any, is_usable: Any) -> None:
    """Raise unless success is what the statuses say, and where it is, x and f are finite."""
    of_status = np.array([Status(int(status)).success for status in statuses])
    if (success != of_status).any() or (of_status & ~is_usable).any():
        msg = "success must be that of the status, and x and fun must be finite where it is: no run can have left this."
        raise ValueError(msg)


def _check_batch_result(fields: dict[str, Any]) -> None:
    """Raise unless every field has a row for each problem."""
    if set(fields) != {*_BATCH_KINDS, "best", "gradient"} or not isinstance(fields["gradient"], str):
        msg = f"it holds a BatchResult with other fields: {sorted(fields)}."
        raise ValueError(msg)
    shape = np.shape(fields["x"])
    if len(shape) != 2 or fields["best"] not in range(shape[0]):
        msg = f"it holds a BatchResult with x of shape {shape} and best={fields['best']!r}."
        raise ValueError(msg)
    for name, kind in _BATCH_KINDS.items():
        wanted = shape if name in ("x", "jac") else shape[:1]
        if name == "jac" and np.shape(fields[name]) == (shape[0], shape[1] * (shape[1] + 3) // 2):
            continue  # of fits, which have the lower triangle of J'J behind each gradient
        _check_shapes(name, [fields[name]], wanted)
        if fields[name].dtype.kind != kind:
            msg = f"it holds a BatchResult with {name} of dtype {fields[name].dtype}."
            raise ValueError(msg)
    is_usable = np.isfinite(fields["x"]).all(axis=1) & np.isfinite(fields["fun"])
    _check_success(fields["success"], fields["status"], is_usable)


def _check_shapes(name: str, arrays: list[Any], shape: tuple[int, ...]) -> None:
    for array in arrays:
        if not isinstance(array, np.ndarray) or array.shape != shape:
            msg = f"result.{name} must have shape {shape}, got {np.shape(array)}."
            raise ValueError(msg)
