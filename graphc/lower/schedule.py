"""How loops run: the annotations that `fuse` puts on them. None of them changes a value.

`vector`: iterations are lanes; for innermost loops. `blocks`: 64 iterations at once, part by part,
while their data stay in cache; for loops over short rows. `rows`: one iteration after the other;
for all others.
"""

from __future__ import annotations

from dataclasses import replace

from graphc.ir.types import Dim, Size, TensorType
from graphc.lower.loops import (
    Add,
    Contract,
    For,
    Let,
    Load,
    Program,
    Scatter,
    Statement,
    Store,
    coefficient,
    walk,
    without,
)
from graphc.lower.parallel import shared_out
from graphc.lower.sweep import in_sweeps

# Whole leaves of every order but `chain`, and short rows of a block stay in the first cache.
BLOCK_ROWS = 64
CACHE_BYTES = 256 * 1024  # that a block of rows may take


def scheduled(program: Program, skip: frozenset[str] = frozenset()) -> Program:
    kernels = tuple(replace(k, body=with_modes(k.body)) for k in program.kernels)
    program = replace(program, kernels=kernels)
    program = program if "blocks" in skip else in_blocks(program)
    program = program if "parallel" in skip else shared_out(program)
    return program if {"sweep", "parallel"} & skip else in_sweeps(program)


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
        body = tuple(
            replace(s, mode="blocks") if isinstance(s, For) and _worthwhile(program, s) else s
            for s in kernel.body
        )
        for s in body:
            if isinstance(s, For) and s.mode == "blocks":
                wider |= {n for n in _buffers(s) if program.buffer(n).scope == s.var}
        kernels.append(replace(kernel, body=body))
    buffers = tuple(
        replace(b, type=TensorType(b.type.dtype, (BLOCK_ROWS, *b.type.shape)))
        if b.name in wider
        else b
        for b in program.buffers
    )
    return replace(program, buffers=buffers, kernels=tuple(kernels))


def _buffers(loop: For) -> list[str]:
    return [s.buffer for s, _ in walk(loop.body) if isinstance(s, (Load, Store, Scatter))]


def _worthwhile(program: Program, loop: For) -> bool:
    """Are rows short, and is there something to compute between inner loops, or sums of rows?"""
    if loop.mode != "rows" or any(isinstance(s, Contract) for s in loop.body):
        return False
    inner = [s for s in loop.body if isinstance(s, For)]
    if not inner or any(f.mode != "vector" for f in inner):
        return False
    between = any(isinstance(s, Add) or (isinstance(s, Let) and s.op != "const") for s in loop.body)
    if not between and not any(a.into for a in loop.accs):
        return False
    return _row_bytes(program, inner) * BLOCK_ROWS <= CACHE_BYTES


def _row_bytes(program: Program, inner: list[For]) -> int:
    """The bytes of a row in all buffers that the inner loops walk; too many where not known."""
    touched: dict[tuple[str, Size], int] = {}
    for f in inner:
        if not isinstance(f.size, int):
            return CACHE_BYTES
        for s in f.body:
            if isinstance(s, (Load, Store)) and coefficient(s.index, f.var) != 0:
                touched[s.buffer, f.size] = f.size * program.buffer(s.buffer).type.dtype.itemsize
    return sum(touched.values())
