"""Short inner loops are written out, so that the loop around them can run in lanes.

In:   a `Program` of plain loops.
Out:  the same with some loops over short axes, as the 3 of a vector in space, replaced by their
      iterations; what one of these hands to another through scratch stays in a register.
Invariant: no bit changes: a sum over a written-out axis is the tree of its order, operation by
operation.

An innermost loop runs in lanes, and over 3 elements most lanes are idle. With the short axes
written out, the lanes are the iterations of the next larger axis: the points, not their
coordinates. It is done where it costs fewer vector instructions. What it asks for in return are
operands whose neighbours along the larger axis do not lie side by side; see `lower.planes`.

>>> from graphc.lower.loop_text import parse_program
>>> print(written_out(parse_program(EXAMPLE)))
program lengths(x: f64[n,3])
sizes n
buffer output y.out: f64[n]
kernel k0
  for _i in n rows
    %1 = load x[3*_i] : f64
    %2 = mul %1, %1 : f64
    %3 = load x[3*_i+1] : f64
    %4 = mul %3, %3 : f64
    %5 = load x[3*_i+2] : f64
    %6 = mul %5, %5 : f64
    %7 = add %2, %6 : f64
    %8 = add %7, %4 : f64
    store y.out[_i] %8
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import replace

from graphc.ir.types import Size
from graphc.lower.loops import (
    RUNNING,
    Acc,
    Add,
    Contract,
    Fill,
    For,
    Let,
    Load,
    Program,
    Scatter,
    Statement,
    Step,
    Store,
    coefficient,
    touching,
    walk,
    without,
)
from graphc.lower.straight import Names, Straight, renumbered

SHORT = 8  # iterations up to which a loop is written out,
IN_A_NEST = 16  # or, of a nest over any number of pairs of points, over their coordinates
MOST = 400  # statements of a loop whose inner loops have been written out
EXAMPLE = """program lengths(x: f64[n,3])
sizes n
buffer output y.out: f64[n]
kernel k0
  for _i in n rows
    for _j in 3 rows
      acc %1: f64 sum lanes
      %2 = load x[3*_i+_j] : f64
      %3 = mul %2, %2 : f64
      add %1 %3
    store y.out[_i] %1
