"""How loops run: the annotations that `fuse` puts on them. None of them changes a value.

`vector`: iterations are lanes; for innermost loops. `blocks`: 64 iterations at once, part by part,
while their data stay in cache; for loops over short rows. `lanes`: iterations are lanes of all
that is inside; see `lower.lanes`. `pairs`: iterations share work with others; see `lower.pairs`.
`rows`: one iteration after the other; for all others.
"""

from __future__ import annotations

import operator
from dataclasses import replace

from graphc.ir.types import Dim, Size, TensorType, product
from graphc.lower.distribute import distributed
from graphc.lower.lanes import in_lanes
from graphc.lower.loops import (
    Add,
    Contract,
    For,
    Inside,
    Kernel,
    Let,
    Load,
    Program,
    Scatter,
    Statement,
    Store,
    coefficient,
    is_running,
    walk,
    without,
)
from graphc.lower.pairs import in_pairs
from graphc.lower.parallel import shared_out
from graphc.lower.straight import renumbered
from graphc.lower.sweep import in_sweeps
from graphc.lower.turned import with_turned_columns
from graphc.lower.unroll import without_idle_scratch

# Whole leaves of every order but `chain`, and short rows of a block stay in the first cache.
BLOCK_ROWS = 64
CACHE_BYTES = 256 * 1024  # that a block of rows may take


def scheduled(program: Program, skip: frozenset[str] = frozenset()) -> Program:
    kernels = tuple(replace(k, body=with_modes(k.body)) for k in program.kernels)
    program = replace(program, kernels=kernels)
    program = program if "lanes" in skip else in_lanes(program)
    program = program if "blocks" in skip else in_blocks(program)
    program = program if "parallel" in skip else shared_out(program)
    program = program if {"sweep", "parallel"} & skip else in_sweeps(program)
    program = program if "turned" in skip else with_turned_columns(program)
    return program if "pairs" in skip else in_pairs(program)


def with_modes(body: tuple[Statement, ...]) -> tuple[Statement, ...]:
    """Innermost loops run in lanes, unless they scatter; others one iteration after the other."""
    made: list[Statement] = []
    for s in body:
        if isinstance(s, For):
            s = _collapsed(s)
            inner = with_modes(s.body)
            innermost = not any(isinstance(t, For) for t in inner)
            sequential = any(isinstance(t, Scatter) and not _strided(t, s.var) for t in inner)
            s = replace(s, body=inner, mode="vector" if innermost and not sequential else "rows")
        made.append(s)
    return tuple(made)


def _collapsed(outer: For) -> For:
    """Two loops that walk memory as one, as over a whole matrix, become one long loop."""
    if len(outer.body) != 1 or not isinstance(outer.body[0], For) or outer.accs:
        return outer
    inner = _collapsed(outer.body[0])
    if inner.accs or not all(_walks_on(s, outer.var, inner) for s in inner.body):
        return replace(outer, body=(inner,))
    moved = tuple(_along(s, outer.var, inner.var) for s in inner.body)
    return replace(outer, size=outer.size * inner.size, body=moved)


def _walks_on(s: Statement, outer: str, inner: For) -> bool:
    """Does a step of the outer loop go on where the inner loop ends?"""
    if isinstance(s, Let):
        return True
    if not isinstance(s, (Load, Store)) or (isinstance(s, Load) and s.at):
        return False
    return coefficient(s.index, outer) == coefficient(s.index, inner.var) * inner.size


def _along(s: Statement, outer: str, inner: str) -> Statement:
    """The statement with one index in place of two."""
    if not isinstance(s, (Load, Store)):
        return s
    step = coefficient(s.index, inner)
    return replace(s, index=without(without(s.index, outer), inner) + step * Dim.symbol(outer))


def _strided(scatter: Scatter, var: str) -> bool:
    """Do iterations surely write different elements? If the variable strides through the buffer."""
    index = scatter.index
    return isinstance(index, Dim) and any(var in m for m, _ in index.terms)


