"""Parameters in nested containers: dicts, lists, tuples and named tuples of arrays, taken apart and put together.

The order of the leaves is that of the first tree seen; later trees are matched to it, dicts by key.
"""

from __future__ import annotations

import collections
import json
import keyword
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

Key = str | int


class Structure(NamedTuple):
    """The nesting of a tree; a leaf has no container."""

    container: type | None = None  # dict, list, tuple, or the class of a named tuple
    keys: tuple[Key, ...] = ()
    children: tuple[Structure, ...] = ()


LEAF = Structure()


def structure_of(tree: Any, place: str) -> Structure:
    """Describe a tree; `place` is what error messages call it.

    Raises
    ------
    TypeError
        If a dict has a key that is not a string: it would have no name in a file.
    """
    keys = _keys(tree)
    if keys is None:
        return LEAF
    for key in keys:
        if isinstance(tree, dict) and not isinstance(key, str):
            msg = f"the keys of {place} must be strings, got {key!r}; use {str(key)!r}, or a list."
            raise TypeError(msg)
    children = tuple(structure_of(child, f"{place}{_index(tree, key)}") for key, child in _items(tree, keys))
    return Structure(_container(tree), keys, children)


def leaves(structure: Structure, tree: Any, place: str) -> list[Any]:
    """Return the leaves of a tree that must be nested like `structure`.

    Lists and tuples may stand for each other, because functions that compute gradients often return the other one.

    Raises
    ------
    ValueError
        If the nesting is another; the message says where.
    """
    found: list[Any] = []
    if not _collect(structure, tree, found):
        _explain(structure, tree, place)
    return found


def _collect(structure: Structure, tree: Any, found: list[Any]) -> bool:
    if structure.container is None:
        found.append(tree)
        return True
    if not _matches(structure, tree):
        return False
    for key, child in zip(structure.keys, structure.children, strict=True):
        if child.container is None:
            found.append(tree[key])
        elif not _collect(child, tree[key], found):
            return False
    return True


def _matches(structure: Structure, tree: Any) -> bool:
    """Whether the outermost container is as it should be."""
    if structure.container is dict:
        return (
            isinstance(tree, dict) and len(tree) == len(structure.keys) and all(key in tree for key in structure.keys)
        )
    if not isinstance(tree, list | tuple) or len(tree) != len(structure.keys):
        return False
    expected, given = getattr(structure.container, "_fields", None), getattr(tree, "_fields", None)
    return expected is None or given is None or expected == given


def _explain(structure: Structure, tree: Any, place: str) -> None:
    """Raise for the first difference."""
    if structure.container is None:
        return
    if not _matches(structure, tree):
        msg = f"{place} must be {_describe(structure)}, as in the params of init, got {_describe_tree(tree)}."
        raise ValueError(msg)
    for key, child in zip(structure.keys, structure.children, strict=True):
        _explain(child, tree[key], f"{place}{_index(tree, key)}")


def _describe(structure: Structure) -> str:
    if structure.container is dict:
        return f"a dict with the keys {', '.join(map(repr, structure.keys)) or '(none)'}"
    fields = getattr(structure.container, "_fields", None)
    form = "a list or tuple" if fields is None else f"a {structure.container.__name__}"  # type: ignore[union-attr]
    return f"{form} of {len(structure.keys)}"


def _describe_tree(tree: Any) -> str:
    keys = _keys(tree)
    return type(tree).__name__ if keys is None else _describe(Structure(_container(tree), keys))


def rebuild(structure: Structure, values: Iterable[Any]) -> Any:
    """Return a tree like `structure` that holds `values`, which are in the order of `leaves`."""
    return _rebuild(structure, iter(values))


def _rebuild(structure: Structure, values: Iterator[Any]) -> Any:
    if structure.container is None:
        return next(values)
    children = [_rebuild(child, values) for child in structure.children]
    if structure.container is dict:
        return dict(zip(structure.keys, children, strict=True))
    make = getattr(structure.container, "_make", structure.container)
    return make(children)


# -- names of the leaves ----------------------------------------------------------------------------------------------


