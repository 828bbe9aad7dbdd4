#!/usr/bin/env python3
"""Demo and tests with one command each and nothing but Python: ``python3 run.py demo``, ``python3 run.py test``.

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
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ENV = ROOT / Path(os.environ.get("RMSPROP_NB_VENV") or ".venv").expanduser()
PYTHON = ENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

# What is installed in ENV, as JSON. It is empty while ENV changes: an empty stamp is the trace of an interrupted run,
# a missing one means that ENV is not ours.
STAMP = ENV / "made-by-run.py.json"

# a file of tests stays on one core, so that what it compiles is compiled once; tests/conftest.py orders the files
ON_ALL_CORES = ["--numprocesses=auto", "--dist=loadfile", "--no-loadscope-reorder"]

JOBS = {  # job: dependency groups it needs, arguments for Python
    "demo": ([], ["-m", "rmsprop_nb"]),
    "test": (["test"], ["-m", "pytest", *ON_ALL_CORES]),
}


def main(arguments: list[str]) -> int:
    job, *rest = arguments or ["--help"]
    if job not in JOBS:
        print(f"{__doc__}\nusage: python3 run.py [{' | '.join(JOBS)}] [arguments...]")
        return 0 if job in ("-h", "--help") else 2
    groups, command = JOBS[job]
    set_up(groups)
    return subprocess.run([PYTHON, *command, *rest], cwd=ROOT, check=False).returncode


def set_up(groups: list[str]) -> None:
    """Bring ENV to the state that `groups` need; touch nothing if it is there."""
    # An editable install holds the path of the checkout, so a copied or moved one needs an environment of its own.
    origin = [sys.version, sys.base_prefix, str(ROOT)]
    project = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    found = read_stamp()
    usable = found.get("origin") == origin and PYTHON.exists()
    current = usable and found.get("project") == project
    if current and set(groups) <= set(found["groups"]):
        return
    if somebody_elses():
        sys.exit(f"run.py: {ENV} was not made by run.py; remove it, or set RMSPROP_NB_VENV to another directory")
    tools = " with what its tests need" if groups else ""
    print(f"run.py: installing rmsprop_nb{tools} into {ENV} (once; takes about half a minute)", flush=True)
    if usable:
        STAMP.write_text("")
    else:
        make_environment()
    install(groups)
    STAMP.write_text(json.dumps({"origin": origin, "project": project, "groups": groups}))


def read_stamp() -> dict:
    try:
        return json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}


def somebody_elses() -> bool:
    return ENV.exists() and not STAMP.exists() and (not ENV.is_dir() or any(ENV.iterdir()))


def make_environment() -> None:
    """Make ENV afresh."""
    ENV.mkdir(parents=True, exist_ok=True)
    STAMP.write_text("")
    for path in ENV.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path != STAMP:
            path.unlink()
    if not made_by_venv() and not made_by_another_tool():
        sys.exit(
            "run.py: this Python cannot make virtual environments; install its venv module "
            "(Debian and Ubuntu: apt install python3-venv), or uv, or virtualenv"
        )


def made_by_venv() -> bool:
    try:
        import venv

        venv.create(ENV, with_pip=True)
    except (ImportError, subprocess.CalledProcessError):  # as on Debian without python3-venv
        return False
    return PYTHON.exists()


def made_by_another_tool() -> bool:
    # --seed brings pip, --allow-existing and no --clear keep the stamp
    commands = [["uv", "venv", "-q", "--seed", "--allow-existing", "--python", sys.executable], ["virtualenv", "-q"]]
    return any(
        shutil.which(command[0]) and subprocess.run([*command, ENV], check=False).returncode == 0
        for command in commands
    )


def install(groups: list[str]) -> None:
    pip = [PYTHON, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]  # errors only
    options = [option for group in groups for option in ("--group", group)]
    steps = [[*pip, "pip>=25.1"]] if groups else []  # the first that knows --group
    for step in [*steps, [*pip, "--editable", ".", *options]]:
        if subprocess.run(step, cwd=ROOT, check=False).returncode != 0:
            sys.exit("run.py: the installation failed; pip's message is above")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
