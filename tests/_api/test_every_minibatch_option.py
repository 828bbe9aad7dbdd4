"""Every option and argument of mini-batches works, or is refused with what to do instead."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from option_rows import LARGE, NOT_FOR_AUTO, Printing, gradient, rows, value
from option_table import DECAYING, FILE, RULE, STATE, Ignored, Refused, Works, check, say

from rmsprop_nb import minimize_minibatch

ROWS = np.linspace(-1.0, 2.0, 24)


def loss(x, rows, *shifts):
    return value(x, rows, *shifts), gradient(x, rows, *shifts)


def loss_of_x(x, rows):
    return value(x, rows)


def only_for(name, rate):
    return Refused(0.5, f"Unknown option '{name}' for minimize_minibatch .*: it needs a learning_rate that is {rate}")


TEXTBOOK_ROWS = {name: only_for(name, "a number or a schedule") for name in (*NOT_FOR_AUTO,)}
STEPS = {"finite_diff_rel_step": Works(1e-2, {"jac": "3-point", "fun": loss_of_x})}
MINIBATCH_OPTIONS = {
    "auto": {"beta": Works(0.5), "eps": Works(0.1), "first_distance": Works(0.1), **STEPS, **TEXTBOOK_ROWS},
    "auto-constant": {"beta": Works(0.5), "eps": Works(0.1), "first_distance": Works(0.1), **STEPS, **TEXTBOOK_ROWS},
    "number": {**RULE, **STEPS, "parallel": Works(True, {"x0": LARGE, "epochs": 1})},
    "each": {**RULE, **STEPS, "parallel": Works(True, {"x0": LARGE, "epochs": 1, "learning_rate": 0.1 * LARGE})},
    "schedule": {**RULE, **STEPS, "parallel": Works(True, {"x0": LARGE, "epochs": 1})},
}


for _table in ("number", "each", "schedule"):
    MINIBATCH_OPTIONS[_table]["first_distance"] = only_for("first_distance", "'auto' or 'auto-constant'")


RATES = {
    "auto": "auto",
    "auto-constant": "auto-constant",
    "number": 0.1,
    "each": np.array([0.1, 0.2, 0.0]),
    "schedule": DECAYING,
}
MINIBATCH = {
    "fun": Works(lambda x, rows: (1.0 + value(x, rows), gradient(x, rows))),
    "x0": Works([1.0, 2.0]),
    "data": Works(ROWS + 1.0),
    "args": Works((0.5,)),
    "batch_size": Works(4),
    "epochs": Works(2),
    "jac": Works("3-point", {"fun": lambda x, rows: Both(value(x, rows), gradient(x, rows))}),
    "bounds": Works([(None, 0.5)] * 3),
    "learning_rate": Works(0.1),
    "rng": Works(2),
    "shuffle": Works(False),
    "averaging": Works(True),
    "validation": Works(0.5),
    "patience": Works(1, {"validation": -5.0 * ROWS, "learning_rate": 0.5, "epochs": 20}),
    "clip_value": Works(0.1),
    "clip_norm": Works(0.1),
    "accumulate": Works(2),
    "callback": Works(print),
    "maxtime": Works(0.0),
    "history": Works(True),
    "final_evaluation": Works(False),
    "progress": Works(True),
    "checkpoint": Works(FILE),
    "checkpoint_every": Works(0.0, {"checkpoint": FILE}),
    "state": Works(STATE, {"epochs": 4, "maxtime": 0.0}),
    "options": Works({"beta": 0.5}),
    "comm": Works(Printing()),
    "deterministic": Works(True, {"fun": lambda x, rows: (say(rows.size), loss(x, rows))[1]}),
}


class Both(float):
    """A value that is taken with its gradient, or without."""

    def __new__(cls, f, g):
        both = super().__new__(cls, f)
        both.pair = (f, g)
        return both

    def __iter__(self):
        return iter(self.pair)


def run_minibatch(**arguments):
    chosen = {
        "fun": loss, "x0": np.array([3.0, -1.0, 0.5]), "data": ROWS, "batch_size": 8, "epochs": 3, "rng": 1, "jac": True
    }  # fmt: skip
    return minimize_minibatch(**chosen | arguments)


@pytest.mark.parametrize("name", MINIBATCH)
def test_argument_of_minimize_minibatch(name, tmp_path):
    check(name, MINIBATCH[name], run_minibatch, "", tmp_path)


@pytest.mark.slow  # most options are kernels to compile
@pytest.mark.parametrize(("kind", "name"), rows({(kind,): table for kind, table in MINIBATCH_OPTIONS.items()}))
def test_option_of_minimize_minibatch(kind, name, tmp_path):
    def run(**chosen):
        arguments = {key: chosen.pop(key) for key in ("x0", "epochs", "jac", "fun", "learning_rate") if key in chosen}
        return run_minibatch(**{"learning_rate": RATES[kind], **arguments}, options=chosen)

    check(name, MINIBATCH_OPTIONS[kind][name], run, "", tmp_path)


def test_every_argument_of_minimize_minibatch_has_a_row():
    assert set(MINIBATCH) == set(inspect.signature(minimize_minibatch).parameters)
    known = {"first_distance", "finite_diff_rel_step", "parallel", *RULE}
    for table in MINIBATCH_OPTIONS.values():
        assert set(table) == known
    with pytest.raises(ValueError, match="Unknown option 'lr'"):
        run_minibatch(options={"lr": 0.1})


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("rng", Ignored(2, "Not used with ``shuffle=False`` or `state`.", {"shuffle": False})),
        ("rng", Ignored(2, "Not used with ``shuffle=False`` or `state`.", {"state": STATE, "epochs": 4})),
    ],
)
def test_argument_of_minimize_minibatch_that_changes_nothing_is_said_to(name, row, tmp_path):
    check(name, row, run_minibatch, minimize_minibatch.__doc__ or row.words, tmp_path)
