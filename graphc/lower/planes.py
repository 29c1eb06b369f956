"""Planes: data whose neighbours along the lanes lie apart in memory are laid side by side once.

In:   a `Program` whose inner loops will run in lanes.
Out:  the same, where an array of points that every iteration of an outer loop reads again has been
      copied to one plane for each coordinate, from which the iteration's own point is read, too;
      and sums over such an array are made in planes, and copied back.
Invariant: copies only; no value changes.

>>> from graphc.lower.loop_text import parse_program
>>> print(in_planes(parse_program(EXAMPLE)))
program nearest(x: f64[n,2])
sizes n
buffer output y.out: f64[n]
buffer temp x.planes: f64[2,n]
kernel k0
  for _i in n rows
    %1 = load x[2*_i] : f64
    store x.planes[_i] %1
    %2 = load x[2*_i+1] : f64
    store x.planes[_i+n] %2
  for _i in n rows
    for _j in n rows
      acc %3: f64 max any
      %4 = load x.planes[_j] : f64
      %5 = load x.planes[_j+n] : f64
      %6 = sub %4, %5 : f64
      add %3 %6
    store y.out[_i] %3
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace

from graphc.ir.types import Dim, Size, TensorType
from graphc.lower.loops import (
    VARIABLES,
    Add,
    Buffer,
    For,
    Kernel,
    Load,
    Program,
    Scatter,
    Statement,
    Store,
    coefficient,
    walk,
    without,
)
from graphc.lower.straight import renumbered

OFTEN = 8  # iterations of the outer loop from which on a copy pays
EXAMPLE = """program nearest(x: f64[n,2])
sizes n
buffer output y.out: f64[n]
kernel k0
  for _i in n rows
    for _j in n rows
      acc %1: f64 max any
      %2 = load x[2*_j] : f64
      %3 = load x[2*_j+1] : f64
      %4 = sub %2, %3 : f64
      add %1 %4
    store y.out[_i] %1
