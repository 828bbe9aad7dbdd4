"""The objective compiled for a device by itself, before anything is launched, to explain what is wrong with it."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import warnings
import weakref
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
from numba import float32, float64, from_dtype, typeof, types

from rmsprop_nb._cuda.native import compiled_for, count_double
from rmsprop_nb._drivers.batch_threads import Job
from rmsprop_nb._kernels.thread_team import Team
from rmsprop_nb._numba.autodiff.refusals import refusal_in

# Patterns in compiler errors, and the constructs they point to. Order matters: allocation underlies many others.
CONSTRUCTS = (
    (r"<ufunc '(\w+)'>", "np.{}"),
    (r"Unknown attribute '(\w+)' of type Module\(<module '(numpy[\w.]*)'", "{1}.{0}"),
    (r"No implementation of function Function\(<class 'str'>\)", "strings"),
    (r"Dict|\w*List(?:Type)?\[|build_(?:list|map|set)|reflected (?:list|set)", "lists, dicts or sets"),
    (r"unicode|build_string", "strings"),
    (r"\A(?:.*\n)?No implementation of function Function\(<built-in function (dot|zeros|empty|array|where)>", "np.{}"),
    (r"\A(?:.*\n)?No implementation of function Function\(<function (?!_)(\w+) at", "{}"),
    (r"try_status|Exception matching", "try and except"),
    (r"addrspace\(4\)", "@"),
    (r"NRT required|_ol_array_allocate|Only accept returning of array",
     "array expressions, copies of arrays by slices, or anything else that allocates"),
)  # fmt: skip

ADVICE = (
    "Loops and the functions of math will do; docs/cuda.md has the list, under 'What an objective for the device may "
    "contain'."
)

_KNOWN: MutableMapping[Any, dict[Any, tuple[Any, int]]] = weakref.WeakKeyDictionary()


def check_arguments(job: Job) -> None:
    """Raise unless the arguments can be passed to a device."""
    for k, arg in enumerate(job.problem.args):
        if not (_is_sendable(arg) or (k == 0 and isinstance(arg, Team))):
            msg = (
                f"args[{k}] must be a number, an array of numbers or a tuple of these with device='cuda', got "
                f"{type(arg).__name__}."
            )
            raise TypeError(msg)
    for k, row in enumerate(job.rows):
        if row.ndim > 3 or row.dtype.kind not in "biufc":
            msg = (
                f"batch_args[{k}] must be numbers in at most 3 axes with device='cuda', got {row.dtype} of shape "
                f"{row.shape}."
            )
            raise ValueError(msg)


def _is_sendable(arg: Any) -> bool:
    if isinstance(arg, tuple):
        return all(map(_is_sendable, arg))
    if isinstance(arg, np.ndarray):
        return arg.dtype.kind in "biufc"
    return isinstance(arg, bool | int | float | complex | np.number | np.bool_)


def check_objective(job: Job, layout: str, capability: tuple[int, int]) -> None:
    """Compile the objective for vectors of this layout; raise if that fails, warn if float32 becomes float64."""
    count = count_float64(job, layout, capability)
    if job.starts.dtype == np.float32 and count:
        numbers = literals_of(job.problem.fun)
        msg = (
            f"fun computes in float64 ({count} instructions), though x is float32: a number such as 2 or 0.5, or an "
            f"argument of float64, makes it so{numbers and f' ({numbers})'}, and most devices are far slower at that. "
            "Write x.dtype.type(2), and give float32 arguments."
        )
        warnings.warn(msg, RuntimeWarning, stacklevel=5)


def count_float64(job: Job, layout: str, capability: tuple[int, int]) -> int:
    """Compile the objective for vectors of this layout; return how many instructions it has in double precision.

    Raises
    ------
    TypeError
        If it cannot be compiled, or does not return a number.
    """
    single = job.starts.dtype == np.float32
    vector = types.Array(float32 if single else float64, 1, layout)
    arg_types = (vector, vector, *map(_type_of_arg, job.problem.args), *map(_type_of_row, job.rows))
    try:
        returned, count = _found_of(job.problem.fun, arg_types, capability)
    except Exception as error:  # KeyError, AttributeError and others, for one construct or another
        raise TypeError(_said(job.problem.fun, error)) from error
    if not isinstance(returned, types.Number | types.Boolean):
        msg = f"fun must return f, a number, with jac='inplace'; on the device it returns {returned}."
        raise TypeError(msg)
    return count


def literals_of(fun: Any) -> str:
    """Return the numbers that are written in a function and take part in its arithmetic, with their lines."""
    fun = getattr(fun, "source", fun)
    fun = getattr(fun, "py_func", fun)
    try:
        lines, first = inspect.getsourcelines(fun)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, SyntaxError):  # typed at a prompt, or a lambda in the middle of a statement
        return ""
    operands: list[Any] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp):
            operands += [node.left, node.right]
        elif isinstance(node, ast.Assign | ast.AugAssign | ast.Return):
            operands.append(node.value)
    indices = {part for node in ast.walk(tree) if isinstance(node, ast.Subscript) for part in ast.walk(node.slice)}
    found = [node for node in operands if isinstance(node, ast.Constant) and node not in indices]
    numbers = [node for node in found if type(node.value) in (int, float)]
    return ", ".join(f"{node.value!r} in line {first + node.lineno - 1}" for node in numbers[:5])


def _found_of(fun: Any, arg_types: tuple[Any, ...], capability: tuple[int, int]) -> tuple[Any, int]:
    """Return the type that a function returns and how many instructions it has in double precision.

    Compiling takes longer than many a batch, so what was found is kept for as long as the function is.
    """
    try:
        known = _KNOWN.setdefault(fun, {})
    except TypeError:  # it has no hash, or cannot be referred to weakly
        known = {}
    key = arg_types, capability
    if key not in known:
        text, returned = compiled_for(fun, arg_types, capability)
        known[key] = returned, count_double(text)
    return known[key]


def _type_of_arg(arg: Any) -> Any:
    return typeof(Team(0, 1, np.zeros(1)) if isinstance(arg, Team) else arg)


def _type_of_row(row: Any) -> Any:
    """Type of one problem's part of a batch argument."""
    dtype = from_dtype(row.dtype)
    return dtype if row.ndim == 1 else types.Array(dtype, row.ndim - 1, "A")


def _said(fun: Any, error: Exception) -> str:
    """Return the compiler's message, preceded by the construct that it is about."""
    said = str(error)
    if hasattr(fun, "source"):  # of which exact derivatives are made
        fun = fun.source
        if refused := refusal_in(said):
            return (
                f"{fun.__name__} cannot be differentiated: {refused}{_line_of(fun, said)}. Otherwise give the gradient."
            )
    construct = next((name.format(*found.groups()) for p, name in CONSTRUCTS if (found := re.search(p, said))), None)
    where = _line_of(fun, said)
    first = " ".join(" ".join(line for line in said.splitlines()[:3] if "pipeline" not in line).split())
    what = f"which has no {construct}{where}" if construct else f"for a reason that the compiler gives{where}"
    return f"fun cannot be compiled for the device, {what}. {ADVICE} The compiler says: {type(error).__name__}: {first}"


def _line_of(fun: Any, said: str) -> str:
    """Return the line of the objective's file that an error names."""
    file = Path(getattr(fun, "py_func", fun).__code__.co_filename).name
    found = re.search(rf'{re.escape(file)}(?:", line (\d+)| \((\d+)\))', said)
    return f" ({file}, line {found[1] or found[2]})" if found else ""
