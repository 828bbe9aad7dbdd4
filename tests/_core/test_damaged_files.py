"""What files may not do: a damaged or forged one is an error, or harmless."""

from __future__ import annotations

import copy
import io
import json
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_runs import single

from rmsprop_nb import load, minimize, minimize_batch, save


def good_bytes(tmp_path):
    path = tmp_path / "good.npz"
    if not path.exists():
        save(path, single(maxiter=3, method="rmsprop-lbfgs").state)
    return path.read_bytes()


def rewritten(tmp_path, change):
    """The good file with its members changed, checksums and all."""
    good_bytes(tmp_path)
    with zipfile.ZipFile(tmp_path / "good.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(tmp_path / "bad.npz", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return tmp_path / "bad.npz"


def as_npy(array, **kwargs):
    buffer = io.BytesIO()
    np.save(buffer, array, **kwargs)
    return buffer.getvalue()


def header(text):
    text = text.ljust(118) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@given(data=st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_file_is_an_error_or_harmless(tmp_path, data):
    content = bytearray(good_bytes(tmp_path))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    for _ in range(data.draw(st.integers(1, 4))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    try:
        state = load(path)
        single(maxiter=1, method="rmsprop-lbfgs", state=state)
    except ValueError:
        pass


VECTOR = "{'descr': '<f8', 'fortran_order': False, 'shape': (%d,), }"
HARMFUL = {
    "pickle": lambda m: m.update({"arrays/x.npy": as_npy(np.array([{}]), allow_pickle=True)}),
    "bomb": lambda m: m.update({"arrays/x.npy": header(VECTOR % 2**40)}),
    "negative": lambda m: m.update({"arrays/x.npy": header(VECTOR % -1)}),
    "code": lambda m: m.update({"arrays/x.npy": header("__import__('os').abort()")}),
    "no_array": lambda m: m.update({"arrays/x.npy": b"text"}),
    "integers": lambda m: m.update({"arrays/x.npy": as_npy(np.arange(3))}),
    "missing": lambda m: m.pop("arrays/x.npy"),
    "unknown": lambda m: m.update({"arrays/y.npy": as_npy(np.arange(3.0))}),
    "other_record": lambda m: m.update({"arrays/record_int64.npy": as_npy(np.zeros(15, np.int64))}),
    "record_of_floats": lambda m: m.update({"arrays/record_int64.npy": as_npy(np.zeros(16))}),
    "no_algorithm": lambda m: m.pop("arrays/algorithm.npy"),
    "other_algorithm": lambda m: m.update({"arrays/algorithm.npy": as_npy(np.array('{"kind": ["x"], "record": {}}'))}),
    "no_text": lambda m: m.update({"structure.npy": header("{'descr': '<U1', 'fortran_order': False, 'shape': (), }")
                                   + b"\xff" * 4}),
    "no_truth": lambda m: m.update({"arrays/x.npy": header(VECTOR.replace("<f8", "|b1") % 1) + b"\x02"}),
    "empty_items": lambda m: m.update({"arrays/x.npy": header(VECTOR.replace("<f8", "<U0") % 2**40)}),
    "too_large": lambda m: m.update({"arrays/x.npy": header(VECTOR.replace("%d", "0, %d") % 10**40)}),
    "many_axes": lambda m: m.update({"arrays/x.npy": header(VECTOR.replace("%d", "1, " * 99 + "%d") % 0)}),
    "tall_tale": lambda m: m.update({"structure.npy": as_npy(np.array('{"format": 1, "tree": {"array": "x"}}'))}),
    "no_structure": lambda m: m.pop("structure.npy"),
    "no_json": lambda m: m.update({"structure.npy": as_npy(np.array("{"))}),
    "later": lambda m: m.update({"structure.npy": as_npy(np.array(json.dumps({"format": 99, "tree": {"value": 1}})))}),
    "other_class": lambda m: m.update(
        {"structure.npy": as_npy(np.array(json.dumps({"format": 1, "tree": {"dict": {"class": {"value": "Popen"}}}})))}
    ),
    "deep": lambda m: m.update(
        {"structure.npy": as_npy(np.array('{"format": 1, "tree": ' + '{"list": [' * 20000 + "]}" * 20000 + "}"))}
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", HARMFUL.values(), ids=HARMFUL)
def test_harmful_file_is_refused(tmp_path, change):
    with pytest.raises(ValueError, match="path must be a file that rmsprop_nb has written"):
        load(rewritten(tmp_path, change))


@given(data=st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_forged_file_is_an_error_or_harmless(tmp_path, data):
    """Bytes changed within members, and members exchanged, with checksums that are right."""

    def change(members):
        names = sorted(members)
        name = data.draw(st.sampled_from(names))
        content = bytearray(members[data.draw(st.sampled_from([name, name, name, *names]))])
        for _ in range(data.draw(st.integers(0, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        members[name] = bytes(content)

    try:
        state = load(rewritten(tmp_path, change))
        single(maxiter=2, maxfev=50, method="rmsprop-lbfgs", state=state)
    except ValueError:
        pass


def test_two_names_for_the_same_bytes_are_refused(tmp_path):
    good_bytes(tmp_path)
    content = (tmp_path / "good.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "good.npz") as archive, zipfile.ZipFile(tmp_path / "bad.npz", "w") as bad:
        bad.fp.write(content[: archive.start_dir])
        large = max(archive.infolist(), key=lambda member: member.file_size)
        bad.filelist += [*archive.infolist(), *[copy.copy(large) for _ in range(3)]]
        bad.start_dir, bad._didModify = archive.start_dir, True
        for k, member in enumerate(bad.filelist[-3:]):
            member.filename = f"another{k}.npy"
    with pytest.raises(ValueError, match=r"larger than the file|[Oo]verlap|differ"):
        load(tmp_path / "bad.npz")


SHORT = {
    "x": lambda m: m.update({"arrays/x.npy": as_npy(np.arange(2.0))}),
    "metric": lambda m: m.update({"arrays/metric.npy": as_npy(np.arange(1.0))}),
    "pairs": lambda m: m.update({"arrays/steps.npy": as_npy(np.zeros((3, 3)))}),
    "single": lambda m: m.update({"arrays/g.npy": as_npy(np.zeros(3, np.float32))}),
    "big_endian": lambda m: m.update({"arrays/g.npy": as_npy(np.zeros(3, ">f8"))}),
}


@pytest.mark.parametrize("change", SHORT.values(), ids=SHORT)
def test_state_whose_vectors_do_not_fit_is_refused(tmp_path, change):
    with pytest.raises(ValueError, match=r"state\b.* (for|must|bounds)|vectors"):
        single(method="rmsprop-lbfgs", state=load(rewritten(tmp_path, change)))


def test_compressed_members_are_refused(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", structure=np.zeros(10**6))
    with pytest.raises(ValueError, match="is compressed"):
        load(tmp_path / "a.npz")


@pytest.mark.parametrize("field", ["fun", "x"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_results_that_claim_success_without_numbers_are_refused(tmp_path, field, value):
    def fun(x):
        return float(np.sum((x - 1.0) ** 2))

    for result in (minimize(fun, np.zeros(2)), minimize_batch(fun, np.zeros((3, 2)))):
        assert np.all(result.success)
        save(tmp_path / "r.npz", result)
        if np.ndim(result[field]) == 0:
            result[field] = value
        else:
            result[field][-1] = value
        with pytest.raises(ValueError, match="success must be that of the status, and x and fun must be finite"):
            save_and_load(tmp_path / "r.npz", result)
    failed = minimize(fun, np.zeros(2), options={"maxiter": 1})
    failed["success"] = True
    with pytest.raises(ValueError, match="success must be that of the status"):
        save_and_load(tmp_path / "r.npz", failed)


def save_and_load(path, result):
    save(path, result)
    load(path)
