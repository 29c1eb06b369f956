"""plan: every temporary gets its place in one arena. Bytes are known before the first run.

In:   a `Program` whose temps have no memory yet.
Out:  the same program with a working buffer for each reduction tree and matrix panel, an offset for
      every temp, and the arena's size. `verify_plan` proves that no two live temps overlap, for all
      sizes at once. What a program costs: `report.plan`.
      Temps of which every thread has its own are the last in the arena: thread w finds them at
      their offsets and w times `private` bytes. Then follow the results of parts, `partials` bytes
      for each. With one thread there is neither.
Invariant: a slot belongs to one temp from the first kernel that touches it to the last, and passes
on to another only afterwards; slots begin at multiples of 64 bytes.

>>> from graphc.lower.loop_text import parse_program
>>> planned = plan(parse_program(EXAMPLE))
>>> [(b.name, b.type, b.offset) for b in planned.of_role("temp")]
[('t0', f64[n], 256), ('y.out.tree', f64[2,16], 0)]
>>> print(planned.arena)
64*floordiv(8*n+63,64)+256
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Protocol

from graphc.errors import VerifyError
from graphc.gates.contraction import BLOCK
from graphc.gates.reduction import LEAF, lanes_of
from graphc.ir.types import (
    Dim,
    DType,
    Size,
    TensorType,
    align_up,
    at_least,
    bool_,
    evaluate,
    f64,
    size_bits,
    size_floordiv,
    size_max,
)
from graphc.lower.donate import verify_donations
from graphc.lower.loops import (
    Acc,
    Buffer,
    Contract,
    Fill,
    For,
    Kernel,
    Load,
    Program,
    Scatter,
    Statement,
    Store,
    rows_at_once,
    touching,
)
from graphc.lower.matrix import Matrices, matrices
from graphc.lower.pairs import is_paired, own_name, pairs_name, partial_sums
from graphc.lower.parallel import MOST_PARTS, PARTS_PER_THREAD
from graphc.lower.partials import (
    ALIGNMENT,
    largest_partials,
    levels_of_sweep,
    partials_of_sweep,
)
from graphc.lower.pieces import cut_up, in_pieces, made_by
from graphc.lower.sweep import of_panel

LEAVES = {"rows": LEAF, "chain": BLOCK}  # iterations folded in sequence before the tree begins
EXAMPLE = """program f(X: f64[7,3])
sizes n
buffer output y.out: f64[3]
buffer temp t0: f64[n]
kernel k0
  for _i in n vector
    %1 = iota _i
    %2 = convert %1 : f64
    store t0[_i] %2
kernel k1
  for _i in 7 rows
    acc %1: f64 sum rows into y.out[0] size 3
    for _j in 3 vector
      %2 = load X[3*_i+_j] : f64
      add %1[_j] %2
"""


def plan(program: Program, skip: frozenset[str] = frozenset()) -> Program:
    """Working buffers, offsets and the arena's size; without "reuse" each temp has its own slot."""
    program = replace(program, buffers=(*program.buffers, *_working(program)))
    mine = private_names(program)
    lives = spans(program, mine)
    placed: dict[str, Buffer] = {}
    ends: list[Size] = [0]
    for private in (False, True):
        temps = [b for b in program.of_role("temp") if (b.name in mine) == private]
        slot_of, slots = _assign(temps, lives, "reuse" not in skip)
        starts, end = _layout(slots)
        for b in temps:
            offset = ends[-1] + starts[slot_of[b.name]]
            placed[b.name] = replace(b, offset=offset, private=private)
        ends.append(ends[-1] + end)
    _, shared, arena = ends
    buffers = tuple(placed.get(b.name, b) for b in program.buffers)
    partials = largest_partials(program)
    return replace(program, buffers=buffers, arena=arena, private=arena - shared, partials=partials)


# -- working buffers ------------------------------------------------------------------------------


def tree_name(acc: Acc) -> str:
    return f"{acc.into}.tree"


def work_name(contract: Contract) -> str:
    """Packed parts of a product's operands, and results of blocks that wait for others."""
    return f"{contract.out.buffer}.work"


def pieces_name(kernel: Kernel, loop: For) -> str:
    """What the pieces of a long loop's body hand over, for one vector."""
    first = next(name for s in loop.body for name, _ in made_by(s))
    return f"{kernel.name}.{first[1:]}.pieces"


