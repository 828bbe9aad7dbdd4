"""Exact derivatives of compiled objectives: ``jac="autodiff"``."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

from numba import float32, float64, typeof, types
from numba.extending import is_jitted

from rmsprop_nb._numba.code_cache import cached_by_code
from rmsprop_nb._objectives.problem import Problem

AUTODIFF = "autodiff"

logger = logging.getLogger("rmsprop_nb")


def with_exact_gradient(
    problem: Problem, n: int, dtype: Any, first: tuple[Any, ...] = (), last: tuple[Any, ...] = ()
) -> Problem:
    """Return the problem with an objective that fills its gradient in place, if its gradient is to be exact.

    It is where the user asks for that, and without a word about the gradient wherever it can be.

    Parameters
    ----------
    problem : Problem
        The problem, in any form; other forms of gradients are returned as they are.
    n, dtype : int and dtype
        Size and dtype of x.
    first, last : tuple, optional
        Examples of the arguments that the objective is given before and after those of the problem.

    Raises
    ------
    TypeError
        If the user asks for exact derivatives of what has none; the message names what stands in the way.
    """
    if problem.jac is None and _may_be_tried(problem):
        try:
            return with_exact_gradient(dataclasses.replace(problem, jac=AUTODIFF), n, dtype, first, last)
        except TypeError as error:
            logger.debug("the gradient is made of differences, because there are no exact derivatives: %s", error)
            return problem
    if not (isinstance(problem.jac, str) and problem.jac == AUTODIFF):
        return problem
    if not is_jitted(problem.fun):
        msg = (
            f"jac={AUTODIFF!r} needs a fun compiled with numba.njit, got {problem.fun!r}. Compile it, or use '2-point'."
        )
        raise TypeError(msg)
    fun = _gradient_function(problem.fun, n)
    vector = types.Array(float32 if dtype == "float32" else float64, 1, "C")
    fun.prepare((vector, vector, *map(_type_of, (*first, *problem.args, *last))))
    return dataclasses.replace(problem, fun=fun, jac="inplace", exact=True)


def _may_be_tried(problem: Problem) -> bool:
    """Return whether exact derivatives are better than differences where the user has asked for neither.

    They are not where the user gives steps for differences, or where parallel loops would be lost.
    """
    fun: Any = problem.fun
    return is_jitted(fun) and not problem.own_steps.size and not fun.targetoptions.get("parallel", False)


@cached_by_code
def _gradient_function(fun: Any, n: int) -> Any:
    """Return the function that fills the gradient; the same one for the same objective, so that it is compiled once."""
    from rmsprop_nb._numba.autodiff.gradients import linked_gradient

    return linked_gradient(fun, n)


def _type_of(argument: Any) -> Any:
    try:
        return typeof(argument)
    except ValueError:
        msg = f"jac={AUTODIFF!r} needs args that compiled functions can take, and Numba has no type for {argument!r}."
        raise TypeError(msg) from None
