"""The result of fits: parameters with their covariances, one row for each data set."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rmsprop_nb._core.result import RowResult, as_html
from rmsprop_nb._kernels.covariance import covariances


class FitResult(RowResult):
    """An OptimizeResult whose fields have the leading axes of ydata; see `fit`.

    ``result[i]`` is the result of data set i, with the ``exception`` that the model raised, if any.
    """

    _of_each: ClassVar[tuple[str, ...]] = (
        *("chi2", "popt", "perr", "pcov", "dof", "status", "success", "message", "nfev", "nit"),
    )

    def _picked(self, key: Any) -> FitResult:
        if not self.shape:
            msg = "an index needs ydata with leading axes; this is the result of one data set."
            raise IndexError(msg)
        return FitResult(self._fields_at(key), names=self.names, jacobian=self.jacobian)

    def _columns(self) -> list[tuple[str, Any]]:
        """Return the parameters, each with its error, and how the fits ended."""
        columns = []
        for k, name in enumerate(self.names):
            columns += [(name, self.popt[..., k]), (f"{name} error", self.perr[..., k])]
        return columns + [(name, self[name]) for name in ("chi2", "dof", "success", "status", "nfev")]

    def __repr__(self) -> str:
        return "\n".join(f"{name:>12}  {text}".rstrip() for name, text in self._summary())

    def _repr_html_(self) -> str:
        return as_html(self._summary())

    def _summary(self) -> list[tuple[str, str]]:
        return self._summary_of_many() if self.shape else self._summary_of_one()

    def _summary_of_one(self) -> list[tuple[str, str]]:
        dof = int(self.dof)
        freedom = f"{dof} degree{'' if dof == 1 else 's'} of freedom"
        return [
            *(
                (name, f"{p:.8g} ± {error:.2g}")
                for name, p, error in zip(self.names, self.popt, self.perr, strict=True)
            ),
            ("chi2", f"{self.chi2:.6g} with {freedom}"),
            ("success", str(self.success)),
            ("message", self.message),
        ]

    def _summary_of_many(self) -> list[tuple[str, str]]:
        success = self.success
        lines = [("fits", f"{success.size}, of shape {self.shape}; {int(success.sum())} of them successful")]
        for k, name in enumerate(self.names):
            middle, error = (
                np.median(field[..., k][success]) if success.any() else np.nan for field in (self.popt, self.perr)
            )
            lines.append((name, f"median {middle:.6g} ± {error:.2g}"))
        return lines + [(str(count), message) for message, count in self._endings()]


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
