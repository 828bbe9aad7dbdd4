"""Runs on many ranks, with a real MPI: mpi_ranks.py has the checks."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from processes import run_command

pytest.importorskip("mpi4py")
pytestmark = [pytest.mark.mpi, pytest.mark.thorough]

HERE = Path(__file__).parent
CHECKS = HERE / "mpi_ranks.py"
EXAMPLES = HERE.parents[1] / "examples"
# beside Python in an environment where pip has installed an MPI, anywhere else on a cluster
MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))


def start(ranks, *command):
    if MPIEXEC is None:
        pytest.skip("there is no mpiexec")
    return run_command([MPIEXEC, "-n", str(ranks), sys.executable, "-m", *map(str, command)])


@pytest.mark.parametrize("ranks", [1, 3])  # two are in the tests below
def test_checks_pass_on_every_rank(ranks):
    done = start(ranks, "mpi4py", CHECKS)
    assert done.returncode == 0, done.stdout + done.stderr
    wanted = [line[4:].split("(")[0] for line in CHECKS.read_text().splitlines() if line.startswith("def check_")]
    assert done.stdout.split() == wanted


def test_exception_that_nobody_catches_ends_the_job():
    done = start(2, "mpi4py", CHECKS, "raise")
    assert done.returncode != 0
    assert "ZeroDivisionError: on purpose" in done.stderr


@pytest.mark.house
@pytest.mark.parametrize(
    ("ranks", "command", "text"),
    [
        (2, ["mpi4py", EXAMPLES / "mpi_fit.py"], "2500 rows on 2 ranks: Converged"),
        (3, ["mpi4py.futures", EXAMPLES / "many_problems.py", "mpi"], "one after the other: True"),
    ],
    ids=["one problem", "many problems"],
)
def test_example_runs(ranks, command, text):
    done = start(ranks, *command)
    assert done.returncode == 0, done.stderr
    assert text in done.stdout
