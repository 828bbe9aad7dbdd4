"""What several front ends have in common: objectives, and rows of their tables of options."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from option_table import FILE, RULE, STATE, Refused, Works, say

NEEDS_THREADS = pytest.mark.skipif(numba.get_num_threads() < 2, reason="there is one thread")
LARGE = np.full(100_000, 0.5)


def value(x, *shifts):
    return np.sum((x - 1.0) ** 4) + 10.0 * (x[0] - x[-1]) ** 2 + sum(np.mean(shift) for shift in shifts) * x[0]


def gradient(x, *shifts):
    g = 4.0 * (x - 1.0) ** 3
    g[0] += 20.0 * (x[0] - x[-1]) + sum(np.mean(shift) for shift in shifts)
    g[-1] -= 20.0 * (x[0] - x[-1])
    return g


def flattened(x, *shifts):
    """As `value`, but most iterations do not change it."""
    return 1e12 + value(x, *shifts)


class Printing:
    """The communicator of one rank, which prints what it sends."""

    def Get_rank(self):
        return 0

    def Allreduce(self, sent, received):
        say(sent)
        received[:] = sent

    def allgather(self, item):
        return [item]


def printing_map(function, parts):
    say("map")
    return map(function, parts)


NO_USE = "has no meaning with learning_rate='auto'"
DIFFERENCES = {"jac": "3-point"}
SIZES = {"x_scale": Works(7.0), "f_noise": Works(1.0)}
NO_SIZES = {
    "x_scale": Refused(7.0, "x_scale has no meaning with learning_rate=.*; leave it out"),
    "f_noise": Refused(1.0, "f_noise has no meaning with learning_rate=.*; leave it out"),
}
LIMITS = {
    "gtol": Works(1e3),
    "ftol": Works(0.99),
    "xtol": Works(0.99),
    "f_target": Works(1e3),
    "maxiter": Works(2),
    "maxfev": Works(2),
    "finite_diff_rel_step": Works(1e-2, DIFFERENCES),
}
ONE_RUN = {
    "maxtime": Works(0.0),
    "history": Works(True),
    "return_all": Works(True),
    "disp": Works(True),
    "progress": Works(True),
    "checkpoint": Works(FILE),
    "checkpoint_every": Works(0.0, {"checkpoint": FILE}),
    "state": Works(STATE),
}
RATE = {"learning_rate": Works(0.2)}
NOT_FOR_AUTO = {
    "momentum": Refused(0.5, f"momentum=0.5 {NO_USE}"),
    "nesterov": Refused(True, f"nesterov=True {NO_USE}"),
    "centered": Refused(True, f"centered=True {NO_USE}"),
    "eps_inside_sqrt": Refused(True, f"eps_inside_sqrt=True {NO_USE}"),
    "bias_correction": Refused(True, f"bias_correction=True {NO_USE}"),
    "initial_accumulator": Refused(1.0, f"initial_accumulator=1.0 {NO_USE}"),
    "weight_decay": Refused(0.1, f"weight_decay=0.1 {NO_USE}"),
    "decoupled_weight_decay": Refused(True, f"decoupled_weight_decay=True {NO_USE}"),
    "lr_in_momentum": Refused(True, f"lr_in_momentum=True {NO_USE}"),
    "parallel": Refused(True, f"parallel=True {NO_USE}"),
}
HOST = {"check_every": Refused(10, "check_every is for x0 on a CUDA device, got 10; leave it out")}
OPTIONS = {
    "auto": {
        **LIMITS,
        **SIZES,
        **ONE_RUN,
        "patience": Works(1, {"fun": flattened}),
        "beta": RULE["beta"],
        "eps": RULE["eps"],
        **NOT_FOR_AUTO,
    }
    | {**HOST, "learning_rate": Works(0.1)},
    "textbook": {**LIMITS, **NO_SIZES, **ONE_RUN, "patience": Works(1, {"learning_rate": 1.0}), **RULE, **RATE, **HOST}
    | {"parallel": Works(True, {"x0": LARGE, "maxiter": 1})},
    "lbfgs": {
        **LIMITS,
        **SIZES,
        **ONE_RUN,
        "patience": Works(1, {"fun": flattened}),
        "beta": Works(0.5),
        "eps": Works(0.1),
        "memory": Works(1),
    },
}
METHOD_OF = {"auto": "rmsprop", "textbook": "rmsprop", "lbfgs": "rmsprop-lbfgs"}
CHOSEN = {"auto": {}, "textbook": {"learning_rate": 0.1, "maxiter": 9}, "lbfgs": {}}


def rows(table):
    marks = {"parallel": NEEDS_THREADS, "workers": NEEDS_THREADS}
    return [
        pytest.param(*keys, id="-".join(keys), marks=[marks[keys[-1]]] if keys[-1] in marks else [])
        for keys in ((*kind, name) for kind, options in table.items() for name in options)
    ]
