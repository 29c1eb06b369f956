"""Loops of the mode `turned`: columns of an array become rows of scratch, 16 at a time.

The IR copies one column in every iteration of the loop around it. The first of 16 iterations copies all their columns:
eight neighbours are read from each row of the array, and transposed in registers (`codegen.strided`). Iterations that
are left over at the end, fewer than eight, have their columns copied element by element.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphc.codegen.vectors import VectorLoop
from graphc.ir.types import Dim
from graphc.lower.loops import COLUMNS, For, Load, Statement, Store, coefficient

if TYPE_CHECKING:
    from graphc.codegen.writer import KernelWriter

TOGETHER = 8  # columns that are transposed in registers
ROWS = 64  # elements of each that are copied before the next eight columns: so many pages at most
COLUMN, FIRST_ROW, LEFT = "_column", "_first_row", "_left"  # what is in turn, as names in indices


class TurnedColumns:
    """One such loop, inside of a loop that runs one iteration after the other."""

    def __init__(self, writer: KernelWriter, copy: Statement) -> None:
        self.writer, self.fn = writer, writer.fn
        assert isinstance(copy, For)
        self.load, self.store = copy.body
        self.var, self.size = copy.var, copy.size
        assert isinstance(self.load, Load) and isinstance(self.store, Store)
        self.scratch = self.store.buffer
        self.base = writer.pointer(self.scratch)
        self.row = writer.buffer(self.scratch).type.shape[1]  # from one row of it to the next

    def at(self, i: str, n: str) -> None:
        """Iteration i of n around it: from here on, the scratch is the row with its column."""
        fn, writer = self.fn, self.writer
        row = fn.do(f"and i64 {i}, {COLUMNS - 1}")
        with fn.when(fn.do(f"icmp eq i64 {row}, 0")):
            writer.pointers[self.scratch] = self.base
            left = fn.do(f"sub i64 {n}, {i}")
            few = fn.do(f"icmp slt i64 {left}, {COLUMNS}")
            self._copy(fn.do(f"select i1 {few}, i64 {left}, i64 {COLUMNS}"))
        offset = fn.do(f"mul i64 {row}, {writer.size(self.row * self._itemsize())}")
        writer.pointers[self.scratch] = fn.do(f"getelementptr i8, ptr {self.base}, i64 {offset}")

    def end(self) -> None:
        """After the loop around it."""
        self.writer.pointers[self.scratch] = self.base

    def _itemsize(self) -> int:
        return self.writer.buffer(self.scratch).type.dtype.itemsize

    def _copy(self, count: str) -> None:
        """So many columns, this iteration's first; of all of them a few rows after the other, which lie on few pages."""
        fn, writer = self.fn, self.writer
        whole = fn.do(f"and i64 {count}, {-TOGETHER}")
        places = range(TOGETHER)
        together = For(
            self.var,
            Dim.symbol(LEFT),
            (),
            (*map(self._loaded, places), *map(self._stored, places)),
            "vector",
        )

        def rows(first: str, _: object) -> list[str]:
            writer.symbols[FIRST_ROW] = first
            left = fn.do(f"sub i64 {writer.size(self.size)}, {first}")
            few = fn.do(f"icmp slt i64 {left}, {ROWS}")
            writer.symbols[LEFT] = fn.do(f"select i1 {few}, i64 {left}, i64 {ROWS}")
            fn.loop("0", whole, TOGETHER, [], some)
            fn.loop(whole, count, 1, [], one)
            return []

        def some(column: str, _: object) -> list[str]:
            writer.symbols[COLUMN] = column
            VectorLoop(writer, together).write()
            return []

        def one(column: str, _: object) -> list[str]:
            writer.symbols[COLUMN] = column
            fn.loop("0", writer.symbols[LEFT], 1, [], self._element)
            return []

        fn.loop("0", writer.size(self.size), ROWS, [], rows)

    def _element(self, j: str, _: object) -> list[str]:
        self.writer.symbols[self.var] = j
        for s in (self._loaded(0), self._stored(0)):
            self.writer.statement(s)
        return []

    def _loaded(self, c: int) -> Load:
        """The element at `var` of a column, c after the one in turn."""
        load = self.load
        assert isinstance(load, Load)
        down = coefficient(load.index, self.var)
        index = load.index + Dim.symbol(FIRST_ROW) * down + Dim.symbol(COLUMN) + c
        return Load(f"{load.name}.{c}", load.buffer, index, load.dtype)

    def _stored(self, c: int) -> Store:
        assert isinstance(self.store, Store)
        index = self.store.index + Dim.symbol(FIRST_ROW) + (Dim.symbol(COLUMN) + c) * self.row
        return Store(self.scratch, index, f"{self.store.value}.{c}")