def levels_name(kernel: Kernel) -> str:
    """Sums of a sweep's panels that wait for others."""
    _, writes = traffic(kernel)
    return f"{next(iter(writes))}.levels"


def tree_stride(size: Size) -> Size:
    """From one level of a tree to the next, in elements: whole vectors, so that a masked one stays
    in its level."""
    return align_up(size, 16)


def tree_levels(loop_size: Size, order: str) -> Size:
    """The partial results that a binary counter over a loop's leaves holds at most; at least 1."""
    leaf = LEAVES[order]
    return size_max(size_bits(size_floordiv(loop_size + (leaf - 1), leaf)), 1)


def _working(program: Program) -> list[Buffer]:
    """The trees of array accumulators and what matrix products work with."""
    known = {b.name for b in program.buffers}
    made: dict[str, Buffer] = {}
    for kernel in program.kernels:
        for s, _ in touching(kernel.body):
            if isinstance(s, Contract):
                elements = matrices_of(kernel, s).work_elements()
                if elements != 0:
                    _add_buffer(made, work_name(s), s.dtype, (elements,))
            elif isinstance(s, For):
                size = s.size if kernel.sweep is None else rows_at_once(kernel.sweep, kernel.panel)
                for acc in filter(_has_tree, s.accs):
                    _add_buffer(made, tree_name(acc), acc.dtype, _tree_shape(acc, size))
                if in_pieces(s):
                    _add_buffer(made, pieces_name(kernel, s), bool_, (cut_up(s).bytes,))
        made.update((b.name, b) for b in partial_sums(kernel))
        if kernel.sweep is not None and (row := partials_of_sweep(kernel)[1]) != 0:
            shape = (levels_of_sweep(kernel), size_floordiv(row, f64.itemsize))
            _add_buffer(made, levels_name(kernel), f64, shape)
    return [b for b in made.values() if b.name not in known]


def matrices_of(kernel: Kernel, s: Contract) -> Matrices:
    """A product of a kernel as one of matrices; of a sweep, that of the rows it has memory for,
    whose k is not shared out.
    """
    if kernel.sweep is None:
        return matrices(s)
    rows = rows_at_once(kernel.sweep, kernel.panel)
    return replace(matrices(of_panel(s, kernel.sweep, 0, rows)), alone=True)


def _has_tree(acc: Acc) -> bool:
    return bool(acc.into) and acc.dtype.is_float and acc.order in (*LEAVES, "lanes")


def _tree_shape(acc: Acc, size: Size) -> tuple[Size, ...]:
    """Its levels; of order `lanes`, of the arrays of all lanes, after these arrays."""
    if acc.order != "lanes":
        return tree_levels(size, acc.order), tree_stride(acc.size)
    lanes = lanes_of(acc.dtype)
    leaves = size_floordiv(size + (LEAF * lanes - 1), LEAF * lanes)
    return 1 + size_max(size_bits(leaves), 1), lanes, tree_stride(acc.size)


def private_names(program: Program) -> set[str]:
    """The temps of which every thread has its own: what one iteration of a parallel loop, or one
    part of a matrix product, works with.
    """
    found: set[str] = set()
    found.update(b.name for b in program.of_role("temp") if b.panel)
    for kernel in program.kernels:
        found.add(own_name(kernel))
        if kernel.sweep is not None:
            found.add(levels_name(kernel))
        for s, _ in touching(kernel.body):
            if isinstance(s, Contract):
                found.add(work_name(s))
    for kernel, loop in _parallel(program):
        for s, _ in touching((loop,)):
            if in_pieces(s):
                found.add(pieces_name(kernel, s))
            if isinstance(s, For):
                found.update(tree_name(a) for a in s.accs if _has_tree(a))
            found.update(name for name in _written(s) if program.buffer(name).scope)
    return found


def _parallel(program: Program) -> list[tuple[Kernel, For]]:
    return [(k, s) for k in program.kernels for s in k.body if isinstance(s, For) and s.parallel]


def _written(s: Statement) -> list[str]:
    match s:
        case Store() | Scatter() | Fill():
            return [s.buffer]
        case Contract():
            return [s.out.buffer]
        case For():
            return [a.into for a in s.accs if a.into]
    return []


def _add_buffer(made: dict[str, Buffer], name: str, dtype: DType, shape: tuple[Size, ...]) -> None:
    made[name] = Buffer(name, "temp", TensorType(dtype, shape))


