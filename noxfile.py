#!/usr/bin/env -S uv run --script
# /// script
# dependencies = ["nox>=2025.5"]
# ///
"""The checks of .ci/run one at a time, for development: ``nox -s lint tests``."""

from __future__ import annotations

import nox

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "uv|virtualenv"

PROJECT = nox.project.load_toml("pyproject.toml")

# What is compiled as a whole; front ends and what calls by address are seen by the other tests.
COMPILED = [
    *(f"*/rmsprop_nb/{folder}/*.py" for folder in ("_kernels", "_methods")),
    "*/rmsprop_nb/_core/rule.py",
    "*/rmsprop_nb/_objectives/finite_differences.py",
    *(f"*/rmsprop_nb/_drivers/{name}.py" for name in ("batch_loop", "loop", "minibatch_loop", "row_order")),
]
BODIES = [
    "tests/_methods",
    "tests/_core/test_rule.py",
    "tests/_drivers/test_bodies.py",
    "tests/_drivers/test_drivers.py",
    "tests/_api/test_minibatch.py",
    "tests/_objectives",
]


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and types."""
    session.install("-e", ".", *nox.project.dependency_groups(PROJECT, "test"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests; arguments go to pytest: ``nox -s tests -- -k schedules``."""
    session.install("-e", ".", *nox.project.dependency_groups(PROJECT, "test"))
    session.run("python", "-m", "pytest", *session.posargs, env=private_cache(session))


@nox.session(name="tests-oldest", python=["3.11"])
def tests_oldest(session: nox.Session) -> None:
    """Run the tests with the oldest releases that pyproject.toml allows."""
    oldest = [requirement.replace(">=", "==") for requirement in PROJECT["project"]["dependencies"]]
    session.install("-e", ".", *oldest, *nox.project.dependency_groups(PROJECT, "unit"))
    session.run("python", "-m", "pytest", "-m", "not house", *session.posargs, env=private_cache(session))


@nox.session(default=False)
def coverage(session: nox.Session) -> None:
    """Measure which lines and branches of compiled code the tests reach, by running it as Python."""
    session.install("-e", ".", "coverage>=7.10", *nox.project.dependency_groups(PROJECT, "unit"))
    session.run("coverage", "erase")
    run = ["coverage", "run", "-m", "pytest", "-m", "not house and not slow", *(session.posargs or BODIES)]
    session.run(*run, env={"NUMBA_DISABLE_JIT": "1"})  # coverage sees no line that is compiled
    session.run("coverage", "combine")
    session.run("coverage", "report", "--show-missing", "--fail-under=95", f"--include={','.join(COMPILED)}")


@nox.session(default=False)
def boundscheck(session: nox.Session) -> None:
    """Run the tests with every index of compiled code checked, which takes long."""
    session.install("-e", ".", *nox.project.dependency_groups(PROJECT, "unit"))
    environment = private_cache(session) | {"NUMBA_BOUNDSCHECK": "1"}
    session.run("python", "-m", "pytest", "-m", "not house", *session.posargs, env=environment)


@nox.session(default=False)
def memcheck(session: nox.Session) -> None:
    """Run every kind of kernel under Valgrind, which must be installed; takes some minutes."""
    session.install("-e", ".")
    script = ["python", "tests/memcheck.py"]
    session.run(*script, env=private_cache(session))  # so that Valgrind need not watch the compiler
    valgrind = ["valgrind", "--undef-value-errors=no", "--error-exitcode=9", "--suppressions=tests/memcheck.supp"]
    session.run(*valgrind, *script, env=private_cache(session), external=True)


@nox.session(default=False)
def nightly(session: nox.Session) -> None:
    """Search with hypothesis for long and at random."""
    session.install("-e", ".", *nox.project.dependency_groups(PROJECT, "unit"))
    environment = private_cache(session) | {"HYPOTHESIS_PROFILE": "nightly"}
    tests = [f"tests/_api/test_{name}.py" for name in ("trust", "properties", "checkpoint", "optimizer")]
    session.run("python", "-m", "pytest", *tests, *session.posargs, env=environment)


@nox.session(default=False)
def build(session: nox.Session) -> None:
    """Build the source archive and the wheel into dist/."""
    session.install("build")
    session.run("python", "-m", "build")


def private_cache(session: nox.Session) -> dict[str, str]:
    """Keep compiled code for the next run of the same session, away from every other environment."""
    return {"NUMBA_CACHE_DIR": f"{session.virtualenv.location}/numba-cache"}


if __name__ == "__main__":
    nox.main()
