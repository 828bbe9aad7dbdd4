"""What the documentation says about each option that several functions have: once, here.

A docstring has a line ``%(name)s`` in the place of an option or of a group of them; `with_option_docs` fills them in.
"""

from __future__ import annotations

import re
from typing import TypeVar

T = TypeVar("T")

_TEXT = r"""
beta : float, default 0.9
    Decay of the average of squared gradients, in [0, 1). Called alpha in PyTorch, rho in Keras, decay in optax, and
    beta_2 where it appears together with momentum.
eps : float, default 1e-8
    Keeps the division safe. It is added to sqrt(S), as in PyTorch.
momentum : float, default 0.0
    Heavy-ball momentum, in [0, 1).
nesterov : bool, default False
    Use the look-ahead form of the momentum, which must not be 0 then.
centered : bool, default False
    Divide by the square root of the gradient's estimated variance instead of its mean square.
eps_inside_sqrt : bool, default False
    Divide by sqrt(S + eps) instead of sqrt(S) + eps, as Keras, optax and TensorFlow do.
bias_correction : bool, default False
    Divide the averages by 1 - beta**step, where the first step is 1.
initial_accumulator : float, default 0.0
    S at the start, at least 0. TensorFlow 1 starts from 1.
weight_decay : float, default 0.0
    Add weight_decay*x to the gradient. Values of the objective and stopping tests do not include it.
decoupled_weight_decay : bool, default False
    Subtract learning_rate*weight_decay*x from x instead, as Keras does. Without weight_decay it changes nothing.
lr_in_momentum : bool, default False
    Multiply by the learning rate before the momentum instead of after it, as Keras and optax do. It matters only
    with momentum and a learning rate that changes.
parallel : bool, default False
    Let all Numba threads share each update of 100,000 parameters or more. The result is the same.
tol : float, optional
    The same as the option `gtol`, which wins if both are given, as in SciPy.
gtol : float, optional
    Stop with success when the largest absolute component of the (projected) gradient is at most this. By default a
    test without units takes its place: moving every variable by its own size could, to first order, gain no more
    than 1e-7 of what has been gained since the start, and the next step is no longer than 1e-5 of these sizes; or
    the precision of f can tell no more. With a learning rate that is a number or a schedule, the default is 1e-5.
ftol : float, default 0.0
    Stop with success when ``|f - f_previous| <= ftol*max(|f|, |f_previous|, 1)``; 0 turns the test off.
xtol : float, default 0.0
    Stop with success when ``max|x - x_previous| <= xtol*max(1, max|x|)``; 0 turns the test off.
f_target : float, optional
    Stop with success when f is at most this.
maxiter : int, default 15000
    Limit of iterations. Infinity is allowed.
maxfev : int, optional
    Limit of evaluations of the objective with its gradient; the calls that a difference gradient takes within one
    evaluation do not count.
maxtime : float, optional
    Limit of the run time in seconds.
patience : int, optional
    Stop, without success, after this many iterations without a new lowest f.
finite_diff_rel_step : float or array_like, optional
    Step of difference gradients relative to \|x\|, one for all variables or for each. By default the square root
    (2-point) or cube root (3-point) of the relative precision of f, times the larger of \|x\| and `x_scale`. As in
    SciPy, it is ignored with any other `jac`.
x_scale : "auto", float or array_like, default "auto"
    Typical sizes of the variables, positive. The run is that of RMSprop on x/x_scale. "auto" takes \|x0\|, or where
    that is 0 the width of the bounds, their finite end, or 1; from 32 variables on, the geometric mean of these for
    all. Before a run says that it has converged, it evaluates the gradient once more, near x, and enlarges any of
    these sizes that turns out to be too small; sizes that you give stay as they are. Only for automatic learning
    rates.
f_noise : float, default 0.0
    Size of the error of f, in its units, for values that have fewer digits than their dtype. By default it is
    measured where a search fails. Only for automatic learning rates.
history : bool or int, default False
    Record every iteration, or every history-th one, in ``result.history``: a dict of the arrays nit, nfev, fun,
    gnorm and learning_rate. With mini-batches, batches are recorded.
return_all : bool, default False
    Return the iterates, x0 first, as the list ``result.allvecs``.
disp : bool, default False
    Print a summary at the end.
progress : bool, default False
    Show a progress bar. It needs tqdm: ``pip install 'rmsprop_nb[progress]'``.
checkpoint : str or path-like, optional
    File in which the state of the run is saved (of a batch: the problems that have ended), at the start, every
    `checkpoint_every` seconds and at the end. If the process dies, ``rmsprop_nb.load(path)`` as `state` goes on
    from there, bit for bit. A path that cannot be written is an error at the start and a warning later on.
checkpoint_every : float, default 60
    Seconds between two checkpoints.
state : RunState, optional
    ``result.state`` of an earlier run with the same data, bounds and options, which then goes on as if it had not
    stopped. x0 gives only shape and dtype, and `initial_accumulator` is not used. Limits of iterations, evaluations
    and time count from here.
"""

_RULE = (
    "beta", "eps", "momentum", "nesterov", "centered", "eps_inside_sqrt", "bias_correction", "initial_accumulator",
    "weight_decay", "decoupled_weight_decay", "lr_in_momentum",
)  # fmt: skip

GROUPS = {
    "rule": _RULE,
    "rule_in_kernels": tuple(name for name in _RULE if name != "initial_accumulator"),
    "stopping_and_recording": (
        "gtol", "ftol", "xtol", "f_target", "maxiter", "maxfev", "maxtime", "patience", "finite_diff_rel_step",
        "x_scale", "f_noise",
        "history", "return_all", "disp", "progress", "checkpoint", "checkpoint_every", "state",
    ),
}  # fmt: skip
"""Names under which several options are filled in at once."""

ENTRIES = {entry.partition(" ")[0]: entry for entry in re.split(r"\n(?=\w)", _TEXT.strip())}
"""The entry of each option in the form of numpydoc: its name, type and default, and an indented description."""

_PLACEHOLDER = re.compile(r"^([ \t]*)%\((\w+)\)s$", re.MULTILINE)


def with_option_docs(documented: T) -> T:
    """Fill the options into the docstring of a function or class; a decorator."""
    if documented.__doc__ is not None:  # as it is under python -OO
        documented.__doc__ = _PLACEHOLDER.sub(_filled_in, documented.__doc__)
    return documented


def _filled_in(placeholder: re.Match[str]) -> str:
    indentation, name = placeholder.groups()
    entries = "\n".join(ENTRIES[option] for option in GROUPS.get(name, (name,)))
    return re.sub("^(?=.)", indentation, entries, flags=re.MULTILINE)
