"""The tasks of judge_minibatch.py: losses with their gradients, starts and data."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.special


class Task(NamedTuple):
    """A loss ``fun(w, *batch) -> (f, gradient)``, a start, data in two parts, and whether the rate was tuned on it.

    `best` is a point with the lowest loss where no search would find it.
    """

    fun: Callable[..., Any]
    start: Any
    train: tuple[Any, ...]
    held_out: tuple[Any, ...]
    tuned_on: bool = False
    best: Any = None


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
    """Compute the logistic loss of features that indicate categories, of which most are rare."""
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
    """Compute the loss of a network with one hidden layer; `classes` is 0 for regression."""
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


def squares(w, X, y):
    r = X @ w - y
    return 0.5 * np.mean(r**2), X.T @ r / y.size


def student(v, X, y):
    """Compute the deviance of errors with Student's t distribution of 2 degrees of freedom; v[-1] is its log scale."""
    z = (y - X @ v[:-1]) / np.exp(v[-1])
    slope = 1.5 * z / (1.0 + z * z / 2.0)
    f = np.mean(1.5 * np.log1p(z * z / 2.0) + v[-1])
    return f, np.append(-X.T @ slope / (np.exp(v[-1]) * y.size), 1.0 - np.mean(slope * z))


def exponential(w, X, y):
    z = np.clip(X @ w, -30.0, 30.0)
    return np.mean(y * np.exp(-z) + z), X.T @ (1.0 - y * np.exp(-z)) / y.size


def gaussian(v, y):
    z = (y - v[0]) / np.exp(v[1])
    return np.mean(0.5 * z * z) + v[1], np.array([-np.mean(z) / np.exp(v[1]), 1.0 - np.mean(z * z)])


def bandit(v, chosen, noise):
    """Compute REINFORCE's estimate for a bandit with five arms: minus the mean reward, and its gradient."""
    p = np.exp(v - v.max())
    p /= p.sum()
    arms = np.minimum(np.searchsorted(np.cumsum(p), chosen), v.size - 1)
    reward = arms + noise
    return -np.mean(reward), -((np.eye(v.size)[arms] - p) * reward[:, None]).mean(axis=0)


def line_by_variational_inference(v, draws):
    """Compute the negative evidence bound of a line through seven points with unknown noise, a draw for each row."""
    t, y = np.array([1.1, 2.9, 3.3, 4.7, 5.8, 6.0, 6.4]), np.array([79.0, 58, 67, 37, 46, 33, 30])
    scale = np.exp(v[3:])
    a, b, log_noise = (v[:3] + scale * draws).T
    q, r = np.exp(2.0 * log_noise), y - a[:, None] - b[:, None] * t
    f = (r**2).sum(1) / (2.0 * q) + 6.0 * log_noise + (a**2 + b**2) / 2e4 + np.log1p(q / 25.0)
    g = np.c_[
        a / 1e4 - r.sum(1) / q,
        b / 1e4 - (r * t).sum(1) / q,
        6.0 - (r**2).sum(1) / q + 2.0 * q / 25.0 / (1.0 + q / 25.0),
    ]
    return f.mean() - v[3:].sum(), np.r_[g.mean(0), (g * draws).mean(0) * scale - 1.0]


# -- tasks ------------------------------------------------------------------------------------------------------------


def split(rng, *arrays):
    """Split the rows: three quarters for training, one quarter held out."""
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


def heavy_tailed_tasks():
    """Yield tasks whose gradients now and then are many times as large as usual."""
    rng = np.random.default_rng(79)
    n = 4000
    X, w = rng.normal(size=(n, 6)), rng.normal(size=6)
    heavy = np.exp(1.5 * rng.normal(size=(n, 6)))
    yield "Student-t regression", Task(student, np.zeros(7), *split(rng, X, X @ w + rng.standard_t(1.5, size=n)))
    yield "squares, t errors", Task(squares, np.zeros(6), *split(rng, X, X @ w + 0.3 * rng.standard_t(2.5, size=n)))
    yield "squares, lognormal", Task(squares, np.zeros(6), *split(rng, heavy, heavy @ w + rng.normal(size=n)))
    counts = rng.poisson(np.exp(np.clip(X @ w, -8.0, 6.0))).astype(float)
    yield "Poisson, steep", Task(functools.partial(poisson, l2=0.0), np.zeros(6), *split(rng, X, counts))
    signed = heavy * np.sign(X)
    y = (rng.random(n) < scipy.special.expit(3.0 * X @ w)).astype(float)
    yield "logistic, lognormal", Task(functools.partial(logistic, l2=0.0), np.zeros(6), *split(rng, signed, y))
    yield "exponential", Task(exponential, np.zeros(6), *split(rng, X, rng.exponential(np.exp(X @ w))))
    cauchy = np.clip(rng.standard_cauchy(size=(n, 10)), -200.0, 200.0)
    y = cauchy @ rng.normal(size=10) + rng.normal(size=n)
    yield "Huber, Cauchy", Task(huber, np.zeros(10), *split(rng, cauchy, y))
    yield "Gaussian, narrow start", Task(gaussian, np.array([0.0, -2.0]), *split(rng, 5.0 + 20.0 * rng.normal(size=n)))
    yield "variational line", Task(line_by_variational_inference, np.zeros(6), *split(rng, rng.normal(size=(n, 3))))
    last_arm = np.array([0.0, 0.0, 0.0, 0.0, 50.0])
    data = split(rng, rng.random(n), rng.standard_t(2.2, size=n))
    yield "REINFORCE", Task(bandit, np.zeros(5), *data, best=last_arm)


def small_tasks():
    """Yield tasks of very few rows."""
    rng = np.random.default_rng(79)
    X = rng.normal(size=(200, 4))
    yield (
        "squares, 4 variables",
        Task(squares, np.zeros(4), *split(rng, X, X @ np.arange(1.0, 5.0) + rng.normal(size=200))),
    )
    try:
        from sklearn import datasets
    except ImportError:
        return
    X, y = datasets.load_iris(return_X_y=True)
    X = standardized(X)
    yield "softmax, iris", Task(softmax, np.zeros(3 * X.shape[1]), *split(rng, X, y))


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