"""


def in_planes(program: Program) -> Program:
    program = _scratch_in_planes(program)
    maker = _Maker(program)
    kernels = tuple(maker.kernel(k) for k in program.kernels)
    return replace(program, kernels=kernels, buffers=(*program.buffers, *maker.buffers))


def _scratch_in_planes(program: Program) -> Program:
    """Scratch of an iteration that inner loops walk point by point is laid out in planes."""
    scratch = {b.name for b in program.of_role("temp") if b.scope}
    if not scratch:
        return program
    walked: dict[str, set[tuple[Size, Size]]] = {}
    for kernel in program.kernels:
        for s, outer in walk(kernel.body):
            names = [a.into for a in s.accs] if isinstance(s, For) else [getattr(s, "buffer", "")]
            for name in scratch.intersection(names):
                walked.setdefault(name, set()).add(_walk_of(s, outer))
    moved = {
        name: shape
        for name, (shape, *others) in ((n, tuple(w)) for n, w in walked.items())
        if not others and shape[1] not in (0, 1)
    }

    def plane(s: Statement, loop: For) -> Statement:
        if isinstance(s, (Load, Store)) and s.buffer in moved:
            return replace(s, index=without(s.index, loop.var) * loop.size + Dim.symbol(loop.var))
        return s

    def mapped(body: tuple[Statement, ...]) -> tuple[Statement, ...]:
        return tuple(_mapped(s, plane) if isinstance(s, For) else s for s in body)

    kernels = tuple(replace(k, body=mapped(k.body)) for k in program.kernels)
    return replace(program, kernels=kernels) if moved else program


def _walk_of(s: Statement, outer: tuple[For, ...]) -> tuple[Size, Size]:
    """The extent of the innermost loop and its step, of an access at a fixed place of a point."""
    if isinstance(s, (Load, Store)) and not (isinstance(s, Load) and s.at) and outer:
        loop = outer[-1]
        step, place = coefficient(s.index, loop.var), without(s.index, loop.var)
        if isinstance(step, int) and isinstance(place, int) and 0 <= place < step:
            return loop.size, step
    return 0, 0


class _Maker:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.buffers: list[Buffer] = []

    def kernel(self, kernel: Kernel) -> Kernel:
        if not any(isinstance(s, For) for s in kernel.body):
            return kernel
        body: list[Statement] = []
        for s in kernel.body:
            if isinstance(s, For) and (not isinstance(s.size, int) or s.size >= OFTEN):
                body.extend(self._loop(s))
            else:
                body.append(s)
        if not any(map(operator.is_not, body, kernel.body)):
            return kernel
        return replace(kernel, body=renumbered(tuple(body)))

    def _loop(self, top: For) -> list[Statement]:
        before, top = self._reads(top)
        after, top = self._sums(top)
        return [*before, top, *after]

    # -- arrays that are read ---------------------------------------------------------------------

    def _reads(self, top: For) -> tuple[list[Statement], For]:
        written = {s.buffer for s, _ in walk((top,)) if isinstance(s, (Store, Scatter))}
        written |= {a.into for s, _ in walk((top,)) if isinstance(s, For) for a in s.accs}
        found: dict[tuple[str, Size], dict[Size, Load]] = {}
        for s, outer in walk(top.body, (top,)):
            if isinstance(s, Load) and not s.only and s.buffer not in written and _apart(s, outer):
                loop = outer[-1]
                place = _at_zero(s.index, loop.var, VARIABLES[0])
                found.setdefault((s.buffer, loop.size), {})[place] = s
        before: list[Statement] = []
        planes: dict[tuple[str, Size, Size], tuple[str, Size]] = {}
        for (buffer, n), places in found.items():
            name = self._planes(buffer, n, len(places))
            copies: list[Statement] = []
            for k, (place, load) in enumerate(places.items()):
                planes[buffer, n, place] = name, k * n
                value = f"{load.name}.{len(before)}.{k}"
                copies.append(Load(value, buffer, place, load.dtype))
                copies.append(Store(name, Dim.symbol(VARIABLES[0]) + k * n, value))
            before.append(For(VARIABLES[0], n, (), tuple(copies)))

        def moved(s: Statement, loop: For) -> Statement:
            if isinstance(s, Load) and not s.at:
                place = _at_zero(s.index, loop.var, VARIABLES[0])
                if (s.buffer, loop.size, place) in planes and _apart(s, (top, loop)):
                    name, start = planes[s.buffer, loop.size, place]
                    return replace(s, buffer=name, index=start + Dim.symbol(loop.var))
                place = _at_zero(s.index, top.var, VARIABLES[0])
                if (s.buffer, top.size, place) in planes and coefficient(s.index, top.var) != 0:
                    name, start = planes[s.buffer, top.size, place]
                    return replace(s, buffer=name, index=start + Dim.symbol(top.var))
            return s

        return before, _mapped(top, moved) if planes else top

    def _planes(self, buffer: str, n: Size, count: int) -> str:
        known = {b.name for b in (*self.program.buffers, *self.buffers)}
        name = f"{buffer}.planes"
        while name in known:
            name += "_"
        dtype = self.program.buffer(buffer).type.dtype
        self.buffers.append(Buffer(name, "temp", TensorType(dtype, (count, n))))
        return name

    # -- sums -------------------------------------------------------------------------------------

    def _sums(self, top: For) -> tuple[list[Statement], For]:
        after: list[Statement] = []
        for acc in top.accs:
            shape = _points(top, acc.name)
            if not acc.into or shape is None or shape.step * shape.count != acc.size:
                continue
            if _variables(acc.index):
                continue
            names = [self._planes(acc.into, shape.count, 1) for _ in range(shape.step)]
            planes = [
                replace(acc, name=f"{acc.name}.{e}", into=name, index=0, size=shape.count)
                for e, name in enumerate(names)
            ]
            copies: list[Statement] = []
            i = Dim.symbol(VARIABLES[0])
            for e, name in enumerate(names):
                value = f"{acc.name}.{e}.sum"
                copies.append(Load(value, name, i, acc.dtype))
                copies.append(Store(acc.into, acc.index + shape.step * i + e, value))
            after.append(For(VARIABLES[0], shape.count, (), tuple(copies)))

            def moved(s: Statement, loop: For, mine: str = acc.name) -> Statement:
                if isinstance(s, Add) and s.acc == mine:
                    e = without(s.index, loop.var)
                    return Add(f"{mine}.{e}", s.values, Dim.symbol(loop.var))
                return s

            accs = tuple(p for a in top.accs for p in (planes if a is acc else (a,)))
            top = replace(_mapped(top, moved), accs=accs)
        return after, top


@dataclass(frozen=True)
class _Points:
    """An array of `count` points with `step` coordinates each."""

    count: Size
    step: int


def _points(top: For, acc: str) -> _Points | None:
    """The shape of an array accumulator that inner loops add to, coordinate by coordinate."""
    places: set[int] = set()
    shapes: set[tuple[Size, int]] = set()
    for s, outer in walk(top.body, (top,)):
        if isinstance(s, Add) and s.acc == acc:
            loop = outer[-1]
            step, e = coefficient(s.index, loop.var), without(s.index, loop.var)
            if loop is top or not isinstance(step, int) or step < 2 or not isinstance(e, int):
                return None
            if any(isinstance(t, For) for t in loop.body):
                return None
            shapes.add((loop.size, step))
            places.add(e)
    if len(shapes) != 1:
        return None
    ((count, step),) = shapes
    return _Points(count, step) if places == set(range(step)) else None


def _apart(s: Load, outer: tuple[For, ...]) -> bool:
    """In an innermost loop, not side by side, and the same in all iterations around it?"""
    loop = outer[-1]
    if len(outer) < 2 or s.at or any(isinstance(t, For) for t in loop.body):
        return False
    step = coefficient(s.index, loop.var)
    return step not in (0, 1) and not _variables(without(s.index, loop.var))


def _variables(size: Size) -> list[str]:
    return [] if isinstance(size, int) else [v for v in size.symbols() if v.startswith("_")]


def _at_zero(index: Size, var: str, other: str) -> Size:
    """An index with another loop variable."""
    return without(index, var) + coefficient(index, var) * Dim.symbol(other)


def _mapped(loop: For, change: object) -> For:
    """The loop with every statement of its inner loops changed."""
    body = tuple(
        _mapped(s, change) if isinstance(s, For) else change(s, loop)  # type: ignore[operator]
        for s in loop.body
    )
    return replace(loop, body=body)


__all__ = ["EXAMPLE", "in_planes"]