# -- lifetimes and slots --------------------------------------------------------------------------


def lifetimes(program: Program) -> dict[str, tuple[int, int]]:
    """For each buffer that is touched the first and the last kernel that do."""
    lives: dict[str, tuple[int, int]] = {}
    for i, kernel in enumerate(program.kernels):
        for name in _touched(kernel):
            first, _ = lives.get(name, (i, i))
            lives[name] = (first, i)
    return lives


Moment = tuple[int, int]  # a kernel, and a statement of it where that is a sweep
NEVER: tuple[Moment, Moment] = (0, 0), (0, 0)


def spans(
    program: Program, mine: Collection[str] | None = None
) -> dict[str, tuple[Moment, Moment]]:
    """For each buffer that is touched the first and the last moment. What a thread has for itself
    lives from statement to statement of a sweep; all else there, as long as panels come.
    """
    found: dict[str, tuple[Moment, Moment]] = {}
    mine = private_names(program) if mine is None else mine
    for i, kernel in enumerate(program.kernels):
        last = len(kernel.body) - 1 if kernel.sweep is not None else 0
        steps = [kernel] if last == 0 else [replace(kernel, body=(s,)) for s in kernel.body]
        whole = {levels_name(kernel)} if kernel.sweep is not None else set()
        for j, step in enumerate(steps):
            for name in dict.fromkeys((*_touched(replace(step, sweep=None)), *whole)):
                passing = name in mine and name not in whole
                begin, end = ((i, j), (i, j)) if passing else ((i, 0), (i, last))
                found[name] = (found.get(name, (begin, end))[0], end)
    return found


def _touched(kernel: Kernel) -> dict[str, None]:
    reads, writes = traffic(kernel)
    names = reads | writes
    for s, _ in touching(kernel.body):
        if isinstance(s, Contract):
            names[work_name(s)] = None
        elif isinstance(s, For):
            names.update((tree_name(a), None) for a in s.accs if _has_tree(a))
            if in_pieces(s):
                names[pieces_name(kernel, s)] = None
    if kernel.sweep is not None:
        names[levels_name(kernel)] = None
    if any(map(is_paired, kernel.body)):
        names.update(dict.fromkeys((pairs_name(kernel), own_name(kernel))))
    return names


def traffic(kernel: Kernel) -> tuple[dict[str, None], dict[str, None]]:
    """The buffers that a kernel reads and those that it writes, in order of first use."""
    reads: dict[str, None] = {}
    writes: dict[str, None] = {}
    for s, _ in touching(kernel.body):
        match s:
            case Load():
                reads[s.buffer] = None
            case Store() | Scatter() | Fill():
                writes[s.buffer] = None
            case Contract():
                reads[s.a.buffer] = reads[s.b.buffer] = None
                writes[s.out.buffer] = None
            case For():
                writes.update((a.into, None) for a in s.accs if a.into)
    return reads, writes


class _Free:
    """Slots that no live temp holds: by exact size, and those of known size also in order."""

    def __init__(self) -> None:
        self.exact: dict[Size, list[int]] = {}
        self.known: list[tuple[int, int]] = []  # (bytes, slot)

    def give(self, slot: int, size: Size) -> None:
        if isinstance(size, int):
            insort(self.known, (size, slot))
        else:
            self.exact.setdefault(size, []).append(slot)

    def take(self, size: Size) -> int | None:
        """The smallest slot that is large enough; symbolic sizes must be equal."""
        if not isinstance(size, int):
            found = self.exact.get(size)
            return found.pop() if found else None
        at = bisect_left(self.known, (size, -1))
        return self.known.pop(at)[1] if at < len(self.known) else None


def _assign(
    temps: Iterable[Buffer], lives: Mapping[str, tuple[Moment, Moment]], reuse: bool
) -> tuple[dict[str, int], list[Size]]:
    """A slot for each temp, and the size of each slot."""
    moments = sorted({NEVER[0], *(m for both in lives.values() for m in both)})
    number = {moment: i for i, moment in enumerate(moments)}
    born: list[list[Buffer]] = [[] for _ in moments]
    dying: list[list[Buffer]] = [[] for _ in moments]
    for b in temps:
        first, last = lives.get(b.name, NEVER)
        born[number[first]].append(b)
        dying[number[last]].append(b)
    slot_of: dict[str, int] = {}
    slots: list[Size] = []
    free = _Free()
    for arriving, leaving in zip(born, dying, strict=True):
        for b in arriving:
            slot_of[b.name] = _slot(_slot_bytes(b), slots, free)
        for b in leaving if reuse else ():
            free.give(slot_of[b.name], slots[slot_of[b.name]])
    return slot_of, slots


