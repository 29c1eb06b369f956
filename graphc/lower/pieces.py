"""Long loops in pieces: no native function grows with the graph.

In:   a loop in lanes whose body has more statements than one native function should have.
Out:  what no iteration changes, and pieces of the rest; for every value that one piece makes and
      another reads, a slot: memory for one vector.
Invariant: each value is made before it is read, as in the body; a slot passes on to another value
only after the last piece that reads it.

LLVM's time for a function grows faster than the function. And a body with more values at once than
there are registers keeps them in memory anyway.

>>> from graphc.lower.loop_text import parse_program
>>> loop = parse_program(EXAMPLE).kernels[0].body[0]
>>> cut = cut_up(loop, 2)
>>> [len(piece.statements) for piece in cut.pieces], cut.slots, cut.slot
([2, 2, 1], 2, {'%2': 0, '%4': 1})
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeGuard

from graphc.ir.types import DType, Size, i64
from graphc.lower.loops import (
    Add,
    For,
    Index,
    Iota,
    Let,
    Load,
    Scatter,
    Statement,
    Step,
    Store,
    coefficient,
)

PIECE = 300  # statements of one piece
LONG = 600  # statements from which on a loop is cut
EXAMPLE = """program f(x: f64[n])
sizes n
buffer output y.out: f64[n]
kernel k0
  for _i in n vector
    %1 = load x[_i] : f64
    %2 = mul %1, %1 : f64
    %3 = add %2, %2 : f64
    %4 = mul %3, %2 : f64
    store y.out[_i] %4
"""


@dataclass(frozen=True)
class Piece:
    """Consecutive statements, and the values that come from earlier pieces or go to later ones."""

    statements: tuple[Statement, ...]
    comes: dict[str, DType]
    goes: dict[str, DType]


@dataclass(frozen=True)
class Cut:
    same: tuple[Statement, ...]  # what no iteration changes
    pieces: tuple[Piece, ...]
    adds: tuple[Add, ...]  # what the loop itself does with the pieces' values
    slot: dict[str, int]  # of each value that goes from one piece to another
    slots: int
    slot_bytes: int  # of one vector

    @property
    def bytes(self) -> int:
        return max(self.slots, 1) * self.slot_bytes


def is_long(loop: For) -> bool:
    """Should it be cut up? Gathers, scatters, strides and sums of arrays stay as they are, and so
    does what reads an array that it writes.
    """
    found = loop.__dict__.get("_long")  # a loop does not change: looked at once
    if found is None:
        found = loop.__dict__["_long"] = _is_long(loop)
    return bool(found)


def _is_long(loop: For) -> bool:
    if len(loop.body) <= LONG or any(a.into or a.order == "rows" for a in loop.accs):
        return False
    own = {a.name for a in loop.accs}
    loaded = {s.buffer for s in loop.body if isinstance(s, Load)}
    stored = {s.buffer for s in loop.body if isinstance(s, Store)}
    return loaded.isdisjoint(stored) and all(_is_plain(s, loop.var, own) for s in loop.body)


def in_pieces(s: Statement) -> TypeGuard[For]:
    """Is it a loop that runs piece by piece?"""
    return isinstance(s, For) and s.mode == "vector" and is_long(s)


def _is_plain(s: Statement, var: str, own: set[str]) -> bool:
    if isinstance(s, Let):  # most of them
        return True
    match s:
        case Load():
            return not s.at and not s.only and coefficient(s.index, var) in (0, 1)
        case Store():
            return not s.only and coefficient(s.index, var) == 1
        case Add():
            return s.acc in own
    return isinstance(s, Iota)


def cut_up(loop: For, size: int = PIECE) -> Cut:
    """The loop in pieces of so many statements."""
    found = loop.__dict__.get("_cut")
    if found is None or found[0] != size:
        found = loop.__dict__["_cut"] = size, _cut_up(loop, size)
    return found[1]


def resized(loop: For, size: Size) -> For:
    """So many of the iterations, by one thread: what is known of the body holds for these, too."""
    made = replace(loop, size=size, parallel=False)
    made.__dict__.update((k, v) for k, v in loop.__dict__.items() if k in ("_long", "_cut"))
    return made


def _cut_up(loop: For, size: int) -> Cut:
    same, varying = invariant(loop)
    adds = tuple(s for s in varying if isinstance(s, Add))
    rest = [s for s in varying if not isinstance(s, Add)]
    parts = [rest[i : i + size] for i in range(0, len(rest), size)]
    types = {s.name: i64 if isinstance(s, (Iota, Index)) else s.dtype
             for s in rest if isinstance(s, (Let, Load, Iota, Index))}  # fmt: skip
    last: dict[str, int] = {}  # the last piece that reads a value; the loop itself comes after all
    for i, part in enumerate([*parts, adds]):
        last.update((name, i) for s in part for name in read_by(s) if name in types)
    slot: dict[str, int] = {}
    free: list[int] = []
    ending: list[list[int]] = [[] for _ in range(len(parts) + 1)]
    pieces, slots = [], 0
    for i, part in enumerate(parts):
        here = [s.name for s in part if isinstance(s, (Let, Load, Iota, Index))]
        goes = {n: types[n] for n in here if last.get(n, i) > i}
        for name in goes:
            if not free:
                free.append(slots)
                slots += 1
            slot[name] = free.pop()
            ending[last[name]].append(slot[name])
        own = set(here)
        reads = dict.fromkeys(n for s in part for n in read_by(s) if n in types and n not in own)
        pieces.append(Piece(tuple(part), {n: types[n] for n in reads}, goes))
        free.extend(reversed(ending[i]))
    return Cut(tuple(same), tuple(pieces), adds, slot, slots, _vector_bytes(loop))


def _vector_bytes(loop: For) -> int:
    """Of a value in each of the loop's lanes: 16 of 8 bytes where sums of 4 bytes ask for it."""
    small = any(a.order == "lanes" and a.dtype.itemsize <= 4 for a in loop.accs)
    wide = any(ty.itemsize == 8 for s in loop.body for _, ty in made_by(s))
    return 128 if small and wide else 64


def invariant(loop: For) -> tuple[list[Statement], list[Statement]]:
    """Statements of a body that no iteration changes, and the others."""
    same: list[Statement] = []
    varying: list[Statement] = []
    changing: set[str] = set()
    for s in loop.body:
        if isinstance(s, Let):  # most of them
            if changing.isdisjoint(s.args):
                same.append(s)
            else:
                varying.append(s)
                changing.add(s.name)
        elif isinstance(s, Load) and coefficient(s.index, loop.var) == 0:
            same.append(s)
        else:
            varying.append(s)
            changing.update(name for name, _ in made_by(s))
    return same, varying


def made_by(s: Statement) -> Iterator[tuple[str, DType]]:
    """The value that a statement makes."""
    if isinstance(s, (Let, Load, Step)):
        yield s.name, s.dtype
    elif isinstance(s, (Iota, Index)):
        yield s.name, i64


def read_by(s: Statement) -> Sequence[str]:
    """The values that a statement reads."""
    if isinstance(s, Let):  # most of them
        return s.args
    match s:
        case Load():
            return [value for value, _ in s.at]
        case Store() | Index():
            return (s.value,)
        case Add() | Step():
            return s.values
        case Scatter():
            return (s.value, *(value for value, _ in s.at))
    return ()


__all__ = [
    "EXAMPLE",
    "Cut",
    "Piece",
    "cut_up",
    "in_pieces",
    "invariant",
    "is_long",
    "made_by",
    "read_by",
    "resized",
]
