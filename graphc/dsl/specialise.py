"""Specialisation: which graph serves a call of an unannotated function.

In:   the types of the arguments of a call.
Out:  a compiled variant of the function that fits them.
Invariant: the first call's sizes are static. An axis whose size changes becomes symbolic and stays
so, hence at most 1 + (number of axes that ever change) compilations. Two symbols become one where
an operation needs it, which the names in the inputs' types then guard; where a size has to be a
number, the call gets a static variant. A function has at most `MOST_VARIANTS`: the one that has not
been used for longest goes, and its machine code with it once no call runs it any more.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc.dsl.trace import Leaf, Traced, trace
from graphc.dsl.tree import Structure, unflatten
from graphc.errors import ShapeError
from graphc.ir.types import Dim, DType, Size, TensorType
from graphc.runtime.compiling import LOCK

Shapes = tuple[tuple[int, ...], ...]
Axis = tuple[int, int]  # the position of a leaf, and its axis
Runner = Callable[[list[np.ndarray]], list[np.ndarray]]
MOST_VARIANTS = 128  # of one function
_clock = itertools.count(1)


@dataclass(eq=False)
class Variant:
    """A traced and compiled function for some types."""

    traced: Traced
    run: Runner
    used: int = 0  # when Python last chose it

    def __str__(self) -> str:
        arguments = ", ".join(f"{n['name']}: {n.type}" for n in self.traced.arguments)
        return f"{self.traced.graph.name}({arguments})"

    def fits(self, shapes: Shapes) -> bool:
        env: dict[str, int] = {}
        for node, shape in zip(self.traced.arguments, shapes):
            for s, n in zip(node.type.shape, shape):
                if (env.setdefault(s.text, n) if isinstance(s, Dim) else s) != n:
                    return False
        return True


@dataclass(frozen=True)
class Call:
    """What a call looks like, apart from sizes: the key of a family of variants."""

    tree: Structure
    dtypes: tuple[DType, ...]
    ranks: tuple[int, ...]
    weak: tuple[bool, ...]
    keywords: tuple[str, ...] = ()  # the last of the arguments, given by keyword only


@dataclass
class Family:
    """The variants of one function for calls that differ in sizes alone."""

    function: Callable[..., Any]
    name: str
    parameters: tuple[str, ...]
    leaf_names: tuple[str, ...]
    call: Call
    compiled: Callable[[Traced], Runner]
    added: Callable[[Variant], None]
    static: dict[Shapes, Variant] = field(default_factory=dict)
    symbolic: tuple[Variant, ...] = ()
    first: Shapes | None = None
    changed: set[Axis] = field(default_factory=set)

    def variant(self, shapes: Shapes) -> Variant:
        found = self._find(shapes)
        if found is None:
            with LOCK:
                found = self._find(shapes) or self._add(shapes)
        found.used = next(_clock)
        return found

    @property
    def variants(self) -> tuple[Variant, ...]:
        return (*self.static.copy().values(), *self.symbolic)

    def remove(self, variant: Variant) -> None:
        """Without `LOCK`, which is held for as long as something is compiled."""
        self.symbolic = tuple(v for v in self.symbolic if v is not variant)
        for shapes, v in self.static.copy().items():
            if v is variant:
                self.static.pop(shapes, None)

    def _find(self, shapes: Shapes) -> Variant | None:
        return self.static.get(shapes) or next((v for v in self.symbolic if v.fits(shapes)), None)

    def _add(self, shapes: Shapes) -> Variant:
        if self.first is not None:
            self._note_changes(shapes)
            found = self._symbolic(shapes)
            if found is not None:
                self.symbolic = (found, *self.symbolic)
                self.added(found)
                return found
        made = self.static[shapes] = self._made(shapes)
        self.first = self.first or shapes
        self.added(made)
        return made

    def _note_changes(self, shapes: Shapes) -> None:
        assert self.first is not None
        for i, (a, b) in enumerate(zip(self.first, shapes)):
            self.changed.update((i, j) for j, (s, t) in enumerate(zip(a, b)) if s != t)

    def _symbolic(self, shapes: Shapes) -> Variant | None:
        """A variant with symbols for the axes that change; None where this call needs numbers."""
        names = {
            axis: f"{self.leaf_names[axis[0]].replace('.', '_')}_{axis[1]}"
            for axis in sorted(self.changed)
        }
        while True:
            try:
                made = self._made(shapes, names)
            except ShapeError as error:
                if not _unified(names, getattr(error, "sizes", ())):
                    return None
            except Exception:  # noqa: BLE001  the static trace either works or shows the user's error
                return None
            else:
                return made if made.fits(shapes) else None

    def _made(self, shapes: Shapes, names: dict[Axis, str] | None = None) -> Variant:
        leaves = [
            Leaf(TensorType(d, _named(i, shape, names or {})), w)
            for i, (d, w, shape) in enumerate(zip(self.call.dtypes, self.call.weak, shapes))
        ]
        traced = trace(self.function, unflatten(self.call.tree, leaves), self.parameters, self.name)
        return Variant(traced, self.compiled(traced))


class Variants:
    """All variants of one function."""

    def __init__(self) -> None:
        self._families: dict[Call, Family] = {}
        self._lock = threading.Lock()

    def family(self, call: Call, make: Callable[[Callable[[Variant], None]], Family]) -> Family:
        found = self._families.get(call)
        if found is None:
            found = self._families.setdefault(call, make(self._added))
        return found

    def all(self) -> tuple[Variant, ...]:
        """The one that was used last comes last."""
        found = [v for f in self._families.copy().values() for v in f.variants]
        return tuple(sorted(found, key=lambda v: v.used))

    def clear(self) -> None:
        self._families.clear()

    def _added(self, variant: Variant) -> None:
        variant.used = next(_clock)
        with self._lock:
            for old in self.all()[:-MOST_VARIANTS]:
                for call, family in self._families.copy().items():
                    family.remove(old)
                    if not family.variants:
                        self._families.pop(call, None)


def _named(leaf: int, shape: tuple[int, ...], names: dict[Axis, str]) -> tuple[Size, ...]:
    return tuple(
        Dim.symbol(names[leaf, j]) if (leaf, j) in names else n for j, n in enumerate(shape)
    )


def _unified(names: dict[Axis, str], sizes: Sequence[Size]) -> bool:
    """Give two symbols that met one name; False where they are not two symbols of ours."""
    texts = [s.text for s in sizes if isinstance(s, Dim)]
    if len(texts) != 2 or any(t not in names.values() for t in texts):
        return False
    first, second = sorted(texts)
    for axis, name in names.items():
        if name == second:
            names[axis] = first
    return True
