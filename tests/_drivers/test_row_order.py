"""Mini-batches: an epoch sees every row once, wherever the rows are."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from marks import needs_jit
from minibatch_runs import N_ROWS, N, make_data, python_ridge, run, same
from numba import njit
from objectives import as_python

from rmsprop_nb import minimize_minibatch


@pytest.mark.parametrize("n_rows", [1, 2, 31, 128, 1000])
@pytest.mark.parametrize("shuffle", [False, True])
def test_every_epoch_sees_every_row_once(n_rows, shuffle):
    seen = []

    def fun(x, rows):
        seen.append(rows.copy())
        return 0.0, np.zeros(1)

    minimize_minibatch(
        fun, [0.0], np.arange(n_rows), jac=True, batch_size=16, epochs=3, shuffle=shuffle, rng=1, final_evaluation=False
    )
    epochs = np.concatenate(seen).reshape(3, n_rows)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(n_rows), (3, 1)))
    if shuffle and n_rows > 30:
        assert len({tuple(epoch) for epoch in epochs}) == 3
    elif not shuffle:
        np.testing.assert_array_equal(epochs[0], np.arange(n_rows))


def layouts(tmp_path):
    A, b = make_data()
    file = np.memmap(tmp_path / "A.bin", np.float64, "w+", shape=A.shape)
    file[:] = A
    file.flush()
    frozen = A.copy()
    frozen.flags.writeable = False
    wide = np.zeros((N_ROWS, 2 * N))
    wide[:, ::2] = A
    packed = np.zeros(N_ROWS, [("pad", np.int8), ("A", np.float64, N), ("b", np.float64)])
    packed["A"], packed["b"] = A, b
    return {
        "fortran": (np.asfortranarray(A), b),
        "strided": (wide[:, ::2], np.repeat(b, 2)[::2]),
        "reversed": (A[::-1].copy()[::-1], b[::-1].copy()[::-1]),
        "big_endian": (A.astype(">f8"), b.astype(">f8")),
        "memmap": (file, b),
        "memmap_read_only": (np.memmap(tmp_path / "A.bin", np.float64, "r", shape=A.shape), b),
        "read_only": (frozen, b),
        "unaligned": (packed["A"], packed["b"]),
        "broadcast": (A, np.broadcast_to(b, (3, N_ROWS))[1]),
    }


@needs_jit  # NumPy's own sums depend on the layout
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        "fortran",
        "strided",
        "reversed",
        "big_endian",
        "memmap",
        "memmap_read_only",
        "read_only",
        "unaligned",
        "broadcast",
    ],
)
def test_layout_of_the_data_changes_nothing(tmp_path, name, shuffle):
    same(run(shuffle=shuffle), run(shuffle=shuffle, data=layouts(tmp_path)[name]))


def test_three_axes_of_any_layout():
    rng = np.random.default_rng(0)
    cube = rng.normal(size=(50, 3, 2))

    @njit
    def fun(x, cube):
        d = x - cube.sum(axis=2).sum(axis=0) / len(cube)
        return np.sum(d * d), 2.0 * d

    results = [
        minimize_minibatch(fun, np.zeros(3), a, jac=True, batch_size=7, rng=0)
        for a in (
            cube,
            np.asfortranarray(cube),
            cube[:, ::-1][:, ::-1],
            np.moveaxis(np.moveaxis(cube, 2, 1).copy(), 2, 1),
        )
    ]
    for other in results[1:]:
        same(results[0], other)


def test_integers_and_flags_as_data():
    labels = np.arange(40) % 3
    flags = labels > 0

    @njit
    def fun(x, labels, flags):
        grad = np.zeros(3)
        f = 0.0
        for k in range(labels.size):
            d = x[labels[k]] - flags[k]
            grad[labels[k]] += 2.0 * d / labels.size
            f += d * d / labels.size
        return f, grad

    kwargs = {"jac": True, "batch_size": 8, "epochs": 200, "rng": 0}
    result = minimize_minibatch(fun, np.zeros(3), (labels.astype(np.int16), flags), **kwargs)
    same(result, minimize_minibatch(as_python(fun), np.zeros(3), (labels.astype(np.int16), flags), **kwargs))
    np.testing.assert_allclose(result.x, [0.0, 1.0, 1.0], atol=1e-3)


def test_sparse_rows():
    A, b = make_data()
    A[np.abs(A) < 0.5] = 0.0

    kwargs = {"args": (0.01,), "jac": True, "batch_size": 10, "rng": 0}
    dense = minimize_minibatch(python_ridge, np.zeros(N), (A, b), **kwargs)
    for form in (scipy.sparse.csr_array, scipy.sparse.csr_matrix, scipy.sparse.coo_array):
        sparse = minimize_minibatch(python_ridge, np.zeros(N), (form(A), b), **kwargs)
        np.testing.assert_allclose(sparse.x, dense.x, rtol=1e-9)