"""


def written_out(program: Program) -> Program:
    """Every loop whose inner loops are short, with these written out where it pays."""
    kernels = []
    for kernel in program.kernels:
        if any(isinstance(s, For) for s in kernel.body):
            body = _in_body(kernel.body, 0, Names(kernel))
            if body is not kernel.body:
                kernel = replace(kernel, body=renumbered(body))
        kernels.append(kernel)
    return without_idle_scratch(replace(program, kernels=tuple(kernels)))


def _in_body(body: tuple[Statement, ...], depth: int, names: Names) -> tuple[Statement, ...]:
    """The statements with short loops written out; the same object where there are none."""
    made: list[Statement] = []
    for s in body:
        if not isinstance(s, For):
            made.append(s)
            continue
        inner = _in_body(s.body, depth + 1, names)
        s = s if inner is s.body else replace(s, body=inner)
        flat = _flattened(s, depth, names)
        if flat is not None and _cost_in_lanes(flat, depth) < _cost_as_it_is(s, depth):
            made.extend(_apart(flat, names))
        else:
            made.append(s)
    return tuple(made) if any(map(operator.is_not, made, body)) else body


# -- which loops ---------------------------------------------------------------------------------


def _flattened(loop: For, depth: int, names: Names) -> For | None:
    """The loop with its inner loops written out, or None where one of them cannot be."""
    inner = [s for s in loop.body if isinstance(s, For)]
    if not inner or any(isinstance(s, Contract) for s in loop.body):
        return None
    if isinstance(loop.size, int) and loop.size < _lanes(loop):
        return None
    arrays = {a.name: a for a in loop.accs if a.into}
    short = IN_A_NEST if depth and not isinstance(loop.size, int) else SHORT
    kept = {id(f) for f in inner if _sums_of_columns(f, arrays, short)}
    rest = [f for f in inner if id(f) not in kept]
    if not rest or (kept and depth > 0):
        return None
    if not all(_straight(f, short) for f in rest) or sum(map(_statements, rest)) > MOST:
        return None
    writer = Straight(names, loop.accs)
    for s in loop.body:
        if isinstance(s, For) and id(s) not in kept:
            writer.unroll(s)
        else:
            writer.add(s)
    if kept and _handed_over(writer.statements, depth):
        return None
    return replace(loop, body=tuple(writer.statements))


def _straight(loop: For, short: int) -> bool:
    """Is it short, and so is all inside of it?"""
    if not isinstance(loop.size, int) or loop.size > short:
        return False
    return all(
        _straight(s, short) if isinstance(s, For) else not isinstance(s, (Scatter, Contract, Fill))
        for s in loop.body
    )


def _statements(loop: For) -> int:
    """Of a short loop that is written out."""
    inner = (_statements(s) if isinstance(s, For) else 1 for s in loop.body)
    return int(str(loop.size)) * sum(inner)


def _sums_of_columns(inner: For, arrays: dict[str, Acc], few: int) -> bool:
    """Does it add to more than a few columns, which the lanes cannot be? They stay a loop."""
    inside = (s for s, _ in walk(inner.body))
    added = [arrays[s.acc] for s in inside if isinstance(s, (Add, Step)) and s.acc in arrays]
    return any(a.order == "chain" or not isinstance(a.size, int) or a.size > few for a in added)


def _handed_over(body: Sequence[Statement], depth: int) -> bool:
    """Does a loop that is kept read memory that the straight part writes?"""
    stored = {s.buffer for s in body if isinstance(s, Store)}
    loaded = {
        s.buffer
        for f in body
        if isinstance(f, For)
        for s, _ in walk(f.body)
        if isinstance(s, (Load, Store))
    }
    return bool(stored & loaded)


def _lanes(loop: For) -> int:
    """The lanes of a vector that holds one value of the loop for each of its iterations."""
    wide = any(getattr(s, "dtype", None) and s.dtype.itemsize == 8 for s, _ in walk(loop.body))  # type: ignore[union-attr]
    return 8 if wide else 16


# -- what it costs, in vector instructions for one iteration -------------------------------------

CALL, ROOT, HORIZONTAL, STRIDED, GATHERED = 25.0, 6.0, 7.0, 2.5, 3.0
COUNTER = 10.0  # a row is added to an array in memory, and every fourth one goes into its counter
ONE_BY_ONE = 4.0  # lanes go on from each other,
WAITING = 90.0  # or rows do, by way of memory
ARRAY = 30.0  # an array accumulator is filled, and its counter pushed and finished


def _weight(s: Statement) -> float:
    if isinstance(s, Let):
        return CALL if s.op in ("call", "rare") else ROOT if s.op in ("div", "sqrt") else 1.0
    return 1.0


def _cost_of_inner_loops(loop: For) -> float:
    total = 0.0
    for s in loop.body:
        if isinstance(s, For):
            total += sum(ARRAY if a.into else HORIZONTAL for a in s.accs)
        if isinstance(s, For) and any(isinstance(t, For) for t in s.body):
            many = s.size if isinstance(s.size, int) else 1e9
            total += many * _cost_of_inner_loops(s) + 2.0
        elif isinstance(s, For):
            lanes = _lanes(s)
            vectors = -(-s.size // lanes) if isinstance(s.size, int) else 1e9
            total += vectors * sum(map(_weight, s.body)) + 2.0
            total += WAITING * any(isinstance(t, Step) for t in s.body)
        else:
            total += 2 * _weight(s) / _lanes(loop)  # lanes of a block at best, and handed over
    return total


def _cost_as_it_is(loop: For, depth: int) -> float:
    """A loop at the top adds rows in blocks, with columns in registers; one inside does not."""
    counters = [a for a in loop.accs if a.into and a.order != "any"] if depth else []
    return _cost_of_inner_loops(loop) + COUNTER * len(counters)


def _cost_in_lanes(loop: For, depth: int) -> float:
    lanes = _lanes(loop)
    total = 0.0
    for s in loop.body:
        if isinstance(s, For):
            total += _cost_of_inner_loops(replace(loop, body=(s,)))
            continue
        total += _weight(s) / lanes
        if isinstance(s, Load) and s.at:
            total += GATHERED
        elif isinstance(s, (Load, Store)):
            if coefficient(s.index, loop.var) not in (0, 1) and not _in_planes(s, loop, depth):
                total += STRIDED
        elif isinstance(s, Step):
            total += ONE_BY_ONE
        elif isinstance(s, Add):
            total += 5.0 / lanes * any(a.name == s.acc and a.into for a in loop.accs)
    return total


def _in_planes(s: Load | Store, loop: For, depth: int) -> bool:
    """Will `lower.planes` lay it out for the lanes? If all iterations around the loop read it."""
    around = without(s.index, loop.var)
    return depth > 0 and isinstance(s, Load) and not _variables(around)


def _variables(size: Size) -> list[str]:
    return [] if isinstance(size, int) else [v for v in size.symbols() if v.startswith("_")]


# -- accumulators of the loop itself -------------------------------------------------------------


def _apart(loop: For, names: Names) -> list[Statement]:
    """Array accumulators of few elements, each added to at fixed places, become single ones."""
    accs: list[Acc] = []
    single: dict[tuple[str, Size], str] = {}
    stores: list[Statement] = []
    for acc in loop.accs:
        steps = (s for s in loop.body if isinstance(s, (Add, Step)))
        places = [s.index for s in steps if s.acc == acc.name]
        if not acc.into or acc.order == "chain" or not _few(acc, places):
            accs.append(acc)
            continue
        for element in range(int(str(acc.size))):
            name = single[acc.name, element] = names.fresh()
            accs.append(Acc(name, acc.dtype, acc.monoid, acc.order))
            if acc.order != RUNNING:
                stores.append(Store(acc.into, acc.index + element, name))
    body = tuple(
        replace(s, acc=single[s.acc, s.index], index=0)
        if isinstance(s, (Add, Step)) and (s.acc, s.index) in single
        else s
        for s in loop.body
    )
    return [replace(loop, accs=tuple(accs), body=body), *stores]


def _few(acc: Acc, places: Sequence[Size]) -> bool:
    return (
        isinstance(acc.size, int)
        and 0 < acc.size <= IN_A_NEST
        and sorted(map(str, places)) == sorted(map(str, range(acc.size)))
    )


# -- tidying -------------------------------------------------------------------------------------


def without_idle_scratch(program: Program) -> Program:
    """Stores into temporaries that nothing reads any more go, with the temporaries."""
    read: set[str] = set()
    filled: set[str] = set()
    for kernel in program.kernels:
        for s, _ in touching(kernel.body):
            match s:
                case Load():
                    read.add(s.buffer)
                case Contract():
                    read |= {s.a.buffer, s.b.buffer, s.out.buffer}
                case Scatter() | Fill():
                    filled.add(s.buffer)
                case For():
                    filled |= {a.into for a in s.accs if a.into}
    idle = {b.name for b in program.of_role("temp")} - read - filled
    if not idle:
        return program

    def kept(body: tuple[Statement, ...]) -> tuple[Statement, ...]:
        return tuple(
            replace(s, body=kept(s.body)) if isinstance(s, For) else s
            for s in body
            if not (isinstance(s, Store) and s.buffer in idle)
        )

    kernels = tuple(replace(k, body=kept(k.body)) for k in program.kernels)
    buffers = tuple(b for b in program.buffers if b.name not in idle)
    return replace(program, kernels=kernels, buffers=buffers)


__all__ = ["EXAMPLE", "without_idle_scratch", "written_out"]
