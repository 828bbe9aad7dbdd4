"""The demo and ``python -m rmsprop_nb``: what they print is what a recomputation finds, and they say when it is not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import run_python

from rmsprop_nb import __main__ as command
from rmsprop_nb import __version__
from rmsprop_nb._cli import demo as _demo
from rmsprop_nb._cli.demo import DIGITS, EXPECTED, MAXFEV, Fit, agreement, fit_logistic, fit_nist, run_demo
from rmsprop_nb._cli.models import nist_objective
from rmsprop_nb.datasets import NIST_NAMES, load_breast_cancer, load_nist

FACTS = ["rmsprop_nb", "Python", "NumPy", "SciPy", "Numba", "llvmlite", "numba-cuda"]
FACTS += ["CPU", "threads", "threading layers", "CUDA", "compiled code"]


def row(output: str, start: str) -> list[str]:
    """Return the words of the first line that starts so, after it."""
    return next(line for line in output.splitlines() if line.startswith(start)).removeprefix(start).split()


# -- regression -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Misra1a", "DanWood", "ENSO", "Rat43", "Hahn1"])
def test_fit_is_what_a_recomputation_finds(name: str) -> None:
    problem = load_nist(name)
    for fit in fit_nist(name):
        scale, grad = np.abs(problem.start1), np.empty(problem.start1.size)
        b = fit.run.x * scale
        assert fit.run.f == pytest.approx(nist_objective(name)(b, grad, problem.x, problem.y), rel=1e-12)
        # at a minimum little more than rounding is left of the sums
        assert fit.run.gradient == pytest.approx(np.abs(grad * scale).max(), rel=1e-3, abs=1e-10 * fit.run.f)
        assert fit.excess == pytest.approx((fit.run.f - problem.certified_rss) / problem.certified_rss, abs=1e-15)
        error = np.abs((b - problem.certified) / problem.certified).max()
        # digits are cut off at 11 and at none
        assert 10.0**-fit.digits == pytest.approx(np.clip(error, 1e-11, 1.0), rel=1e-3)
        assert fit.solved == bool(error <= 10.0**-DIGITS)
        assert 0 <= fit.reached <= fit.run.evaluations <= MAXFEV + 30  # L-BFGS-B ends its line search first


@pytest.mark.parametrize("name", EXPECTED)
def test_expected_sets_are_solved(name: str) -> None:
    ours, theirs = fit_nist(name)
    assert ours.solved
    assert ours.run.ended in ("f falls no further", "no further progress")  # rounding decides which
    assert theirs.solved == (name != "ENSO")


@pytest.mark.parametrize("name", ["Misra1a", "ENSO"])
def test_evaluations_are_those_the_methods_make(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Count them once more, in Python: the interpreted run takes the same points as the compiled one."""
    fun, visited = _demo._scaled_objective(name), []

    def spy(u: Any, grad: Any, *args: Any) -> Any:
        visited.append(u.copy())
        return fun(u, grad, *args)

    compiled = fit_nist(name)
    monkeypatch.setattr(_demo, "_scaled_objective", lambda name: spy)
    interpreted = fit_nist(name)
    problem = load_nist(name)
    for fit, spied in zip(compiled, interpreted, strict=True):
        np.testing.assert_array_equal(fit.run.x, spied.run.x)
        points, visited = visited[: fit.run.evaluations], visited[fit.run.evaluations :]
        close = [agreement(u * np.abs(problem.start1), problem.certified) >= DIGITS for u in points]
        assert fit.reached == spied.reached == (close.index(True) + 1 if any(close) else 0)
        assert len(points) == fit.run.evaluations
    assert not visited


@pytest.mark.parametrize(
    ("factor", "digits"), [(1.0, 11.0), (1.0 + 1e-14, 11.0), (1.0 - 1e-5, 5.0), (1.5, 0.3), (0.0, 0.0), (-9.0, 0.0)]
)
def test_agreement_is_that_of_the_worst_parameter(factor: float, digits: float) -> None:
    certified = np.array([2.0, -3e-5])
    assert agreement(certified * [1.0, factor], certified) == pytest.approx(digits, abs=2e-3)


