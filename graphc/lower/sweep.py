"""Kernels over the same rows become one sweep: panels of 256 rows go through all of them.

In:   a `Program` whose loops have their modes.
Out:  the same, with kernels joined into one whose `sweep` is the number of rows; a temp that only
      such a kernel uses has the scope `panel`: it is made and read again while it is in cache, and
      has memory for one panel only.
Invariant: no bit changes. A kernel writes only rows of its own, or sums over rows, which no kernel
of the sweep reads; and a panel is whole leaves of every order, so that its sums are nodes of the
trees that one pass would build.

A product takes part if its rows are rows of the sweep, or if it adds up over them, as long as what
stands on its other side is small: it is packed again for every panel.

>>> from graphc.ir.graph import Builder
>>> from graphc.ir.types import f64
>>> from graphc.gates.contraction import contract_values
>>> from graphc.lower.fuse import fuse
>>> b = Builder()
>>> x, w = b.input("x", f64["n", 8]), b.input("w", f64[8, 16])
>>> y = b.apply("exp", contract_values(x, w, "ij,jk->ik"))
>>> program = fuse(b.graph("f", {"y": contract_values(x, y, "ij,ik->jk")}))
>>> [(k.name, str(k.sweep)) for k in program.kernels]
[('k0_k1_k2', 'n')]
>>> [(b.name, b.scope) for b in program.buffers if b.panel]
[('t0', 'panel256'), ('t1', 'panel256')]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from graphc.ir.types import Size, at_least, product
from graphc.lower.loops import (
    PANEL,
    PANEL_ROWS,
    Contract,
    Fill,
    For,
    Index,
    Kernel,
    Load,
    Operand,
    Program,
    Scatter,
    Statement,
    Store,
    coefficient,
    touching,
    walk,
    without,
)
from graphc.lower.parallel import BYTES_PER_NS, cost, is_independent
from graphc.lower.straight import renumbered

FEW_ROWS = 64  # of a panel, whole leaves of every order but `chain`,
CACHE_BYTES = 1 << 20  # if panels of more rows hand on more than this
WEIGHTS = 1 << 16  # numbers beside a product's rows up to which it is part of a sweep


@dataclass(frozen=True)
class _Member:
    """A kernel that can take part in a sweep over `size` rows."""

    kernel: Kernel
    size: Size
    rows: frozenset[str]  # buffers of which it writes its own rows,
    sums: frozenset[str]  # and those that it writes when all rows are through
    reads: frozenset[str]
    apart: frozenset[str]  # buffers that it touches otherwise than by its own rows

    @property
    def writes(self) -> frozenset[str]:
        return self.rows | self.sums


def in_sweeps(program: Program) -> Program:
    """Join kernels over the same rows, as far as the order of reads and writes allows."""
    kernels = _joined(program, list(program.kernels))
    local = _local(program, kernels)
    buffers = tuple(replace(b, scope=local.get(b.name, b.scope)) for b in program.buffers)
    return replace(program, kernels=tuple(kernels), buffers=buffers)


def letter_of(contract: Contract, size: Size) -> str:
    """The letter of a product that runs over the rows of a sweep; none, if there are two."""
    found = [c for c, n in contract.sizes if n == size]
    return found[0] if len(found) == 1 else ""


def adds_up(contract: Contract, size: Size) -> bool:
    """Does it add up over the rows of the sweep?"""
    return letter_of(contract, size) == contract.k


def iterations(program: Program, loop: For, size: Size) -> int:
    """How many iterations a loop has for each row of the sweep; several, if it walks through rows
    as through one long array; 0 if it has nothing to do with them.
    """
    if loop.size == size:
        return 1
    simple = not loop.accs and not any(isinstance(s, For) for s in loop.body)
    for s in loop.body if simple else ():
        row = _row(program, s.buffer, size) if isinstance(s, Store) else None
        if row is not None and size * row == loop.size:
            return row
    return 0


def cost_of_row(program: Program, kernel: Kernel) -> Size:
    """Picoseconds of a row in a sweep; right within a factor of a few."""
    assert kernel.sweep is not None
    total: Size = 0
    for s in kernel.body:
        if isinstance(s, For):
            total = total + cost(s) * iterations(program, s, kernel.sweep)
        elif isinstance(s, Contract):
            numbers = product(n for _, n in of_panel(s, kernel.sweep, 0, 1).sizes)
            total = total + numbers * (1000 * s.dtype.itemsize // BYTES_PER_NS)
    return total


def of_panel(
    contract: Contract, size: Size, first: Size, count: Size, local: Sequence[str] = ()
) -> Contract:
    """The product of `count` rows from `first` on; local buffers hold no others."""
    letter = letter_of(contract, size)

    def moved(o: Operand) -> Operand:
        if o.buffer in local:
            return o
        return replace(o, index=o.index + dict(o.strides).get(letter, 0) * first)

    sizes = tuple((c, count if c == letter else n) for c, n in contract.sizes)
    out, a, b = map(moved, (contract.out, contract.a, contract.b))
    return replace(contract, out=out, a=a, b=b, sizes=sizes)


# -- which kernels go together --------------------------------------------------------------------


def _joined(program: Program, kernels: Sequence[Kernel]) -> list[Kernel]:
    made: list[Kernel] = []
    members = [_member(program, k) for k in kernels]
    rest = list(zip(kernels, members, strict=True))
    while rest:
        (kernel, first), rest = rest[0], rest[1:]
        if first is not None:
            group, before, after = _collected(first, rest)
            if _worthwhile(program, group):
                made += _joined(program, [k for k, _ in before])
                made.append(_sweep(program, group))
                rest = after
                continue
        made.append(kernel)
    return made


_Rest = list[tuple[Kernel, _Member | None]]


def _collected(first: _Member, rest: _Rest) -> tuple[list[_Member], _Rest, _Rest]:
    """The members of a sweep, what runs before it, and what must wait for it."""
    from graphc.lower.plan import traffic

    group, before, after = [first], _Rest(), _Rest()
    waiting_reads: set[str] = set()
    waiting_writes: set[str] = set()
    for kernel, member in rest:
        reads, writes = (set(names) for names in traffic(kernel))
        waits = reads & waiting_writes or writes & (waiting_reads | waiting_writes)
        if member is not None and not waits and all(_fit(m, member) for m in group):
            group.append(member)
        elif waits or any(_meet(m, reads, writes) for m in group):
            after.append((kernel, member))
            waiting_reads |= reads
            waiting_writes |= writes
        else:
            before.append((kernel, member))
    return group, before, after


def _fit(made: _Member, member: _Member) -> bool:
    """May a member follow another in the same panel?"""
    shared = (made.rows & (member.reads | member.writes)) | (made.reads & member.writes)
    return (
        made.size == member.size
        and not made.sums & (member.reads | member.writes)
        and not made.rows & member.writes
        and not shared & (made.apart | member.apart)
        and not made.reads & member.sums
    )


def _meet(made: _Member, reads: set[str], writes: set[str]) -> bool:
    return bool(made.writes & (reads | writes) or made.reads & writes)


def _worthwhile(program: Program, group: Sequence[_Member]) -> bool:
    """Is there a product, and something that never leaves a panel? Few known rows are one panel."""
    size = group[0].size
    if isinstance(size, int) and size <= 2 * PANEL_ROWS:
        return False
    products = any(isinstance(s, Contract) for m in group for s in m.kernel.body)
    handed = {b for m in group for b in m.rows} & {b for m in group for b in m.reads}
    return len(group) > 1 and products and bool(handed)


def _panel(program: Program, group: Sequence[_Member]) -> int:
    """The rows of a panel: fewer, where what is handed on would leave the cache. A product goes on
    from panel to panel within a block of its order; a loop cannot.
    """
    loops = [s for m in group for s in m.kernel.body if isinstance(s, For)]
    if any(a.order == "chain" for s in loops for a in s.accs):
        return PANEL_ROWS
    handed = {b for m in group for b in m.rows} & {b for m in group for b in m.reads}
    rows = [_row_bytes(program, name, group[0].size) for name in handed]
    return FEW_ROWS if sum(rows) * PANEL_ROWS > CACHE_BYTES else PANEL_ROWS


def _row_bytes(program: Program, name: str, n: Size) -> int:
    return (_row(program, name, n) or 0) * program.buffer(name).type.dtype.itemsize


def _sweep(program: Program, group: Sequence[_Member]) -> Kernel:
    body: tuple[Statement, ...] = ()
    last = 0
    for m in group:
        body += renumbered(m.kernel.body, last)
        last += len({s.name for s, _ in walk(m.kernel.body) if hasattr(s, "name")})
        last += sum(len(s.accs) for s, _ in walk(m.kernel.body) if isinstance(s, For))
    body = tuple(replace(s, parallel=True) if isinstance(s, For) else s for s in body)
    name = "_".join(m.kernel.name for m in group)
    note = " ".join(m.kernel.note for m in group)
    return Kernel(name, body, note, group[0].size, _panel(program, group))


def _local(program: Program, kernels: Sequence[Kernel]) -> dict[str, str]:
    """The temps of which a sweep needs no more than the rows of a panel, and their scope."""
    from graphc.lower.plan import traffic

    users: dict[str, list[Kernel]] = {}
    for kernel in kernels:
        reads, writes = traffic(kernel)
        for name in reads | writes:
            users.setdefault(name, []).append(kernel)
    found: dict[str, str] = {}
    for b in program.of_role("temp"):
        using = users.get(b.name, [])
        if b.scope or len(using) != 1 or using[0].sweep is None:
            continue
        n = using[0].sweep
        touching = [m for s in using[0].body if (m := _statement(program, s, n)) is not None]
        if not any(b.name in m.apart | m.sums for m in touching):
            found[b.name] = f"{PANEL}{using[0].panel}"
    return found


# -- which rows a kernel touches ------------------------------------------------------------------


def _member(program: Program, kernel: Kernel) -> _Member | None:
    """A product, or a loop and what is stored of its sums."""
    if not kernel.body:
        return None
    top, *rest = kernel.body
    if isinstance(top, Contract) and not rest:
        for n in dict.fromkeys(n for c, n in top.sizes if c in dict(top.out.strides) or c == top.k):
            found = _statement(program, top, n)
            if found is not None and (found.sums or found.rows) and _light(program, top, n):
                return replace(found, kernel=kernel)
    if isinstance(top, For) and all(isinstance(s, Store) for s in rest):
        if any(isinstance(s, (Contract, Fill, Index, Scatter)) for s, _ in touching(top.touching)):
            return None
        if not is_independent(program, top):
            return None
        stored = frozenset(s.buffer for s in rest if isinstance(s, Store))
        made = [program.buffer(s.buffer).type for s in top.body if isinstance(s, Store)]
        for n in dict.fromkeys((*(ty.shape[0] for ty in made if ty.rank), top.size)):
            found = _statement(program, top, n)
            if found is not None and (found.rows or found.sums):
                return replace(found, kernel=kernel, sums=found.sums | stored)
    return None


def _light(program: Program, s: Contract, n: Size) -> bool:
    """Is what stands beside the rows small?"""
    sizes, letter = dict(s.sizes), letter_of(s, n)
    aside = [o for o in (s.a, s.b, s.out) if letter not in dict(o.strides)]
    numbers = [product(sizes[c] for c, _ in o.strides) for o in aside]
    return all(isinstance(k, int) and k <= WEIGHTS for k in numbers)


def _statement(program: Program, s: Statement, n: Size) -> _Member | None:
    """What a statement of a sweep over n rows reads and writes."""
    match s:
        case Contract():
            return _contract(program, s, n)
        case For():
            return _loop(program, s, n) if iterations(program, s, n) else None
        case Store():
            return _Member(_NONE, n, frozenset(), frozenset({s.buffer}), frozenset(), frozenset())
    return None


_NONE = Kernel("", ())


def _contract(program: Program, s: Contract, n: Size) -> _Member | None:
    letter = letter_of(s, n)
    if not letter or (s.a.buffer == s.b.buffer == s.out.buffer):
        return None
    own = {o.buffer: _own_rows(program, o, letter, dict(s.sizes), n) for o in (s.a, s.b)}
    own = {b: own[b] and all(_own_rows(program, o, letter, dict(s.sizes), n)
           for o in (s.a, s.b) if o.buffer == b) for b in own}  # fmt: skip
    apart = {b for b, mine in own.items() if not mine}
    reads, out = frozenset(own), frozenset({s.out.buffer})
    if letter == s.k:
        if not _whole(program, s.out, dict(s.sizes)):
            return None
        return _Member(_NONE, n, frozenset(), out, reads, frozenset(apart))
    if not _own_rows(program, s.out, letter, dict(s.sizes), n):
        return None
    return _Member(_NONE, n, out, frozenset(), reads, frozenset(apart))


def _whole(program: Program, o: Operand, sizes: dict[str, Size]) -> bool:
    """Does an operand fill its buffer, in order?"""
    step: Size = 1
    for letter, stride in reversed(o.strides):
        if stride != step:
            return False
        step = step * sizes[letter]
    return o.index == 0 and program.buffer(o.buffer).type.size == step


def _own_rows(program: Program, o: Operand, letter: str, sizes: dict[str, Size], n: Size) -> bool:
    """Does an operand's letter walk from row to row of its buffer, and the others within one?"""
    row = _row(program, o.buffer, n)
    strides = dict(o.strides)
    if row is None or strides.get(letter) != row:
        return False
    last: Size = o.index
    for c, stride in o.strides:
        if c != letter:
            if not at_least(stride, 0):
                return False
            last = last + stride * (sizes[c] - 1)
    return isinstance(o.index, int) and o.index >= 0 and isinstance(last, int) and last < row


