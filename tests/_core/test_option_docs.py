"""What an option does is written once, and the documentation of every function that has it says so in full."""

from __future__ import annotations

import pydoc
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rmsprop_nb
from rmsprop_nb import RMSprop, minimize, minimize_batch, minimize_minibatch, multistart, rmsprop, rmsprop_lbfgs
from rmsprop_nb._core.option_docs import ENTRIES, GROUPS, with_option_docs
from rmsprop_nb.cuda import device_rule
from rmsprop_nb.testing import reference_rmsprop

with_docstrings = pytest.mark.skipif(sys.flags.optimize > 1, reason="there are no docstrings")
HAVE_THE_RULE = [RMSprop, rmsprop, minimize_minibatch, device_rule, reference_rmsprop]
DOCUMENTED = [*HAVE_THE_RULE, rmsprop_lbfgs, minimize, minimize_batch, multistart]


def text_of(entry):
    return re.sub(r"\s+", " ", entry)


@with_docstrings
@pytest.mark.parametrize("documented", HAVE_THE_RULE, ids=lambda documented: documented.__name__)
def test_help_has_every_option_of_the_rule_in_full(documented):
    shown = text_of(pydoc.render_doc(documented, renderer=pydoc.plaintext).replace("|", " "))
    for name in GROUPS["rule_in_kernels" if documented is device_rule else "rule"]:
        assert text_of(ENTRIES[name]).replace("|", " ") in shown, name


@with_docstrings
@pytest.mark.parametrize("documented", DOCUMENTED, ids=lambda documented: documented.__name__)
def test_nothing_is_left_to_be_filled_in(documented):
    assert "%(" not in documented.__doc__
    for line in documented.__doc__.splitlines():
        assert len(line) <= 120


@with_docstrings
def test_every_entry_is_used_and_written_once():
    package = Path(rmsprop_nb.__file__).parent
    source = "".join(path.read_text(encoding="utf-8") for path in package.rglob("*.py"))
    for name, entry in ENTRIES.items():
        assert any(entry.splitlines()[0] in documented.__doc__ for documented in DOCUMENTED), name
        assert source.count(entry.splitlines()[1].strip()) == 1, name


@with_docstrings
def test_entries_are_indented_as_the_line_that_they_replace():
    @with_option_docs
    def function():
        """Do nothing.

        Parameters
        ----------
        %(tol)s
        x : int
            A number, 100%.
        """

    lines = function.__doc__.splitlines()
    indentation = lines[2].removesuffix("Parameters")
    assert lines[4] == f"{indentation}tol : float, optional"
    assert lines[5].startswith(f"{indentation}    The same as")
    assert lines[6] == f"{indentation}x : int"


def test_unknown_options_are_an_error():
    def function():
        """Do nothing.

        %(nothing)s
        """

    if function.__doc__:
        with pytest.raises(KeyError, match="nothing"):
            with_option_docs(function)


@pytest.mark.thorough
def test_package_works_without_docstrings():
    program = """if True:
        import numpy
        from rmsprop_nb import *
        from rmsprop_nb.cuda import device_rule
        from rmsprop_nb.testing import reference_rmsprop
        assert minimize.__doc__ is minimize_minibatch.__doc__ is rmsprop.__doc__ is reference_rmsprop.__doc__ is None
        RMSprop(0.1).init(numpy.ones(2))
        print("done")
    """
    done = subprocess.run([sys.executable, "-OO", "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "done\n", done.stderr
