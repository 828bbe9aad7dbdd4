"""How good is the learning rate that chooses itself? Mini-batch tasks it was not tuned on, beside what one would do.

    python judge_minibatch.py            # all tasks that can be made: some need scikit-learn
    python judge_minibatch.py --quick    # one seed, one batch size

Prints tables in Markdown. The entries are the excess loss (f - f*)/(f(x0) - f*) on the training data, with f* from long
runs of L-BFGS on all of them; "held-out" is the arithmetic mean over the tasks of the same on data kept apart, with the
lowest loss that any of the methods attains there in the place of f*.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
import scipy.special

from rmsprop_nb import minimize, minimize_minibatch, schedules

EPOCHS = 10
RATES = np.logspace(-4, 0, 9)
SEEDS = (10, 11)
BATCH_SIZES = (32, 128)


class Task(NamedTuple):
    """A loss ``fun(w, *batch) -> (f, gradient)``, a start, and data in two parts; `tuned_on` if the rate knows it."""

    fun: Callable[..., Any]
    start: Any
    train: tuple[Any, ...]
    held_out: tuple[Any, ...]
    tuned_on: bool = False


# -- losses -----------------------------------------------------------------------------------------------------------


def ridge(w, X, y, l2=1e-3):
    r = X @ w - y
    return 0.5 * np.mean(r**2) + 0.5 * l2 * w @ w, X.T @ r / y.size + l2 * w


def huber(w, X, y):
    r = X @ w - y
    clipped = np.clip(r, -1.0, 1.0)
    return np.mean(clipped * (r - 0.5 * clipped)), X.T @ clipped / y.size


def poisson(w, X, y, l2=1e-4):
    z = np.minimum(X @ w, 30.0)
    rate = np.exp(z)
    return np.mean(rate - y * z) + 0.5 * l2 * w @ w, X.T @ (rate - y) / y.size + l2 * w


def logistic(w, X, y, l2=1e-3):
    sign = 2.0 * y - 1.0
    margin = sign * (X @ w)
    p = scipy.special.expit(-margin)
    return np.mean(np.logaddexp(0.0, -margin)) + 0.5 * l2 * w @ w, -X.T @ (sign * p) / y.size + l2 * w


def one_hot_logistic(w, categories, y, l2=1e-5):
    """Features are the indicators of some categories, of which most are rare."""
    sign = 2.0 * y - 1.0
    margin = sign * w[categories].sum(axis=1)
    slope = -sign * scipy.special.expit(-margin) / y.size
    grad = l2 * w
    np.add.at(grad, categories, slope[:, None])
    return np.mean(np.logaddexp(0.0, -margin)) + 0.5 * l2 * w @ w, grad


def cross_entropy(Z, y):
    shifted = Z - Z.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    p = np.exp(shifted - log_sum)
    f = np.mean(log_sum[:, 0] - shifted[np.arange(y.size), y])
    p[np.arange(y.size), y] -= 1.0
    return f, p / y.size


def softmax(w, X, y, l2=1e-3):
    W = w.reshape(X.shape[1], -1)
    f, slope = cross_entropy(X @ W, y)
    return f + 0.5 * l2 * w @ w, (X.T @ slope).ravel() + l2 * w


def mlp(w, X, y, hidden, classes, relu, l2=1e-4):
    """One hidden layer; `classes` is 0 for regression."""
    d, out = X.shape[1], max(classes, 1)
    W1, b1, W2, b2 = np.split(w, np.cumsum([d * hidden, hidden, hidden * out]))
    W1, W2 = W1.reshape(d, hidden), W2.reshape(hidden, out)
    H = X @ W1 + b1
    H = np.maximum(H, 0.0) if relu else np.tanh(H)
    Z = H @ W2 + b2
    if classes:
        f, slope = cross_entropy(Z, y)
    else:
        r = Z[:, 0] - y
        f, slope = 0.5 * np.mean(r**2), r[:, None] / y.size
    back = (slope @ W2.T) * ((H > 0.0) if relu else 1.0 - H * H)
    grad = np.concatenate([(X.T @ back).ravel(), back.sum(axis=0), (H.T @ slope).ravel(), slope.sum(axis=0)])
    return f + 0.5 * l2 * w @ w, grad + l2 * w


def mlp_start(rng, d, hidden, out):
    first = rng.normal(size=d * hidden) / np.sqrt(d)
    return np.concatenate([first, np.zeros(hidden), rng.normal(size=hidden * out) / np.sqrt(hidden), np.zeros(out)])


def factorization(w, i, j, y, shape, rank, l2=1e-4):
    U, V = w[: shape[0] * rank].reshape(-1, rank), w[shape[0] * rank :].reshape(-1, rank)
    r = np.sum(U[i] * V[j], axis=1) - y
    gU, gV = np.zeros_like(U), np.zeros_like(V)
    np.add.at(gU, i, r[:, None] * V[j] / y.size)
    np.add.at(gV, j, r[:, None] * U[i] / y.size)
    return 0.5 * np.mean(r**2) + 0.5 * l2 * w @ w, np.concatenate([gU.ravel(), gV.ravel()]) + l2 * w


# -- tasks ------------------------------------------------------------------------------------------------------------


def split(rng, *arrays):
    """Three quarters to learn from, one to look at."""
    order = rng.permutation(len(arrays[0]))
    cut = 3 * len(order) // 4
    return tuple(a[order[:cut]] for a in arrays), tuple(a[order[cut:]] for a in arrays)


def standardized(X):
    spread = X.std(axis=0)
    return np.c_[(X - X.mean(axis=0)) / np.where(spread > 0.0, spread, 1.0), np.ones(len(X))]


def synthetic_tasks():
    rng = np.random.default_rng(77)
    X = rng.normal(size=(4000, 20)) / np.sqrt(20)
    truth = rng.normal(size=20)
    yield (
        "Poisson regression",
        Task(poisson, np.zeros(20), *split(rng, X, rng.poisson(np.exp(X @ truth)).astype(float)), True),
    )
    y = 10.0 * X @ truth + rng.normal(size=4000) + 100.0 * (rng.random(4000) < 0.1)
    yield "Huber regression, outliers", Task(huber, np.zeros(20), *split(rng, X, y))
    scales = np.logspace(-2, 2, 20)
    y = X @ truth + 0.1 * rng.normal(size=4000)
    badly = functools.partial(ridge, l2=1e-8)
    yield "ridge, scales over 4 decades", Task(badly, np.zeros(20), *split(rng, X * scales, y))
    categories = np.minimum(rng.zipf(1.3, size=(6000, 4)), 400) - 1
    weights = rng.normal(size=400)
    y = (rng.random(6000) < scipy.special.expit(weights[categories].sum(axis=1))).astype(float)
    yield "logistic, rare categories", Task(one_hot_logistic, np.zeros(400), *split(rng, categories, y))
    centers = 1.5 * rng.normal(size=(6, 15))
    y = rng.integers(0, 6, 4000)
    G = (centers[y] + rng.normal(size=(4000, 15))) @ (np.eye(15) + 0.4 * rng.normal(size=(15, 15)))
    yield "softmax, correlated Gaussians", Task(softmax, np.zeros(16 * 6), *split(rng, np.c_[G, np.ones(4000)], y))
    X = rng.uniform(-2, 2, (3000, 5))
    y = np.sin(X[:, 0] * X[:, 1]) + 0.5 * X[:, 2] ** 2 + 0.1 * rng.normal(size=3000)
    regression = functools.partial(mlp, hidden=16, classes=0, relu=False)
    yield "tanh network, regression", Task(regression, mlp_start(rng, 5, 16, 1), *split(rng, X, y))
    U, V = rng.normal(size=(100, 4)), rng.normal(size=(80, 4))
    i, j = rng.integers(0, 100, 6000), rng.integers(0, 80, 6000)
    y = np.sum(U[i] * V[j], axis=1) + 0.1 * rng.normal(size=6000)
    factors = functools.partial(factorization, shape=(100, 80), rank=4)
    yield "matrix factorization", Task(factors, 0.5 * rng.normal(size=720), *split(rng, i, j, y))


def sklearn_tasks():
    try:
        from sklearn import datasets
    except ImportError:
        sys.stderr.write("scikit-learn is missing: its tasks are left out\n")
        return
    rng = np.random.default_rng(78)
    X, y = datasets.load_wine(return_X_y=True)
    yield "softmax, wine", Task(softmax, np.zeros(14 * 3), *split(rng, standardized(X), y))
    X, y = datasets.load_digits(return_X_y=True)
    network = functools.partial(mlp, hidden=48, classes=10, relu=True)
    yield "ReLU network, digits", Task(network, mlp_start(rng, 64, 48, 10), *split(rng, X / 16, y))
    yield "softmax, digits", Task(softmax, np.zeros(650), *split(rng, np.c_[X / 16, np.ones(len(X))], y), True)
    network = functools.partial(mlp, hidden=32, classes=10, relu=False)
    yield "tanh network, digits", Task(network, mlp_start(rng, 64, 32, 10), *split(rng, X / 16, y), True)
    X, y = datasets.load_breast_cancer(return_X_y=True)
    yield "logistic, breast cancer", Task(logistic, np.zeros(31), *split(rng, standardized(X), y.astype(float)), True)
    X, y = datasets.load_diabetes(return_X_y=True)
    yield "ridge, diabetes", Task(ridge, np.zeros(11), *split(rng, standardized(X), y), True)


def lowest(task):
    """f* by L-BFGS, from the start, on all training data."""
    value = functools.partial(_full, task)
    options = {"gtol": 1e-10, "maxfev": 5000}
    ours = minimize(value, task.start, jac=True, method="rmsprop-lbfgs", options=options)
    options = {"ftol": 0.0, "gtol": 1e-10, "maxiter": 5000, "maxfun": 5000, "maxcor": 30}
    theirs = scipy.optimize.minimize(value, task.start, jac=True, method="L-BFGS-B", options=options)
    return min(ours.fun, theirs.fun)


def _full(task, w):
    return task.fun(w, *task.train)


# -- methods: (task, batch_size, seed) -> w ---------------------------------------------------------------------------


def steps_of(task, batch_size):
    return EPOCHS * -(-len(task.train[0]) // batch_size)


def ours(task, batch_size, seed, **kwargs):
    return minimize_minibatch(
        task.fun, task.start, task.train, jac=True, batch_size=batch_size, epochs=EPOCHS, rng=seed,
        final_evaluation=False, **kwargs,
    ).x  # fmt: skip


def constant(rate, beta, averaging=False):
    return functools.partial(ours, learning_rate=rate, averaging=averaging, options={"beta": beta})


def cosine(rate):
    def run(task, batch_size, seed):
        schedule = schedules.cosine_decay(rate, steps_of(task, batch_size))
        return ours(task, batch_size, seed, learning_rate=schedule, options={"beta": 0.99, "bias_correction": True})

    return run


def adam_cosine(rate, beta_1=0.9, beta_2=0.999, eps=1e-8):
    """Adam (D. Kingma, J. Ba, ICLR 2015) with cosine decay."""

    def run(task, batch_size, seed):
        rng, schedule = np.random.default_rng(seed), schedules.cosine_decay(rate, steps_of(task, batch_size))
        w, m, v, k = task.start.copy(), 0.0, 0.0, 0
        rows = len(task.train[0])
        for _ in range(EPOCHS):
            order = rng.permutation(rows)
            for begin in range(0, rows, batch_size):
                chosen = order[begin : begin + batch_size]
                g = task.fun(w, *(a[chosen] for a in task.train))[1]
                m, v = beta_1 * m + (1.0 - beta_1) * g, beta_2 * v + (1.0 - beta_2) * g * g
                k += 1
                corrected = m / (1.0 - beta_1**k)
                w = w - schedule(k - 1) * corrected / (np.sqrt(v / (1.0 - beta_2**k)) + eps)
        return w

    return run


METHODS = {
    "auto (default)": [functools.partial(ours, learning_rate="auto")],
    "auto-constant, averaged": [functools.partial(ours, learning_rate="auto-constant")],
    "PyTorch's defaults": [constant(0.01, 0.99)],
    "Keras's defaults": [constant(0.001, 0.9)],
    "constant": [constant(rate, 0.99) for rate in RATES],
    "cosine decay": [cosine(rate) for rate in RATES],
    "Adam, cosine decay": [adam_cosine(rate) for rate in RATES],
}


def measure(task, batch_sizes, seeds):
    """For every method and rate: geometric mean of the excess, and mean of the held-out loss."""
    best, first = lowest(task), _full(task, task.start)[0]
    first_held_out = task.fun(task.start, *task.held_out)[0]
    found = {}
    for name, runs in METHODS.items():
        for k, run in enumerate(runs):
            with np.errstate(all="ignore"):
                ends = [run(task, batch_size, seed) for batch_size in batch_sizes for seed in seeds]
                excess = [(_full(task, w)[0] - best) / (first - best) for w in ends]
                held_out = np.mean([task.fun(w, *task.held_out)[0] for w in ends])
            excess = np.nan_to_num(np.clip(excess, 1e-7, None), nan=np.inf)
            found[name, k] = float(np.exp(np.mean(np.log(np.minimum(excess, 1e3))))), float(held_out)
    lowest_held_out = min(h for _, h in found.values() if np.isfinite(h))
    spread = first_held_out - lowest_held_out
    return {key: (excess, min((h - lowest_held_out) / spread, 1e3)) for key, (excess, h) in found.items()}


def columns(results):
    """The measured runs as one would use them: rates fixed for all tasks, or the best for each."""
    rows = {name: (lambda _, name=name: (name, 0)) for name, runs in METHODS.items() if len(runs) == 1}
    for name in (name for name, runs in METHODS.items() if len(runs) > 1):
        total = [np.mean([np.log(found[name, k][0]) for found in results.values()]) for k in range(len(RATES))]
        single = int(np.argmin(total))
        rows[f"{name}, best rate for all ({RATES[single]:.2g})"] = lambda _, name=name, k=single: (name, k)
        rows[f"{name}, best rate for each"] = functools.partial(best_of, name)
    return rows


def best_of(name, found):
    """The rate that did best on a task."""
    return name, min(range(len(RATES)), key=lambda k: found[name, k][0])


def print_table(results):
    rows = columns(results)
    print("| | " + " | ".join(results) + " | geometric mean | worst | held-out |")
    print("|---|" + "---|" * (len(results) + 3))
    for label, pick in rows.items():
        chosen = {task: found[pick(found)] for task, found in results.items()}
        excess = [entry[0] for entry in chosen.values()]
        ends = [np.exp(np.mean(np.log(excess))), max(excess), np.mean([entry[1] for entry in chosen.values()])]
        print(f"| {label} | " + " | ".join(f"{value:.1e}" for value in [*excess, *ends]) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed and one batch size")
    arguments = parser.parse_args()
    tasks = dict([*synthetic_tasks(), *sklearn_tasks()])
    batch_sizes, seeds = (BATCH_SIZES[:1], SEEDS[:1]) if arguments.quick else (BATCH_SIZES, SEEDS)
    for tuned_on, title in ((False, "Tasks that the rate was not tuned on"), (True, "Tasks that it was tuned on")):
        chosen = {name: task for name, task in tasks.items() if task.tuned_on == tuned_on}
        if chosen:
            print(f"\n{title} (batches of {' and '.join(map(str, batch_sizes))}, {EPOCHS} epochs):\n")
            print_table({name: measure(task, batch_sizes, seeds) for name, task in chosen.items()})


if __name__ == "__main__":
    main()
