"""Map T2* in a slice, block by block, and write the map with its errors: python examples/relaxation_map.py [FILE.nc]

The images are made up here; yours come from xarray.open_dataset or xarray.open_zarr. Needs xarray and dask.
"""

import sys

import numpy as np
import xarray as xr
from numba import njit

from rmsprop_nb.xarray import curvefit


@njit
def decay(te, s0, t2star):
    return s0 * np.exp(-te / t2star)


def echo_images(size=64, noise=100.0):
    """Return magnitudes of a disc in which T2* rises from left to right; the background is missing."""
    rng = np.random.default_rng(0)
    across = xr.DataArray(np.linspace(-1.0, 1.0, size), dims="x", coords={"x": np.arange(size)})
    up = xr.DataArray(np.linspace(-1.0, 1.0, size), dims="y", coords={"y": np.arange(size)})
    te = xr.DataArray(1e-3 * np.arange(3.0, 48.0, 4.0), dims="te")
    t2star = (0.05 + 0.02 * across + 0.0 * up).where(across**2 + up**2 < 0.9)
    clean = 1e4 * np.exp(-te / t2star)
    images = np.hypot(clean + noise * rng.normal(size=clean.shape), noise * rng.normal(size=clean.shape))
    return images.assign_coords(te=te), t2star


def main():
    images, truth = echo_images()
    images = images.chunk(x=32, y=32)  # an image that does not fit into memory comes in chunks of its own
    first = images.isel(te=0, drop=True)
    fitted = curvefit(
        images, "te", decay, p0={"s0": first, "t2star": 0.05}, bounds={"t2star": (1e-3, 1.0)}, errors="ignore"
    )
    maps = xr.Dataset(
        {
            "t2star": fitted.curvefit_coefficients.sel(param="t2star", drop=True),
            "error": fitted.curvefit_errors.sel(param="t2star", drop=True),
        }
    ).compute()  # nothing is fitted before this line
    off = abs(maps.t2star - truth) / maps.error
    print(f"{int(maps.t2star.notnull().sum())} of {maps.t2star.size} pixels have a T2*")
    print(f"median {1e3 * float(maps.t2star.median()):.1f} ms, error {1e3 * float(maps.error.median()):.2f} ms")
    print(f"{float((off < 2.0).where(off.notnull()).mean()):.0%} are within two standard errors of the truth")
    if sys.argv[1:]:
        maps.to_netcdf(sys.argv[1])


if __name__ == "__main__":
    main()
