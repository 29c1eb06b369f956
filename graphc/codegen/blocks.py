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
from graphc.codegen.llvm import MEMORY, register, vector
from graphc.codegen.state import Kept, Known, Sum, used_by
from graphc.codegen.vectors import VectorLoop
from graphc.ir.types import Dim, DType, Size, TensorType, i64
from graphc.lower.loops import (
    Acc,
    Add,
    Buffer,
    For,
    Index,
    Iota,
    Let,
    Load,
    Scatter,
    Statement,
    Store,
    coefficient,
    without,
)
from graphc.lower.plan import tree_name, tree_stride
from graphc.lower.schedule import BLOCK_ROWS

if TYPE_CHECKING:
    from graphc.codegen.writer import KernelWriter

START = "_block"  # the symbol of a block's first iteration
PRELOADED = 16  # vectors kept in registers over all rows of a block
COLUMNS = 8  # vectors of an array accumulator that are in registers at once


@dataclass
class _Part:
    """Consecutive statements that run over the block together: in lanes, row by row, or as sums of rows."""

    kind: str  # "lanes", "row", "sums"
    statements: list[Statement] = field(default_factory=list)


def defined(statements: Sequence[Statement]) -> list[tuple[str, DType]]:
    """Names and dtypes of the values that statements make at their own level."""
    found: list[tuple[str, DType]] = []
    for s in statements:
        if isinstance(s, (Let, Load)):
            found.append((s.name, s.dtype))
        elif isinstance(s, (Iota, Index)):
            found.append((s.name, i64))
        elif isinstance(s, For):
            found.extend((a.name, a.dtype) for a in s.accs if not a.into)
    return found


def used(statements: Sequence[Statement]) -> list[str]:
    """Names of values that statements read, those in inner loops included."""
    found: list[str] = []
    for s in statements:
        found.extend(used(s.body) if isinstance(s, For) else used_by(s))
    return found


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
        parts = _parts(varying, {a.name: a for a in loop.accs if a.into})
        self.in_registers = _summed(parts)
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

    def _hand_over(self, parts: Sequence[_Part]) -> None:
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

    def _incoming(self, part: _Part) -> list[Statement]:
        made = {name for name, _ in defined(part.statements)}
        names = [
            n for n in dict.fromkeys(used(part.statements)) if n in self.slots and n not in made
        ]
        return [Load(n, self.slots[n], self._at(), self._dtype(n)) for n in names]

    def _outgoing(self, part: _Part) -> list[Statement]:
        return [
            Store(self.slots[n], self._at(), n)
            for n, _ in defined(part.statements)
            if n in self.slots
        ]

    def _dtype(self, name: str) -> DType:
        return self.writer.local[self.slots[name]].type.dtype

    def _own_rows(self, s: Statement) -> Statement:
        """Scratch of one iteration has a row for each iteration of the block."""
        if isinstance(s, (Load, Store, Scatter)):
            buffer = self.writer.buffer(s.buffer)
            if buffer.scope == self.loop.var:
                row: Size = 1
                for extent in buffer.type.shape[1:]:
                    row = row * extent
                return replace(s, index=s.index + row * self._at())
        if isinstance(s, For):
            return replace(s, body=tuple(self._own_rows(t) for t in s.body))
        return s

    # -- parts ------------------------------------------------------------------------------------------------------

    def _lanes(self, part: _Part) -> None:
        """Statements between inner loops: iterations are lanes."""
        body = [*self._incoming(part), *map(self._own_rows, part.statements), *self._outgoing(part)]
        added = {s.acc for s in part.statements if isinstance(s, Add)}
        mine = tuple(a for a in self.loop.accs if a.name in added)
        piece = For(self.loop.var, Dim.symbol("_count"), mine, tuple(body), "vector")
        VectorLoop(self.writer, piece, START, self.kept).write()

    def _rows(self, part: _Part) -> None:
        """An inner loop, for one iteration after the other."""
        writer, fn = self.writer, self.fn
        body = [*self._incoming(part), *map(self._own_rows, part.statements), *self._outgoing(part)]
        end = fn.do(f"add i64 {writer.symbols[START]}, {writer.symbols['_count']}")
        touched = [writer.sums[s.acc] for f in part.statements if isinstance(f, For) for s in f.body
                   if isinstance(s, Add) and s.acc in writer.sums and writer.sums[s.acc].kind == "array"]  # fmt: skip

        self._preload(part)

        def row(i: str, _: object) -> list[str]:
            writer.symbols[self.loop.var] = i
            writer.body(body)
            for state in {id(t): t for t in touched}.values():
                writer.end_of_iteration(state, writer.since_first(i))
            return []

        writer.block = self
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
        name = fn.module.intrinsic("llvm.prefetch.p0", "void", ("ptr", "i32", "i32", "i32"))
        fn.say(f"call void @{name}(ptr {following}, i32 0, i32 2, i32 1)")

    def _preload(self, part: _Part) -> None:
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

    def _sums(self, part: _Part) -> None:
        """Sums of rows: some columns at once in registers, leaf after leaf."""
        (inner,) = (s for s in part.statements if isinstance(s, For))
        columns = _ColumnSums(self, part, inner)
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


