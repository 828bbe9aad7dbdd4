"""The command ``python -m rmsprop_nb bench``: what it tells adds up, and wrong arguments are said."""

from __future__ import annotations

import re

import numpy as np
import pytest
from objectives import bowl

from rmsprop_nb import __main__ as command
from rmsprop_nb._cli.bench import Timing, _readable, find, report, time_objective
from rmsprop_nb._numba.decorators import JIT_ENABLED

MODULE = """
import numpy as np

start = np.zeros(3)
data = (np.arange(3.0),)


def misfit(x, target):
    return np.sum((x - target) ** 2)


def slope(x, target):
    return 2.0 * (x - target)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    name = f"objective_of_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return name


def test_fractions_add_up():
    timing = time_objective(bowl, np.ones(4), jac="inplace")
    assert timing.compiled == JIT_ENABLED
    assert timing.evaluation > 0.0
    assert timing.update > 0.0
    assert {method: count > 0 for method, (count, _) in timing.calls.items()} == {
        "rmsprop": True,
        "rmsprop-lbfgs": True,
    }
    for line in report(timing).splitlines():
        shares = [int(share) for share in re.findall(r"(\d+)%", line)]
        assert len(shares) in (0, 3)
        assert not shares or sum(shares) == 100


def test_times_stand_beside_their_shares():
    timing = Timing(True, 2e-6, 8e-6, 1e-6, {"rmsprop": (10, 2e-3)}, {"rmsprop": 1.5e-3})
    _, _, _, step, _, _, call = report(timing).splitlines()
    assert " ".join(step.split()) == "learning_rate=number 8.00 us 2.00 us 25% 1.00 us 12% 5.00 us 63%"
    assert " ".join(call.split()) == "rmsprop 10 2.00 ms 20.0 us 1% 1.50 ms 75% 480 us 24%"
    # noise: the start alone took longer than the whole call
    noisy = report(timing._replace(starts={"rmsprop": 3e-3})).splitlines()[-1]
    assert " ".join(noisy.split()) == "rmsprop 10 2.00 ms 20.0 us 1% 1.98 ms 99% 0.00 ns 0%"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0.00 ns"), (1.5e-9, "1.50 ns"), (2.34e-5, "23.4 us"), (0.1234, "123 ms"), (5000.0, "5000 s")],
)
def test_times_have_a_fitting_unit(seconds, text):
    assert _readable(seconds) == text


@pytest.mark.parametrize("fun", [lambda x: x @ x, lambda x: np.nan], ids=["at the minimum", "nan"])
def test_start_from_which_no_run_goes_on_is_refused(fun):
    with pytest.raises(ValueError, match=r"^x0 must be a point from which a run goes on"):
        time_objective(fun, np.zeros(2), jac="3-point")


def test_command(module, capsys):
    arguments = ["bench", f"{module}:misfit", "--x0", f"{module}:start", "--args", f"{module}:data"]
    assert command.main([*arguments, "--jac", f"{module}:slope"]) == 0
    assert capsys.readouterr().out.startswith("objective: Python")


@pytest.mark.parametrize(
    ("fun", "x0", "text"),
    [
        ("nowhere:misfit", "1,2,3", "There is no module 'nowhere' here or on the path."),
        ("{}:nothing", "1,2,3", "has no 'nothing'."),
        ("{}:misfit", "one", "must be module:name, or numbers such as 1.0,2.0."),
        ("{}:start", "1,2,3", "fun must be callable"),
    ],
)
def test_wrong_arguments_are_said(module, capsys, fun, x0, text):
    assert command.main(["bench", fun.format(module), "--x0", x0]) == 2
    assert text in capsys.readouterr().err


def test_numbers_are_an_array():
    np.testing.assert_array_equal(find("1.5,-2"), [1.5, -2.0])
