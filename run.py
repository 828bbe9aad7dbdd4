#!/usr/bin/env python3
"""The demo, the tests and every check, one command each and nothing but Python: ``python3 run.py test``.

A virtual environment is made beside this file, in ``.venv`` or where RMSPROP_NB_VENV says, and the project is
installed there: at the first run, and again when pyproject.toml or the Python changed. Arguments after the job are
handed on: ``python3 run.py test -k schedules``.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - no installer has looked at requires-python before this file runs
    sys.exit(f"run.py: Python 3.11 or newer is needed; this is {sys.version.split()[0]} ({sys.executable})")

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import tempfile
import time
import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent
ENV = ROOT / Path(os.environ.get("RMSPROP_NB_VENV") or ".venv").expanduser()

# What is installed in ENV, as JSON. It is empty while ENV changes: an empty stamp is the trace of an interrupted run,
# a missing one means that ENV is not ours.
STAMP = ENV / "made-by-run.py.json"

# -- the jobs ---------------------------------------------------------------------------------------------------------

# a file of tests stays on one core, so that what it compiles is compiled once; tests/conftest.py orders the files
PYTEST = "python -m pytest --numprocesses=auto --dist=loadfile --no-loadscope-reorder"

# What is compiled as a whole, and the tests that run it as Python; other tests see front ends and calls by address.
COMPILED = [
    "rmsprop_nb/_kernels/*.py",
    "rmsprop_nb/_methods/*.py",
    "rmsprop_nb/_core/rule.py",
    "rmsprop_nb/_objectives/finite_differences.py",
    *(f"rmsprop_nb/_drivers/{name}.py" for name in ("batch_loop", "loop", "minibatch_loop", "row_order")),
]
BODIES = [
    "tests/_methods",
    "tests/_core/test_rule.py",
    *(f"tests/_drivers/test_{name}.py" for name in ("bodies", "limits", "loop", "minibatch_loop", "resuming")),
    "tests/_api/test_minibatch.py",
    "tests/_objectives",
]

VALGRIND = "valgrind --undef-value-errors=no --error-exitcode=9 --suppressions=tests/memcheck.supp"


class Job(NamedTuple):
    does: str
    groups: list[str]  # dependency groups of pyproject.toml
    commands: list[str]  # `python` is that of ENV; `$@` are the arguments after the job
    variables: dict[str, str] | None = None


JOBS = {
    "demo": Job("minimize on real data, compared with certified values and SciPy", [], ["python -m rmsprop_nb $@"]),
    "test": Job(
        "run the tests, those of style and of the README too",
        ["test"],
        [f"{PYTEST} -m 'not thorough and not exhaustive' $@"],
    ),
    "thorough": Job(
        "run the tests that take long: types, docs, MPI, threads and forks, the benchmarks, CUDA without a device",
        ["test"],
        [f"{PYTEST} -m 'thorough and not exhaustive' $@"],
    ),
    "lint": Job("check style, types and imports", ["unit", "style"], ["python -m pytest tests/house/test_style.py $@"]),
    "docs": Job(
        "build the documentation in docs/_build/html; a warning is an error",
        ["docs"],
        ["python -m sphinx -n -W --keep-going $@ docs docs/_build/html"],
    ),
    "build": Job("build the source archive and the wheel into dist/", ["build"], ["python -m build $@"]),
    "coverage": Job(
        "measure which lines and branches of compiled code the tests reach, by running it as Python",
        ["unit", "coverage"],
        [
            "python -m coverage erase",
            f"python -m coverage run -m pytest -m 'not house and not slow' {shlex.join(BODIES)} $@",
            "python -m coverage combine",
            f"python -m coverage report --show-missing --fail-under=95 --include='{','.join(COMPILED)}'",
        ],
        {"NUMBA_DISABLE_JIT": "1"},  # coverage sees no line that is compiled
    ),
    "boundscheck": Job(
        "run the tests with every index of compiled code checked; takes long",
        ["unit"],
        [f"{PYTEST} -m 'not house' $@"],
        {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(ENV / "cache-boundscheck")},
    ),
    "memcheck": Job(
        "run every kind of kernel under Valgrind, which must be installed; takes some minutes",
        [],
        ["python tests/memcheck.py", f"{VALGRIND} python tests/memcheck.py"],  # first: compiles, which is not watched
        {"NUMBA_CACHE_DIR": str(ENV / "cache-memcheck")},
    ),
    "nightly": Job(
        "search with hypothesis for long and at random, and try all combinations",
        ["test"],
        [f"{PYTEST} -m 'hypothesis or exhaustive' $@"],
        {"HYPOTHESIS_PROFILE": "nightly"},
    ),
}


# The rest need a directory of their own, which is removed afterwards.


def wheel(work: Path, arguments: list[str]) -> None:
    """build the wheel from the source archive, and try it from another directory"""
    set_up(["build"])
    call([PYTHON, "-m", "build", "--outdir", work / "dist"], quiet=True)
    python = make_environment(work / "env")
    install(python, [*(work / "dist").glob("*.whl")], ["unit"])
    variables = without_leftovers() | {"NUMBA_CACHE_DIR": str(work / "cache")}
    elsewhere = {"cwd": work, "env": variables}
    call([python, "-m", "rmsprop_nb", "info"], **elsewhere)
    where = [python, "-c", "import rmsprop_nb; print(*rmsprop_nb.__path__)"]
    installed = Path(subprocess.run(where, **elsewhere, stdout=subprocess.PIPE, text=True, check=True).stdout.strip())
    if different := sorted(files(installed).items() ^ files(ROOT / "rmsprop_nb").items()):
        sys.exit(f"run.py: these files differ between checkout and wheel: {sorted({name for name, _ in different})}")
    settings = ["-c", ROOT / "pyproject.toml", "--rootdir=.", "-p", "no:cacheprovider"]
    some = ["rmsprop_nb.datasets", "rmsprop_nb._api.batch"]  # the others ran in the checkout, whose files are the same
    call([python, "-m", "pytest", *settings, "--pyargs", *some, *arguments], quiet=True, **elsewhere)


def oldest(work: Path, arguments: list[str]) -> None:
    """run the quick tests with the oldest releases that pyproject.toml allows, and with every index checked"""
    if sys.version_info >= (3, 13):
        say("skipped: the oldest releases have no wheels for this Python, but for 3.11 and 3.12")
        return
    with (ROOT / "pyproject.toml").open("rb") as file:
        pins = [requirement.replace(">=", "==") for requirement in tomllib.load(file)["project"]["dependencies"]]
    say(*pins)
    python = make_environment(work / "env")
    install(python, [*pins, "."], ["unit"])
    copy = work / "copy"  # without the sources beside them, the tests import what is installed
    shutil.copytree(ROOT / "tests", copy / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    variables = without_leftovers() | {"NUMBA_CACHE_DIR": str(work / "cache"), "NUMBA_BOUNDSCHECK": "1"}
    variables["NUMBA_OPT"] = "1"  # most of the time goes into compiling, and no speed is looked at here
    quick = ["-m", "not house and not slow and not thorough and not exhaustive", "tests"]
    call([python, *shlex.split(PYTEST)[1:], *quick, *arguments], quiet=True, cwd=copy, env=variables)


def ci(work: Path, arguments: list[str]) -> None:
    """run all that a change must pass: test, thorough, wheel and oldest, with nothing that earlier runs left behind"""
    began = time.monotonic()
    fresh = {"RMSPROP_NB_VENV": str(work / "env"), "NUMBA_CACHE_DIR": str(work / "cache")}
    for job in ("test", "thorough", "wheel", "oldest"):
        say(f"\n== {job}: {described()[job]} (after {time.monotonic() - began:.0f} s)")
        call([sys.executable, ROOT / "run.py", job, *arguments], env=without_leftovers() | fresh)
    say(f"\n== all passed (after {time.monotonic() - began:.0f} s)")


SCRATCH_JOBS = {"wheel": wheel, "oldest": oldest, "ci": ci}


def main(arguments: list[str]) -> None:
    job, *rest = arguments or ["--help"]
    if job in SCRATCH_JOBS:
        with tempfile.TemporaryDirectory(prefix="rmsprop_nb-", ignore_cleanup_errors=True) as work:
            SCRATCH_JOBS[job](Path(work).resolve(), rest)
    elif job in JOBS:
        run(job, rest)
    else:
        say(f"{__doc__}\nusage: python3 run.py JOB [arguments...]\n")
        say(*(f"  {name:<12} {does}" for name, does in described().items()), sep="\n")
        sys.exit(0 if job in ("-h", "--help") else 2)


def run(job: str, arguments: list[str]) -> None:
    _, groups, commands, variables = JOBS[job]
    if arguments and not any("$@" in command for command in commands):
        sys.exit(f"run.py: {job} takes no arguments")
    set_up(groups)
    stands_for = {"python": [str(PYTHON)], "$@": arguments}
    for command in commands:
        words = [word for name in shlex.split(command) for word in stands_for.get(name, [name])]
        if shutil.which(words[0]) is None:
            sys.exit(f"run.py: {words[0]} is not installed, and {job} needs it")
        call(words, env=os.environ | (variables or {}))


def described() -> dict[str, str]:
    return {name: job.does for name, job in JOBS.items()} | {name: f.__doc__ for name, f in SCRATCH_JOBS.items()}


def call(command: list, *, quiet: bool = False, **options) -> None:
    """Run a command in ROOT and exit if it fails; `quiet` shows only its last line, or everything if it failed."""
    catch = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"} if quiet else {}
    done = subprocess.run(command, check=False, **{"cwd": ROOT} | catch | options)
    if quiet:
        say(done.stdout if done.returncode else "".join(done.stdout.splitlines()[-1:]))
    if done.returncode:
        sys.exit(done.returncode)


def say(*words: object, sep: str = " ") -> None:
    print(*words, sep=sep, flush=True)  # before what a command writes


def without_leftovers() -> dict[str, str]:
    """Return the variables of this process without those that lead to other packages than the installed ones."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return kept | {"PYTHONNOUSERSITE": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def files(directory: Path) -> dict[str, bytes]:
    found = (path for path in directory.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in found}


