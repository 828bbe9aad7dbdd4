"""Nested arrays on a device and off it."""

from __future__ import annotations


def mapped(change, tree):
    if isinstance(tree, dict):
        return {name: mapped(change, item) for name, item in tree.items()}
    return [mapped(change, item) for item in tree] if isinstance(tree, list) else change(tree)


def flat(tree):
    return [leaf for item in tree.values() for leaf in (item if isinstance(item, list) else [item])]


def to_host(a):
    return a.copy_to_host() if hasattr(a, "copy_to_host") else a