def _row(program: Program, name: str, n: Size) -> int | None:
    """The elements of a buffer's row, if it has n rows."""
    shape = program.buffer(name).type.shape
    row = product(shape[1:])
    return row if shape and shape[0] == n and isinstance(row, int) else None


def _loop(program: Program, loop: For, n: Size) -> _Member:
    reads: set[str] = set()
    rows: set[str] = set()
    apart: set[str] = set()
    for s, outer in touching((loop,)):
        touched: list[tuple[str, Size, Size]] = []  # buffer, index, elements
        match s:
            case Load():
                reads.add(s.buffer)
                touched = [(s.buffer, s.index, 1)]
                if s.at:
                    apart.add(s.buffer)
            case Store():
                rows.add(s.buffer)
                touched = [(s.buffer, s.index, 1)]
            case For() if outer:
                rows.update(a.into for a in s.accs if a.into)
                touched = [(a.into, a.index, a.size) for a in s.accs if a.into]
        for name, index, elements in touched:
            inside = (loop, *outer[1:])
            mine = _in_own_row(program, name, n, index, elements, inside)
            if not mine and not program.buffer(name).scope:
                apart.add(name)
    scratch = {b for b in reads | rows if program.buffer(b).scope}
    sums = frozenset(a.into for a in loop.accs if a.into)
    return _Member(
        _NONE, n, frozenset(rows - scratch), sums, frozenset(reads - scratch),
        frozenset(apart),
    )  # fmt: skip


def _in_own_row(
    program: Program, name: str, n: Size, index: Size, elements: Size, outer: Sequence[For]
) -> bool:
    """Are these elements of the row that the outermost loop is at?"""
    row, each = _row(program, name, n), iterations(program, outer[0], n)
    if row is None or coefficient(index, outer[0].var) * each != row:
        return False
    if each > 1:
        return each == row and without(index, outer[0].var) == 0
    last = without(index, outer[0].var) + elements - 1
    for f in outer[1:]:
        step = coefficient(last, f.var)
        if not isinstance(step, int) or step < 0:
            return False
        last = without(last, f.var) + step * (f.size - 1)
    first = without(index, outer[0].var)
    for f in outer[1:]:
        first = without(first, f.var)
    return isinstance(first, int) and first >= 0 and isinstance(last, int) and last < row


__all__ = ["adds_up", "cost_of_row", "in_sweeps", "iterations", "letter_of", "of_panel"]
