"""Long bodies of loops, cut: each piece runs for some iterations before the next one does.

A processor looks for work among the next hundred instructions or so. In a long body nearly all of them wait for each
other, and only where the next iteration begins is there more to do. A piece is short, so that several of its
iterations are in sight; nor does it need more registers than there are. What a later piece reads is kept in the
nearest memory, but for what is made anew with no more work than reading it: a number of memory, a sum of two.

>>> from graphc.ir.types import Dim, f64
>>> body = [
...     Load("%1", "x", Dim.symbol("_j"), f64),
...     Let("%2", "sub", ("%0", "%1"), f64),
...     *(Let(f"%{k}", "mul", (f"%{k - 1}", "%2"), f64) for k in (3, 4, 5)),
...     Let("%6", "call", ("%5",), f64, "exp"),
...     *(Let(f"%{k}", "mul", (f"%{k - 1}", "%2"), f64) for k in (7, 8, 9)),
...     Add("%10", ("%9",)),
... ]
>>> for piece in pieces_of(body):
...     print(len(piece.statements), piece.takes, piece.keeps)
5 () (('%5', f64),)
1 (('%5', f64),) (('%6', f64),)
6 (('%6', f64),) ()
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.ir.types import DType
from graphc.lower.loops import Add, Inside, Iota, Let, Load, Statement
from graphc.lower.names import defined, used_by

CALL = 20  # instructions of a gate, about
SMALL = 4  # instructions that are no piece of their own
EXPENSIVE = ("call", "rare", "div", "sqrt", "quot")


@dataclass(frozen=True)
class Piece:
    statements: tuple[Statement, ...]
    takes: tuple[tuple[str, DType], ...]  # values of pieces before,
    keeps: tuple[tuple[str, DType], ...]  # and those that pieces behind it take


def weight(body: Sequence[Statement]) -> int:
    """Instructions, about."""
    return sum(CALL if isinstance(s, Let) and s.op in ("call", "rare") else 1 for s in body)


def pieces_of(body: Sequence[Statement]) -> list[Piece]:
    """Gates by themselves, and what is between them; sums in the last. One, where there is nothing to cut."""
    whole = [Piece(tuple(body), (), ())]
    if not all(isinstance(s, (Let, Load, Iota, Inside, Add)) for s in body):
        return whole
    groups = _groups(body)
    if len(groups) == 1:
        return whole
    made_by = {name: s for s in body for name, _ in defined([s])}
    dtypes = dict(defined(body))
    at = {name: k for k, group in enumerate(groups) for name, _ in defined(group)}
    order = {id(s): k for k, s in enumerate(body)}
    found: list[tuple[list[Statement], list[str]]] = []
    for k, group in enumerate(groups):
        mine, taken = list(group), dict[str, None]()
        wanted = [name for s in group for name in used_by(s)]
        while wanted:
            name = wanted.pop(0)
            if at.get(name, k) == k:
                continue
            by = made_by[name]
            if not _is_cheap(by, made_by):
                taken[name] = None
            elif by not in mine:
                mine.append(by)
                wanted.extend(used_by(by))
        mine.sort(key=lambda s: order[id(s)])
        found.append((mine, list(taken)))
    if any(not dtypes[name].is_float for _, taken in found for name in taken):
        return whole
    kept = {name for _, taken in found for name in taken}
    return [
        Piece(
            tuple(mine),
            tuple((name, dtypes[name]) for name in taken),
            tuple((name, dtype) for name, dtype in defined(group) if name in kept),
        )
        for group, (mine, taken) in zip(groups, found, strict=True)
    ]


def _groups(body: Sequence[Statement]) -> list[list[Statement]]:
    groups: list[list[Statement]] = [[]]
    for s in body:
        if isinstance(s, Add):
            continue
        alone = weight([s]) == CALL
        if alone and weight(groups[-1]) >= SMALL:
            groups.append([])
        groups[-1].append(s)
        if alone:
            groups.append([])
    groups[-1] += [s for s in body if isinstance(s, Add)]
    if len(groups) > 1 and weight(groups[-1]) < SMALL:
        last = groups.pop()
        groups[-1] += last
    return groups


def _is_cheap(s: Statement, made_by: dict[str, Statement]) -> bool:
    """Is it made anew with no more work than reading it?"""
    if isinstance(s, Let) and s.op not in EXPENSIVE:
        return all(_is_at_hand(made_by.get(a)) for a in s.args)
    return _is_at_hand(s)


def _is_at_hand(s: Statement | None) -> bool:
    """A number of memory or none; None: made before the loop."""
    return (
        s is None
        or isinstance(s, (Iota, Inside))
        or (isinstance(s, Load) and not s.at and not s.only)
        or (isinstance(s, Let) and s.op == "const")
    )
