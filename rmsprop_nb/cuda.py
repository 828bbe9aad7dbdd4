"""The RMSprop rule for your own CUDA kernels; needs numba-cuda, ``pip install 'rmsprop_nb[cuda13]'``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from rmsprop_nb._core.kernel_report import KernelReport
from rmsprop_nb._core.names_elsewhere import explain_keywords
from rmsprop_nb._core.option_docs import with_option_docs
from rmsprop_nb._core.options import Rule
from rmsprop_nb._core.settings import Variant
from rmsprop_nb._kernels.thread_team import Team, team_sum

__all__ = ["KernelReport", "Team", "check", "device_rule", "team_sum"]


def __dir__() -> list[str]:
    return sorted(__all__)


@explain_keywords(also=[field.name for field in dataclasses.fields(Rule)])
@with_option_docs
def device_rule(*, dtype: DTypeLike = np.float32, deterministic: bool = False, **options: Any) -> Any:
    """Make the rule for one element, a device function to be called in ``numba.cuda`` kernels.

    Parameters
    ----------
    dtype : dtype, optional
        Dtype of all numbers that the function takes, float32 (the default) or float64; those of `options` are rounded
        to it.
    deterministic : bool, default False
        Round as the CPU does, for the same bits. Otherwise products and sums may be fused, which is as accurate.
    **options
        The options listed below, which are constants of the compiled code.

    Returns
    -------
    rule : device function
        ``rule(x, g, square_avg, grad_avg, momentum_buffer, rate, correction)`` returns the new ``(x, square_avg,
        grad_avg, momentum_buffer)`` of one element. What the options do not use is handed through; `correction` is
        ``1 - beta**step`` and is used with ``bias_correction`` only.

    Other Parameters
    ----------------
    %(rule_in_kernels)s

    Raises
    ------
    ImportError
        If numba-cuda is not installed.
    TypeError, ValueError
        If an option does not exist or is out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> from numba import cuda
    >>> from rmsprop_nb.cuda import device_rule
    >>> rule = device_rule(beta=0.99)                                     # doctest: +SKIP
    >>> @cuda.jit                                                         # doctest: +SKIP
    ... def step(x, g, s, rate):
    ...     i = cuda.grid(1)
    ...     if i < x.size:
    ...         zero = x.dtype.type(0)
    ...         x[i], s[i], _, _ = rule(x[i], g[i], s[i], zero, zero, rate, zero)
    """
    real = np.dtype(dtype)
    if real not in (np.dtype(np.float32), np.dtype(np.float64)):
        msg = f"dtype must be float32 or float64, got {real}."
        raise ValueError(msg)
    if "initial_accumulator" in options:
        msg = "initial_accumulator is not for device_rule, which is given S; leave it out, and fill square_avg with it."
        raise ValueError(msg)
    chosen = Rule(**options)
    from rmsprop_nb._cuda.native import require_compiler
    from rmsprop_nb._cuda.update import make_bound_rule

    require_compiler()
    return make_bound_rule(Variant(*chosen.variant), chosen.hyper(real), deterministic)


@explain_keywords()
def check(
    fun: Callable[..., Any],
    X0: ArrayLike,
    args: tuple[Any, ...] = (),
    *,
    batch_args: tuple[Any, ...] | None = None,
    method: str = "rmsprop",
    jac: str | None = None,
    options: dict[str, Any] | None = None,
    capability: tuple[int, int] | None = None,
) -> KernelReport:
    """Compile what ``minimize_batch(..., device="cuda")`` would run, and tell what it takes; no device is needed.

    Parameters
    ----------
    fun : callable
        The objective, as for `minimize_batch`.
    X0 : array_like, shape (B, n) or (n,)
        Starts as for `minimize_batch`; their number does not matter, and their dtype does.
    args, batch_args, method, jac, options
        As for `minimize_batch`.
    capability : tuple of int, optional
        The compute capability to compile for, such as (8, 0); by default that of the current device, or (9, 0) if
        there is none.

    Returns
    -------
    KernelReport
        Registers, local memory and spills of the kernel, and instructions in double precision.

    Raises
    ------
    TypeError
        If the objective contains what a device lacks; the message names the construct and its line.
    ImportError
        If there is no compiler for devices.

    Examples
    --------
    >>> import math
    >>> import numpy as np
    >>> from rmsprop_nb import cuda
    >>> def misfit(p, t, y):
    ...     f = p[0] - p[0]
    ...     for i in range(t.size):
    ...         f += (p[0] * math.exp(-p[1] * t[i]) - y[i]) ** 2
    ...     return f
    >>> t = np.linspace(0.0, 4.0, 20)
    >>> report = cuda.check(misfit, np.ones(2), (t,), batch_args=(np.ones((1, 20)),))     # doctest: +SKIP
    >>> report.spilled_bytes                                                              # doctest: +SKIP
    0
    """
    from rmsprop_nb._cuda.offline import examine

    return examine(fun, X0, args, batch_args, method, jac, options, capability)