def names(structure: Structure) -> list[str]:
    """Names of the leaves for files and options: ``W``, ``layers/0/W``; that of a tree which is a leaf is empty.

    A slash within a key is written ``~1`` and a tilde ``~0``, as in a JSON pointer (RFC 6901).
    """
    return ["/".join(_escaped(key) for _, key in path) for path in _paths(structure)]


def places(structure: Structure) -> list[str]:
    """The leaves as Python reaches them, for messages: ``['W']``, ``['layers'][0].bias``."""
    return ["".join(index for index, _ in path) for path in _paths(structure)]


def _paths(structure: Structure) -> Iterator[tuple[tuple[str, Key], ...]]:
    """For each leaf the way to it: how each container on it is indexed, and what the item is called."""
    if structure.container is None:
        yield ()
    called = getattr(structure.container, "_fields", structure.keys)
    for key, name, child in zip(structure.keys, called, structure.children, strict=True):
        step = (_index(structure.container, key), name)
        yield from ((step, *path) for path in _paths(child))


def _escaped(key: Key) -> str:
    return str(key).replace("~", "~0").replace("/", "~1")


def _index(tree: Any, key: Key) -> str:
    """How Python reaches an item of a tree, or of a container of this class."""
    fields = getattr(tree, "_fields", None)
    return f"[{key!r}]" if fields is None else f".{fields[key]}"


def _keys(tree: Any) -> tuple[Key, ...] | None:
    """What to index a container with; None for a leaf."""
    if isinstance(tree, dict):
        return tuple(tree)
    return tuple(range(len(tree))) if isinstance(tree, list | tuple) else None


def _items(tree: Any, keys: Sequence[Key]) -> Iterator[tuple[Key, Any]]:
    return ((key, tree[key]) for key in keys)


def _container(tree: Any) -> type:
    """The class to rebuild with: a subclass of dict or list may not be made from its items alone."""
    if hasattr(tree, "_fields"):
        return type(tree)
    return next(base for base in (dict, list, tuple) if isinstance(tree, base))


# -- structures in files ----------------------------------------------------------------------------------------------


def to_json(structure: Structure) -> str:
    """Describe a structure in JSON: null for a leaf, else an object with one of dict, list, tuple or fields."""
    return json.dumps(_as_json(structure))


def _as_json(structure: Structure) -> Any:
    container, keys = structure.container, structure.keys
    children = [_as_json(child) for child in structure.children]
    if container is None:
        return None
    if container is dict:
        return {"dict": dict(zip(map(str, keys), children, strict=True))}
    fields = getattr(container, "_fields", None)
    if fields is not None:
        return {"name": container.__name__, "fields": dict(zip(fields, children, strict=True))}
    return {container.__name__: children}


def from_json(text: str) -> Structure:
    """Read what `to_json` wrote; a named tuple gets a new class with the same name and fields.

    Raises
    ------
    ValueError
        If it is anything else.
    """
    try:
        return _from_json(json.loads(text))
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
        msg = f"structure must describe nested dicts, lists and tuples as to_arrays wrote it, got {text[:80]!r}."
        raise ValueError(msg) from error


def _from_json(node: Any) -> Structure:
    match node:
        case None:
            return LEAF
        case {"dict": dict(items), **rest} if not rest:
            return Structure(dict, tuple(items), tuple(map(_from_json, items.values())))
        case {"list": list(items), **rest} if not rest:
            return Structure(list, tuple(range(len(items))), tuple(map(_from_json, items)))
        case {"tuple": list(items), **rest} if not rest:
            return Structure(tuple, tuple(range(len(items))), tuple(map(_from_json, items)))
        case {"name": str(name), "fields": dict(items), **rest} if not rest:
            return Structure(
                _record(name, tuple(items)), tuple(range(len(items))), tuple(map(_from_json, items.values()))
            )
    msg = f"unknown node {node!r}"
    raise ValueError(msg)


def _record(name: str, fields: tuple[str, ...]) -> type:
    """Make the class of a named tuple; what is no identifier, and would be evaluated, is refused."""
    if not all(word.isidentifier() and not keyword.iskeyword(word) for word in (name, *fields)):
        msg = f"{name!r} with the fields {fields!r} cannot be a named tuple"
        raise ValueError(msg)
    return collections.namedtuple(name, fields)  # noqa: PYI024 - the fields are not known before
