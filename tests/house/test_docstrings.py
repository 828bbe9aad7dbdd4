"""Docstrings of public names: they are there, and their parameters are those of the signature, in its order."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from enum import Enum
from typing import Any

import pytest

import rmsprop_nb
from rmsprop_nb._methods.registry import OPTIONS


def public_modules() -> Iterator[Any]:
    yield rmsprop_nb
    for info in pkgutil.iter_modules(rmsprop_nb.__path__):
        if not info.name.startswith("_"):
            yield importlib.import_module(f"rmsprop_nb.{info.name}")


def documentable(thing: Any) -> bool:
    return inspect.isclass(thing) or (callable(thing) and hasattr(plain(thing), "__code__"))


def plain(thing: Any) -> Any:
    """Return the Python function behind a compiled one."""
    return getattr(thing, "py_func", thing)


def public_things() -> dict[str, Any]:
    """Return public functions and classes, and the public methods of these, by dotted name."""
    things = {
        f"{module.__name__}.{name}": getattr(module, name)
        for module in public_modules()
        for name in module.__all__
        if documentable(getattr(module, name))
    }
    for name, thing in list(things.items()):
        if inspect.isclass(thing):
            things |= {f"{name}.{method}": function for method, function in public_methods(thing)}
    return things


def public_methods(cls: type) -> Iterator[tuple[str, Any]]:
    """Yield the methods and properties that a class of ours defines itself, not what it takes from tuple or Enum."""
    for name, member in vars(cls).items():
        if name.startswith("_") or not cls.__module__.startswith("rmsprop_nb"):
            continue
        if isinstance(member, staticmethod | classmethod | property) or inspect.isfunction(member):
            yield name, getattr(cls, name)


def sections(docstring: str) -> dict[str, list[str]]:
    """Split a numpydoc docstring at its underlined headings."""
    found: dict[str, list[str]] = {"": []}
    lines = inspect.cleandoc(docstring).splitlines()
    current = found[""]
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line and re.fullmatch("-{3,}", following):
            current = found.setdefault(line, [])
        elif not re.fullmatch("-{3,}", line):
            current.append(line)
    return found


def entries(thing: Any, title: str) -> dict[str, str]:
    """Return what a section lists, name to type: ``x0, lower : array_like`` are two names, ``*args`` is args."""
    lines = sections(plain(thing).__doc__ or "").get(title, [])
    found = {}
    for line in lines:
        if line and not line[0].isspace():
            listed, _, kind = line.partition(" : ")
            found |= {name.strip(" *"): kind for name in listed.split(",")}
    return found


def parameters(thing: Any) -> dict[str, Any]:
    """Return the names of the signature and their defaults."""
    signature = inspect.signature(plain(thing))
    return {name: p.default for name, p in signature.parameters.items() if name not in ("self", "cls")}


def wrong_defaults(documented: dict[str, str], actual: dict[str, Any]) -> list[str]:
    """Return the names whose documented default is another than the real one; None is free to mean something."""
    return [
        name
        for name, kind in documented.items()
        if (default := re.search(r"default (.+)$", kind)) and actual[name] is not None
        if ast.literal_eval(default[1]) != actual[name]
    ]


def takes_arguments(thing: Any) -> bool:
    """Whether a caller gives it arguments: not a property, an Enum, an exception or a record made by us alone."""
    if isinstance(thing, property):
        return False
    if not inspect.isclass(thing):
        return True
    return "Parameters" in sections(thing.__doc__ or "") or not (
        issubclass(thing, Enum | BaseException | dict) or "Attributes" in sections(thing.__doc__ or "")
    )


THINGS = public_things()
CALLABLES = [name for name, thing in THINGS.items() if takes_arguments(thing)]


@pytest.mark.parametrize("module", list(public_modules()), ids=lambda module: module.__name__)
def test_module_has_a_docstring_and_its_public_names(module: Any) -> None:
    assert module.__doc__
    missing = [name for name in module.__all__ if not hasattr(module, name)]
    assert not missing


@pytest.mark.parametrize("name", THINGS)
def test_public_name_has_a_docstring(name: str) -> None:
    docstring = plain(THINGS[name]).__doc__
    assert docstring, f"{name} has no docstring"
    assert docstring.strip().splitlines()[0].endswith((".", ":")), f"{name}: the first line is a whole sentence"


@pytest.mark.parametrize("name", CALLABLES)
def test_documented_parameters_are_those_of_the_signature(name: str) -> None:
    documented, actual = entries(THINGS[name], "Parameters"), parameters(THINGS[name])
    assert list(documented) == list(actual)
    assert not wrong_defaults(documented, actual)


@pytest.mark.parametrize("method", OPTIONS)
def test_documented_options_are_those_of_the_method(method: str) -> None:
    fields = dataclasses.fields(OPTIONS[method])
    documented = entries(getattr(rmsprop_nb, method.replace("-", "_")), "Other Parameters")
    assert sorted(documented) == sorted(field.name for field in fields)
    assert not wrong_defaults(documented, {field.name: field.default for field in fields})
