"""The relaxation map: errors are what they promise, fits are those of SciPy, and the command says what failed."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
from processes import run_python

from rmsprop_nb import __main__ as command
from rmsprop_nb._cli import relaxation
from rmsprop_nb._cli.relaxation import ECHO_TIMES, TISSUES, brain_slice, decay, fit_maps, guesses, run_relaxation

SIZE = 24


def test_maps_are_those_of_scipy():
    truth = brain_slice(SIZE)
    maps = fit_maps(truth.images)
    inside, plain = np.argwhere(truth.tissue >= 0), getattr(decay, "py_func", decay)
    for row, column in inside[:: len(inside) // 10]:
        pixel = truth.images[row, column]
        popt, pcov = scipy.optimize.curve_fit(plain, ECHO_TIMES, pixel, guesses(pixel), ftol=1e-13, xtol=1e-13)
        found = [values[row, column] for values in maps]
        np.testing.assert_allclose(found[:2], popt, rtol=1e-6)
        np.testing.assert_allclose(found[2:], np.sqrt(np.diag(pcov)), rtol=1e-5)


def test_background_is_left_out():
    truth = brain_slice(SIZE)
    for values in fit_maps(truth.images):
        np.testing.assert_array_equal(np.isnan(values), truth.tissue < 0)
    assert set(np.unique(truth.tissue)) == set(range(-1, len(TISSUES)))


def test_map_is_within_its_errors(capsys):
    assert run_relaxation(SIZE)
    shown = capsys.readouterr().out
    found = {part.name: re.search(rf"{part.name} +{1e3 * part.t2star:.1f} ms +([\d.]+) ms", shown) for part in TISSUES}
    for part in TISSUES:
        assert float(found[part.name][1]) == pytest.approx(1e3 * part.t2star, rel=0.1)
    assert re.search(r"time of a fit / time of one in a loop over SciPy's curve_fit: [\d.e-]+$", shown, re.MULTILINE)


def test_failed_fits_and_wrong_errors_are_told(monkeypatch):
    truth = brain_slice(SIZE)
    maps = fit_maps(truth.images)
    monkeypatch.setattr(relaxation, "seconds_per_fit", lambda images: (1.0, 2.0))
    monkeypatch.setattr(relaxation, "fit_maps", lambda images: maps._replace(t2star_error=0.5 * maps.t2star_error))
    assert not run_relaxation(SIZE)
    missing = maps.t2star.copy()
    missing[SIZE // 2, SIZE // 2] = np.nan
    monkeypatch.setattr(relaxation, "fit_maps", lambda images: maps._replace(t2star=missing))
    assert not run_relaxation(SIZE)


def test_command_runs_the_map(monkeypatch, capsys):
    monkeypatch.setattr(relaxation, "seconds_per_fit", lambda images: (1.0, 2.0))
    monkeypatch.setattr(command, "run_relaxation", lambda: run_relaxation(SIZE))
    assert command.main(["demo", "fits"]) == 0
    shown = capsys.readouterr().out
    assert f"{SIZE} x {SIZE} pixels" in shown
    assert shown.endswith("curve_fit: 0.5\n")
    for other in (["--set", "Misra1a"], ["--nist"]):
        assert command.main(["demo", "fits", *other]) == 2
        assert "--set and --nist are for the other demo" in capsys.readouterr().err
    monkeypatch.setattr(command, "run_relaxation", lambda: False)
    assert command.main(["demo", "fits"]) == 1


@pytest.mark.house
def test_example_runs(tmp_path):
    for name in ("xarray", "dask"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    done = run_python(Path(__file__).parents[2] / "examples" / "relaxation_map.py", tmp_path / "map.nc")
    assert done.returncode == 0, done.stderr
    assert "2820 of 4096 pixels have a T2*\nmedian 50.0 ms" in done.stdout
    assert (tmp_path / "map.nc").stat().st_size > 4096 * 16
