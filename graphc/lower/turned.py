"""Transposed access: columns that lie apart in memory are copied side by side, some at a time.

In:   a `Program` whose loops have their modes.
Out:  the same, where an inner loop in lanes that walks down a column of an array, and the loop
      around it from column to column, finds the column as a row of scratch; a loop of the mode
      `turned` has copied it.
Invariant: copies only; no value changes.

In memory, the elements of a column lie a row apart: each is alone on its line of the cache. Eight
columns and more have these lines in common. So a loop of the mode `turned`, which as the IR has it
copies one column in each iteration of the loop around it, is run for 16 iterations at a time: the
scratch has room for as many rows, which registers transpose (codegen/turned.py).

>>> from graphc.lower.loop_text import parse_program
>>> print(with_turned_columns(parse_program(EXAMPLE)))
program f(a: f64[n,m], b: f64[m,n])
sizes m n
buffer output y.out: f64[n,m]
buffer temp b.turned: f64[16,16*floordiv(m+15,16)+16] scope=_i
kernel k0
  for _i in n rows parallel
    for _j in m turned
      %1 = load b[_j*n+_i] : f64
      store b.turned[_j] %1
    for _j in m vector
      %2 = load a[_i*m+_j] : f64
      %3 = load b.turned[_j] : f64
      %4 = add %2, %3 : f64
      store y.out[_i*m+_j] %4
"""

from __future__ import annotations

from dataclasses import replace

from graphc.ir.types import Dim, Size, TensorType, align_up, bool_
from graphc.lower.loops import (
    COLUMNS,
    Buffer,
    For,
    Load,
    Program,
    Scatter,
    Statement,
    Store,
    coefficient,
    walk,
)
from graphc.lower.straight import renumbered

FEW = 8  # columns, or elements of one, below which a copy does not pay,
NEAR = 1 << 17  # and bytes of all of them that stay in cache while they are read as they lie
EXAMPLE = """program f(a: f64[n,m], b: f64[m,n])
sizes m n
buffer output y.out: f64[n,m]
kernel k0
  for _i in n rows parallel
    for _j in m vector
      %1 = load a[_i*m+_j] : f64
      %2 = load b[_j*n+_i] : f64
      %3 = add %1, %2 : f64
      store y.out[_i*m+_j] %3
"""

Column = tuple[str, Size, Size]  # a buffer, the index in it, and how many elements the column has


def with_turned_columns(program: Program) -> Program:
    maker = _Maker(program)
    kernels = []
    for kernel in program.kernels:
        body = kernel.body if kernel.sweep is not None else maker.body(kernel.body)
        changed = body is not kernel.body
        kernels.append(replace(kernel, body=renumbered(body)) if changed else kernel)
    if not maker.buffers:
        return program
    return replace(program, kernels=tuple(kernels), buffers=(*program.buffers, *maker.buffers))


class _Maker:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.buffers: list[Buffer] = []

    def body(self, body: tuple[Statement, ...]) -> tuple[Statement, ...]:
        """The same object where nothing is turned."""
        made = [self._loop(s) if isinstance(s, For) and s.mode == "rows" else s for s in body]
        same = all(new is old for new, old in zip(made, body, strict=True))
        return body if same else tuple(made)

    def _loop(self, loop: For) -> For:
        body = self.body(loop.body)
        columns = _columns(self.program, loop)
        if not columns:
            return loop if body is loop.body else replace(loop, body=body)
        names = {column: self._scratch(column, loop) for column in columns}
        copies = [_copy(column, load, names[column]) for column, load in columns.items()]
        return replace(loop, body=(*copies, *(_reading(s, names) for s in body)))

    def _scratch(self, column: Column, loop: For) -> str:
        buffer, _, size = column
        known = {b.name for b in (*self.program.buffers, *self.buffers)}
        name = f"{buffer}.turned"
        while name in known:
            name += "_"
        dtype = self.program.buffer(buffer).type.dtype
        # Rows begin at whole vectors; a power of two would put all of them at one place in a cache.
        shape = COLUMNS, align_up(size, 16) + 16
        self.buffers.append(Buffer(name, "temp", TensorType(dtype, shape), scope=loop.var))
        return name


def _columns(program: Program, loop: For) -> dict[Column, tuple[str, Load]]:
    """What inner loops read down columns; for each, the loop's variable and a load."""
    written = {s.buffer for s, _ in walk((loop,)) if isinstance(s, (Store, Scatter))}
    written |= {a.into for s, _ in walk((loop,)) if isinstance(s, For) for a in s.accs}
    found: dict[Column, tuple[str, Load]] = {}
    if _is_few(loop.size):
        return found
    for inner in loop.body:
        if isinstance(inner, For) and inner.mode == "vector" and not _is_few(inner.size):
            for s in inner.body:
                if isinstance(s, Load) and _is_column(program, s, inner, loop, written):
                    found.setdefault((s.buffer, s.index, inner.size), (inner.var, s))
    return found


def _is_few(size: Size) -> bool:
    return isinstance(size, int) and size < FEW


def _is_column(program: Program, s: Load, inner: For, outer: For, written: set[str]) -> bool:
    if s.at or s.only or s.buffer in written or s.dtype is bool_:
        return False
    read = outer.size * inner.size * s.dtype.itemsize
    if isinstance(read, int) and read <= NEAR:
        return False
    down = coefficient(s.index, inner.var)
    if coefficient(s.index, outer.var) != 1 or _is_few(down):
        return False
    return not program.buffer(s.buffer).scope


def _copy(column: Column, seen: tuple[str, Load], scratch: str) -> For:
    (_, index, size), (var, load) = column, seen
    value = f"{load.name}.turned"
    body = (
        Load(value, load.buffer, index, load.dtype),
        Store(scratch, Dim.symbol(var), value),
    )
    return For(var, size, (), body, "turned")


def _reading(s: Statement, names: dict[Column, str]) -> Statement:
    """An inner loop that reads scratch instead."""
    if not isinstance(s, For) or s.mode != "vector":
        return s

    def moved(t: Statement) -> Statement:
        if isinstance(t, Load) and not t.at and (t.buffer, t.index, s.size) in names:
            name = names[t.buffer, t.index, s.size]
            return replace(t, buffer=name, index=Dim.symbol(s.var))
        return t

    return replace(s, body=tuple(map(moved, s.body)))


__all__ = ["EXAMPLE", "with_turned_columns"]
