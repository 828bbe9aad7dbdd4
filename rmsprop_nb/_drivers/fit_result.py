"""The result of fits: parameters with their covariances, one row for each data set."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._core.result import Result, as_html
from rmsprop_nb._kernels.covariance import covariances

_OF_EACH = ("popt", "perr", "pcov", "chi2", "dof", "status", "success", "message", "nfev", "nit")


class FitResult(Result):
    """An OptimizeResult whose fields have the leading axes of ydata; see `fit`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The leading axes of ydata; () for one data set."""
        return tuple(np.shape(self.chi2))

    def __len__(self) -> int:
        """Return the length of the first axis, or the number of fields for one data set."""
        return self.shape[0] if self.shape else super().__len__()

    def __getitem__(self, key: Any) -> Any:
        """Return a field by its name, or the result of some data sets by an index of the leading axes."""
        if isinstance(key, str):
            return super().__getitem__(key)
        if not self.shape:
            msg = "an index needs ydata with leading axes; this is the result of one data set."
            raise IndexError(msg)
        picked = {name: self[name][key] for name in _OF_EACH}
        return FitResult(
            {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in picked.items()}
            | {"names": self.names}
        )

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with a row for each data set: parameters, their errors, and how each fit ended.

        The index has a level for each leading axis of ydata. Errors are named "... error".
        """
        import pandas as pd

        rows = self.shape or (1,)
        count = int(np.prod(rows))
        columns: dict[str, Any] = {}
        for k, name in enumerate(self.names):
            columns[name] = np.reshape(self.popt, (count, -1))[:, k]
            columns[f"{name} error"] = np.reshape(self.perr, (count, -1))[:, k]
        for name in ("chi2", "dof", "success", "status", "nfev"):
            columns[name] = np.reshape(self[name], count)
        if len(rows) == 1:
            return pd.DataFrame(columns)
        return pd.DataFrame(columns, index=pd.MultiIndex.from_product([range(length) for length in rows]))

    def __repr__(self) -> str:
        return "\n".join(f"{name:>12}  {text}".rstrip() for name, text in self._summary().items())

    def _repr_html_(self) -> str:
        return as_html(self._summary())

    def _summary(self) -> dict[str, str]:
        if not self.shape:
            lines = {
                name: f"{value:.8g} ± {error:.2g}"
                for name, value, error in zip(self.names, self.popt, self.perr, strict=True)
            }
            return lines | {
                "chi2": f"{self.chi2:.6g} with {self.dof} degrees of freedom",
                "success": str(self.success),
                "message": self.message,
            }
        success = np.asarray(self.success)
        lines = {"fits": f"{success.size}, of shape {self.shape}; {int(success.sum())} of them successful"}
        for k, name in enumerate(self.names):
            middle, error = (
                np.median(field[..., k][success]) if success.any() else np.nan for field in (self.popt, self.perr)
            )
            lines[name] = f"median {middle:.6g} ± {error:.2g}"
        statuses, first, counts = np.unique(self.status, return_index=True, return_counts=True)
        for _, k, count in zip(statuses, first, counts, strict=True):
            lines[str(count)] = str(np.ravel(self.message)[k])
        return lines


def inverse_matrices(
    matrices: NDArray[np.float64], fixed: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the inverses of J'J, given as lower triangles, and which of them can be trusted; others are NaN."""
    count, n = fixed.shape
    out, trusted = np.empty((count, n, n)), np.empty(count, bool)
    covariances(matrices, fixed, np.zeros((2, n, n)), out, trusted)
    return out, trusted


def inverse_by_qr(jacobian: NDArray[np.float64], fixed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the inverse of J'J by the QR decomposition of J, infinite if J has not full rank."""
    free = np.flatnonzero(~fixed)
    n = fixed.size
    out = np.zeros((n, n))
    columns = jacobian[:, free]
    sizes = np.linalg.norm(columns, axis=0)
    if len(columns) >= len(free) and np.isfinite(sizes).all() and (sizes > 0.0).all():
        r = np.linalg.qr(columns / sizes, mode="r")
        pivots = np.abs(np.diag(r))
        if (pivots > np.finfo(np.float64).eps * max(columns.shape)).all():
            inverse = np.linalg.solve(r, np.eye(len(free))) / sizes[:, np.newaxis]
            out[np.ix_(free, free)] = inverse @ inverse.T
            return out
    out[...] = np.inf
    return out
