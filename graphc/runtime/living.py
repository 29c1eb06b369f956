"""Objects that are there, without keeping them: what has to be told to all of them.

In:   objects that can be referred to weakly.
Out:  those that still live, in no order.
Invariant: nothing of Python's runs when one of them dies. Ctrl-C that comes in a callback is lost,
and `weakref.WeakSet` has one.

>>> class Thing: pass
>>> thing, things = Thing(), Living()
>>> things.add(thing); things.add(thing)
>>> list(things) == [thing]
True
>>> del thing
>>> list(things)
[]
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
FEW = 64  # references up to which nobody looks for dead ones


class Living(Generic[T]):
    """A set of them."""

    def __init__(self) -> None:
        self._references: dict[int, weakref.ref[T]] = {}
        self._room = FEW

    def add(self, x: T) -> None:
        if len(self._references) >= self._room:
            self._forget_dead()
        self._references[id(x)] = weakref.ref(x)

    def __iter__(self) -> Iterator[T]:
        found = [r() for r in list(self._references.values())]
        return iter([x for x in found if x is not None])

    def _forget_dead(self) -> None:
        for key, reference in list(self._references.items()):
            if reference() is None:
                popped = self._references.pop(key, reference)
                if popped is not reference:  # another thread has put a new object at this address
                    self._references[key] = popped
        self._room = max(FEW, 2 * len(self._references))
