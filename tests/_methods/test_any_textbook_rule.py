"""What holds for any options of the textbook rule."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from random_problems import SWITCHES, VARIANTS, Textbook, bumpy, examples, quadratic, start_and_weights, textbooks

from rmsprop_nb import minimize
from rmsprop_nb.testing import reference_rmsprop


def test_any_two_settings_meet_in_some_variant():
    for (a, a_values), (b, b_values) in itertools.combinations(SWITCHES.items(), 2):
        for pair in itertools.product(a_values, b_values):
            assert any((v[a], v[b]) == pair for v in VARIANTS)


# Where 1 - beta**step cancels most: it has to be formed in double precision for float32, too.
SLOW_AVERAGE = Textbook(
    np.float32,
    [0.1] * 20,
    {"beta": 0.999, "eps": 1e-8, "bias_correction": True, "centered": False}
    | {"eps_inside_sqrt": True, "weight_decay": 0.01},  # one of VARIANTS
)


@pytest.mark.thorough
@examples(60)
@given(rule=textbooks(), n=st.integers(1, 9), seed=st.integers(0, 99))
@example(SLOW_AVERAGE, 5, 4)
def test_textbook_path_is_that_of_the_reference(rule, n, seed):
    x0, k = start_and_weights(rule.dtype, n, seed)
    options = {**rule.for_minimize, "maxiter": len(rule.rates), "gtol": 0.0, "return_all": True}
    result = minimize(bumpy, x0, (rule.dtype(1.0), k), jac="inplace", options=options)
    gradients = [np.empty_like(x0) for _ in result.allvecs]
    for x, g in zip(result.allvecs, gradients, strict=True):
        bumpy(x, g, rule.dtype(1.0), k)
    # The gradients are those of the path itself, so that nothing but the rule can make a difference.
    path = list(reference_rmsprop(x0, gradients[:-1], rule.rates, **rule.options))
    assert len(path) == result.nit
    difference = np.abs(np.array(result.allvecs[1:], np.float64).reshape(-1, n) - np.array(path).reshape(-1, n))
    if not rule.options["bias_correction"]:
        assert not difference.any()
    elif not rule.options["centered"]:  # otherwise the variance of the first step is a difference of equal numbers
        way = np.abs(x0) + np.abs(np.diff(result.allvecs, axis=0)).sum(axis=0)
        units = 4.0 if rule.dtype == np.float32 else 100.0  # powers of beta are rounded in another way, in float64
        assert (difference <= units * np.finfo(rule.dtype).eps * way).all()


@examples(30)
@given(rule=textbooks(), n=st.integers(2, 9), seed=st.integers(0, 99), data=st.data())
def test_textbook_rule_treats_every_variable_alone(rule, n, seed, data):
    x0, k = start_and_weights(rule.dtype, n, seed)
    chosen = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=n, unique=True)))
    options = {**rule.for_minimize, "maxiter": len(rule.rates), "gtol": 0.0, "return_all": True}
    center, wide = np.zeros(n, rule.dtype), np.full(n, np.inf)

    def path(index):
        args = (np.diag(k[index]), center[index], -wide[index], wide[index], np.zeros(1, np.int64))
        return np.array(minimize(quadratic, x0[index], args, jac="inplace", options=options).allvecs)

    together, alone = path(np.arange(n)), path(chosen)
    steps = min(len(together), len(alone))  # a variable that runs away ends the run of all
    np.testing.assert_array_equal(together[:steps, chosen], alone[:steps])
