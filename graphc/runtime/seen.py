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
from graphc.runtime.entries import generation

MISSING: Any = inspect.Parameter.empty  # no value, or no default
FORMS = 256  # that are remembered
MOST = 64  # records made for one form of leaves, which may stand in different containers
FRUITLESS = 3  # of these, one after the other, that brought nothing
Form = tuple[int, int, tuple[type, ...], tuple[str, ...], tuple[object, ...]]


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
        self._tries: dict[object, list[int]] = {}

    def often(
        self, variant: object, args: Sequence[Any], kwargs: Mapping[str, Any], leaves: Sequence[Any]
    ) -> Form | None:
        """The form of a call, if there has been one like it, and a record may help the next one."""
        kinds = (tuple(map(type, args)), tuple(kwargs), tuple([_key(x) for x in leaves]))
        form = (generation(), id(variant), *kinds)
        if len(self._tries) >= FORMS:
            self._tries.clear()
        tries = self._tries.get(form)
        if tries is None:
            self._tries[form] = [MOST, FRUITLESS]
            return None
        return form if min(tries) > 0 else None

    def tried(self, form: Form, helps: bool) -> None:
        """A record was made, and is new or not."""
        tries = self._tries.get(form, [0, 0])
        tries[0] -= 1
        tries[1] = FRUITLESS if helps else tries[1] - 1


def _key(x: Any) -> object:
    """What a record says of a leaf, sizes apart."""
    if type(x) is not np.ndarray:
        return type(x)
    flags = x.flags
    return (x.dtype, x.ndim, flags.c_contiguous and flags.aligned)
