"""Loops in blocks: 64 iterations at once, statement by statement.

A row-wise loss does three things to a row: it folds the row into numbers, computes with these, and adds the row to a
sum. One row after the other, the numbers would be computed one lane at a time. So a loop of the mode `blocks` runs
each part over the whole block, which stays in cache: inner loops row after row, the statements between them in lanes
over the rows, and sums of rows with the accumulators in registers. What one part hands to another waits in a short
array on the stack. No order of any sum changes: blocks are whole subtrees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from graphc.codegen import accumulators as accs
from graphc.codegen.columns import START, ColumnSums, is_sum, summed
from graphc.codegen.llvm import MEMORY, register
from graphc.codegen.state import Kept, Sum
from graphc.codegen.vectors import VectorLoop
from graphc.ir.types import Dim, DType, Size, TensorType, product
from graphc.lower.distribute import is_nest
from graphc.lower.loops import (
    Acc,
    Add,
    Buffer,
    For,
    Let,
    Load,
    Scatter,
    Statement,
    Store,
    coefficient,
    walk,
)
from graphc.lower.names import defined, used
from graphc.lower.schedule import BLOCK_ROWS

if TYPE_CHECKING:
    from graphc.codegen.writer import KernelWriter

PRELOADED = 16  # vectors kept in registers over all rows of a block


@dataclass
class Part:
    """Consecutive statements that run over the block together: in lanes, row by row, or as sums of rows."""

    kind: str  # "lanes", "row", "sums"
    statements: list[Statement] = field(default_factory=list)


class BlockLoop:
    def __init__(self, writer: KernelWriter, loop: For) -> None:
        self.writer, self.loop, self.fn = writer, loop, writer.fn
        self.slots: dict[str, str] = {}  # value -> buffer on the stack
        self.kept: dict[str, Kept] = {}

    def write(self) -> None:
        writer, fn, loop = self.writer, self.fn, self.loop
        n = writer.size(loop.size)
        same, varying = self._split_invariant()
        writer.body(same)
        parts = _parts(varying, {a.name: a for a in loop.accs if a.into and self._added_once(a)})
        sums = [p.statements[0] for p in parts if p.kind == "sums"]
        self.in_registers = summed([f for f in sums if isinstance(f, For)])
        self._hand_over(parts)
        for acc in loop.accs:
            self.open_acc(acc)

        def block(start: str, _: object) -> list[str]:
            writer.symbols[START] = writer.from_first(start)
            left = fn.do(f"sub i64 {n}, {start}")
            count = fn.do(
                f"select i1 {fn.do(f'icmp slt i64 {left}, {BLOCK_ROWS}')}, i64 {left}, i64 {BLOCK_ROWS}"
            )
            writer.symbols["_count"] = count
            for part in parts:
                {"lanes": self._lanes, "row": self._rows, "sums": self._sums}[part.kind](part)
            return []

        fn.loop("0", n, BLOCK_ROWS, [], block)
        for acc in loop.accs:
            self.close_acc(acc, n)

    def _added_once(self, acc: Acc) -> bool:
        """Does only one of the inner loops add to an array?"""
        parts = [[t.acc for t, _ in walk((s,)) if isinstance(t, Add)] for s in self.loop.body]
        return sum(acc.name in part for part in parts) == 1

    # -- what runs together -----------------------------------------------------------------------------------------

    def _split_invariant(self) -> tuple[list[Statement], list[Statement]]:
        """Statements that no iteration changes, and the others."""
        same: list[Statement] = []
        known: set[str] = set()
        varying: list[Statement] = []
        inner = {name for name, _ in defined(self.loop.body)}
        for s in self.loop.body:
            fixed = (
                isinstance(s, Load)
                and not s.at
                and coefficient(s.index, self.loop.var) == 0
                and self.writer.buffer(s.buffer).scope != self.loop.var  # scratch is new each time
            ) or (isinstance(s, Let) and all(a in known or a not in inner for a in s.args))
            if fixed:
                same.append(s)
                known.add(s.name)  # type: ignore[union-attr]
            else:
                varying.append(s)
        return same, varying

    def _hand_over(self, parts: Sequence[Part]) -> None:
        """A stack array for every value that one part makes and another reads."""
        last: dict[str, int] = {}  # value -> the last part that reads it
        for i, part in enumerate(parts):
            last.update(dict.fromkeys(used(part.statements), i))
        for i, part in enumerate(parts):
            inside = set(used(part.statements)) if part.kind == "row" else set()
            for name, dtype in defined(part.statements):
                if last.get(name, i) > i or name in inside:
                    buffer = f"stack{name[1:]}"
                    self.writer.local[buffer] = Buffer(
                        buffer, "temp", TensorType(dtype, (BLOCK_ROWS,))
                    )
                    self.writer.pointers[buffer] = self.fn.alloca(MEMORY[dtype.name], BLOCK_ROWS)
                    self.slots[name] = buffer

    def _at(self) -> Size:
        """The place of an iteration in its block."""
        return Dim.symbol(self.loop.var) - Dim.symbol(START)

    def incoming(self, part: Part) -> list[Statement]:
        made = {name for name, _ in defined(part.statements)}
        names = [
            n for n in dict.fromkeys(used(part.statements)) if n in self.slots and n not in made
        ]
        return [Load(n, self.slots[n], self._at(), self._dtype(n)) for n in names]

    def _outgoing(self, part: Part) -> list[Statement]:
        return [
            Store(self.slots[n], self._at(), n)
            for n, _ in defined(part.statements)
            if n in self.slots
        ]

    def _dtype(self, name: str) -> DType:
        return self.writer.local[self.slots[name]].type.dtype

    def own_rows(self, s: Statement) -> Statement:
        """Scratch of one iteration has a row for each iteration of the block."""
        if isinstance(s, (Load, Store, Scatter)):
            return replace(s, index=s.index + self._row_of(s.buffer))
        if isinstance(s, For):
            arrays = tuple(
                replace(a, index=a.index + self._row_of(a.into)) if a.into else a for a in s.accs
            )
            return replace(s, accs=arrays, body=tuple(self.own_rows(t) for t in s.body))
        return s

    def _row_of(self, name: str) -> Size:
        """Where an iteration's row begins in scratch that each of them has; 0 in all else."""
        buffer = self.writer.buffer(name)
        if buffer.scope != self.loop.var:
            return 0
        return product(buffer.type.shape[1:]) * self._at()

    # -- parts ------------------------------------------------------------------------------------------------------

    def _lanes(self, part: Part) -> None:
        """Statements between inner loops: iterations are lanes."""
        body = [*self.incoming(part), *map(self.own_rows, part.statements), *self._outgoing(part)]
        added = {s.acc for s in part.statements if isinstance(s, Add)}
        mine = tuple(a for a in self.loop.accs if a.name in added)
        piece = For(self.loop.var, Dim.symbol("_count"), mine, tuple(body), "vector")
        VectorLoop(self.writer, piece, START, self.kept).write()

    def _rows(self, part: Part) -> None:
        """An inner loop, for one iteration after the other."""
        writer, fn = self.writer, self.fn
        body = [*self.incoming(part), *map(self.own_rows, part.statements), *self._outgoing(part)]
        end = fn.do(f"add i64 {writer.symbols[START]}, {writer.symbols['_count']}")
        added = [s.acc for s, _ in walk(tuple(part.statements)) if isinstance(s, Add)]
        touched = [
            writer.sums[a] for a in added if a in writer.sums and writer.sums[a].kind == "array"
        ]

        self._preload(part)

        def row(i: str, _: object) -> list[str]:
            writer.symbols[self.loop.var] = i
            writer.body(body)
            for state in {id(t): t for t in touched}.values():
                writer.end_of_iteration(state, writer.since_first(i))
            return []

        nested = any(is_nest(s) for s in part.statements)
        writer.block = (
            None if nested else self
        )  # whose inner loops would ask for the same again and again
        fn.loop(writer.symbols[START], end, 1, [], row)
        writer.block = None

    def prefetch(self, s: Load, address: str) -> None:
        """Ask for the same columns of the next block's row. Each part over the rows asks for a share, so that memory
        works while this block, which is in cache, is computed with."""
        fn, row = self.fn, coefficient(s.index, self.loop.var)
        if row == 0 or self.writer.buffer(s.buffer).role != "input":
            return
        ahead = self.writer.size(row * BLOCK_ROWS)
        following = fn.do(f"getelementptr {MEMORY[s.dtype.name]}, ptr {address}, i64 {ahead}")
        fn.prefetch(following, nearest=False)

    def _preload(self, part: Part) -> None:
        """Vectors that every row reads, as a weight vector's, are loaded once where the inner loop is written out."""
        for inner in part.statements:
            if not isinstance(inner, For):
                continue
            loop = VectorLoop(self.writer, inner)
            fixed = [
                s
                for s in inner.body
                if isinstance(s, Load) and not s.at and coefficient(s.index, self.loop.var) == 0
            ]
            fixed = [
                s
                for s in fixed
                if coefficient(s.index, inner.var) == 1 and not self.writer.buffer(s.buffer).scope
            ]
            if loop.short() and len(fixed) * -(-int(str(inner.size)) // loop.width) <= PRELOADED:
                for s in fixed:
                    loop.preload(s)

    def _sums(self, part: Part) -> None:
        """Sums of rows: some columns at once in registers, leaf after leaf."""
        (inner,) = (s for s in part.statements if isinstance(s, For))
        columns = ColumnSums(self, part, inner)
        columns.write()
        if columns.leaf > BLOCK_ROWS:
            fn = self.fn
            end = fn.do(f"add i64 {self.writer.symbols[START]}, {self.writer.symbols['_count']}")
            last = self.writer.since_first(fn.do(f"sub i64 {end}, 1"))
            for acc in columns.accs:
                self.writer.end_of_iteration(self.writer.sums[acc.name], last)

    # -- accumulators -----------------------------------------------------------------------------------------------

    def open_acc(self, acc: Acc) -> None:
        writer, fn = self.writer, self.fn
        width = accs.lanes_of(acc.dtype)
        if acc.into:
            if acc.name in self.in_registers and acc.order == "rows":
                writer.sums[acc.name] = Sum(acc, "columns", writer.element(acc, 0))
            else:
                writer.open_acc(acc)
        elif acc.order == "lanes":
            self.kept[acc.name] = Kept(levels=fn.alloca(register(acc.dtype, width), accs.LEVELS))
        elif acc.order == "rows":
            self.kept[acc.name] = Kept(levels=fn.alloca(register(acc.dtype, 1), accs.LEVELS))
        else:
            self._open_any(acc)

    def _open_any(self, acc: Acc) -> None:
        """One vector of partial results; its width is that of the part which adds to it."""
        fn = self.fn
        slot = fn.alloca(register(acc.dtype, 16), 1)
        for width in (8, 16):  # both halves begin as the identity, whichever width is used
            start = accs.identity(acc.monoid, acc.dtype, width)
            fn.say(f"store {register(acc.dtype, width)} {start}, ptr {slot}")
        self.kept[acc.name] = Kept(slot=slot)

    def close_acc(self, acc: Acc, n: str) -> None:
        writer, fn = self.writer, self.fn
        if acc.into:
            state = writer.sums[acc.name]
            if state.kind == "columns":
                self._close_columns(acc, n)
            else:
                writer.close_acc(state, n)
            return
        if acc.order == "lanes":
            lanes = accs.lanes_of(acc.dtype)
            per_leaf = accs.LEAF * lanes
            count = fn.do(
                f"lshr i64 {fn.do(f'add i64 {n}, {per_leaf - 1}')}, {per_leaf.bit_length() - 1}"
            )
            total = accs.collapse(
                fn, self.kept[acc.name].levels, count, acc.monoid, acc.dtype, lanes
            )
            writer.closed(acc, total, lanes, n)
        elif acc.order == "rows":
            step = accs.LEAF * self.kept[acc.name].width
            count = fn.do(f"lshr i64 {fn.do(f'add i64 {n}, {step - 1}')}, {step.bit_length() - 1}")
            levels = self.kept[acc.name].levels
            total = accs.collapse(fn, levels, count, acc.monoid, acc.dtype, 1)
            writer.closed(acc, total, 1, n)
        else:
            wide = fn.do(f"load {register(acc.dtype, 16)}, ptr {self.kept[acc.name].slot}")
            writer.closed(acc, wide, 16, n)

    def _close_columns(self, acc: Acc, n: str) -> None:
        """The array takes what its counters hold; the sum of nothing is 0."""
        writer, fn = self.writer, self.fn
        leaf = accs.leaf_of(acc.order)
        count = fn.do(f"lshr i64 {fn.do(f'add i64 {n}, {leaf - 1}')}, {leaf.bit_length() - 1}")
        state = writer.sums[acc.name]
        writer.tree("finish", state, count)
        if acc.monoid == "prod":
            return
        with fn.when(fn.do(f"icmp eq i64 {n}, 0")):
            writer.fill_region(state.value, writer.size(acc.size), acc.dtype, "0x0000000000000000")


def _parts(body: Sequence[Statement], arrays: Mapping[str, Acc]) -> list[Part]:
    """Cut a loop's body where inner loops begin and end."""
    parts: list[Part] = []
    for s in body:
        if isinstance(s, For):
            parts.append(Part("sums" if is_sum(s, arrays) else "row", [s]))
        elif isinstance(s, Scatter):
            parts.append(Part("row", [s]))
        elif parts and parts[-1].kind == "lanes":
            parts[-1].statements.append(s)
        else:
            parts.append(Part("lanes", [s]))
    return parts
