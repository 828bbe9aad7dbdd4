"""A relaxation map: ``python -m rmsprop_nb demo fits`` fits a decay in every pixel of a synthetic slice of a brain.

The pixels are magnitudes of magnetic resonance images at some echo times, in seconds. They decay as
S0*exp(-TE/T2star), and their noise is Rician. The true maps are known, so that errors can be compared with it.
"""

from __future__ import annotations

import functools
import math
import time
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
from numpy.typing import NDArray

from rmsprop_nb._api.fit import fit
from rmsprop_nb._numba.decorators import shared_jit

SIZE = 128  # pixels along each side
ECHO_TIMES = 1e-3 * np.arange(3.0, 48.0, 4.0)
NOISE = 100.0  # of each of the two components whose magnitude is taken; S0 is about 1e4
THRESHOLD = 10.0 * NOISE  # of the first image, below which a pixel is background
SAMPLE = 100  # pixels that SciPy fits

say = functools.partial(print, flush=True)


class Tissue(NamedTuple):
    """A part of the slice: an ellipse, or two that are mirror images, painted over those before."""

    name: str
    s0: float
    t2star: float
    centre: tuple[float, float]  # across and up, in half widths of the slice
    radii: tuple[float, float]


TISSUES = (
    Tissue("grey matter", 1.1e4, 55e-3, (0.0, 0.0), (0.74, 0.90)),
    Tissue("white matter", 9e3, 45e-3, (0.0, 0.0), (0.64, 0.80)),
    Tissue("ventricles", 1.4e4, 150e-3, (0.12, 0.12), (0.08, 0.30)),
    Tissue("deep nuclei", 9e3, 25e-3, (0.27, 0.0), (0.09, 0.16)),
)


class Slice(NamedTuple):
    """Images, and what they were made of.

    Attributes
    ----------
    images : ndarray, shape (size, size, echoes)
        Magnitudes at `ECHO_TIMES`.
    tissue : ndarray of int, shape (size, size)
        Positions in `TISSUES`, -1 in the background.
    t2star : ndarray, shape (size, size)
        The true map, NaN in the background.
    """

    images: NDArray[np.float64]
    tissue: NDArray[np.intp]
    t2star: NDArray[np.float64]


class Maps(NamedTuple):
    """Parameters and their errors for each pixel, NaN in the background and where a fit failed."""

    s0: NDArray[np.float64]
    t2star: NDArray[np.float64]
    s0_error: NDArray[np.float64]
    t2star_error: NDArray[np.float64]


@shared_jit
def decay(te, s0, t2star):
    """Return the magnitude at an echo time: the model, as a user would write it."""
    return s0 * np.exp(-te / t2star)


def brain_slice(size: int = SIZE, seed: int = 0) -> Slice:
    """Make images of a slice with the tissues above."""
    up, across = np.meshgrid(*[np.linspace(-1.0, 1.0, size)] * 2, indexing="ij")
    tissue = np.full((size, size), -1)
    for k, part in enumerate(TISSUES):
        (x, y), (width, height) = part.centre, part.radii
        tissue[((np.abs(across) - x) / width) ** 2 + ((up - y) / height) ** 2 < 1.0] = k
    s0, t2star = (np.array([*(getattr(part, name) for part in TISSUES), np.nan])[tissue] for name in ("s0", "t2star"))
    s0 *= 1.0 + 0.15 * across - 0.1 * up  # the coil is nearer to one corner
    clean = np.nan_to_num(s0[..., np.newaxis] * np.exp(-ECHO_TIMES / t2star[..., np.newaxis]))
    rng = np.random.default_rng(seed)
    images = np.hypot(clean + NOISE * rng.normal(size=clean.shape), NOISE * rng.normal(size=clean.shape))
    return Slice(images, tissue, t2star)