class _ColumnSums:
    """for j in columns (8 vectors at once): for rows of a leaf: acc[j] = fold; then into the counters."""

    def __init__(self, block: BlockLoop, part: _Part, inner: For) -> None:
        self.block, self.part, self.inner = block, part, inner
        self.writer, self.fn = block.writer, block.fn
        names = {s.acc for s in inner.body if isinstance(s, Add)}
        self.accs = [a for a in block.loop.accs if a.name in names]
        self.width = min(accs.lanes_of(a.dtype) for a in self.accs)
        self.leaf = accs.leaf_of(self.accs[0].order)

    def write(self) -> None:
        """Columns in groups of up to 8 vectors, of which the last may be partial."""
        width = self.width
        at_once = max(1, COLUMNS // len(self.accs))
        size = self.inner.size
        assert isinstance(size, int)
        for j in range(0, size, at_once * width):
            starts = list(range(j, min(j + at_once * width, size), width))
            self._group(starts, [self._mask(size - s) for s in starts])

    def _mask(self, left: int) -> str:
        if left >= self.width:
            return ""
        return "<" + ", ".join(f"i1 {int(i < left)}" for i in range(self.width)) + ">"

    def _group(self, starts: list[int], masks: list[str]) -> None:
        """One group of columns over the whole block."""
        first = self.writer.symbols[START]
        end = self.fn.do(f"add i64 {first}, {self.writer.symbols['_count']}")
        if self.leaf > BLOCK_ROWS:
            self._part_of_leaf(first, end, starts, masks)
        else:
            self._leaves(first, end, starts, masks)

    def _leaves(self, first: str, end: str, starts: list[int], masks: list[str]) -> None:
        """Whole leaves, which begin as the identity and go into the counters."""
        fn = self.fn
        identities = [
            (register(a.dtype, self.width), accs.identity(a.monoid, a.dtype, self.width))
            for _ in starts
            for a in self.accs
        ]

        def leaf(i: str, _: object) -> list[str]:
            following = fn.do(f"add i64 {i}, {self.leaf}")
            stop = fn.do(
                f"select i1 {fn.do(f'icmp slt i64 {following}, {end}')}, i64 {following}, i64 {end}"
            )
            sums = fn.loop(
                i, stop, 1, identities, lambda row, values: self._row(row, values, starts, masks)
            )
            t = fn.do(f"lshr i64 {self.writer.since_first(i)}, {self.leaf.bit_length() - 1}")
            for position, total in enumerate(sums):
                acc = self.accs[position % len(self.accs)]
                self._push(acc, total, t, starts[position // len(self.accs)])
            return []

        fn.loop(first, end, self.leaf, [], leaf)

    def _part_of_leaf(self, first: str, end: str, starts: list[int], masks: list[str]) -> None:
        """A leaf longer than a block waits in the array between blocks."""
        fn = self.fn
        places = [
            (a, self._column(a, start), mask)
            for start, mask in zip(starts, masks, strict=True)
            for a in self.accs
        ]
        loop = VectorLoop(self.writer, replace(self.inner, accs=()))
        loop.width = self.width
        before = [
            (register(a.dtype, self.width), loop.load(at, a.dtype, mask)) for a, at, mask in places
        ]
        after = fn.loop(
            first, end, 1, before, lambda row, values: self._row(row, values, starts, masks)
        )
        for (a, at, mask), value in zip(places, after, strict=True):
            loop.store(at, Known(value, a.dtype, self.width), mask)

    def _column(self, acc: Acc, start: int) -> str:
        array = self.writer.sums[acc.name].value
        return self.fn.do(f"getelementptr {MEMORY[acc.dtype.name]}, ptr {array}, i64 {start}")

    def _push(self, acc: Acc, total: str, t: str, start: int) -> None:
        """Into the counters of these columns; a level has room for whole vectors."""
        tree = self.writer.pointer(tree_name(acc))
        levels = self.fn.do(f"getelementptr {MEMORY[acc.dtype.name]}, ptr {tree}, i64 {start}")
        stride = self.writer.size(tree_stride(acc.size))
        accs.push(self.fn, levels, total, t, acc.monoid, acc.dtype, self.width, stride=stride)

    def _row(self, i: str, values: list[str], starts: list[int], masks: list[str]) -> list[str]:
        """Add one row to the columns."""
        writer = self.writer
        writer.symbols[self.block.loop.var] = i
        outer = dict(writer.known)
        writer.body(self.block._incoming(self.part))
        state = list(values)
        row = dict(writer.known)
        for group, (start, mask) in enumerate(zip(starts, masks, strict=True)):
            writer.known = dict(row)
            writer.symbols[self.inner.var] = str(start)
            loop = VectorLoop(writer, replace(self.inner, accs=()))
            loop.width = self.width
            for s in self.inner.body:
                self._statement(loop, self.block._own_rows(s), mask, state, group)
        writer.known = outer
        return state

    def _statement(
        self, loop: VectorLoop, s: Statement, mask: str, state: list[str], group: int
    ) -> None:
        writer, fn = self.writer, self.fn
        for name in used_by(s):
            loop.spread(name)
        if isinstance(s, Load):
            step = coefficient(s.index, self.inner.var)
            address = writer.address(s.buffer, s.index)
            if step == 0:
                value = writer.load(address, s.dtype)
                writer.known[s.name] = Known(value, s.dtype, 1)
            else:
                if group % 2:
                    self.block.prefetch(s, address)
                if step != 1:
                    offsets = loop.lane_steps(writer.size(step))
                    ty = MEMORY[s.dtype.name]
                    address = "many " + fn.do(
                        f"getelementptr {ty}, ptr {address}, {vector('i64', self.width)} {offsets}"
                    )
                writer.known[s.name] = Known(loop.load(address, s.dtype, mask), s.dtype, self.width)
        elif isinstance(s, Let):
            writer.let(s, self.width)
        elif isinstance(s, Iota):
            first = writer.size(
                without(s.value, self.inner.var)
                + coefficient(s.value, self.inner.var) * Dim.symbol(self.inner.var)
            )
            steps = loop.lane_steps(writer.size(coefficient(s.value, self.inner.var)))
            ty = vector("i64", self.width)
            value = fn.do(f"add {ty} {fn.spread_type(first, 'i64', self.width)}, {steps}")
            writer.known[s.name] = Known(value, i64, self.width)
        elif isinstance(s, Add):
            position = group * len(self.accs) + next(
                k for k, a in enumerate(self.accs) if a.name == s.acc
            )
            acc = self.accs[position % len(self.accs)]
            state[position] = writer.folded(
                acc, state[position], [writer.known[v].register for v in s.values], self.width
            )


def _parts(body: Sequence[Statement], arrays: Mapping[str, Acc]) -> list[_Part]:
    """Cut a loop's body where inner loops begin and end."""
    parts: list[_Part] = []
    for s in body:
        if isinstance(s, For):
            parts.append(_Part("sums" if _is_sum(s, arrays) else "row", [s]))
        elif isinstance(s, Scatter):
            parts.append(_Part("row", [s]))
        elif parts and parts[-1].kind == "lanes":
            parts[-1].statements.append(s)
        else:
            parts.append(_Part("lanes", [s]))
    return parts


def _is_sum(inner: For, arrays: Mapping[str, Acc]) -> bool:
    """Does an inner loop do nothing but add to arrays that share an order?"""
    adds = [s for s in inner.body if isinstance(s, Add)]
    plain = all(
        isinstance(s, (Let, Iota, Add)) or (isinstance(s, Load) and not s.at) for s in inner.body
    )
    if not adds or not plain or inner.accs or not isinstance(inner.size, int):
        return False
    orders = {arrays[s.acc].order if s.acc in arrays else "any" for s in adds}
    return (
        len(orders) == 1
        and "any" not in orders
        and all(s.index == Dim.symbol(inner.var) for s in adds)
        and len({s.acc for s in adds}) == len(adds)
    )


def _summed(parts: Sequence[_Part]) -> set[str]:
    """The accumulators that sums of rows keep in registers."""
    inner = [f for p in parts if p.kind == "sums" for f in p.statements if isinstance(f, For)]
    return {s.acc for f in inner for s in f.body if isinstance(s, Add)}
