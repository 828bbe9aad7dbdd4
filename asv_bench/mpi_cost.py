"""Measures what sums over ranks cost: ``mpiexec -n 2 python -m mpi4py asv_bench/mpi_cost.py``.

Prints, for several numbers of parameters n and of rows, the time of one sum over ranks relative to one evaluation of a
mean square (X @ x and X.T @ r) on the rows of rank 0, as the ratio of medians over a run.
"""

import time

import numpy as np
from mpi4py import MPI

from rmsprop_nb import minimize

EVALUATIONS = 32
CASES = ((10, 10_000), (10, 1_000_000), (100, 100_000), (1_000, 10_000), (10_000, 1_000))


class TimedComm:
    """A communicator that times its sums. Each comes after a barrier, so that waiting for other ranks is left out."""

    def __init__(self, comm):
        self.Get_rank, self.allgather = comm.Get_rank, comm.allgather
        self.comm = comm
        self.seconds = []

    def Allreduce(self, sent, received):
        self.comm.Barrier()
        start = time.perf_counter()
        self.comm.Allreduce(sent, received)
        self.seconds.append(time.perf_counter() - start)


def mean_square(x, g, X, y, seconds):
    start = time.perf_counter()
    r = X @ x - y
    g[:] = X.T @ r / len(r)
    f = 0.5 * r @ r / len(r)
    seconds.append(time.perf_counter() - start)
    return f


def main():
    comm = MPI.COMM_WORLD
    rng = np.random.default_rng(comm.rank)
    for n, rows in CASES:
        timed, seconds = TimedComm(comm), []
        data = rng.normal(size=(rows, n)), rng.normal(size=rows)
        options = {"learning_rate": 1e-6, "gtol": 0.0, "maxfev": EVALUATIONS}
        minimize(mean_square, np.zeros(n), (*data, seconds), jac="inplace", options=options, comm=timed, weight=rows)
        if comm.rank == 0:
            ratio = np.median(timed.seconds) / np.median(seconds)
            print(f"n {n:>6}  rows per rank {rows:>8}  sum / evaluation {ratio:.4f}")


if __name__ == "__main__":
    main()
