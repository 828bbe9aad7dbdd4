"""Fit a logistic regression whose rows are spread over MPI ranks: mpiexec -n 2 python -m mpi4py examples/mpi_fit.py"""

import numpy as np
from mpi4py import MPI
from numba import njit

from rmsprop_nb import minimize


@njit
def logistic_loss(w, grad, X, y):
    """Return the mean over the rows of X, plus a penalty: the function that you would use on one machine."""
    grad[:] = 1e-3 * w
    f = 0.5e-3 * np.sum(w * w)
    for i in range(y.size):
        margin = -(2.0 * y[i] - 1.0) * np.dot(X[i], w)
        f += np.logaddexp(0.0, margin) / y.size
        grad -= (2.0 * y[i] - 1.0) / (1.0 + np.exp(-margin)) / y.size * X[i]
    return f


def main():
    comm = MPI.COMM_WORLD
    rng = np.random.default_rng(comm.rank)  # in place of reading this rank's part of the data
    rows = 1000 + 500 * comm.rank
    X = rng.normal(size=(rows, 5))
    y = (X @ np.arange(5.0) + rng.normal(size=rows) > 0).astype(float)

    result = minimize(logistic_loss, np.zeros(5), (X, y), jac="inplace", comm=comm, weight=rows)

    total = comm.reduce(rows)
    if comm.rank == 0:
        print(f"{total} rows on {comm.size} ranks: {result.message}")
        print("w =", result.x.round(3))


if __name__ == "__main__":
    main()