# -- environments -----------------------------------------------------------------------------------------------------


def python_of(env: Path) -> Path:
    return env / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


PYTHON = python_of(ENV)


def set_up(groups: list[str]) -> None:
    """Bring ENV to the state that `groups` need; touch nothing if it is there."""
    # An editable install holds the path of the checkout, so a copied or moved one needs an environment of its own.
    origin = [sys.version, sys.base_prefix, str(ROOT)]
    project = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    found = read_stamp()
    usable = found.get("origin") == origin and PYTHON.exists()
    installed = found["groups"] if usable and found.get("project") == project else None
    if installed is not None and set(groups) <= set(installed):
        return
    if somebody_elses():
        sys.exit(f"run.py: {ENV} was not made by run.py; remove it, or set RMSPROP_NB_VENV to another directory")
    tools = f" with {', '.join(groups)}" if groups else ""
    say(f"run.py: installing rmsprop_nb{tools} into {ENV} (once; takes about half a minute)")
    ENV.mkdir(parents=True, exist_ok=True)
    STAMP.write_text("")
    if not usable:
        empty(ENV)
        make_environment(ENV)
    install(PYTHON, ["--editable", "."], groups)
    groups = sorted({*groups, *(installed or [])})
    STAMP.write_text(json.dumps({"origin": origin, "project": project, "groups": groups}))


