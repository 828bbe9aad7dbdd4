"""What sums over ranks cost beside an evaluation: mpiexec -n 2 python -m mpi4py asv_bench/mpi_cost.py

Prints, for several numbers of parameters n and of rows, the time of one sum over ranks as a fraction of one evaluation
of a mean square (X @ x and X.T @ r) on this rank's rows, as the median of interleaved rounds.
"""

import time

import numpy as np
from mpi4py import MPI

from rmsprop_nb._core.status import Status
from rmsprop_nb._drivers.ranks import Ranks, ReducedObjective

ROUNDS = 31
CASES = ((10, 10_000), (10, 1_000_000), (100, 100_000), (1_000, 10_000), (10_000, 1_000))


def seconds(function, *arguments):
    MPI.COMM_WORLD.Barrier()
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def main():
    comm = MPI.COMM_WORLD
    rng = np.random.default_rng(comm.rank)
    for n, rows in CASES:
        X, y = rng.normal(size=(rows, n)), rng.normal(size=rows)

        def local(x, g, X=X, y=y):
            r = X @ x - y
            g[:] = X.T @ r / len(r)
            return 0.5 * r @ r / len(r)

        x, g = np.zeros(n), np.zeros(n)
        with Ranks(comm) as ranks:
            ranks.agree(n, {})
            reduced = ReducedObjective(local, ranks, float(rows))
            reduced(x, g)
            alone, summed = [], []
            for _ in range(ROUNDS):
                alone.append(seconds(local, x, g))
                summed.append(seconds(ranks.mean, 1.0, 0.0, g, g))
            ranks.end(Status.GTOL)
        if comm.rank == 0:
            print(f"n {n:>6}  rows a rank {rows:>8}  sum / evaluation {np.median(summed) / np.median(alone):.4f}")


if __name__ == "__main__":
    main()
