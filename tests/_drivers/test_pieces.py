"""However a run is cut up, into pieces or chunks, it is the same run."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from random_problems import DTYPES, bumpy, examples, start_and_weights, textbooks
from scipy.optimize import Bounds

from rmsprop_nb import Status, minimize
from rmsprop_nb._drivers import loop as _loop


@st.composite
def runs(draw):
    """Anything `minimize` can be asked to do with `bumpy`: positional arguments and options."""
    seed, n, bounded = draw(st.integers(0, 99)), draw(st.integers(1, 6)), draw(st.booleans())
    rule = draw(st.none() | textbooks())
    dtype = draw(DTYPES) if rule is None else rule.dtype
    x0, k = start_and_weights(dtype, n, seed)
    method, options = "rmsprop", {}
    if rule is not None:
        options = {**rule.for_minimize}
    elif draw(st.booleans()):
        method, options = "rmsprop-lbfgs", {"memory": draw(st.integers(1, 7))}
    bounds = Bounds(-1.0, 1.5) if bounded else None
    return (bumpy, x0, (dtype(1.0), k), method, "inplace", bounds), options


def at_a_standstill():
    """A run that soon sees no more progress, and whose searches fail again and again."""
    x0, k = start_and_weights(np.float32, 1, 29)
    return (bumpy, x0, (np.float32(1.0), k), "rmsprop", "inplace", None), {}


def assert_same_end(a, b):
    np.testing.assert_array_equal(a.x, b.x)
    np.testing.assert_array_equal(a.jac, b.jac)
    assert (a.fun, a.status) == (b.fun, b.status)
    for left, right in zip(a.state.arrays, b.state.arrays, strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.thorough
@examples(60)
@given(run=runs(), cuts=st.lists(st.integers(1, 200), min_size=1, max_size=4))
@example(at_a_standstill(), [13])
def test_run_in_pieces_is_the_run(run, cuts):
    positional, options = run
    total = 900  # enough for the test that sees no more progress
    whole = minimize(*positional, options={**options, "gtol": 0.0, "maxfev": total})
    # Should it end by itself at the very evaluation that exhausts a piece's maxfev, the piece reports its limit.
    assume(whole.status == Status.MAXFEV or whole.nfev not in np.cumsum(cuts))
    pieces, state = [], None
    for maxfev in [*cuts, total - sum(cuts)]:
        piece = minimize(*positional, options={**options, "gtol": 0.0, "maxfev": maxfev, "state": state})
        pieces.append(piece)
        state = piece.state
        if piece.status != Status.MAXFEV:
            break
    assert_same_end(pieces[-1], whole)
    for count in ("nit", "nfev"):
        assert sum(piece[count] for piece in pieces) == whole[count]


@pytest.mark.thorough
@examples(30)
@given(run=runs(), chunks=st.lists(st.integers(1, 50), min_size=1, max_size=20), watched=st.booleans())
def test_chunks_do_not_matter(run, chunks, watched):
    positional, options = run
    callback = (lambda xk: None) if watched else None
    options = {**options, "gtol": 0.0, "maxfev": 120, "history": 3}
    expected = minimize(*positional, options=options)
    sizes = itertools.cycle(chunks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_loop, "next_budget", lambda *_: next(sizes))
        result = minimize(*positional, callback=callback, options=options)
    assert_same_end(result, expected)
    assert (result.nit, result.nfev) == (expected.nit, expected.nfev)
    for name, column in expected.history.items():
        np.testing.assert_array_equal(result.history[name], column)
