"""Objectives that stand at the top of a module, so that other processes can be given them."""

from __future__ import annotations

import os

import numpy as np


class OddError(Exception):
    """Pickles, and cannot be unpickled."""

    def __init__(self, _one, _two):
        super().__init__("odd")


def bowl(x, target):
    return np.sum((x - target) ** 2), 2.0 * (x - target)


def distance_from_mean(x, grad, a):
    """The squared distance of every variable from the mean of some data."""
    d = x - np.mean(a)
    grad[:] = 2.0 * d
    return np.sum(d * d)


def sometimes_raises(x, target):
    if target == 2.0:
        raise ValueError("on purpose")
    if target == 3.0:
        raise OddError(1, 2)
    return bowl(x, target)


def sometimes_dies(x, target):
    if target == 77.0:
        os._exit(1)
    return bowl(x, target)


def counting_bowl(x, grad, counts):
    """Raises at call ``counts[1]``."""
    counts[0] += 1
    if counts[0] == counts[1]:
        raise ValueError("on purpose")
    f = 0.0
    for i in range(x.size):
        grad[i] = (i + 1.0) * (x[i] - 1.0)
        f += 0.5 * grad[i] * (x[i] - 1.0)
    return f
