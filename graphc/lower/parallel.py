"""Which loops several threads may share, and what an iteration costs.

In:   a `Program` whose loops have their modes.
Out:  the same, with `parallel` on top-level loops whose iterations may run on any thread.
Invariant: no bit changes. An iteration writes only what is its own, and sums are cut where a
subtree of their order ends: a part of a loop is 2^k `unit`s of iterations, and a unit is whole
leaves of every sum.

A loop whose whole work is known to be too little stays as it is. Of the others, the call decides.

>>> from graphc.lower.loops import parse_program
>>> program = parse_program('''program total(x: f64[n])
... sizes n
... buffer output y.out: f64[]
... kernel k0
...   for _i in n vector
...     acc %1: f64 sum lanes
...     %2 = load x[_i] : f64
...     add %1 %2
...   store y.out[0] %1''')
>>> loop = shared_out(program).kernels[0].body[0]
>>> loop.parallel, unit(loop), cost(loop)
(True, 64, 160)
"""

from __future__ import annotations

from dataclasses import replace

from graphc.gates.contraction import BLOCK
from graphc.gates.reduction import LEAF, VECTOR_BYTES
from graphc.ir.types import Size
from graphc.lower.loops import (
    Acc,
    Contract,
    Fill,
    For,
    Let,
    Load,
    Program,
    Scatter,
    Statement,
    Store,
    coefficient,
    touching,
)

LEAST = 20_000_000  # picoseconds of work that are worth a second thread
PARTS_PER_THREAD = 16  # so that threads end at about the same time, whatever else runs
MOST_PARTS = 64  # of one loop, for any number of threads
LANES = 64  # iterations in lanes or blocks that are whole leaves of all orders but `chain`

# Picoseconds of one statement for one element, where iterations are lanes.
OPERATION, MEMORY, GATHER, SCATTER, ROOT, CALL = 60, 100, 1000, 2000, 600, 1500
ALONE = 6  # times as much, where one element is computed at a time
INNER = 5000  # to begin and end a loop


def shared_out(program: Program) -> Program:
    """Mark the loops that several threads may share."""
    kernels = tuple(
        replace(
            k,
            body=tuple(
                replace(s, parallel=_worthwhile(s) and is_independent(program, s))
                if isinstance(s, For)
                else s
                for s in k.body
            ),
        )
        for k in program.kernels
    )
    return replace(program, kernels=kernels)


def _worthwhile(loop: For) -> bool:
    """May there be work for two?"""
    total = loop.size * cost(loop)
    small = isinstance(loop.size, int) and loop.size <= unit(loop)
    return not small and not (isinstance(total, int) and total < LEAST)


def is_independent(program: Program, loop: For) -> bool:
    """Does every iteration write elements of its own, and read what no other one writes?"""
    steps: dict[str, Size] = {}
    inner = {
        a.into for s, _ in touching(loop.touching) if isinstance(s, For) for a in s.accs if a.into
    }
    loads: list[Load] = []
    for s, _ in touching(loop.touching):
        if isinstance(s, Load):
            loads.append(s)
        if isinstance(s, (Contract, Fill)):
            return False
        if isinstance(s, (Store, Scatter)) and not program.buffer(s.buffer).scope:
            step = coefficient(s.index, loop.var)
            if step == 0 or steps.setdefault(s.buffer, step) != step:
                return False
        if isinstance(s, For):
            for acc in s.accs:
                if acc.into and not program.buffer(acc.into).scope:
                    step = coefficient(acc.index, loop.var)
                    if step == 0 or steps.setdefault(acc.into, step) != step:
                        return False
    summed = {a.into for a in loop.accs if a.into}
    if summed & (inner | set(steps)):
        return False
    for s in loads:
        if s.buffer in summed or s.buffer in steps:
            if s.at or s.buffer in summed or coefficient(s.index, loop.var) != steps[s.buffer]:
                return False
    return True


def unit(loop: For) -> int:
    """The iterations that a part of a loop has at least; a power of two."""
    return max([LANES if loop.mode != "rows" else 1, *map(_leaf, loop.accs)])


def _leaf(acc: Acc) -> int:
    """The iterations of a sum's leaf."""
    if acc.order == "lanes":
        return LEAF * VECTOR_BYTES // max(acc.dtype.itemsize, 4)
    return {"rows": LEAF, "chain": BLOCK}.get(acc.order, 1)


def cost(loop: For, in_lanes: bool = False) -> Size:
    """Picoseconds of one iteration, right within a factor of a few; `in_lanes` if one of the loops
    around it is."""
    inner: Size = 0
    here = 0
    in_lanes = in_lanes or loop.mode == "lanes"
    for s in loop.body:
        if isinstance(s, Let):  # most of them
            here += _LET.get(s.op, OPERATION)
        elif isinstance(s, For):
            inner = inner + s.size * cost(s, in_lanes) + INNER
        else:
            here += _element(s)
    return inner + here * (1 if in_lanes or loop.mode != "rows" else ALONE)


_LET = {"": 0, "call": CALL, "rare": CALL, "div": ROOT, "sqrt": ROOT}


def _element(s: Statement) -> int:
    match s:
        case Load():
            return GATHER if s.at else MEMORY
        case Store():
            return MEMORY
        case Scatter():
            return SCATTER
    return OPERATION


__all__ = ["MOST_PARTS", "PARTS_PER_THREAD", "cost", "is_independent", "shared_out", "unit"]
