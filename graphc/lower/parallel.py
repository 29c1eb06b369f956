"""Which loops several threads may share, and what an iteration costs.

In:   a `Program` whose loops have their modes.
Out:  the same, with `parallel` on top-level loops whose iterations may run on any thread, and
      `ordered` on those behind them that may run part by part, one part after the other.
Invariant: no bit changes. An iteration writes only what is its own, and sums are cut where a
subtree of their order ends: a part of a loop is 2^k `unit`s of iterations, and a unit is whole
leaves of every sum.

A loop whose whole work is known to be too little stays as it is. Of the others, the call decides.

>>> from graphc.lower.loop_text import parse_program
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
from graphc.gates.reduction import LEAF, lanes_of
from graphc.ir.types import Size
from graphc.lower.loops import (
    COLUMNS,
    Acc,
    Contract,
    Fill,
    For,
    Index,
    Inside,
    Iota,
    Let,
    Load,
    Program,
    Scatter,
    Statement,
    Store,
    coefficient,
    is_running,
    is_turned,
    touching,
    walk,
)
from graphc.lower.names import defined, used

LEAST = 20_000_000  # picoseconds of work that are worth a second thread
PARTS_PER_THREAD = 16  # so that threads end at about the same time, whatever else runs
MOST_PARTS = 64  # of one loop, for any number of threads
BYTES_PER_NS = 128  # of products made, on one thread: the estimate that tells whether several pay
FEW = 1 << 15  # products of numbers that are never shared
LANES = 64  # iterations in lanes or blocks that are whole leaves of all orders but `chain`

# Picoseconds of one statement for one element, where iterations are lanes.
OPERATION, MEMORY, GATHER, SCATTER, ROOT, CALL = 60, 100, 1000, 2000, 600, 1500
ALONE = 6  # times as much, where one element is computed at a time
INNER = 5000  # to begin and end a loop


def shared_out(program: Program) -> Program:
    """Mark the loops that several threads may share."""
    kernels = tuple(replace(k, body=_marked(program, k.body)) for k in program.kernels)
    return replace(program, kernels=kernels)


def _marked(program: Program, body: tuple[Statement, ...]) -> tuple[Statement, ...]:
    made: list[Statement] = []
    for s in body:
        if isinstance(s, For):
            parallel = _worthwhile(s) and is_independent(program, s)
            before = made[-1] if made else None
            ordered = isinstance(before, For) and before.parallel and not parallel
            s = replace(s, parallel=parallel)
            s = replace(s, ordered=ordered and follows(program, before, s))  # type: ignore[arg-type]
        made.append(s)
    return tuple(made)


def _worthwhile(loop: For) -> bool:
    """May there be work for two?"""
    total = loop.size * cost(loop)
    small = isinstance(loop.size, int) and loop.size <= unit(loop)
    return not small and not (isinstance(total, int) and total < LEAST)


def is_independent(program: Program, loop: For) -> bool:
    """Does every iteration write elements of its own, and read what no other one writes?"""
    if is_running(loop) or any(a.into and a.order == "lanes" for a in loop.accs):
        return False
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


def portion(units: int, nanoseconds: int, threads: int, least: int) -> int:
    """How many units of work a part takes: a power of two, or all of them; at least 1.

    `nanoseconds` is the estimate for all of them; less than `least` is not shared. Calls ask
    `runtime.workers`, which says the same.
    """
    if nanoseconds < least:
        return max(units, 1)
    worth = nanoseconds // (least // 4 + 1) + 1
    parts = min(PARTS_PER_THREAD * threads, MOST_PARTS, worth)
    return 1 << (max(-(-units // parts), 1) - 1).bit_length()


def follows(program: Program, first: For, second: For) -> bool:
    """May iterations of `second` run while later ones of `first` have not begun?

    These are the scatters of what `first` computes. They may read what it stores, of their own
    iteration, and nothing else that it makes; and fail only where it has failed before.
    """
    allowed = (Let, Iota, Load, Index, Scatter)
    if second.mode != "rows" or second.accs or not all(isinstance(s, allowed) for s in second.body):
        return False
    if (first.var, first.size) != (second.var, second.size):
        return False
    inside = [s for s, _ in walk((first,))]
    loops = [s for s in inside if isinstance(s, For)]
    arrays = {a.into for loop in loops for a in loop.accs if a.into}
    stored = {(s.buffer, s.index) for s in first.body if isinstance(s, Store)}
    written = {s.buffer for s in inside if isinstance(s, (Store, Scatter))} | arrays
    read = {s.buffer for s in inside if isinstance(s, Load)}
    given = {name for name, _ in defined(first.body)} | {a.name for a in first.accs}
    if given & ({*used(second.body)} - {name for name, _ in defined(second.body)}):
        return False
    for s in second.body:
        if isinstance(s, (Load, Scatter)) and program.buffer(s.buffer).scope:
            return False
        if isinstance(s, Scatter) and s.buffer in written | read:
            return False
        if (
            isinstance(s, Load)
            and s.buffer in written
            and (s.at or (s.buffer, s.index) not in stored)
        ):
            return False
    fails = any(isinstance(s, Index) for s in inside)
    return not fails or _checks(second) <= _checks(first)


def _checks(loop: For) -> set[str]:
    """What a loop's own statements check to be an index, and of how many."""
    made: dict[str, Statement] = {name: s for s in loop.body for name, _ in defined((s,))}

    def text(name: str) -> str:
        s = made.get(name)
        if isinstance(s, Load):
            return f"{s.buffer}[{s.index} {' '.join(f'{text(x)}*{n}' for x, n in s.at)}]"
        if isinstance(s, Let):
            return f"{s.op} {s.attr} {s.dtype} {' '.join(map(text, s.args))}"
        return f"{text(s.value)} in {s.size}" if isinstance(s, Index) else name

    return {text(s.name) for s in loop.body if isinstance(s, Index)}


def unit(loop: For) -> int:
    """The iterations that a part of a loop has at least; a power of two."""
    together = LANES if loop.mode != "rows" else 1
    if any(map(is_turned, loop.body)):
        together = COLUMNS
    return max([together, *map(_leaf, loop.accs)])


def _leaf(acc: Acc) -> int:
    """The iterations of a sum's leaf."""
    if acc.order == "lanes":
        return LEAF * lanes_of(acc.dtype)
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
        case Inside():
            return 0
        case Load():
            return GATHER if s.at else MEMORY
        case Store():
            return MEMORY
        case Scatter():
            return SCATTER
    return OPERATION


__all__ = [
    "BYTES_PER_NS", "FEW", "MOST_PARTS", "PARTS_PER_THREAD", "cost", "follows", "is_independent",
    "portion", "shared_out", "unit",
]  # fmt: skip