def read_stamp() -> dict:
    try:
        return json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}


def somebody_elses() -> bool:
    return ENV.exists() and not STAMP.exists() and (not ENV.is_dir() or any(ENV.iterdir()))


def empty(env: Path) -> None:
    """Remove everything but the stamp."""
    for path in env.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path != STAMP:
            path.unlink()


def make_environment(env: Path) -> Path:
    """Make a virtual environment that has pip, and return its Python."""
    if not made_by_venv(env) and not made_by_another_tool(env):
        sys.exit(
            "run.py: this Python cannot make virtual environments; install its venv module "
            "(Debian and Ubuntu: apt install python3-venv), or uv, or virtualenv"
        )
    return python_of(env)


def made_by_venv(env: Path) -> bool:
    try:
        import venv

        venv.create(env, with_pip=True)
    except (ImportError, subprocess.CalledProcessError):  # as on Debian without python3-venv
        return False
    return python_of(env).exists()


def made_by_another_tool(env: Path) -> bool:
    # --seed brings pip, --allow-existing and no --clear keep the stamp
    commands = [["uv", "venv", "-q", "--seed", "--allow-existing", "--python", sys.executable], ["virtualenv", "-q"]]
    return any(
        shutil.which(command[0]) and subprocess.run([*command, env], check=False).returncode == 0
        for command in commands
    )


def install(python: Path, what: list, groups: list[str]) -> None:
    pip = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]  # errors only
    options = [option for group in groups for option in ("--group", group)]
    steps = [[*pip, "pip>=25.1"]] if groups else []  # the first that knows --group
    for step in [*steps, [*pip, *what, *options]]:
        if subprocess.run(step, cwd=ROOT, check=False).returncode != 0:
            sys.exit("run.py: the installation failed; pip's message is above")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
