"""What giving an option does: it changes something that can be seen, is refused, or is said to change nothing.

A table has a row for every option of a front end; `check` tries one.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import re
import sys
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pytest

from rmsprop_nb import schedules
from rmsprop_nb._core import archive


class Works(NamedTuple):
    """With `value` the run differs from the one without; `base` is given to both."""

    value: Any
    base: dict[str, Any] = {}  # noqa: RUF012 - never changed


class Refused(NamedTuple):
    """`value` is an error whose message names the option and says what to do instead."""

    value: Any
    message: str
    base: dict[str, Any] = {}  # noqa: RUF012


class Ignored(NamedTuple):
    """`value` changes nothing, and the documentation says so in these words."""

    value: Any
    words: str
    base: dict[str, Any] = {}  # noqa: RUF012


class Made(NamedTuple):
    """A value that is made when it is needed, from a folder and the run without the option."""

    make: Callable[[Any, Callable[..., Any]], Any]


FILE = Made(lambda folder, run: folder / "state.npz")
STATE = Made(lambda folder, run: run().state)


def check(name: str, row: Works | Refused | Ignored, run: Callable[..., Any], documentation: str, folder: Any) -> None:
    """Call ``run(**options)`` without and with the option."""
    plain = {key: value for key, value in row.base.items() if not isinstance(value, Made)}
    base = {key: made(value, folder, lambda: run(**plain)) for key, value in row.base.items()}
    value = made(row.value, folder, lambda: run(**base))
    if isinstance(row, Refused):
        with pytest.raises((ValueError, TypeError, NotImplementedError), match=row.message) as caught:
            run(**base, **{name: value})
        assert name in str(caught.value)
        return
    without, given = seen(run, folder, base), seen(run, folder, {**base, name: value})
    if isinstance(row, Works):
        assert given != without
    else:
        assert given == without
        assert row.words in re.sub(r"\s+", " ", documentation)


def made(value: Any, folder: Any, run: Callable[..., Any]) -> Any:
    return value.make(folder, run) if isinstance(value, Made) else value


def seen(run: Callable[..., Any], folder: Any, options: dict[str, Any]) -> list[Any]:
    """What can be seen of a run: what it returns, prints and writes, and whether it asks how many threads there are."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        write = stack.enter_context(mock.patch.object(archive, "write", wraps=archive.write))
        asked = [
            stack.enter_context(mock.patch.object(module, function, wraps=getattr(module, function)))
            for function in ("usable_threads", "make_parallel_update")
            for module in modules_with(function)
        ]
        result = run(**options)
    shown = re.sub(r"\d+:\d+|[\d.,?]+ ?\w+/s", "", err.getvalue())  # a progress bar without its times
    return [comparable(result), out.getvalue(), shown, write.call_count, [spy.call_count for spy in asked]]


def modules_with(function: str) -> list[Any]:
    modules = [module for name, module in sorted(sys.modules.items()) if name.startswith("rmsprop_nb.")]
    return [module for module in modules if inspect.isfunction(inspect.unwrap(getattr(module, function, None)))]


def comparable(value: Any) -> Any:
    """The same as something that `==` compares."""
    if hasattr(value, "copy_to_host"):
        value = value.copy_to_host()
    if isinstance(value, dict):
        return {key: comparable(item) for key, item in value.items() if key != "state"}
    if isinstance(value, list | tuple):
        return [comparable(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.shape, value.dtype.str, value.tobytes() if value.dtype != object else list(value)
    return value


def say(what: Any) -> None:
    """Print something, by which a call can be seen."""
    sys.stdout.write(f"{what}\n")


# The options of the rule, which several front ends have.
DECAYING = schedules.exponential_decay(0.1, 2, 0.5)
RULE = {
    "beta": Works(0.5),
    "eps": Works(0.1),
    "momentum": Works(0.5),
    "nesterov": Works(True, {"momentum": 0.5}),
    "centered": Works(True),
    "eps_inside_sqrt": Works(True, {"eps": 0.1}),
    "bias_correction": Works(True),
    "initial_accumulator": Works(1.0),
    "weight_decay": Works(0.1),
    "decoupled_weight_decay": Works(True, {"weight_decay": 0.1}),
    "lr_in_momentum": Works(True, {"momentum": 0.5, "learning_rate": DECAYING}),
}
