"""Calls that may be refused."""

from __future__ import annotations

import warnings

import numpy as np

REFUSALS = (TypeError, ValueError, FloatingPointError)


def tried(run):
    """What `run` returns, and how it refuses."""
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", np.exceptions.ComplexWarning)  # of the user's own assignment
            return run(), ""
    except REFUSALS as error:
        assert str(error)  # noqa: PT017
        return None, str(error)
