"""Objectives whose exact derivatives are compared with those of JAX: curves, test functions and likelihoods."""

from __future__ import annotations

import math

import numpy as np
from gradient_listing import LABELS, X4, X6, A, B, T, Y, case, wave

# -- curves through data -------------------------------------------------------------------------------------------


@case([1.5, 0.5], T, Y)
def decay_loop(p, t, y):
    s = 0.0
    for i in range(t.size):
        r = p[0] * math.exp(-p[1] * t[i]) - y[i]
        s += r * r
    return s


@case([1.5, 0.5, 0.1], T, Y)
def decay_array(p, t, y):
    return np.sum((p[0] * np.exp(-p[1] * t) + p[2] - y) ** 2)


@case([1.5, 0.5, 0.3, 2.0, 0.1], T, Y)
def two_decays(p, t, y):
    m = np.zeros(t.size)
    for i in range(t.size):
        m[i] = p[0] * math.exp(-p[1] * t[i]) + p[2] * math.exp(-p[3] * t[i]) + p[4]
    return np.sum((m - y) ** 2)


@case([1.0, 1.1, 0.4, 0.2], T, Y)
def gaussian_peak(p, t, y):
    return np.mean((p[0] * np.exp(-(((t - p[1]) / p[2]) ** 2)) + p[3] - y) ** 2)