def test_table_shows_the_fits(capsys: pytest.CaptureFixture[str]) -> None:
    fits = _demo._show_nist(["Misra1a", "ENSO"])
    output = capsys.readouterr().out
    for name, heading in [("Misra1a", "2 parameters, lower"), ("ENSO", "9 parameters, average")]:
        block = output[output.index(f"{name}: {heading} difficulty\n") :]
        for fit, label in zip(fits[name], ("  rmsprop ", "  L-BFGS-B "), strict=True):
            words = " ".join(row(block, label))
            outcome = "solved" if fit.solved else "not reached"
            assert words.startswith(f"{outcome} {fit.digits:.1f} ")
            assert words.endswith(f" {fit.reached or '-'} {fit.run.evaluations} {fit.run.ended}")
            excess, gradient = words.removeprefix(outcome).split()[1:3]
            assert float(excess) == pytest.approx(fit.excess, rel=0.5)
            assert float(gradient) == pytest.approx(fit.run.gradient, rel=0.5)
    assert "Solved 1 of 2 by both methods; only rmsprop: ENSO. " in output
    ours, theirs = fits["Misra1a"]
    assert f" {ours.reached / theirs.reached:.1f} (median)" in output.replace("\n", " ")


def test_summary_names_who_solved_what() -> None:
    def fit(digits: float, reached: int) -> Fit:
        return Fit(_demo.Run("", np.empty(0), 0.0, 0.0, 100, ""), digits, 0.0, reached)

    good, bad = fit(9.0, 30), fit(1.0, 0)
    fits = {"A": (good, bad), "B": (bad, good), "C": (bad, bad), "D": (good, fit(4.0, 10)), "E": (good, fit(5.0, 15))}
    summary = _demo._summarize_nist(fits).replace("\n", " ")
    assert summary.startswith("Solved 2 of 5 by both methods; only rmsprop: A; only L-BFGS-B: B; neither: C. ")
    assert summary.endswith("rmsprop / L-BFGS-B: 2.5 (median).")
    assert _demo._summarize_nist({"C": (bad, bad)}) == "Solved 0 of 1 by both methods; neither: C."


# -- classification ---------------------------------------------------------------------------------------------------


def test_classifier_is_what_a_recomputation_finds(capsys: pytest.CaptureFixture[str]) -> None:
    X, y = load_breast_cancer()
    X = np.c_[(X - X.mean(axis=0)) / X.std(axis=0), np.ones(y.size)]
    runs = _demo._show_logistic()
    output = capsys.readouterr().out
    for run in runs:
        margins, penalized = (2.0 * y - 1.0) * (X @ run.x), np.r_[run.x[:-1], 0.0]
        loss = np.logaddexp(0.0, -margins).mean() + 0.5e-3 * penalized @ penalized
        gradient = 1e-3 * penalized - X.T @ ((2.0 * y - 1.0) / (1.0 + np.exp(margins))) / y.size
        assert run.f == pytest.approx(loss, rel=1e-13)
        assert run.gradient == pytest.approx(np.abs(gradient).max(), rel=1e-6)
        shown = row(output, f"  {run.method} ")
        assert shown[:4] == [f"{loss:.9f}", f"{run.gradient:.1e}", str(run.evaluations), f"{np.mean(margins > 0):.1%}"]
        assert " ".join(shown[4:]) == run.ended


def test_classifier_shows_what_a_fixed_rate_leaves() -> None:
    auto, textbook, lbfgsb = fit_logistic()
    assert auto.ended == lbfgsb.ended == "gradient <= gtol"
    assert max(auto.gradient, lbfgsb.gradient) <= 1e-6 < textbook.gradient
    assert (textbook.evaluations, textbook.ended) == (501, "out of iterations")
    assert auto.f == pytest.approx(lbfgsb.f, rel=1e-7)
    assert auto.f < textbook.f


# -- the command ------------------------------------------------------------------------------------------------------


def test_too_few_evaluations_are_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(_demo, "MAXFEV", 9)
    assert command.main(["--set", "ENSO"]) == 1
    output = capsys.readouterr().out
    assert re.search(r"\n  rmsprop +not reached .* - +9  out of evaluations\n", output)
    assert "\nNOT REACHED by rmsprop, though it should have been: ENSO, logistic regression.\n" in output
    assert "What was shown" not in output