def guesses(magnitudes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return where the fits of pixels start: at the line through the logarithms of the first and the last image."""
    first, last = magnitudes[..., 0], magnitudes[..., -1]
    rate = np.maximum(np.log(first / last), 0.1) / (ECHO_TIMES[-1] - ECHO_TIMES[0])
    return np.stack([first * np.exp(rate * ECHO_TIMES[0]), 1.0 / rate], axis=-1)


def fit_maps(images: NDArray[np.float64]) -> Maps:
    """Fit all pixels but the background in one call."""
    inside = images[..., 0] > THRESHOLD
    result = fit(decay, ECHO_TIMES, images[inside], guesses(images[inside]))
    maps = []
    for values in (*result.popt.T, *result.perr.T):
        full = np.full(inside.shape, np.nan)
        full[inside] = np.where(result.success, values, np.nan)
        maps.append(full)
    return Maps(*maps)


# -- what is shown ----------------------------------------------------------------------------------------------------


def draw_maps(maps: Maps, figure: Any) -> None:
    """Draw the four maps into a figure of matplotlib."""
    panels = {
        "S0 / 1000": (1e-3 * maps.s0, "gray"),
        "T2* / ms": (1e3 * maps.t2star, "viridis"),
        "standard error of S0": (maps.s0_error, "gray"),
        "standard error of T2* / ms": (1e3 * maps.t2star_error, "viridis"),
    }
    for axes, (title, (values, colours)) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
        high = np.nanpercentile(values, 99.0)  # a few pixels of the ventricles would leave the rest dark
        image = axes.imshow(values, origin="lower", cmap=colours, vmin=0.0, vmax=high)
        axes.set(title=title, xticks=[], yticks=[])
        axes.set_frame_on(False)
        figure.colorbar(image, ax=axes)


def run_relaxation(size: int = SIZE) -> bool:
    """Print how well the map agrees with the truth; return whether it does."""
    truth = brain_slice(size)
    maps = fit_maps(truth.images)
    inside = truth.tissue >= 0
    fitted = inside & np.isfinite(maps.t2star)
    say(f"""
A RELAXATION MAP: S0*exp(-TE/T2*) in every pixel of a slice

{size} x {size} pixels, {inside.sum()} of them in the brain; {ECHO_TIMES.size} echo times of \
{1e3 * ECHO_TIMES[0]:g} to {1e3 * ECHO_TIMES[-1]:g} ms; Rician noise
{fitted.sum()} fits succeeded

                 true T2*    median     standard error    scatter    within 2 errors""")
    for k, part in enumerate(TISSUES):
        here = fitted & (truth.tissue == k)
        found, error = 1e3 * maps.t2star[here], 1e3 * maps.t2star_error[here]
        off = found - 1e3 * part.t2star
        say(
            f"  {part.name:13} {1e3 * part.t2star:6.1f} ms {np.median(found):6.1f} ms {np.median(error):12.2f} ms "
            f"{np.sqrt(np.mean(off**2)):11.2f} ms {np.mean(np.abs(off) < 2.0 * error):14.1%}"
        )
    within = np.abs(maps.t2star - truth.t2star)[fitted] < 2.0 * maps.t2star_error[fitted]
    ours, theirs = seconds_per_fit(truth.images)
    say(f"\ntime of a fit / time of one in a loop over SciPy's curve_fit: {ours / theirs:.2g}")
    # t-distributed with 10 degrees of freedom: 92.7 % are within two standard errors
    return bool((fitted == inside).all() and 0.88 < np.mean(within) < 0.97)


def seconds_per_fit(images: NDArray[np.float64]) -> tuple[float, float]:
    """Return the time of a fit in one call for all pixels, and in a loop over SciPy's curve_fit for some of them."""
    pixels = images[images[..., 0] > THRESHOLD]
    sample = pixels[:: math.ceil(len(pixels) / SAMPLE)]
    plain = getattr(decay, "py_func", decay)  # nothing is to be compiled while the clock runs
    begin = time.perf_counter()
    for magnitudes, start in zip(sample, guesses(sample), strict=True):
        scipy.optimize.curve_fit(plain, ECHO_TIMES, magnitudes, start)
    theirs = (time.perf_counter() - begin) / len(sample)
    begin = time.perf_counter()
    fit(decay, ECHO_TIMES, pixels, guesses(pixels))
    return (time.perf_counter() - begin) / len(pixels), theirs
