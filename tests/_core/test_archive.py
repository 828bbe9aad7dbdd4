"""Files are replaced whole or not at all, and what was written is read."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from processes import run_program
from small_runs import assert_equal, names_in

from rmsprop_nb._core.archive import read, write


def test_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    write(path, {"old": np.arange(3)})
    before = path.read_bytes()

    def fail(*args, **kwargs):
        args[0].write(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np.lib.format, "write_array", fail)
        with pytest.raises(OSError, match="No space left"):
            write(path, {"new": np.arange(5)})
    with pytest.raises(TypeError, match="set cannot be saved"):
        write(path, {"new": {1, 2}})
    with pytest.raises(TypeError, match="only arrays of numbers"):
        write(path, {"new": np.array([object()])})
    with pytest.raises(TypeError, match="only dicts with string keys"):
        write(path, {"new": {1: 2}})
    assert path.read_bytes() == before
    assert names_in(tmp_path) == ["a.npz"]


@pytest.mark.skipif(os.name != "posix", reason="needs resource limits")
def test_full_disk(tmp_path):
    script = """
        import resource, signal, sys
        import numpy as np
        from rmsprop_nb._core.archive import write
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        write(sys.argv[1], {"a": np.zeros(100)})
        try:
            write(sys.argv[1], {"a": np.zeros(10_000)})
        except OSError as error:
            print(error.errno)
    """
    path = tmp_path / "a.npz"
    assert run_program(script, path).strip() == "27"
    assert read(path)["a"].shape == (100,)
    assert names_in(tmp_path) == ["a.npz"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_only_regular_files_are_replaced(tmp_path):
    (tmp_path / "link").symlink_to("/dev/full")
    for path in (tmp_path, tmp_path / "link"):
        with pytest.raises(OSError, match="Not a regular file"):
            write(path, {})
    assert names_in(tmp_path) == ["link"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", "/dev/null"):
        with pytest.raises(OSError, match="Not a regular file"):
            read(path)
    with pytest.raises(IsADirectoryError):
        read(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="names are limited in characters there")
def test_names_may_be_as_long_as_the_file_system_allows(tmp_path):
    for name in ("字" * 80 + "abc.npz", "字" * 85, "a" * 255):
        write(tmp_path / name, {"a": np.arange(3)})
        np.testing.assert_array_equal(read(tmp_path / name)["a"], np.arange(3))
    assert len(names_in(tmp_path)) == 3


def test_paths_may_be_bytes(tmp_path):
    path = os.fsencode(tmp_path / "名.npz")
    write(path, {"a": np.arange(3)})
    np.testing.assert_array_equal(read(path)["a"], read(os.fsdecode(path))["a"])


def test_what_a_killed_process_left_is_removed_when_it_is_old(tmp_path):
    left = [tmp_path / name for name in (".a.01234567.tmp", ".a.89abcdef.tmp", ".ab.01234567.tmp", ".a.other.tmp")]
    for path in left:
        path.write_bytes(b"half")
    for path in (left[0], *left[2:]):
        os.utime(path, (0, 0))
    write(tmp_path / "a", {})
    assert names_in(tmp_path) == sorted(["a", *(path.name for path in left[1:])])


@pytest.mark.skipif(os.name != "posix", reason="is about POSIX permissions")
def test_permissions_and_links(tmp_path):
    mask = os.umask(0o027)
    try:
        write(tmp_path / "a", {})
    finally:
        os.umask(mask)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
    (tmp_path / "a").chmod(0o600)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    write(tmp_path / "link", {"x": 1})
    assert (tmp_path / "link").is_symlink()
    assert read(tmp_path / "a") == {"x": 1}
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=3), inner)
        ),
        max_leaves=10,
    )
)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_trees_come_back(tmp_path, tree):
    write(tmp_path / "a", tree)
    assert read(tmp_path / "a") == tree


def test_arrays_come_back(tmp_path):
    arrays = [
        np.array(3.5), np.zeros((0, 3)), np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array([np.nan, -np.inf, -0.0]),
        np.array([True, False]), np.array([1 + 2j]), np.array(["x", "yz"]), np.arange(3, dtype=">i4"),
    ]  # fmt: skip
    tree = {"structure": arrays, "a/b": {"c": arrays[0]}, "a": {"b/c": arrays[3]}, "file": arrays[1]}
    tree |= {"allow_pickle": arrays[2], "\0": arrays[0], "\ud800": arrays[1], "a\\b": arrays[3], "ä": arrays[2]}
    write(tmp_path / "a", tree)
    assert_equal(read(tmp_path / "a"), tree)
