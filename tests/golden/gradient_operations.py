"""Objectives whose exact derivatives are compared with those of JAX: arrays, iterations, every elementary function."""

from __future__ import annotations

import math

import numpy as np
from gradient_listing import X4, X6, A, B, case, wave

# -- arrays and matrices -------------------------------------------------------------------------------------------


@case(X4, A, B)
def least_squares(x, M, b):
    r = M @ x - b
    return 0.5 * np.dot(r, r)


@case(X6, A)
def vector_times_matrix(x, M):
    return np.sum(np.tanh(x @ M) ** 2)


@case(wave(14, 0.7), A)
def neural_network(w, X):
    W = w[:12].reshape((4, 3))
    hidden = np.tanh(X @ W)
    return np.sum((hidden @ w[11:14] - 0.3) ** 2)


@case(X4)
def log_sum_exp(x):
    m = np.max(x)
    return m + np.log(np.sum(np.exp(x - m)))


@case(X4)
def softmax_entropy(x):
    e = np.exp(x - np.max(x))
    p = e / np.sum(e)
    return -np.sum(p * np.log(p))


@case(X6)
def total_variation(x):
    return np.sum(np.sqrt(np.diff(x) ** 2 + 1e-3)) + 0.5 * np.sum((x - 0.1) ** 2)


@case(X6)
def running_sums(x):
    return np.sum(np.cumsum(x) ** 2) + np.linalg.norm(x) + np.prod(1.0 + 0.1 * x)


@case(X6)
def clipped(x):
    return np.sum(np.clip(x, -0.4, 0.6) * x) + np.sum(np.where(x > 0.0, x**2, np.exp(x)))


@case(X4)
def outer_products(x):
    P = np.outer(x, x) + np.outer(np.ones(4), x)
    return np.sum(P**2) + np.sum(np.sum(P, axis=0) ** 3) + np.mean(np.max(np.abs(x)) * P)


@case([1.2, 0.3, 0.8])
def cholesky_by_hand(x):
    L = np.array([[x[0], 0.0], [x[1], x[2]]])
    S = L @ L.T
    return np.log(S[0, 0] * S[1, 1] - S[0, 1] ** 2) + S[0, 0] + np.trace(S)


