"""Sums of rows in a loop in blocks: some columns at once, with their sums in registers.

    for columns, a few vectors at once: for leaves of the block: for rows of the leaf: sum = fold
                                                                then into the columns' counters

The columns may be those of a nest of loops, as of clusters and coordinates: all its loops but the
innermost one run around the rows. What no row changes is loaded before them. No order changes:
each column takes one row after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from graphc.codegen import accumulators as accs
from graphc.codegen.llvm import MEMORY, register, vector
from graphc.codegen.state import Known
from graphc.codegen.vectors import VectorLoop
from graphc.gates.reduction import VECTOR_BYTES
from graphc.ir.types import Dim, i64
from graphc.lower.loops import (
    Acc,
    Add,
    For,
    Iota,
    Let,
    Load,
    Statement,
    coefficient,
    walk,
    without,
)
from graphc.lower.names import used_by
from graphc.lower.plan import tree_name, tree_stride
from graphc.lower.schedule import BLOCK_ROWS

if TYPE_CHECKING:
    from graphc.codegen.blocks import BlockLoop, Part

START = "_block"  # the symbol of a block's first iteration
COLUMNS = 8  # vectors of sums that are in registers at once, at most
WRITTEN_OUT = 2  # groups of columns up to which there is no loop over them


def is_sum(nest: For, arrays: Mapping[str, Acc]) -> bool:
    """Does an inner loop, or a nest of them, do nothing but add to arrays that share an order?"""
    levels = levels_of(nest)
    if levels is None:
        return False
    *outers, inner = levels
    adds = [s for s in inner.body if isinstance(s, Add)]
    for level in levels:
        rest = [s for s in level.body if not isinstance(s, (For, Add))]
        plain = all(isinstance(s, (Let, Iota)) or (isinstance(s, Load) and not s.at) for s in rest)
        if not plain or level.accs or not isinstance(level.size, int):
            return False
    if not adds or any(isinstance(s, Add) for level in outers for s in level.body):
        return False
    orders = {arrays[s.acc].order if s.acc in arrays else "any" for s in adds}
    return (
        len(orders) == 1
        and "any" not in orders
        and all(coefficient(s.index, inner.var) == 1 for s in adds)
        and len({s.acc for s in adds}) == len(adds)
    )


def levels_of(nest: For) -> list[For] | None:
    """The loops of a nest from the outermost on, if each has one at most, as its last statement."""
    levels = [nest]
    while any(isinstance(s, For) for s in levels[-1].body):
        *before, last = levels[-1].body
        if not isinstance(last, For) or any(isinstance(s, For) for s in before):
            return None
        levels.append(last)
    return levels


@dataclass(frozen=True)
class Columns:
    """A vector of columns: the first one, and how many; of a masked one, those that there are."""

    start: str
    width: int
    mask: str = ""


class ColumnSums:
    """The sums of one part of a loop in blocks."""

    def __init__(self, block: BlockLoop, part: Part, nest: For) -> None:
        self.block, self.part = block, part
        levels = levels_of(nest)
        assert levels is not None
        *self.outers, self.inner = levels
        self.writer, self.fn = block.writer, block.fn
        names = {s.acc for s in self.inner.body if isinstance(s, Add)}
        self.accs = [a for a in block.loop.accs if a.name in names]
        self.width = min(accs.lanes_of(a.dtype) for a in self.accs)
        self.leaf = accs.leaf_of(self.accs[0].order)
        self.fixed, self.moving = self._split()
        self.places = {s.acc: s.index for s in self.inner.body if isinstance(s, Add)}

    def _split(self) -> tuple[list[tuple[int, Statement]], list[tuple[int, Statement]]]:
        """Statements that no row changes, and the others, with their depths in the nest."""
        varying = {n for s in self.block.incoming(self.part) for n in (s.name,)}  # type: ignore[union-attr]
        fixed: list[tuple[int, Statement]] = []
        moving: list[tuple[int, Statement]] = []
        for depth, level in enumerate((*self.outers, self.inner)):
            for s in map(self.block.own_rows, level.body):
                if isinstance(s, For):
                    continue
                changes = any(name in varying for name in used_by(s)) or isinstance(s, Add)
                if isinstance(s, (Load, Iota)):
                    index = s.index if isinstance(s, Load) else s.value
                    changes = coefficient(index, self.block.loop.var) != 0
                (moving if changes else fixed).append((depth, s))
                if changes and not isinstance(s, Add):
                    varying.add(s.name)  # type: ignore[union-attr]
        return fixed, moving

    def write(self) -> None:
        self._level(0)

    def _level(self, depth: int) -> None:
        """The loops around the columns."""
        if depth == len(self.outers):
            self._columns()
            return
        loop = self.outers[depth]

        def one(i: str, _: object) -> list[str]:
            self.writer.symbols[loop.var] = i
            self._level(depth + 1)
            return []

        self.fn.loop("0", self.writer.size(loop.size), 1, [], one)

    def _room(self) -> int:
        """Bytes of columns at once: sums, and what they have of their own, stay in registers."""
        most = COLUMNS // len(self.accs) * VECTOR_BYTES
        of_columns = sum(
            depth == len(self.outers) for depth, s in self.fixed if isinstance(s, Load)
        )
        if of_columns or len(self.moving) > 2:
            size = self.fn.module.register_bytes
            registers = 32 if self.fn.module.avx512 else 16
            for_others = 4 * VECTOR_BYTES // size
            each = len(self.accs) + of_columns
            most = min(most, (registers - for_others) // each * size)
        return max(VECTOR_BYTES, most)

    def _columns(self) -> None:
        """Columns in groups of a few vectors, in a loop where there are many groups."""
        size, itemsize = self.inner.size, VECTOR_BYTES // self.width
        assert isinstance(size, int)
        step = max(1, self._room() // VECTOR_BYTES) * self.width
        whole = size // step if size // step > WRITTEN_OUT else 0
        if whole:

            def group(j: str, _: object) -> list[str]:
                starts = [
                    j,
                    *(self.fn.do(f"add i64 {j}, {k}") for k in range(self.width, step, self.width)),
                ]
                self._group([Columns(start, self.width) for start in starts])
                return []

            self.fn.loop("0", str(whole * step), step, [], group)
        rest: list[Columns] = []
        for columns in self._vectors(whole * step, size):
            if rest and sum(c.width for c in (*rest, columns)) * itemsize > self._room():
                self._group(rest)
                rest = []
            rest.append(columns)
        if rest:
            self._group(rest)

    def _vectors(self, start: int, end: int) -> list[Columns]:
        """Whole vectors, and what is left. A masked vector may reach beyond the last column, but not
        into those of a nest's next iteration: there its halves, quarters, ... take what is left.
        """
        found: list[Columns] = []
        width = self.width
        while start < end:
            if not self.outers and end - start < width:
                lanes = ", ".join(f"i1 {int(i < end - start)}" for i in range(width))
                return [*found, Columns(str(start), width, f"<{lanes}>")]
            while width > end - start:
                width //= 2
            found.append(Columns(str(start), width))
            start += width
        return found

    def _group(self, columns: list[Columns]) -> None:
        """One group of columns over the whole block."""
        outer = dict(self.writer.known)
        self.own = [self._fixed(c) for c in columns]
        first = self.writer.symbols[START]
        end = self.fn.do(f"add i64 {first}, {self.writer.symbols['_count']}")
        if self.leaf > BLOCK_ROWS:
            self._part_of_leaf(first, end, columns)
        else:
            self._leaves(first, end, columns)
        self.writer.known = outer

    def _fixed(self, columns: Columns) -> dict[str, Known]:
        """What a vector of columns has for all rows."""
        writer = self.writer
        before = dict(writer.known)
        writer.symbols[self.inner.var] = columns.start
        loop = self._loop(columns)
        for depth, s in self.fixed:
            self._statement(loop, depth, s, columns.mask, [], 0)
        known, writer.known = writer.known, before
        return {name: value for name, value in known.items() if before.get(name) is not value}

    def _loop(self, columns: Columns) -> VectorLoop:
        loop = VectorLoop(self.writer, replace(self.inner, accs=()))
        loop.width = columns.width
        return loop

    def _leaves(self, first: str, end: str, columns: list[Columns]) -> None:
        """Whole leaves, which begin as the identity and go into the counters."""
        fn, leaf = self.fn, self.leaf
        sums = [(a, c) for c in columns for a in self.accs]
        nothing = [accs.identity(a.monoid, a.dtype, c.width) for a, c in sums]
        types = [register(a.dtype, c.width) for a, c in sums]
        count = self.writer.symbols["_count"]
        whole = fn.do(f"add i64 {first}, {fn.do(f'and i64 {count}, {-leaf}')}")

        def push(i: str, totals: Sequence[str]) -> None:
            t = fn.do(f"lshr i64 {self.writer.since_first(i)}, {leaf.bit_length() - 1}")
            for (a, c), total in zip(sums, totals, strict=True):
                self._push(a, total, t, c)

        def one(i: str, _: object) -> list[str]:
            totals = list(nothing)
            for row in range(leaf):
                at = fn.do(f"add i64 {i}, {row}") if row else i
                totals = self._row(at, totals, columns)
            push(i, totals)
            return []

        fn.loop(first, whole, leaf, [], one)
        with fn.when(fn.do(f"icmp slt i64 {whole}, {end}")):
            begin = list(zip(types, nothing, strict=True))
            push(whole, fn.loop(whole, end, 1, begin, lambda i, v: self._row(i, v, columns)))

    def _part_of_leaf(self, first: str, end: str, columns: list[Columns]) -> None:
        """A leaf longer than a block waits in the array between blocks."""
        fn = self.fn
        places = [(a, c, self._column(a, c)) for c in columns for a in self.accs]
        before = [
            (register(a.dtype, c.width), self._loop(c).load(at, a.dtype, c.mask))
            for a, c, at in places
        ]
        after = fn.loop(first, end, 1, before, lambda i, v: self._row(i, v, columns))
        for (a, c, at), value in zip(places, after, strict=True):
            self._loop(c).store(at, Known(value, a.dtype, c.width), c.mask)

    def _place(self, acc: Acc, columns: Columns) -> str:
        """The first of these columns in an array."""
        self.writer.symbols[self.inner.var] = columns.start
        return self.writer.size(self.places[acc.name])

    def _column(self, acc: Acc, columns: Columns) -> str:
        array, place = self.writer.sums[acc.name].value, self._place(acc, columns)
        return self.fn.do(f"getelementptr {MEMORY[acc.dtype.name]}, ptr {array}, i64 {place}")

    def _push(self, acc: Acc, total: str, t: str, columns: Columns) -> None:
        """Into the counters of these columns; a level has room for whole vectors."""
        tree, place = self.writer.pointer(tree_name(acc)), self._place(acc, columns)
        levels = self.fn.do(f"getelementptr {MEMORY[acc.dtype.name]}, ptr {tree}, i64 {place}")
        stride = self.writer.size(tree_stride(acc.size))
        accs.push(self.fn, levels, total, t, acc.monoid, acc.dtype, columns.width, stride=stride)

    def _row(self, i: str, values: list[str], columns: list[Columns]) -> list[str]:
        """Add one row to the columns."""
        writer = self.writer
        writer.symbols[self.block.loop.var] = i
        outer = dict(writer.known)
        writer.body(self.block.incoming(self.part))
        state = list(values)
        row = dict(writer.known)
        for group, c in enumerate(columns):
            writer.known = {**row, **self.own[group]}
            writer.symbols[self.inner.var] = c.start
            loop = self._loop(c)
            for depth, s in self.moving:
                self._statement(loop, depth, s, c.mask, state, group)
        writer.known = outer
        return state

    def _statement(
        self, loop: VectorLoop, depth: int, s: Statement, mask: str, state: list[str], group: int
    ) -> None:
        writer, fn = self.writer, self.fn
        for name in used_by(s):
            loop.spread(name)
        if isinstance(s, Load):
            step = coefficient(s.index, self.inner.var) if depth == len(self.outers) else 0
            address = writer.address(s.buffer, s.index)
            if step == 0:
                value = writer.load(address, s.dtype)
                writer.known[s.name] = Known(value, s.dtype, 1)
            else:
                if group % 2 and not self.outers:
                    self.block.prefetch(s, address)
                if step != 1 and loop.width > 1:
                    offsets = loop.lane_steps(writer.size(step))
                    ty = MEMORY[s.dtype.name]
                    address = "many " + fn.do(
                        f"getelementptr {ty}, ptr {address}, {vector('i64', loop.width)} {offsets}"
                    )
                writer.known[s.name] = Known(loop.load(address, s.dtype, mask), s.dtype, loop.width)
        elif isinstance(s, Let):
            writer.let(s, loop.width)
        elif isinstance(s, Iota):
            first = writer.size(
                without(s.value, self.inner.var)
                + coefficient(s.value, self.inner.var) * Dim.symbol(self.inner.var)
            )
            apart = writer.size(coefficient(s.value, self.inner.var))
            steps = loop.lane_steps(apart) if loop.width > 1 else "0"
            ty = vector("i64", loop.width)
            value = fn.do(f"add {ty} {fn.spread_type(first, 'i64', loop.width)}, {steps}")
            writer.known[s.name] = Known(value, i64, loop.width)
        elif isinstance(s, Add):
            position = group * len(self.accs) + next(
                k for k, a in enumerate(self.accs) if a.name == s.acc
            )
            acc = self.accs[position % len(self.accs)]
            state[position] = writer.folded(
                acc, state[position], [writer.known[v].register for v in s.values], loop.width
            )


def summed(nests: Sequence[For]) -> set[str]:
    """The accumulators that sums of rows keep in registers."""
    return {s.acc for nest in nests for s, _ in walk(nest.body) if isinstance(s, Add)}
