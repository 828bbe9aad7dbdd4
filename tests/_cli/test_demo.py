"""The demo and ``python -m rmsprop_nb``: what they print is what a recomputation finds, and they say when it is not."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.optimize
from processes import run_python

from rmsprop_nb import __main__ as command
from rmsprop_nb import __version__, fit
from rmsprop_nb._cli import demo as _demo
from rmsprop_nb._cli import nist as _nist
from rmsprop_nb._cli import pictures
from rmsprop_nb._cli.demo import fit_logistic, run_demo
from rmsprop_nb._cli.models import nist_model
from rmsprop_nb._cli.nist import DIGITS, agreement, fit_nist, fit_nist_with_scipy
from rmsprop_nb._cli.relaxation import brain_slice, fit_maps
from rmsprop_nb.datasets import NIST_NAMES, load_breast_cancer, load_nist

FACTS = ["rmsprop_nb", "Python", "NumPy", "SciPy", "Numba", "llvmlite", "numba-cuda"]
FACTS += ["CPU", "threads", "threading layers", "CUDA", "compiled code"]


def row(output: str, start: str) -> list[str]:
    """Return the words of the first line that starts so, after it."""
    return next(line for line in output.splitlines() if line.startswith(start)).removeprefix(start).split()


# -- regression -------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize("name", ["Misra1a", "ENSO", "Thurber"])
def test_fit_is_what_a_recomputation_finds(name: str) -> None:
    problem, model = load_nist(name), nist_model(name)
    for one in (fit_nist(name), fit_nist_with_scipy(name)):
        residuals = getattr(model, "py_func", model)(problem.x, *one.b) - problem.y
        assert residuals @ residuals == pytest.approx(problem.certified_rss, rel=1e-9)
        for found, certified, digits in (
            (one.b, problem.certified, one.digits),
            (one.sd, problem.certified_sd, one.sd_digits),
        ):
            error = np.abs((found - certified) / certified).max()
            # digits are cut off at 11 and at none
            assert 10.0**-digits == pytest.approx(np.clip(error, 1e-11, 1.0), rel=1e-3)
        assert one.solved == (one.digits >= DIGITS)
        assert one.success


@pytest.mark.thorough
def test_fits_are_those_that_a_user_gets() -> None:
    problem, model = load_nist("Misra1a"), nist_model("Misra1a")
    ours, theirs = fit_nist("Misra1a"), fit_nist_with_scipy("Misra1a", tolerances={})
    result = fit(model, problem.x, problem.y, problem.start1)
    np.testing.assert_array_equal(ours.b, result.popt)
    assert ours.evaluations == result.nfev
    function = getattr(model, "py_func", model)
    popt, _, info, *_ = scipy.optimize.curve_fit(function, problem.x, problem.y, problem.start1, full_output=True)
    np.testing.assert_array_equal(theirs.b, popt)
    assert theirs.evaluations == info["nfev"]
    assert theirs.ended == "chi2 falls no further"


def test_failure_of_scipy_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(_nist, "SCIPYS_MAXFEV", 5)
    one = fit_nist_with_scipy("Misra1a")
    assert not one.solved
    assert not one.success
    assert (one.digits, one.sd_digits, one.evaluations) == (0.0, 0.0, 0)
    assert one.ended.startswith("RuntimeError: ")
    row = _demo._nist_row("Misra1a", fit_nist("Misra1a"), one)
    assert re.search(r"failed +- +-  chi2 falls no further$", row)
    _nist.show_table(["Misra1a"])
    assert re.search(
        r"\| Misra1a \| 1 \| \d.\d \| \d.\d \| failed \| failed \| failed \| failed \|\n", capsys.readouterr().out
    )


def test_no_wrong_answer_of_ours_claims_success() -> None:
    for name in _demo.HARD:
        ours = fit_nist(name)
        assert not ours.solved
        assert not ours.success


@pytest.mark.parametrize(
    ("factor", "digits"), [(1.0, 11.0), (1.0 + 1e-14, 11.0), (1.0 - 1e-5, 5.0), (1.5, 0.3), (0.0, 0.0), (-9.0, 0.0)]
)
def test_agreement_is_that_of_the_worst_parameter(factor: float, digits: float) -> None:
    certified = np.array([2.0, -3e-5])
    assert agreement(certified * [1.0, factor], certified) == pytest.approx(digits, abs=2e-3)


@pytest.mark.parametrize("unknown", [np.nan, np.inf])
def test_numbers_that_are_none_agree_in_no_digit(unknown: float) -> None:
    assert agreement(np.array([2.0, unknown]), np.array([2.0, 1.0])) == 0.0


def test_table_shows_the_fits(capsys: pytest.CaptureFixture[str]) -> None:
    fits = _demo._show_nist(["Misra1a", "BoxBOD"])
    output = capsys.readouterr().out
    ours, theirs = fits["Misra1a"]
    digits = [f"{one.digits:.1f} {one.sd_digits:.1f} {one.evaluations}" for one in (ours, theirs)]
    assert " ".join(row(output, "  Misra1a ")) == f"2 {digits[0]} {digits[1]} {ours.ended}"
    ours, theirs = fits["BoxBOD"]
    expected = f"2 failed - {ours.evaluations} 0.0 0.0 {theirs.evaluations} no further progress"
    assert " ".join(row(output, "  BoxBOD ")) == expected
    assert output.endswith("Solved 1 of 2 by both methods; neither: BoxBOD.\n")


def test_summary_names_who_solved_what() -> None:
    good, bad = (_nist.Fit("", np.empty(0), np.empty(0), digits, 0.0, 9, True, "") for digits in (4.0, 3.9))
    fits = {"A": (good, bad), "B": (bad, good), "C": (bad, bad), "D": (good, good), "E": (good, good)}
    summary = _demo._summarize_nist(fits).replace("\n", " ")
    assert summary == "Solved 2 of 5 by both methods; only rmsprop_nb: A; only MINPACK: B; neither: C."
    assert _demo._summarize_nist({"C": (bad, bad)}) == "Solved 0 of 1 by both methods; neither: C."


def test_markdown_table_counts_what_is_solved(capsys: pytest.CaptureFixture[str]) -> None:
    _nist.show_table(["Misra1a", "BoxBOD"])
    header, _, *rows, last, default = capsys.readouterr().out.splitlines()
    assert [len(line.split("|")) for line in (header, *rows, last, default)] == [10] * 7
    assert [line.split(" | ")[:2] for line in rows] == [
        [f"| {name}", k] for name in ("Misra1a", "BoxBOD") for k in "12"
    ]
    assert rows[2].startswith("| BoxBOD | 1 | failed | failed | 0.0 | 0.0 | 6.")
    assert last == "| 4 digits or more | | 3 | 3 | 3 | 3 | 4 | 4 |"
    assert default == "| the same, SciPy's default tolerances | | | | 3 | 3 | 4 | 4 |"


# -- many fits --------------------------------------------------------------------------------------------------------


def test_batch_shows_the_rate_that_was_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_demo, "seconds_per_fit", lambda images: (1e-5, 4.2e-4))
    monkeypatch.setattr(_demo, "brain_slice", functools.partial(brain_slice, 24))
    assert _demo._show_batch()
    output = capsys.readouterr().out
    assert "a million fits at these rates: the loop takes 42 times as long" in output
    pixels = (brain_slice(24).tissue >= 0).sum()
    assert f"\n{pixels} of {pixels} fits to 12 noisy points succeeded" in output
    assert 88.0 < float(re.search(r"([\d.]+)% of", output)[1]) < 97.0  # type: ignore[index]


def test_failed_fits_of_the_batch_are_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    maps = fit_maps(brain_slice(24).images)
    maps.t2star[12, 12] = np.nan
    monkeypatch.setattr(_demo, "seconds_per_fit", lambda images: (1.0, 1.0))
    monkeypatch.setattr(_demo, "brain_slice", functools.partial(brain_slice, 24))
    monkeypatch.setattr(_demo, "fit_maps", lambda images: maps)
    assert not run_demo(["Misra1a"])
    assert "NOT REACHED by rmsprop_nb, though it should have been: many fits." in capsys.readouterr().out


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
    monkeypatch.setattr(_demo, "_show_batch", lambda: True)
    monkeypatch.setattr(_demo, "MAXFEV", 9)
    monkeypatch.setattr(_nist, "fit", functools.partial(fit, options={"maxfev": 9}))
    assert command.main(["--set", "ENSO"]) == 1
    output = capsys.readouterr().out
    assert re.search(r"\n  ENSO +9 +failed +- +9 .*  out of evaluations\n", output)
    assert "\nNOT REACHED by rmsprop_nb, though it should have been: ENSO, logistic regression.\n" in output


def test_a_hard_set_is_shown_and_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_demo, "_show_batch", lambda: True)
    assert command.main(["demo", "--set", "BoxBOD"]) == 0
    assert "\n  BoxBOD     2 failed " in capsys.readouterr().out


def test_a_wrong_answer_to_a_hard_set_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_demo, "_show_batch", lambda: True)
    monkeypatch.setattr(_demo, "fit_nist", lambda name: fit_nist(name)._replace(success=True))
    assert not run_demo(["BoxBOD"])
    assert "NOT REACHED by rmsprop_nb, though it should have been: BoxBOD." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sets"),
    [
        ([], _demo.DEFAULT_SETS),
        (["demo"], _demo.DEFAULT_SETS),
        (["--set", "ENSO", "Hahn1", "ENSO"], ("ENSO", "Hahn1")),
    ],
)
def test_arguments_choose_the_sets(arguments: list[str], sets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(command, "run_demo", lambda names: shown.extend(names) or True)
    assert command.main(arguments) == 0
    assert shown == list(sets)


@pytest.mark.parametrize("arguments", [["--nist"], ["demo", "--nist"]])
def test_argument_asks_for_the_markdown_table(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(command, "show_table", lambda: calls.append("table"))
    monkeypatch.setattr(command, "run_demo", calls.extend)
    assert command.main(arguments) == 0
    assert calls == ["table"]


def test_unknown_set_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refusal:
        command.main(["demo", "--set", "Misra"])
    assert refusal.value.code == 2
    error = capsys.readouterr().err
    assert "'Misra'" in error
    assert all(name in error for name in NIST_NAMES)


def test_interruption_ends_the_demo(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(x: Any, b1: float, b2: float) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(_nist, "nist_model", lambda name: interrupted)
    assert command.main([]) == 130
    assert "TRAINING" not in capsys.readouterr().out


def test_output_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_demo(["Thurber", "BoxBOD"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= _demo.WIDTH
    assert all(line.isascii() for line in lines)


@pytest.mark.slow
def test_demo_runs() -> None:
    run = run_python("-m", "rmsprop_nb", "demo")
    assert (run.returncode, run.stderr) == (0, "")
    headings = ["FITS", *(f"  {name} " for name in _demo.DEFAULT_SETS), "Solved 5 of 6", "MANY FITS", "TRAINING"]
    positions = [run.stdout.index(f"\n{heading}") for heading in headings]
    assert positions == sorted(positions)


def test_info_runs() -> None:
    run = run_python("-m", "rmsprop_nb", "info")
    assert (run.returncode, run.stderr) == (0, "")
    assert [line[:18].strip() for line in run.stdout.splitlines()] == FACTS
    assert row(run.stdout, "rmsprop_nb ") == [__version__]
    assert row(run.stdout, "NumPy ") == [np.__version__]


def test_wrong_command_is_refused() -> None:
    run = run_python("-m", "rmsprop_nb", "dmo")
    assert run.returncode == 2
    assert "bench,compile,info" in run.stderr


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


def test_pictures_and_their_page_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(command, "run_demo", lambda names: True)
    monkeypatch.setattr(pictures, "brain_slice", functools.partial(brain_slice, 24))
    folder = tmp_path / "new" / "demo"
    assert command.main(["--plot", str(folder)]) == 0
    assert f"{folder / 'index.html'} shows pictures of this demo." in capsys.readouterr().out
    page = (folder / "index.html").read_text(encoding="utf-8")
    shown = re.findall(r"<img src='(\S+)'", page)
    assert shown == [f"{name}.png" for name in pictures.PICTURES]
    for name in shown:
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    (tmp_path / "file").touch()
    assert command.main(["demo", "--plot", str(tmp_path / "file")]) == 2
    assert "--plot" in capsys.readouterr().err


def test_fits_are_drawn_through_their_data() -> None:
    figure = pytest.importorskip("matplotlib.figure").Figure()
    pictures.draw_fits(figure)
    for axes, name in zip(figure.axes, pictures.FITTED, strict=True):
        points, curve = axes.get_lines()
        np.testing.assert_array_equal(points.get_ydata(), load_nist(name).y)
        at_points = np.interp(points.get_xdata(), curve.get_xdata(), curve.get_ydata())
        np.testing.assert_allclose(at_points, points.get_ydata(), atol=0.05 * np.ptp(load_nist(name).y))
        assert axes.get_title().startswith(f"{name}: ")
