"""Saving and loading states and results: `save` and `load`."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from scipy.optimize import OptimizeResult

from rmsprop_nb import _archive
from rmsprop_nb._batch_result import BatchResult
from rmsprop_nb._state import RMSpropState
from rmsprop_nb._types import MESSAGES, RunState, Status

__all__ = ["load", "save"]


def save(path: str | os.PathLike[str], obj: Any) -> None:
    """Write a state or a result to a file.

    Parameters
    ----------
    path : str or path-like
        The file, ``.npz`` by custom; the name is taken as it is. A file that is there is replaced when the new one is
        complete, so that a crash leaves the one or the other.
    obj : RunState, RMSpropState or scipy.optimize.OptimizeResult
        The ``state`` of a result, the state of an `RMSprop` optimizer, or the result of `minimize`, `minimize_batch`,
        `multistart` or `minimize_minibatch`.

    Raises
    ------
    TypeError
        If `obj` is, or holds, something else.
    OSError
        If the file cannot be written; one that was there is unchanged.

    See Also
    --------
    load : Read it back.

    Notes
    -----
    The file is a NumPy archive of plain arrays and a description in JSON: nothing is pickled, every bit is kept. The
    exceptions of a batch become RuntimeError with the same text.

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
    _archive.write(path, _to_tree(obj))


def load(path: str | os.PathLike[str]) -> Any:
    """Read what `save` wrote.

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
        If it is not such a file, is damaged, or was written by a later version. Nothing in a file is ever executed,
        and what a file says is checked before compiled code relies on it: here, and where a run takes up the state.

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
    tree = _archive.read(path)
    try:
        return _from_tree(tree)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        msg = f"path must be a file that rmsprop_nb has written, complete and unchanged; {str(path)!r} is not: {error}."
        raise ValueError(msg) from error


def _to_tree(obj: Any) -> Any:
    if isinstance(obj, RunState | BatchResult):
        return obj.to_tree()
    if isinstance(obj, RMSpropState):
        return {"class": "RMSpropState", "arrays": obj.to_arrays()}
    if isinstance(obj, OptimizeResult):
        fields = {name: _to_tree_if_known(value) for name, value in obj.items()}
        return {"class": "OptimizeResult", "fields": fields}
    msg = f"obj must be a state or a result of rmsprop_nb, got {type(obj).__name__}."
    raise TypeError(msg)


def _to_tree_if_known(value: Any) -> Any:
    return _to_tree(value) if isinstance(value, RunState | OptimizeResult) else value


def _from_tree(tree: Any) -> Any:
    name = tree["class"]
    if name == "RunState":
        return RunState.from_tree(tree)
    if name == "RMSpropState":
        return RMSpropState.from_arrays(tree["arrays"])
    if name == "BatchResult":
        return _batch_result(tree["fields"], tree["exceptions"])
    if name == "OptimizeResult":
        return OptimizeResult({key: _from_tree_if_known(value) for key, value in tree["fields"].items()})
    msg = f"it holds a {name!r}, which is unknown"
    raise TypeError(msg)


def _from_tree_if_known(value: Any) -> Any:
    return _from_tree(value) if isinstance(value, dict) and "class" in value else value


def _batch_result(fields: dict[str, Any], told: dict[str, str]) -> BatchResult:
    messages = np.array([MESSAGES[Status(int(status))] for status in fields["status"]], dtype=object)
    exceptions = {int(k): RuntimeError(text) for k, text in told.items()}
    return BatchResult({**fields, "message": messages, "exceptions": exceptions})
