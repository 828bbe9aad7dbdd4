"""Trajectories of RMSprop as other libraries really run it, for the conformance tests.

    python make_golden.py            # runs the libraries, rewrites golden.json beside this file, checks it
    python make_golden.py --check    # checks golden.json against rmsprop_nb.testing; needs NumPy only

The first form needs torch, jax, optax, keras and tensorflow (``pip install torch jax optax keras tensorflow-cpu``);
they are not installed where the tests run, which read golden.json. Each library and dtype gets a process of its own,
because jax and keras fix their precision once for a process.

golden.json holds one case a line. Its hyper-parameters are those of `rmsprop_nb.rmsprop`, with the values that the
library effectively used. Numbers of x and of gradients are `float.hex` strings: lossless for both dtypes. "x" holds x
after each of "steps". Gradients are given, not computed, so that no deviation feeds back into them.

Left out on purpose is bias correction, centered, with eps outside the root and S starting at 0. There the variance is
exactly 0 after the first step, and for ever where the gradient is constant; the libraries take the root of what
rounding leaves, which may be NaN.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from golden_cases import CASES, DTYPES, PLAIN, STEPS, Case, make_inputs
from golden_libraries import RUNNERS, version

# The environment of the libraries need not have the project.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rmsprop_nb.testing import reference_rmsprop

GOLDEN = Path(__file__).with_name("golden.json")
LARGEST_DEVIATION = {"float64": 16.0, "float32": 64.0}  # ulps of max |x|


# -- recording --------------------------------------------------------------------------------------------------------


def hexadecimal(x: np.ndarray) -> list[str]:
    """Return the numbers without loss; every float32 is a float64."""
    return [float(number).hex() for number in x]


def through_float32(rule: dict[str, Any]) -> dict[str, Any]:
    """Return the rule with every number rounded to float32."""

    def rounded(value: Any) -> Any:
        if isinstance(value, list):
            return [rounded(entry) for entry in value]
        return float(np.float32(value)) if isinstance(value, float) else value

    return {name: rounded(value) for name, value in rule.items()}


def rounds_to_float32(case: Case, dtype: str) -> bool:
    """Tell whether 1 - beta is the complement of a beta in float32: TensorFlow's class does so for every dtype."""
    return case.library == "tensorflow" and (dtype == "float32" or "raw_ops" not in case.api)


def as_used(case: Case, dtype: str) -> dict[str, Any]:
    """Return the rule with the values that the library effectively used."""
    if rounds_to_float32(case, dtype):
        return through_float32(case.rule)
    if case.library == "keras":  # on TensorFlow, Keras makes a float32 of the weight decay, whatever the variable
        return {**case.rule, "weight_decay": float(np.float32(case.rule["weight_decay"]))}
    return case.rule


def record(case: Case, dtype: str) -> dict[str, Any]:
    """Run one case and return its entry."""
    after = [hexadecimal(x) for x in RUNNERS[case.library](case, make_inputs(dtype))]
    return {
        "name": case.name,
        "dtype": dtype,
        "library": case.library,
        "library_version": version(case.library),
        "api": case.api,
        "hyper_through_float32": rounds_to_float32(case, dtype),
        **as_used(case, dtype),
        "x": [after[step - 1] for step in STEPS],
    }


def record_all(library: str, dtype: str) -> list[dict[str, Any]]:
    """Run the cases of one library in one dtype; to be called in a fresh process."""
    return [record(case, dtype) for case in CASES if case.library == library]


def run_libraries() -> list[dict[str, Any]]:
    """Run everything, each library and dtype in a process of its own."""
    jobs = [(library, dtype) for library in RUNNERS for dtype in DTYPES]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn, max_tasks_per_child=1) as pool:
        parts = pool.map(record_all, *zip(*jobs, strict=True))
        return [entry for part in parts for entry in part]


def as_json(entries: list[dict[str, Any]]) -> str:
    """Return the file: one line for each case and for the gradients of each step, so that differences are readable."""
    lines = ["{", f'"steps": {json.dumps(STEPS)},', '"inputs": {']
    for dtype in DTYPES:
        inputs = make_inputs(dtype)
        lines += [f'"{dtype}": {{', f'"x0": {json.dumps(hexadecimal(inputs.x0))},', '"gradients": [']
        lines += [",\n".join(json.dumps(hexadecimal(gradient)) for gradient in inputs.gradients)]
        lines += ["]}" if dtype == DTYPES[-1] else "]},"]
    lines += ["},", '"cases": [', ",\n".join(json.dumps(entry) for entry in entries), "]", "}"]
    return "\n".join(lines) + "\n"


# -- checking ---------------------------------------------------------------------------------------------------------


def deviation(entry: dict[str, Any], inputs: dict[str, Any]) -> float:
    """Return the largest difference between an entry and the reference, in ulps of the largest abs(x) of the entry."""
    dtype = np.dtype(entry["dtype"])
    x0, gradients = (unhexadecimal(inputs[entry["dtype"]][name], dtype) for name in ("x0", "gradients"))
    recorded = unhexadecimal(entry["x"], dtype)
    rule = {name: entry[name] for name in PLAIN}
    ours = np.array(list(reference_rmsprop(x0, gradients, **rule)))[np.array(STEPS) - 1]
    if ours.dtype != dtype:
        raise TypeError(f"{entry['name']}: the reference left {dtype}")
    return float(np.abs(recorded - ours).max() / np.spacing(np.abs(recorded).max()))


def unhexadecimal(numbers: list[Any], dtype: np.dtype) -> np.ndarray:
    """Return an array of hexadecimal numbers, nested one deep or not."""
    rows = [numbers] if isinstance(numbers[0], str) else numbers
    array = np.array([[float.fromhex(number) for number in row] for row in rows], dtype)
    return array[0] if isinstance(numbers[0], str) else array


def check(golden: dict[str, Any]) -> bool:
    """Write the deviation of every case and tell whether all are small."""
    good = True
    for entry in golden["cases"]:
        ulps = deviation(entry, golden["inputs"])
        fits = ulps <= LARGEST_DEVIATION[entry["dtype"]]  # false for NaN
        good = good and fits
        sys.stdout.write(f"{entry['name']:40} {entry['dtype']} {ulps:8.1f} ulps{'' if fits else '  TOO LARGE'}\n")
    return good


def main() -> int:
    """Make the file unless told only to check it; check it in any case."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="do not run the libraries")
    if not parser.parse_args().check:
        GOLDEN.write_text(as_json(run_libraries()), encoding="utf-8")
    return 0 if check(json.loads(GOLDEN.read_text(encoding="utf-8"))) else 1


if __name__ == "__main__":
    sys.exit(main())