@case(wave(8))
def complex_by_hand(x):
    re, im = 1.0, 0.0
    for k in range(x.size // 2):
        re, im = re * x[2 * k] - im * x[2 * k + 1], re * x[2 * k + 1] + im * x[2 * k]
    return np.hypot(re, im) + np.arctan2(im, re)


@case(X6)
def smoothing_in_place(x):
    y = x.copy()
    for _ in range(3):
        y[1:-1] = 0.25 * y[:-2] + 0.5 * y[1:-1] + 0.25 * y[2:]
    y *= 2.0
    y -= x
    return np.sum(y**4)


@case(wave(6), np.array([5, 0, 2]))
def gathered(x, index):
    return np.sum(x[index] ** 3) + np.sum(x[::2] * x[1::2])


# -- differential equations, iterations, geometry ------------------------------------------------------------------


@case([1.1, 0.4, 0.3, 0.6])
def lotka_volterra(p):
    a, b = 1.0, 0.8
    s = 0.0
    h = 0.05
    for _ in range(40):
        ka, kb = p[0] * a - p[1] * a * b, p[2] * a * b - p[3] * b
        a2, b2 = a + 0.5 * h * ka, b + 0.5 * h * kb
        a, b = a + h * (p[0] * a2 - p[1] * a2 * b2), b + h * (p[2] * a2 * b2 - p[3] * b2)
        s += (a - 1.0) ** 2 + (b - 0.5) ** 2
    return s


@case([0.4, 1.3, 0.2])
def pendulum(p):
    state = np.empty(2)
    state[0], state[1] = p[0], p[2]
    for _ in range(50):
        state[1] += -0.02 * p[1] * math.sin(state[0])
        state[0] += 0.02 * state[1]
    return state[0] ** 2 + state[1]


@case([2.7, 0.4])
def newton_iteration(x):
    y = x[0]
    while abs(y * y - x[0]) > 1e-15:
        y = 0.5 * (y + x[0] / y)
    for _ in range(2):
        y = 0.5 * (y + x[0] / y)
    return y * x[1]


@case(wave(8, 0.4))
def heat_equation(x):
    u = x.copy()
    for _ in range(10):
        new = np.empty(u.size)
        for i in range(u.size):
            left = u[i - 1] if i > 0 else 0.0
            right = u[i + 1] if i + 1 < u.size else 0.0
            new[i] = u[i] + 0.2 * (left - 2.0 * u[i] + right)
        u = new
    return np.sum((u - 0.1) ** 2)


@case([0.3, 1.1, 0.2, 0.9, 1.4, 0.8])
def lennard_jones(x):
    s = 0.0
    n = x.size // 2
    for i in range(n):
        for j in range(i):
            r2 = (x[2 * i] - x[2 * j]) ** 2 + (x[2 * i + 1] - x[2 * j + 1]) ** 2
            s += r2**-6 - 2.0 * r2**-3
    return s


@case([0.5, -0.3, 0.8, 0.1], np.linspace(0.0, 3.0, 4), np.linspace(0.05, 2.95, 15))
def linear_spline(x, knots, t):
    s = 0.0
    for v in t:
        k = min(int(v), 2)
        w = (v - knots[k]) / (knots[k + 1] - knots[k])
        s += ((1.0 - w) * x[k] + w * x[k + 1] - math.sin(v)) ** 2
    return s


@case([0.2, 0.5, 0.9, 0.4])
def bezier(x):
    s = 0.0
    for k in range(10):
        t = k / 9.0
        b = (1 - t) ** 3 * x[0] + 3 * t * (1 - t) ** 2 * x[1] + 3 * t**2 * (1 - t) * x[2] + t**3 * x[3]
        s += (b - t * t) ** 2
    return s


# -- every elementary function -------------------------------------------------------------------------------------


@case([0.3, 0.6, 1.7, 2.4])
def elementary(x):
    a, b, c, d = x[0], x[1], x[2], x[3]
    s = math.exp(a) + math.expm1(b) + math.log(c) + math.log1p(a) + math.log2(c) + math.log10(d) + math.sqrt(d)
    s += math.sin(a) * math.cos(b) + math.tan(a) + math.asin(a) + math.acos(b) + math.atan(c) + math.atan2(a, c)
    s += math.sinh(a) + math.cosh(b) + math.tanh(c) + math.asinh(c) + math.acosh(d) + math.atanh(a)
    s += math.erf(a) + math.erfc(b) + math.hypot(a, d) + math.fabs(-c) + math.copysign(c, -1.0)
    return s + math.degrees(a) + math.radians(d) + math.pow(c, b)


@case([0.3, 0.6, 0.7, 0.4])
def elementwise(x):
    s = np.sum(np.exp2(x) + np.cbrt(x) + np.square(x) + np.reciprocal(x) + np.arcsin(x) - np.arccos(x))
    s += np.sum(np.sinh(x) * np.cosh(x) + np.arcsinh(x) + np.arctanh(x) + np.arccosh(x + 1.5) + np.log2(x))
    s += np.sum(np.maximum(x, 0.5) + np.minimum(x, x[::-1]) + np.hypot(x, 2.0) + np.deg2rad(x) + np.rad2deg(x))
    return s + np.sum(np.sign(x) * x + np.floor(x) + np.abs(x - 0.5) + np.logaddexp2(x, 1.0) + np.remainder(x, 0.25))


@case([1.3, 2.1, 0.7])
def powers(x):
    a, b, c = x[0], x[1], x[2]
    return a**b + 2.0**c + b**3 + c**-2 + b**0.5 + a**1 + (a * b) ** 0 + (a + 1) ** (b * c) + (c**2) ** 1.5


@case([2.6, 1.7])
def kinds_of_division(x):
    return x[0] / x[1] + x[0] % 0.7 + (x[0] // 0.9) * x[1] + np.fmod(x[0], 1.1) + (5.0 % x[1]) + 1 / x[0]
