"""Functions that are linked into their callers: no machine code of their own, and all that they do works there."""

from __future__ import annotations

import numpy as np
import pytest
from marks import needs_jit

from rmsprop_nb._numba.decorators import inline_jit, kernel_jit, reduction_jit, shared_jit, user_jit

pytestmark = needs_jit


def libraries(dispatcher):
    return [overload.library for overload in dispatcher.overloads.values()]


def machine_code_of(library):
    return [f.name for f in library.get_defined_functions() if library.get_pointer_to_function(f.name)]


def test_what_is_linked_is_machine_code_in_its_caller_only():
    twice = inline_jit(lambda x: 2.0 * x)
    quadruple = inline_jit(lambda x: twice(twice(x)))

    @kernel_jit("test_linked_code")
    def kernel(x):
        return quadruple(x)

    assert kernel(1.5) == 6.0
    for linked in (twice, quadruple):
        assert machine_code_of(*libraries(linked)) == []
    assert machine_code_of(*libraries(kernel))
    assert twice(3) == 6.0  # from Python, which runs it as Python


def test_constants_text_and_exceptions_of_what_is_linked_are_there(capfd):
    """Numba keeps them in the function's environment, which compiled code finds by its symbol."""

    @user_jit
    def speaks(x):
        print("got", x)  # noqa: T201
        if x < 0.0:
            raise ValueError("must not be negative", x)
        return x

    @user_jit
    def between(x):
        return speaks(x)

    root, other = shared_jit(lambda x: between(x) + 1.0), shared_jit(lambda x: between(x) + 2.0)
    assert (root(1.0), other(1.0)) == (2.0, 3.0)
    assert capfd.readouterr().out == "got 1.0\ngot 1.0\n"
    for caller in (root, other):
        with pytest.raises(ValueError, match=r"must not be negative.*-2\.0"):
            caller(-2.0)


def test_sums_have_the_same_bits_in_every_caller():
    @reduction_jit
    def total(a):
        s = 0.0
        for i in range(a.size):
            s += a[i]
        return s

    @kernel_jit("test_linked_code, sums of three")
    def of_three(a):
        return total(a[:3]) + total(a[3:6])

    @kernel_jit("test_linked_code, sums in a loop")
    def of_any(a, sums):
        for n in range(a.size):
            sums[n] = total(a[: n + 1])

    a, sums = np.random.default_rng(0).normal(size=1000), np.empty(1000)
    of_any(a, sums)
    alone = shared_jit(lambda a: total(a))
    np.testing.assert_array_equal(sums, [alone(a[: n + 1]) for n in range(a.size)])
    assert of_three(a) == alone(a[:3]) + alone(a[3:6])


def test_functions_that_call_each_other_and_themselves():
    @user_jit
    def is_even(n):
        return True if n == 0 else is_odd(n - 1)

    @user_jit
    def is_odd(n):
        return False if n == 0 else is_even(n - 1)

    @user_jit
    def power(x, n):
        return 1.0 if n == 0 else x * power(x, n - 1)

    assert shared_jit(lambda n: is_even(n))(7) is False
    assert shared_jit(lambda n: is_odd(n))(7) is True
    assert shared_jit(lambda x: power(x, 3) + power(x, int(x)))(2.0) == 12.0
