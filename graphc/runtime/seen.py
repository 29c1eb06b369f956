"""Calls that Python has served: what was given for each parameter, and how often that form came.

In:   a signature and the values that a call gave.
Out:  an `Argument` for each parameter; from `Seen`, whether to make a record for calls like this.
Invariant: parameters that may be given by position come first, in the signature's order.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.dsl.tree import Structure

MISSING: Any = inspect.Parameter.empty  # no value, or no default
FORMS = 256  # that are remembered
TRIES = 3  # records made for one form of leaves, which may stand in different containers


@dataclass(frozen=True)
class Argument:
    """A parameter of a call: what was given for it, and what its graph makes of that."""

    name: str
    value: Any = MISSING  # the argument, or the default that stood for it
    structure: Structure | None = None  # None where nothing was given, and nothing is read
    default: Any = MISSING  # what stands for it where it is not given
    keyword: bool = True  # it may be given by its name
    positional: bool = True  # it may be given by its place; such parameters come first


def arguments_of(
    signature: inspect.Signature,
    values: Sequence[Any],
    keywords: Sequence[str],
    structures: Sequence[Structure],
) -> list[Argument]:
    """The arguments of a call that gave these values: first by position, then `keywords`.

    A parameter that was not given, and whose default therefore is part of the trace, must not be
    given by other calls of this form.
    """
    split = len(values) - len(keywords)
    by_place = list(zip(values[:split], structures[:split]))
    by_name = dict(zip(keywords, zip(values[split:], structures[split:])))
    found: list[Argument] = []
    for p in signature.parameters.values():
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD):
            named = p.kind == p.POSITIONAL_OR_KEYWORD
            value, tree = by_place.pop(0) if by_place else (MISSING, None)
            found.append(Argument(p.name, value, tree, keyword=named))
    found.extend(Argument("", value, tree, keyword=False) for value, tree in by_place)
    for p in signature.parameters.values():
        if p.kind == p.KEYWORD_ONLY:
            value, tree = by_name.pop(p.name, (MISSING, None))
            found.append(Argument(p.name, value, tree, positional=False))
    found.extend(Argument(n, value, tree, positional=False) for n, (value, tree) in by_name.items())
    return found


class Seen:
    """The forms of calls that Python has served: a record pays from the second call on."""

    def __init__(self) -> None:
        self._count: dict[object, int] = {}

    def often(self, args: Sequence[Any], kwargs: Mapping[str, Any], leaves: Sequence[Any]) -> bool:
        """Has there been a call like this one, and not yet often without success?"""
        key = (tuple(map(type, args)), tuple(kwargs), tuple([_key(x) for x in leaves]))
        if len(self._count) >= FORMS:
            self._count.clear()
        count = self._count[key] = self._count.get(key, 0) + 1
        return 2 <= count <= 2 + TRIES


def _key(x: Any) -> object:
    return (type(x), x.shape, x.strides, x.dtype) if type(x) is np.ndarray else type(x)