def _slot_bytes(b: Buffer) -> Size:
    size = align_up(b.bytes(), ALIGNMENT)
    return max(size, ALIGNMENT) if isinstance(size, int) else size


def _slot(size: Size, slots: list[Size], free: _Free) -> int:
    found = free.take(size)
    if found is None:
        found = len(slots)
        slots.append(size)
    return found


def _layout(slots: list[Size]) -> tuple[dict[int, Size], Size]:
    """Where each slot begins, those of known size first, so that their offsets are numbers."""
    starts: dict[int, Size] = {}
    end: Size = 0
    for known in (True, False):
        for i, size in enumerate(slots):
            if isinstance(size, int) == known:
                starts[i] = end
                end = end + size
    return starts, end


class Temporaries(Protocol):
    """What a `Program`, and what else says so, knows of the bytes of its arena."""

    @property
    def arena(self) -> Size | None: ...
    @property
    def private(self) -> Size: ...
    @property
    def partials(self) -> Size: ...


def arena_for(program: Temporaries, threads: int) -> Size:
    """The bytes of a call's arena with so many threads."""
    arena: Size = program.arena or 0
    if threads == 1:
        return arena
    parts = min(PARTS_PER_THREAD * threads, MOST_PARTS)
    return arena + (threads - 1) * program.private + parts * program.partials


def verify_plan(program: Program) -> None:
    """Every temp has a place, and no two that live in one kernel share a byte, for all sizes."""
    slots: dict[Size, list[Buffer]] = {}
    for b in program.of_role("temp"):
        if b.offset is None or program.arena is None:
            raise VerifyError(f"plan: the temp {b.name} has no offset")
        slots.setdefault(b.offset, []).append(b)
    lives = spans(program)
    for sharing in slots.values():
        _check_times(sharing, lives)
    _check_room(slots, program.arena)
    _check_private(program)
    verify_donations(program)


def _check_times(sharing: list[Buffer], lives: Mapping[str, tuple[Moment, Moment]]) -> None:
    ordered = sorted(sharing, key=lambda b: lives.get(b.name, NEVER))
    for a, b in zip(ordered, ordered[1:], strict=False):
        if lives.get(b.name, NEVER)[0] <= lives.get(a.name, NEVER)[1]:
            raise VerifyError(
                f"plan: {a.name} and {b.name} are live at once, both at offset {a.offset}"
            )


def _check_room(slots: Mapping[Size, list[Buffer]], arena: Size | None) -> None:
    """Slots follow each other, each with room for its largest temp."""
    samples = {s: 1009 for offset in slots if isinstance(offset, Dim) for s in offset.symbols()}
    ordered = sorted(slots, key=lambda offset: evaluate(offset, samples))
    ends = [*ordered[1:], 0 if arena is None else arena]
    for offset, end in zip(ordered, ends, strict=False):
        for b in slots[offset]:
            if not at_least(end - offset, align_up(b.bytes(), ALIGNMENT)):
                raise VerifyError(
                    f"plan: {b.name}, {b.bytes()} bytes at offset {offset}, may reach beyond {end}"
                )


def _check_private(program: Program) -> None:
    """What every thread needs for itself lies, as a whole, in the part that is repeated; what all
    see, outside of it.
    """
    assert program.arena is not None
    mine, start = private_names(program), program.arena - program.private
    for b in program.of_role("temp"):
        assert b.offset is not None
        room = b.offset - start if b.private else start - b.offset - align_up(b.bytes(), ALIGNMENT)
        if b.private != (b.name in mine) or not at_least(room, 0):
            raise VerifyError(f"plan: {b.name} at offset {b.offset}: which threads see it?")
    if program.partials != largest_partials(program):
        raise VerifyError(f"plan: {program.partials} bytes for the results of a part")


__all__ = [
    "EXAMPLE", "arena_for", "lifetimes", "plan", "traffic", "tree_levels", "tree_name",
    "tree_stride", "verify_plan",
]  # fmt: skip
