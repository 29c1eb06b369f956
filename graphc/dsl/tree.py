"""Trees: dicts, lists, tuples, named tuples and dataclasses of arrays, flattened and put together
again.

In:   a nest of containers.
Out:  its leaves, a name for each (`params.w`, `params.0`), and its structure, which is hashable.
Invariant: `unflatten(structure, leaves)` gives the same containers; strings, functions and None
belong to the structure. Nesting is bounded, so the recursion is, too.

>>> leaves, names, structure = flatten({"w": 1.0, "b": [2.0, 3.0]}, "params")
>>> names
['params.w', 'params.b.0', 'params.b.1']
>>> unflatten(structure, [10.0, 20.0, 30.0])
{'w': 10.0, 'b': [20.0, 30.0]}
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.errors import SignatureError
from graphc.ir.types import DType, TensorType, is_name

DEPTH = 64
_STATIC = (str, bytes, type(None), type, type(Ellipsis), enum.Enum, np.dtype, DType)


@dataclass(frozen=True)
class Structure:
    """What a tree is without its leaves."""

    kind: str  # leaf, static, tuple, list, dict, named or dataclass
    meta: Any = (
        None  # the static value; the keys of a dict; the class of a named tuple or dataclass
    )
    children: tuple[Structure, ...] = ()

    @property
    def leaf_count(self) -> int:
        return 1 if self.kind == "leaf" else sum(c.leaf_count for c in self.children)


LEAF = Structure("leaf")


def flatten(
    tree: Any, name: str = "", is_leaf: Callable[[Any], bool] | None = None
) -> tuple[list[Any], list[str], Structure]:
    """Leaves, their names, and the structure."""
    leaves: list[Any] = []
    names: list[str] = []
    structure = _taken_apart(tree, name, 0, is_leaf, leaves, names)
    return leaves, names, structure


def _taken_apart(
    x: Any,
    at: str,
    depth: int,
    is_leaf: Callable[[Any], bool] | None,
    leaves: list[Any],
    names: list[str],
) -> Structure:
    """No closure: one that calls itself would keep the leaves until garbage is collected."""
    if depth > DEPTH:
        raise SignatureError(f"argument {at[:60]}... is nested deeper than {DEPTH} containers")
    parts = None if is_leaf is not None and is_leaf(x) else _parts(x)
    if parts is None:
        if _is_static(x):
            return Structure("static", x)
        leaves.append(x)
        names.append(at)
        return LEAF
    kind, meta, items = parts
    children = [
        _taken_apart(v, _joined(at, k), depth + 1, is_leaf, leaves, names) for k, v in items
    ]
    return Structure(kind, meta, tuple(children))


def _joined(at: str, key: Any) -> str:
    return f"{at}.{key}" if at else str(key)


def _is_static(x: Any) -> bool:
    return isinstance(x, _STATIC) or (callable(x) and not hasattr(x, "__array__"))


def _parts(x: Any) -> tuple[str, Any, list[tuple[Any, Any]]] | None:
    """Kind, meta and (key, child) pairs of a container; None for what is not one."""
    if type(x) is tuple:
        return "tuple", None, list(enumerate(x))
    if type(x) is list:
        return "list", None, list(enumerate(x))
    if isinstance(x, dict):
        return "dict", (type(x), tuple(x)), list(x.items())
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return "named", type(x), list(zip(x._fields, x))
    if (
        dataclasses.is_dataclass(x)
        and not isinstance(x, (type, DType, TensorType))
        and not hasattr(x, "apply_gate")
    ):
        if _is_static(x):
            return None
        return "dataclass", type(x), [(f.name, getattr(x, f.name)) for f in dataclasses.fields(x)]
    return None


def unflatten(structure: Structure, leaves: Iterable[Any]) -> Any:
    """The tree of a structure with these leaves."""
    return _build(structure, iter(leaves))


def _build(structure: Structure, leaves: Iterator[Any]) -> Any:
    if structure.kind == "leaf":
        return next(leaves)
    if structure.kind == "static":
        return structure.meta
    parts = [_build(c, leaves) for c in structure.children]
    if structure.kind == "tuple":
        return tuple(parts)
    if structure.kind == "list":
        return parts
    if structure.kind == "named":
        return structure.meta(*parts)
    if structure.kind == "dict":
        return _build_dict(structure, parts)
    return _build_dataclass(structure.meta, parts)


def _build_dict(structure: Structure, parts: list[Any]) -> Any:
    cls, keys = structure.meta
    items = dict(zip(keys, parts))
    return items if cls is dict else cls(items)


def _build_dataclass(cls: type, parts: list[Any]) -> Any:
    """Fields are set as they are: a constructor might compute with them."""
    made: Any = object.__new__(cls)
    for f, value in zip(dataclasses.fields(cls), parts):
        object.__setattr__(made, f.name, value)
    return made


def flatten_like(structure: Structure, tree: Any, name: str) -> list[Any]:
    """The leaves of a tree of this structure; a SignatureError says where it has another."""
    leaves: list[Any] = []
    _collect(structure, tree, name, leaves)
    return leaves


def _collect(expected: Structure, x: Any, at: str, leaves: list[Any]) -> None:
    if expected.kind == "leaf":
        leaves.append(x)
        return
    if expected.kind == "static":
        if x is not expected.meta and x != expected.meta:
            raise SignatureError(f"argument {at} is {expected.meta!r} in this graph, got {x!r}")
        return
    for key, child in zip(_keys(expected), expected.children):
        _collect(child, _child(expected, x, key, at), _joined(at, key), leaves)


def _keys(structure: Structure) -> tuple[Any, ...]:
    if structure.kind == "dict":
        return structure.meta[1]
    if structure.kind == "named":
        return structure.meta._fields
    if structure.kind == "dataclass":
        return tuple(f.name for f in dataclasses.fields(structure.meta))
    return tuple(range(len(structure.children)))


def _child(structure: Structure, x: Any, key: Any, at: str) -> Any:
    """The part of a tree under a key, after a look at the container."""
    if structure.kind == "dict":
        if not isinstance(x, dict) or set(x) != set(structure.meta[1]):
            got = (
                f"the keys {sorted(map(str, x))}"
                if isinstance(x, dict)
                else f"a {type(x).__name__}"
            )
            raise SignatureError(
                f"argument {at} is a dict with the keys {sorted(map(str, structure.meta[1]))}, "
                f"got {got}"
            )
        return x[key]
    if structure.kind in ("named", "dataclass"):
        if not isinstance(x, structure.meta):
            raise SignatureError(
                f"argument {at} is a {structure.meta.__name__}, got a {type(x).__name__}"
            )
        return getattr(x, key)
    if not isinstance(x, (tuple, list)) or len(x) != len(structure.children):
        got = f"{len(x)}" if isinstance(x, (tuple, list)) else f"a {type(x).__name__}"
        raise SignatureError(
            f"argument {at} is a {structure.kind} of {len(structure.children)}, got {got}"
        )
    return x[key]


def as_names(names: Iterable[str]) -> list[str]:
    """Names that a graph's text can have, all different."""
    taken: set[str] = set()
    made = []
    for name in names:
        if not is_name(name):
            name = re.sub(r"[^A-Za-z0-9_.]", "_", name)
            name = name if is_name(name) else f"_{name}"
        count, unique = 2, name
        while unique in taken:
            unique, count = f"{name}_{count}", count + 1
        taken.add(unique)
        made.append(unique)
    return made
