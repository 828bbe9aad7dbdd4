"""Processes of their own, which import what the tests share."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

PATIENCE = 600
"""Seconds after which a process hangs: none needs so long, however busy the machine is."""

# A process that is started in the background, as with nohup or by a CI agent, and all that it starts ignore Ctrl-C.
_MAY_BE_INTERRUPTED = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"


def command_of(program, *arguments):
    """The command that runs a Python program, in which Ctrl-C works however the tests were started."""
    return [sys.executable, "-c", _MAY_BE_INTERRUPTED + textwrap.dedent(program), *map(str, arguments)]


def variables(**environment):
    """These variables and those of the tests, and on Python's path what the tests share."""
    path = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), **environment}


def run_command(command, **environment):
    """Run a command to its end; see what it printed, and its return code."""
    return subprocess.run(
        command, env=variables(**environment), capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def run_python(*arguments, **environment):
    """Run Python with these arguments, and with these variables beside those of the tests."""
    return run_command([sys.executable, *map(str, arguments)], **environment)


def run_program(program, *arguments, **environment):
    """Run a Python program, and return what it printed; it must not fail."""
    done = run_command(command_of(program, *arguments), **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
