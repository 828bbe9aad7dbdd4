"""Run the same 200 fits on different engines: python examples/many_problems.py processes | joblib | dask

With MPI: mpiexec -n 3 python -m mpi4py.futures examples/many_problems.py mpi
"""

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from rmsprop_nb import minimize_batch

T = np.linspace(0.0, 4.0, 20)


def misfit(p, y):
    """Return f and the gradient for an exponential decay; being slow Python, it gains from processes."""
    e = np.exp(-p[1] * T)
    r = p[0] * e - y
    return r @ r, np.array([2.0 * r @ e, -2.0 * p[0] * (r * T) @ e])


def fit(workers):
    rng = np.random.default_rng(0)
    curves = rng.uniform(1.0, 3.0, (200, 1)) * np.exp(-rng.uniform(0.5, 2.0, (200, 1)) * T)
    return minimize_batch(misfit, np.ones((200, 2)), batch_args=(curves,), jac=True, workers=workers)


def with_processes():
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        return fit(pool.map)


def with_joblib():
    from joblib import Parallel, delayed

    return fit(lambda function, jobs: Parallel(n_jobs=2)(delayed(function)(job) for job in jobs))


def with_dask():
    from dask.distributed import Client, LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        return fit(lambda function, jobs: client.gather(client.map(function, list(jobs))))


def with_mpi():
    from mpi4py.futures import MPIPoolExecutor

    with MPIPoolExecutor() as pool:
        return fit(pool.map)


ENGINES = {"processes": with_processes, "joblib": with_joblib, "dask": with_dask, "mpi": with_mpi}

if __name__ == "__main__":
    result = ENGINES[sys.argv[1]]()
    print(result)
    same = (result.x == fit(1).x).all()
    print("the same bits as running one after the other:", same)
    sys.exit(not same)
