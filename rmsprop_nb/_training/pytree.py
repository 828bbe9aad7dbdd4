"""Parameters in nested containers: dicts, lists, tuples and named tuples of arrays, flattened and rebuilt.

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


def structure_of(tree: Any, path: str) -> Structure:
    """Describe a tree; `path` is what error messages call it.

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
            msg = f"the keys of {path} must be strings, got {key!r}; use {str(key)!r}, or a list."
            raise TypeError(msg)
    children = tuple(structure_of(child, f"{path}{_index(tree, key)}") for key, child in _items(tree, keys))
    return Structure(_container(tree), keys, children)


def leaves(structure: Structure, tree: Any, path: str, like: str = "the params of init") -> list[Any]:
    """Return the leaves of a tree that must be nested like `structure`, which error messages call `like`.

    A list may take the place of a tuple and the other way round, because functions that compute gradients often return
    the other one.

    Raises
    ------
    ValueError
        If the tree is nested differently; the message says where.
    """
    found: list[Any] = []
    if not _collect(structure, tree, found):
        _raise_for_difference(structure, tree, path, like)
    return found


def _collect(structure: Structure, tree: Any, found: list[Any]) -> bool:
    """Append the leaves of a tree to `found`; return False if the tree is nested differently."""
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
    """Return whether the outermost container is as it should be."""
    if structure.container is dict:
        return (
            isinstance(tree, dict) and len(tree) == len(structure.keys) and all(key in tree for key in structure.keys)
        )
    if not isinstance(tree, list | tuple) or len(tree) != len(structure.keys):
        return False
    expected, given = getattr(structure.container, "_fields", None), getattr(tree, "_fields", None)
    return expected is None or given is None or expected == given


def _raise_for_difference(structure: Structure, tree: Any, path: str, like: str) -> None:
    """Raise ValueError for the first difference between a tree and its structure."""
    if structure.container is None:
        return
    if not _matches(structure, tree):
        msg = f"{path} must be {_describe(structure)}, as in {like}, got {_describe_tree(tree)}."
        raise ValueError(msg)
    for key, child in zip(structure.keys, structure.children, strict=True):
        _raise_for_difference(child, tree[key], f"{path}{_index(tree, key)}", like)


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
    """Return the names of the leaves for files and options: ``W``, ``layers/0/W``; a tree that is a leaf has "".

    A slash within a key is written ``~1`` and a tilde ``~0``, as in a JSON pointer (RFC 6901).
    """
    return ["/".join(_escaped(turn.name) for turn in route) for route in _routes(structure)]


def paths(structure: Structure) -> list[str]:
    """Return how Python reaches the leaves, for messages: ``['W']``, ``['layers'][0].bias``."""
    return ["".join(turn.code for turn in route) for route in _routes(structure)]


class _Turn(NamedTuple):
    """A step from a container to one of its items: the Python that makes it, and what the item is called."""

    code: str
    name: Key


def _routes(structure: Structure) -> Iterator[tuple[_Turn, ...]]:
    """Yield the turns that lead to each leaf."""
    if structure.container is None:
        yield ()
    item_names = getattr(structure.container, "_fields", structure.keys)
    for key, name, child in zip(structure.keys, item_names, structure.children, strict=True):
        turn = _Turn(_index(structure.container, key), name)
        yield from ((turn, *route) for route in _routes(child))


def _escaped(key: Key) -> str:
    return str(key).replace("~", "~0").replace("/", "~1")


def _index(tree: Any, key: Key) -> str:
    """Return how Python reaches an item of a tree, or of a container of this class."""
    fields = getattr(tree, "_fields", None)
    return f"[{key!r}]" if fields is None else f".{fields[key]}"


def _keys(tree: Any) -> tuple[Key, ...] | None:
    """Return what a container is indexed with; None for a leaf."""
    if isinstance(tree, dict):
        return tuple(tree)
    return tuple(range(len(tree))) if isinstance(tree, list | tuple) else None


def _items(tree: Any, keys: Sequence[Key]) -> Iterator[tuple[Key, Any]]:
    return ((key, tree[key]) for key in keys)


def _container(tree: Any) -> type:
    """Return the class to rebuild a container with: a subclass of dict or list may need more than its items."""
    if hasattr(tree, "_fields"):
        return type(tree)
    return next(base for base in (dict, list, tuple) if isinstance(tree, base))


# -- structures in files ----------------------------------------------------------------------------------------------


def to_json(structure: Structure) -> str:
    """Describe a structure in JSON: null for a leaf, otherwise an object with one of dict, list, tuple or fields."""
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
        If the text is anything else.
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
    """Make the class of a named tuple; refuse names that are not identifiers, because they would be evaluated."""
    if not all(word.isidentifier() and not keyword.iskeyword(word) for word in (name, *fields)):
        msg = f"{name!r} with the fields {fields!r} cannot be a named tuple"
        raise ValueError(msg)
    return collections.namedtuple(name, fields)  # noqa: PYI024 - the fields are not known before
