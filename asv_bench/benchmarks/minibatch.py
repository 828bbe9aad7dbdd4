"""Mini-batches: an epoch of logistic regression relative to its evaluations (the floor) and to Python loops; memory."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np
from numba import njit

from benchmarks._interleaved import compare
from benchmarks._peers import optional
from rmsprop_nb import minimize_minibatch

N_ROWS, N_FEATURES = 20_000, 50
BATCH_SIZES = (32, 128)
DTYPES = ("float32", "float64")
RATES = {"number": 0.01, "auto": "auto"}


@njit(error_model="numpy")
def logistic(w, grad, X, y):
    grad[:] = 0
    f = 0.0
    for i in range(y.size):
        z = w[0] * 0
        for j in range(w.size):
            z += X[i, j] * w[j]
        e = np.exp(-y[i] * z)
        f += np.log1p(e)
        slope = -y[i] * e / ((e + 1) * y.size)
        for j in range(w.size):
            grad[j] += slope * X[i, j]
    return f / y.size


@njit(error_model="numpy")
def only_evaluate(w, X, y, batch_size):
    """Make an epoch's evaluations on rows in their order: no optimizer can do with less."""
    grad = np.empty_like(w)
    total = 0.0
    for begin in range(0, y.size, batch_size):
        total += logistic(w, grad, X[begin : begin + batch_size], y[begin : begin + batch_size])
    return total


def make_data(dtype, rows=N_ROWS):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(rows, N_FEATURES)).astype(dtype)
    return X, np.where(X @ rng.normal(size=N_FEATURES) > 0.0, 1.0, -1.0).astype(dtype)


def one_epoch(data, batch_size, rate, fun=logistic, **kwargs):
    return minimize_minibatch(
        fun, np.zeros(N_FEATURES, data[0].dtype), data, jac="inplace", batch_size=batch_size, epochs=1, rng=0,
        learning_rate=rate, averaging=False, final_evaluation=False, **kwargs,
    )  # fmt: skip


class Epoch:
    """An epoch of `minimize_minibatch`, shuffled."""

    params = (BATCH_SIZES, DTYPES, tuple(RATES))
    param_names = ("batch_size", "dtype", "learning_rate")

    def setup(self, batch_size, dtype, learning_rate):
        self.data = make_data(dtype)
        self.epoch = functools.partial(one_epoch, self.data, batch_size, RATES[learning_rate])
        self.epoch()
        self.evaluate = functools.partial(only_evaluate, np.zeros(N_FEATURES, dtype), *self.data, batch_size)

    def time_compiled(self, batch_size, dtype, learning_rate):
        self.epoch()

    def time_in_order(self, batch_size, dtype, learning_rate):
        self.epoch(shuffle=False)

    def time_interpreted(self, batch_size, dtype, learning_rate):
        self.epoch(fun=lambda *args: logistic(*args))

    def track_over_evaluations(self, batch_size, dtype, learning_rate):
        """Floor: the evaluations alone, on rows in order. The rest is shuffling, copying rows, and the update."""
        return compare(self.epoch, self.evaluate)

    def track_history_over_none(self, batch_size, dtype, learning_rate):
        """Record every batch. Aim: 1.05."""
        return compare(lambda: self.epoch(history=True), self.epoch)

    track_over_evaluations.unit = "of the evaluations' time"
    track_history_over_none.unit = "of the time without"


def numpy_epoch(X, y, batch_size):
    """Write an epoch as users of NumPy do."""
    rng = np.random.default_rng(0)

    def run():
        w, average = np.zeros(X.shape[1], X.dtype), np.zeros(X.shape[1], X.dtype)
        order = rng.permutation(len(y))
        for begin in range(0, len(y), batch_size):
            chosen = order[begin : begin + batch_size]
            rows, labels = X[chosen], y[chosen]
            g = -rows.T @ (labels / (1.0 + np.exp(labels * (rows @ w)))) / len(chosen)
            average = 0.9 * average + 0.1 * g * g
            w = w - 0.01 * g / (np.sqrt(average) + 1e-8)

    return run


def torch_epoch(X, y, batch_size):
    """Write an epoch as users of PyTorch do, without the overhead of DataLoader."""
    torch = optional("torch")
    torch.set_num_threads(1)
    rows, labels = torch.from_numpy(X), torch.from_numpy(y)

    def run():
        w = torch.nn.Parameter(torch.zeros(X.shape[1], dtype=rows.dtype))
        optimizer = torch.optim.RMSprop([w], lr=0.01, alpha=0.9)
        for chosen in torch.randperm(len(y)).split(batch_size):
            optimizer.zero_grad()
            torch.nn.functional.softplus(-labels[chosen] * (rows[chosen] @ w)).mean().backward()
            optimizer.step()

    return run


PEERS = {"numpy": numpy_epoch, "torch": torch_epoch}


class EpochOverPeers:
    """An epoch relative to Python loops, on one thread. Floor: the evaluations, see Epoch."""

    params = (BATCH_SIZES, DTYPES, tuple(PEERS))
    param_names = ("batch_size", "dtype", "peer")

    def setup(self, batch_size, dtype, peer):
        data = make_data(dtype)
        self.epoch = functools.partial(one_epoch, data, batch_size, RATES["number"])
        self.other = PEERS[peer](*data, batch_size)

    def track_ratio(self, batch_size, dtype, peer):
        return compare(self.epoch, self.other, rounds=5)

    track_ratio.unit = "of the other's time"


class MemoryMapped:
    """Memory for data on disk. Floor: that of one batch, however large the data are."""

    params = ((10_000, 1_000_000),)
    param_names = ("rows",)

    def setup(self, rows):
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / "X"
        X = np.memmap(path, np.float64, "w+", shape=(rows, 10))
        X[:] = 1.0
        X.flush()
        self.X = np.memmap(path, np.float64, "r", shape=(rows, 10))

    def teardown(self, rows):
        del self.X
        self.folder.cleanup()

    def track_allocated(self, rows):
        """Measure the most bytes that Python and NumPy hold during an epoch; pages of the file belong to the system."""
        import tracemalloc

        minimize_minibatch(mean_square, np.zeros(10), self.X, jac="inplace", epochs=1)
        tracemalloc.start()
        try:
            minimize_minibatch(mean_square, np.zeros(10), self.X, jac="inplace", epochs=1)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    track_allocated.unit = "bytes"


@njit
def mean_square(w, grad, X):
    r = X @ w - 1.0
    grad[:] = X.T @ r / r.size
    return 0.5 * np.mean(r * r)