def test_a_hard_set_is_shown_and_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["demo", "--set", "MGH10"]) == 0
    output = capsys.readouterr().out
    assert "MGH10: 3 parameters, higher difficulty; known to be hard for rmsprop\n  rmsprop   not reached" in output
    assert "in 0 of 1 fits" in output.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "sets"),
    [
        ([], _demo.DEFAULT_SETS),
        (["demo"], _demo.DEFAULT_SETS),
        (["--quick"], _demo.QUICK_SETS),
        (["demo", "--quick"], _demo.QUICK_SETS),
        (["--set", "ENSO", "Hahn1", "ENSO"], ("ENSO", "Hahn1")),
    ],
)
def test_arguments_choose_the_sets(arguments: list[str], sets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(command, "run_demo", lambda names: shown.extend(names) or True)
    assert command.main(arguments) == 0
    assert shown == list(sets)


def test_unknown_set_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refusal:
        command.main(["demo", "--set", "Misra"])
    assert refusal.value.code == 2
    error = capsys.readouterr().err
    assert "'Misra'" in error
    assert all(name in error for name in NIST_NAMES)


def test_interruption_ends_the_demo(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*args: Any) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(_demo, "_scaled_objective", lambda name: interrupted)
    assert command.main(["--quick"]) == 130
    assert "LOGISTIC" not in capsys.readouterr().out


def test_output_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_demo(["Rat43", "Hahn1"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= _demo.WIDTH
    assert all(line.isascii() for line in lines)


@pytest.mark.slow
def test_quick_demo_runs() -> None:
    run = run_python("-m", "rmsprop_nb", "demo", "--quick")
    assert (run.returncode, run.stderr) == (0, "")
    headings = ["NONLINEAR REGRESSION", *_demo.QUICK_SETS, "Solved ", "LOGISTIC REGRESSION", "What was shown"]
    positions = [run.stdout.index(f"\n{heading}") for heading in headings]
    assert positions == sorted(positions)
    assert len(re.findall("^  rmsprop +solved", run.stdout, re.MULTILINE)) == len(_demo.QUICK_SETS)


def test_info_runs() -> None:
    run = run_python("-m", "rmsprop_nb", "info")
    assert (run.returncode, run.stderr) == (0, "")
    assert [line[:18].strip() for line in run.stdout.splitlines()] == FACTS
    assert row(run.stdout, "rmsprop_nb ") == [__version__]
    assert row(run.stdout, "NumPy ") == [np.__version__]


def test_wrong_command_is_refused() -> None:
    run = run_python("-m", "rmsprop_nb", "dmo")
    assert run.returncode == 2
    assert "'demo', 'bench', 'info'" in run.stderr or "demo, bench, info" in run.stderr


# -- info about machines that lack something --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("probe", "line"),
    [
        ("print('A GPU')", "A GPU"),
        ("import no_such_module", "numba-cuda failed: ModuleNotFoundError: No module named 'no_such_module'"),
        ("import os; os._exit(3)", "numba-cuda failed: exit code 3"),
        ("import time; time.sleep(60)", "numba-cuda gave no answer within 1 s"),
    ],
)
def test_info_survives_a_broken_cuda(probe: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_version", lambda name: "0.0")
    monkeypatch.setattr(command, "CUDA_PROBE", probe)
    if "sleep" in probe:
        monkeypatch.setattr(command, "CUDA_PATIENCE", 1)
    assert command._cuda() == line


def test_info_without_numba_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_version", lambda name: "not installed")
    assert command._cuda() == "numba-cuda is not installed"


@pytest.mark.parametrize("error", [RuntimeError("no locator"), PermissionError("read-only")])
def test_info_without_a_cache(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(*args: Any) -> None:
        raise error

    monkeypatch.setattr(command, "PackageCache", unavailable)
    assert "every process compiles anew" in command._cache()


def test_missing_distribution_is_said() -> None:
    assert command._version("no-such-distribution") == "not installed"


def test_picture_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(command, "run_demo", lambda names: True)
    assert command.main(["--plot", str(tmp_path / "demo.png")]) == 0
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert "demo.png shows how the logistic regression" in capsys.readouterr().out
    assert command.main(["demo", "--plot", str(tmp_path / "nowhere" / "demo.png")]) == 2
    assert command.main(["demo", "--plot", str(tmp_path / "demo.nothing")]) == 2
    assert "--plot" in capsys.readouterr().err
