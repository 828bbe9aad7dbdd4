"""Batches as the device gets them: jobs, and kernels with their arguments."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
from numba import typeof
from objectives import bowl, decay
from offline_compiler import ptx

from rmsprop_nb._core.options import RmspropOptions
from rmsprop_nb._cuda import batch as _cuda_batch
from rmsprop_nb._cuda.offline import HostMemory
from rmsprop_nb._drivers.batch_loop import BatchResults
from rmsprop_nb._drivers.batch_threads import Job
from rmsprop_nb._methods.lbfgs import LbfgsOptions
from rmsprop_nb._objectives.problem import Problem

TEXTBOOK = RmspropOptions(learning_rate=0.05, maxiter=20)
OPTIONS = {"textbook": TEXTBOOK, "auto": RmspropOptions(), "lbfgs": LbfgsOptions(memory=4)}
FORMS = {"local": 32, "columns": 0}  # and up to how many variables vectors are local then


def make_job(options, dtype=np.float64, count=256):
    rng = np.random.default_rng(0)
    t = np.linspace(0.0, 4.0, 6).astype(dtype)
    y = (2.0 * np.exp(-1.3 * t) + 0.5 + 0.01 * rng.normal(size=(count, 6))).astype(dtype)
    starts = np.tile(np.array([1.0, 1.0, 0.0], dtype), (count, 1))
    return Job(problem_of(decay, dtype, t), starts, (np.ones(count, dtype), y), options)


def boxed(job):
    """The same job with a box for each problem, which its start is in the middle of."""
    half = np.linspace(0.2, 1.0, job.starts.size, dtype=job.starts.dtype).reshape(job.starts.shape)
    return dataclasses.replace(job, boxes=(job.starts - half, job.starts + half))


def problem_of(fun, dtype, *args):
    none = np.empty(0, dtype)
    return Problem(fun, "inplace", args, none, none)


def bowls(n, options, dtype=np.float64, count=4):
    starts = (0.5 + 0.01 * np.arange(count * n).reshape(count, n)).astype(dtype)
    return Job(problem_of(bowl, dtype), starts, (), options)


def planned(job, threads, form=None):
    """The kernel for a job and what it is given; `form` is that of the vectors, if it is not left to the size."""
    with pytest.MonkeyPatch.context() as patch:
        if form is not None:
            patch.setattr(_cuda_batch, "LOCAL_SIZE", FORMS[form])
        launch = _cuda_batch.launch_of(job)
    arguments = _cuda_batch.arguments(job, HostMemory())
    if launch.columns:
        arguments = (*arguments, _cuda_batch.workspace(launch, threads, np.zeros))
    return launch, arguments


def compiled(job, threads, form=None):
    launch, arguments = planned(job, threads, form)
    return text_of(launch.kernel, tuple(map(typeof, arguments))), arguments


@functools.cache
def text_of(kernel, arg_types):
    return ptx(kernel, arg_types)


def found_by(arguments):
    return BatchResults(*(np.moveaxis(a, -1, 0) for a in arguments[7]))
