"""What happens at `import rmsprop_nb`."""

from __future__ import annotations

import importlib
import inspect
import pydoc

import pytest
from processes import run_program

MODULES = ("cuda", "datasets", "plotting", "schedules", "testing", "xarray")
CLASSES = ("GradientRows", "RMSprop", "RMSpropState", "Status")


def public_module(name):
    if name == "xarray":
        pytest.importorskip("xarray")
    return importlib.import_module(f"rmsprop_nb.{name}" if name else "rmsprop_nb")


@pytest.mark.parametrize("name", ["", *MODULES])
def test_completion_offers_public_names_only(name):
    module = public_module(name)
    assert dir(module) == sorted(module.__all__)
    assert all(hasattr(module, known) for known in dir(module))


@pytest.mark.parametrize("name", ["", *MODULES])
def test_signatures_have_types(name):
    module = public_module(name)
    for known in module.__all__:
        if inspect.isfunction(function := getattr(module, known)):
            signature = inspect.signature(function)
            assert signature.return_annotation is not signature.empty, known
            assert all(p.annotation is not p.empty for p in signature.parameters.values()), known


@pytest.mark.parametrize("name", CLASSES)
def test_help_of_classes_explains_every_method(name):
    cls = getattr(public_module(""), name)
    text = pydoc.plain(pydoc.render_doc(cls))
    assert inspect.getdoc(cls).splitlines()[0] in text
    for method in vars(cls).values():
        if inspect.isfunction(method) and not method.__name__.startswith("_"):
            assert inspect.getdoc(method)
            assert inspect.getdoc(method).splitlines()[0] in text


def test_python_without_the_global_interpreter_lock_is_refused():
    told = run_program(
        """
        import sys
        sys._is_gil_enabled = lambda: False
        try:
            import rmsprop_nb
        except ImportError as error:
            print(error)
        """
    )
    assert "needs the global interpreter lock; start Python with PYTHON_GIL=1" in told
