"""Gradients that are zero but for some rows, as those of embeddings are: a step costs what these rows cost."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._core.names_elsewhere import explain_keywords
from rmsprop_nb._core.validate import as_array, refuse_mask
from rmsprop_nb._training.arrays import as_reals


@explain_keywords()
class GradientRows:
    """The rows of a gradient that are not zero, for `RMSprop.step`.

    Parameters
    ----------
    rows : array_like of int, shape (k,)
        Indices along the first axis of the parameters, from 0, in any order. The values of a row that stands there more
        than once are added up.
    values : array_like, shape (k, ...)
        The gradient of each of these rows, of the dtype of the parameters.

    Raises
    ------
    TypeError, ValueError
        If `rows` are not integers in one dimension, or `values` has another number of rows.

    Notes
    -----
    In a step with these, only the rows that are named change, and so do the averages kept for them: ::

        S[i] <- beta*S[i] + (1 - beta)*g[i]**2            x[i] <- x[i] - learning_rate*g[i]/(sqrt(S[i]) + eps)

    So S does not decay where there is no gradient, and neither momentum nor weight decay moves a row that is not named.
    This is the rule of TensorFlow's ``SparseApplyRMSProp``; a gradient of zeros would let S decay.

    Examples
    --------
    >>> import numpy as np
    >>> from rmsprop_nb import GradientRows, RMSprop
    >>> embedding = np.zeros((1000, 2))
    >>> optimizer = RMSprop(0.1)
    >>> state = optimizer.init(embedding)
    >>> optimizer.step(embedding, GradientRows([7, 3], [[1.0, -1.0], [2.0, 0.0]]), state)
    >>> embedding[[3, 7]].round(3)
    array([[-0.316,  0.   ],
           [-0.316,  0.316]])
    """

    __slots__ = ("__weakref__", "rows", "values")

    def __init__(self, rows: Any, values: Any) -> None:
        refuse_mask("values", values, "leave out the rows that are masked")
        self.rows = as_array("rows", rows)
        self.values = as_array("values", values)
        if self.rows.size == 0:
            self.rows = self.rows.astype(np.intp)
        if self.rows.ndim != 1 or self.rows.dtype.kind not in "iu":
            msg = f"rows must be integers in one dimension, got dtype {self.rows.dtype} and shape {self.rows.shape}."
            raise TypeError(msg)
        if self.values.ndim == 0 or len(self.values) != self.rows.size:
            msg = f"values must have a row for each of the {self.rows.size} in rows, got shape {self.values.shape}."
            raise ValueError(msg)

    def __repr__(self) -> str:
        return f"GradientRows(rows of shape {self.rows.shape}, values of shape {self.values.shape})"


class Rows(NamedTuple):
    """Rows of an array, each once and in order, and a vector of their gradients, which shares no memory."""

    indices: NDArray[np.intp]
    gradient: NDArray[Any]


def as_rows(given: GradientRows, shape: tuple[int, ...], dtype: Any, path: str, params_path: str) -> Rows:
    """Check rows of a gradient against the parameters, and add up those that are named more than once.

    Raises
    ------
    TypeError, ValueError, IndexError
        If they do not fit.
    """
    rows, values = given.rows, as_reals(given.values)
    if not shape:
        msg = f"{path} must be an array, because {params_path} is a number, which has no rows; got GradientRows."
        raise TypeError(msg)
    if values.shape[1:] != shape[1:]:
        msg = f"{path}.values must have rows of shape {shape[1:]}, those of {params_path}, got {values.shape[1:]}."
        raise ValueError(msg)
    if values.dtype != dtype:
        msg = f"{path}.values must be {dtype.name} like {params_path}, got dtype {values.dtype.str!r}."
        raise TypeError(msg)
    outside = (rows < 0) | (rows >= shape[0])
    if outside.any():
        msg = f"{path}.rows must be from 0 to {shape[0] - 1}, rows of {params_path}, got {rows[outside][0]}."
        raise IndexError(msg)
    indices, places = np.unique(rows.astype(np.intp), return_inverse=True)
    if indices.size == rows.size:
        gradient = np.empty(values.shape, dtype)
        gradient[places] = values
    else:
        gradient = np.zeros((indices.size, *shape[1:]), dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            np.add.at(gradient, places, values)
    return Rows(indices, gradient.ravel())


def picked(vector: NDArray[Any], rows: Rows, count: int) -> NDArray[Any]:
    """Return a copy of the rows of an array with `count` rows, which is given as a vector; none if it has size 0."""
    return vector.reshape(count, -1)[rows.indices].ravel() if vector.size else vector


def put_back(vector: NDArray[Any], rows: Rows, count: int, new: NDArray[Any]) -> None:
    """Replace the rows of an array that is given as a vector."""
    if vector.size:
        vector.reshape(count, -1)[rows.indices] = new.reshape(rows.indices.size, vector.size // count)
