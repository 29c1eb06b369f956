"""Which loops around loops run in lanes: their iterations are the lanes, inner loops run for all.

In:   a `Program` whose loops have the modes `vector` and `rows`.
Out:  the same, with the mode `lanes` where an inner sum would have to add lanes of one vector, and
      where pairs of iterations can share their work.
Invariant: none but modes change, and with them no value.

A sum of order `rows` takes one iteration after the other. Where the loop over these is innermost,
they are neighbouring lanes, which have to be transposed before they are added. With the iterations
of the loop around it as lanes, each lane has a sum of its own: the forces on eight points at once.

>>> from graphc.lower.loop_text import parse_program
>>> from graphc.lower.loops import lane_count
>>> program = parse_program('''program forces(x: f64[n], y: f64[m])
... sizes m n
... buffer output f.out: f64[n]
... kernel k0
...   for _i in n rows
...     for _j in m vector
...       acc %1: f64 sum rows
...       %2 = load x[_i] : f64
...       %3 = load y[_j] : f64
...       %4 = sub %2, %3 : f64
...       add %1 %4
...     store f.out[_i] %1''')
>>> [loop] = in_lanes(program).kernels[0].body
>>> loop.mode, loop.body[0].mode, lane_count(loop)
('lanes', 'rows', 8)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphc.gates.reduction import lanes_of
from graphc.lower.loops import (
    Acc,
    Add,
    For,
    Iota,
    Let,
    Load,
    Program,
    Statement,
    Store,
    coefficient,
    lane_count,
    walk,
)
from graphc.lower.pairs import pairing
from graphc.lower.parallel import is_independent
from graphc.lower.unroll import IN_A_NEST, SHORT


def in_lanes(program: Program) -> Program:
    kernels = tuple(replace(k, body=_in_body(program, k.body)) for k in program.kernels)
    return replace(program, kernels=kernels)


def _in_body(program: Program, body: tuple[Statement, ...]) -> tuple[Statement, ...]:
    return tuple(_loop(program, s) if isinstance(s, For) else s for s in body)


def _loop(program: Program, loop: For) -> For:
    if loop.mode != "rows":
        return loop
    inner = _in_body(program, loop.body)
    if any(isinstance(s, For) and s.mode == "lanes" for s, _ in walk(inner)):
        return replace(loop, body=inner)
    if (_adds_neighbours(loop) or pairing(loop)) and _can_be_lanes(program, loop):
        return replace(loop, mode="lanes", body=_one_by_one(loop.body))
    return loop


def _one_by_one(body: Sequence[Statement]) -> tuple[Statement, ...]:
    return tuple(
        replace(s, mode="rows", body=_one_by_one(s.body)) if isinstance(s, For) else s for s in body
    )


def _adds_neighbours(loop: For) -> bool:
    """Is there an inner loop, not a short one, with a float sum of order `rows`?"""
    return any(
        s.mode == "vector"
        and not _is_short(s)
        and any(a.order == "rows" and not a.into for a in s.accs)
        for s in loop.body
        if isinstance(s, For)
    )


def _is_short(loop: For, most: int = SHORT) -> bool:
    return isinstance(loop.size, int) and loop.size <= most


def _can_be_lanes(program: Program, loop: For) -> bool:
    width = lane_count(loop)
    if isinstance(loop.size, int) and loop.size < width:
        return False
    if not all(_fits(acc, width) for acc in loop.accs) or not is_independent(program, loop):
        return False
    return all(_is_simple(program, loop, s, outer) for s, outer in _with_loops(loop))


def _fits(acc: Acc, width: int) -> bool:
    if acc.into:
        return False
    return acc.order == "any" or (acc.order == "lanes" and lanes_of(acc.dtype) == width)


def _with_loops(loop: For) -> list[tuple[Statement, For]]:
    """All statements inside, each with the loop whose body it is in."""
    return [(s, outer[-1] if outer else loop) for s, outer in walk(loop.body)]


def _is_simple(program: Program, loop: For, s: Statement, around: For) -> bool:
    """Can a statement be done for all lanes at once, each with memory of its own or none?"""
    match s:
        case Let() | Iota():
            return True
        case For():
            return not any(a.into for a in s.accs)
        case Add():
            added = [t.acc for t in around.body if isinstance(t, Add)]
            return added.count(s.acc) == 1 and any(a.name == s.acc for a in around.accs)
        case Load() | Store():
            if s.only or (isinstance(s, Load) and s.at):
                return False
            buffer, step = program.buffer(s.buffer), coefficient(s.index, loop.var)
            if buffer.scope == loop.var:
                return all(isinstance(n, int) for n in buffer.type.shape)
            if isinstance(s, Store) and step == 0:
                return False
            again = around is not loop and coefficient(s.index, around.var) != 0
            brief = _is_short(around, IN_A_NEST)
            return step in (0, 1) or not again or brief  # else gathered again and again
    return False
