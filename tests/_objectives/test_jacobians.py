"""Jacobians by differences and complex steps, of functions that no smooth model looks like."""

import numba
import numpy as np
import pytest
from numba.extending import is_jitted

from rmsprop_nb._objectives.jacobians import make_fill
from rmsprop_nb._objectives.residuals import compiled_fill

NO_BOX = (np.empty(0), np.empty(0))


def fill(function, jac, x, *args):
    """Return the values and the Jacobian, compiled if `function` is."""
    made = make_fill(function, jac)
    if not is_jitted(function):
        return made(x, NO_BOX, args)
    compiled = compiled_fill(function, jac, x.size)
    return numba.njit(lambda x, box, args: compiled(x, box, args))(x, NO_BOX, args)


@pytest.fixture(params=[numba.njit, lambda function: function], ids=["compiled", "Python"])
def form(request):
    return request.param


@pytest.mark.parametrize("jac", ["2-point", "3-point"])
def test_a_buffer_that_each_call_overwrites(form, jac):
    @form
    def function(x, t, buffer):
        for k in range(t.size):
            buffer[k] = x[0] + x[1] * t[k]
        return buffer

    t = np.arange(6.0)
    values, jacobian = fill(function, jac, np.array([1.0, 2.0]), t, np.zeros(6))
    np.testing.assert_array_equal(values, 1 + 2 * t)
    np.testing.assert_allclose(jacobian, np.stack([np.ones(6), t], axis=1), rtol=1e-6)


@pytest.mark.parametrize("jac", ["2-point", "3-point"])
@pytest.mark.parametrize("more", [True, False])
def test_a_number_of_values_that_changes(form, jac, more):
    """Compiled code would read beyond the shorter array."""

    @form
    def function(x):
        return np.ones(5 if (x[0] > 1.0) == more else 3)

    with pytest.raises(ValueError, match="the same number of values"):
        fill(function, jac, np.array([1.0]))


@pytest.mark.parametrize(("jac", "calls"), [("2-point", 4), ("3-point", 7)])
def test_no_value_is_computed_twice(jac, calls):
    points = []

    def function(x):
        points.append(tuple(x))
        return np.array([x[0] * x[1], x[2], 1.0])

    _, jacobian = fill(function, jac, np.array([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(jacobian, [[2, 1, 0], [0, 0, 1], [0, 0, 0]], atol=1e-7)
    assert len(points) == len(set(points)) == calls