@case([1.0, 0.7, 0.5, -0.4, 1.3, 0.6, 0.8, 1.7, 0.3], T, Y)
def sum_of_peaks(p, t, y):
    m = np.zeros_like(t)
    for k in range(p.size // 3):
        m += p[3 * k] * np.exp(-0.5 * ((t - p[3 * k + 1]) / p[3 * k + 2]) ** 2)
    return np.sum((m - y) ** 2)


@case([2.0, 1.5, 0.8], T, Y)
def logistic_growth(p, t, y):
    return np.sum((p[0] / (1.0 + np.exp(-p[1] * (t - p[2]))) - y) ** 2)


@case([0.7, 0.3], T, Y)
def michaelis_menten(p, t, y):
    return np.sum((p[0] * t / (p[1] + t) - y) ** 2)


@case([0.3, -0.2, 0.5, 0.1], T, Y)
def rational(p, t, y):
    return np.sum(((p[0] + p[1] * t) / (1.0 + p[2] * t + p[3] * t**2) - y) ** 2)


@case([0.2, -0.5, 0.4, 0.3], T, Y)
def horner(p, t, y):
    s = 0.0
    for i in range(t.size):
        v = 0.0
        for k in range(p.size):
            v = v * t[i] + p[k]
        s += (v - y[i]) ** 2
    return s


@case([1.0, 0.5, 0.2], T, Y)
def huber_loss(p, t, y):
    s = 0.0
    for i in range(t.size):
        r = abs(p[0] * np.exp(-p[1] * t[i]) + p[2] - y[i])
        if r < 0.3:
            s += 0.5 * r * r
        else:
            s += 0.3 * (r - 0.15)
    return s


# -- test functions ------------------------------------------------------------------------------------------------


@case(X6)
def rosenbrock_loop(x):
    s = 0.0
    for i in range(x.size - 1):
        s += 100.0 * (x[i + 1] - x[i] ** 2) ** 2 + (1.0 - x[i]) ** 2
    return s


@case(wave(11))
def rosenbrock_slices(x):
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


@case([3.0, -1.0, 0.4, 1.2])
def powell_singular(x):
    a, b, c, d = x
    return (a + 10 * b) ** 2 + 5 * (c - d) ** 2 + (b - 2 * c) ** 4 + 10 * (a - d) ** 4


@case([0.3, -0.7, 0.2])
def ackley(x):
    n = x.size
    return (
        -20.0 * math.exp(-0.2 * math.sqrt(np.sum(x * x) / n))
        - math.exp(np.sum(np.cos(2 * math.pi * x)) / n)
        + 20.0
        + math.e
    )


@case(X4)
def rastrigin(x):
    return 10 * x.size + np.sum(x**2 - 10.0 * np.cos(2.0 * np.pi * x))


@case([0.5, 1.5, -0.3])
def griewank(x):
    product = 1.0
    for i in range(x.size):
        product *= math.cos(x[i] / math.sqrt(i + 1.0))
    return np.sum(x**2) / 4000.0 - product + 1.0


@case([1.2, -0.4])
def himmelblau(x):
    return (x[0] ** 2 + x[1] - 11) ** 2 + (x[0] + x[1] ** 2 - 7) ** 2


@case([0.7, -0.2])
def beale(x):
    c = (1.5, 2.25, 2.625)
    s = 0.0
    for k, v in enumerate(c):
        s += (v - x[0] + x[0] * x[1] ** (k + 1)) ** 2
    return s


@case([0.2, 0.4, 0.5, -0.1, 0.9])
def broyden_tridiagonal(x):
    s = 0.0
    for i in range(x.size):
        left = x[i - 1] if i > 0 else 0.0
        right = x[i + 1] if i < x.size - 1 else 0.0
        s += ((3.0 - 2.0 * x[i]) * x[i] - left - 2.0 * right + 1.0) ** 2
    return s


@case(wave(9, 0.5))
def discrete_boundary_value(x):
    n = x.size
    h = 1.0 / (n + 1)
    r = np.empty(n)
    for i in range(n):
        r[i] = 2.0 * x[i] + 0.5 * h**2 * (x[i] + (i + 1) * h + 1.0) ** 3
        if i > 0:
            r[i] -= x[i - 1]
        if i < n - 1:
            r[i] -= x[i + 1]
    return np.dot(r, r)


@case(X6)
def styblinski_tang(x):
    return 0.5 * np.sum(x**4 - 16 * x**2 + 5 * x)


@case([0.3, 0.6, 0.8])
def box_three_dimensional(x):
    s = 0.0
    for i in range(1, 11):
        t = 0.1 * i
        s += (math.exp(-t * x[0]) - math.exp(-t * x[1]) - x[2] * (math.exp(-t) - math.exp(-10 * t))) ** 2
    return s


@case([0.9, 0.4])
def goldstein_price(x):
    a, b = x[0], x[1]
    one = 1 + (a + b + 1) ** 2 * (19 - 14 * a + 3 * a**2 - 14 * b + 6 * a * b + 3 * b**2)
    two = 30 + (2 * a - 3 * b) ** 2 * (18 - 32 * a + 12 * a**2 + 48 * b - 36 * a * b + 27 * b**2)
    return one * two


# -- likelihoods ---------------------------------------------------------------------------------------------------


@case([0.2, -0.1, 0.3, 0.05], A, LABELS)
def logistic_regression(w, X, y):
    z = y * (X @ w)
    return np.mean(np.logaddexp(0.0, -z)) + 0.01 * np.dot(w, w)


@case([0.2, -0.1, 0.3, 0.05], A, LABELS)
def logistic_regression_loop(w, X, y):
    s = 0.0
    for i in range(X.shape[0]):
        z = 0.0
        for j in range(X.shape[1]):
            z += w[j] * X[i, j]
        z *= y[i]
        if z > 0:
            s += math.log1p(math.exp(-z))
        else:
            s += math.log1p(math.exp(z)) - z
    return s / X.shape[0]


@case([0.1, 0.2, 0.6], wave(30))
def garch(p, e):
    h = p[0] / (1.0 - p[1] - p[2])
    s = 0.0
    for i in range(e.size):
        s += math.log(h) + e[i] ** 2 / h
        h = p[0] + p[1] * e[i] ** 2 + p[2] * h
    return 0.5 * s


@case([0.3, -0.2, 0.4], wave(30))
def arma(p, y):
    e = np.zeros(y.size)
    for t in range(1, y.size):
        e[t] = y[t] - p[0] * y[t - 1] - p[1] * e[t - 1]
    return np.sum(e**2) / np.exp(p[2]) + y.size * p[2]


@case([0.4, 1.3], np.abs(Y))
def gamma_likelihood(p, y):
    a, b = np.exp(p[0]), np.exp(p[1])
    return -np.sum(a * np.log(b) - math.lgamma(a) + (a - 1) * np.log(y) - b * y)


@case([0.7, 0.3], np.array([0.0, 2.0, 1.0, 4.0, 3.0]))
def negative_binomial(p, k):
    r, q = math.exp(p[0]), 1.0 / (1.0 + math.exp(-p[1]))
    s = 0.0
    for v in k:
        s -= math.lgamma(v + r) - math.lgamma(r) - math.lgamma(v + 1.0) + r * math.log(q) + v * math.log(1 - q)
    return s


@case([0.3, 0.2, 3.0], Y)
def student_t(p, y):
    z = (y - p[0]) / math.exp(p[1])
    nu = p[2]
    constant = math.lgamma((nu + 1) / 2) - math.lgamma(nu / 2) - 0.5 * math.log(nu * math.pi) - p[1]
    return -(y.size * constant - (nu + 1) / 2 * np.sum(np.log1p(z**2 / nu)))


@case([0.2, 0.5, -0.3, 0.1, -0.4, 0.6], Y)
def mixture(p, y):
    s = 0.0
    for v in y:
        a = p[4] - 0.5 * ((v - p[0]) / math.exp(p[1])) ** 2 - p[1]
        b = p[5] - 0.5 * ((v - p[2]) / math.exp(p[3])) ** 2 - p[3]
        m = max(a, b)
        s += m + math.log(math.exp(a - m) + math.exp(b - m))
    return -s + y.size * np.logaddexp(p[4], p[5])


@case([0.3, -0.5, 0.2], A[:, :3], np.array([1.0, 0.0, 2.0, 3.0, 0.0, 1.0]))
def poisson_regression(w, X, k):
    eta = np.dot(X, w)
    return np.sum(np.exp(eta) - k * eta)


@case([0.3, -0.5, 0.2, 0.1], A, B)
def probit(w, X, b):
    s = 0.0
    for i in range(X.shape[0]):
        z = np.sum(X[i] * w)
        s -= math.log(0.5 * math.erfc(-z * (1.0 if b[i] > 0 else -1.0) / math.sqrt(2.0)))
    return s