def in_blocks(program: Program) -> Program:
    """Top-level loops over short rows run in blocks, with scratch for all rows of a block."""
    kernels, wider = [], set()
    for kernel in program.kernels:
        body: list[Statement] = []
        for s in kernel.body:
            if isinstance(s, For):
                s, program = _blocked(program, kernel, s)
            body.append(s)
        for s in body:
            if isinstance(s, For) and s.mode == "blocks":
                wider |= {n for n in _buffers(s) if program.buffer(n).scope == s.var}
        if any(map(operator.is_not, body, kernel.body)):
            body = list(renumbered(tuple(body)))
        kernels.append(replace(kernel, body=tuple(body)))
    buffers = tuple(
        replace(b, type=TensorType(b.type.dtype, (BLOCK_ROWS, *b.type.shape)))
        if b.name in wider
        else b
        for b in program.buffers
    )
    return without_idle_scratch(replace(program, buffers=buffers, kernels=tuple(kernels)))


def _blocked(program: Program, kernel: Kernel, loop: For) -> tuple[For, Program]:
    """The loop in blocks where it is worth it, its nests in parts; and the program with their
    scratch."""
    if loop.mode != "rows" or is_running(loop):
        return loop, program
    if any(isinstance(s, Inside) for s, _ in walk(loop.body)):
        return loop, program
    found = distributed(program, kernel, loop)
    if found is not None:
        apart, scratch = found
        (apart,) = with_modes((apart,))  # type: ignore[assignment]
        wider = replace(program, buffers=(*program.buffers, *scratch))
        if _worthwhile(wider, apart):
            return replace(apart, mode="blocks"), wider
    return (replace(loop, mode="blocks") if _worthwhile(program, loop) else loop), program


def _buffers(loop: For) -> list[str]:
    """What statements inside touch; a scan's row is read by its own steps alone."""
    inside = [s for s, _ in walk(loop.body)]
    arrays = [a.into for s in inside if isinstance(s, For) for a in s.accs if a.into]
    return arrays + [s.buffer for s in inside if isinstance(s, (Load, Store, Scatter))]


def _worthwhile(program: Program, loop: For) -> bool:
    """Are rows short, and is there something to compute between inner loops, or sums of rows?"""
    if loop.mode != "rows" or is_running(loop) or any(isinstance(s, Contract) for s in loop.body):
        return False
    inner = [s for s in loop.body if isinstance(s, For)]
    if not inner or not all(map(_of_vectors, inner)):
        return False
    if any(a.into and a.order == "lanes" for a in loop.accs):
        return False
    between = any(isinstance(s, Add) or (isinstance(s, Let) and s.op != "const") for s in loop.body)
    if not between and not any(a.into for a in loop.accs):
        return False
    return _block_bytes(program, loop) <= CACHE_BYTES


def _of_vectors(loop: For) -> bool:
    """Does it run in lanes, or all inside of it?"""
    inner = [s for s in loop.body if isinstance(s, For)]
    return all(map(_of_vectors, inner)) if inner else loop.mode == "vector"


def _block_bytes(program: Program, top: For) -> int:
    """The bytes that the inner loops of a block of rows walk; too many where not known. What nests
    read for all rows alike counts once."""
    touched: dict[tuple[str, Size, bool], int] = {}
    for s, outer in walk(top.body):
        if isinstance(s, For) and not isinstance(s.size, int):
            return CACHE_BYTES + 1
        if isinstance(s, (Load, Store)) and outer:
            moving = [f for f in outer if coefficient(s.index, f.var) != 0]
            if moving:
                buffer = program.buffer(s.buffer)
                shared = len(outer) > 1 and coefficient(s.index, top.var) == 0
                own = buffer.scope == top.var or not shared
                extent = product(f.size for f in moving)
                size = extent * buffer.type.dtype.itemsize * (BLOCK_ROWS if own else 1)
                touched[s.buffer, extent, own] = int(str(size))
    return sum(touched.values())
