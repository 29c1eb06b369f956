"""Points in memory and coordinates in lanes: loads and stores whose neighbouring lanes lie apart.

A loop in lanes over points x[3*_i], x[3*_i+1], x[3*_i+2] needs a vector of each coordinate, while memory has a point's
coordinates side by side. Instead of one element after the other, rows of 8, 4 or 2 elements are read for each lane, and
transposed in registers; stores go the other way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphc.codegen.llvm import MEMORY, vector
from graphc.codegen.transposed import load_columns, store_columns
from graphc.ir.types import Dim, Size, bool_
from graphc.lower.loops import For, Load, Scatter, Statement, Store, coefficient

if TYPE_CHECKING:
    from graphc.codegen.vectors import VectorLoop


@dataclass(frozen=True)
class Rows:
    """Statements that access neighbouring elements: one after the other in each lane's row."""

    positions: tuple[int, ...]  # of the statements in the loop's body, by place in the row
    columns: int


def rows_of(loop: For, width: int) -> dict[int, Rows]:
    """For each strided load and store of a loop the rows that it shares with others."""
    written = [s.buffer for s in loop.body if isinstance(s, (Store, Scatter))]
    found: dict[int, Rows] = {}
    groups: dict[tuple, list[tuple[int, int]]] = {}
    for position, s in enumerate(loop.body):
        if not isinstance(s, (Load, Store)) or (isinstance(s, Load) and s.at) or s.only:
            continue
        step = coefficient(s.index, loop.var)
        if step in (0, 1, -1) or not _alone(s, loop.body, written):
            continue
        constant = _constant(s.index)
        key = (type(s), s.buffer, s.index - constant)
        groups.setdefault(key, []).append((constant, position))
    for members in groups.values():
        for run in _runs(sorted(members)):
            while run:
                columns = min(1 << (len(run).bit_length() - 1), width)
                rows = Rows(tuple(run[:columns]), columns)
                found.update(dict.fromkeys(run[:columns], rows))
                run = run[columns:]
    return found


def _alone(s: Load | Store, body: Sequence[Statement], written: list[str]) -> bool:
    """May a load come earlier, or a store later, than it is written?"""
    if isinstance(s, Load):
        return s.buffer not in written
    places = {t.index for t in body if isinstance(t, Store) and t.buffer == s.buffer}
    return len(places) == written.count(s.buffer) and not any(
        isinstance(t, (Load, Scatter)) and t.buffer == s.buffer for t in body
    )


def _constant(index: Size) -> int:
    return next((c for m, c in index.terms if not m), 0) if isinstance(index, Dim) else index


def _runs(members: list[tuple[int, int]]) -> list[list[int]]:
    """Statements at consecutive places."""
    runs: list[list[int]] = []
    last = None
    for place, position in members:
        if last is not None and place == last + 1:
            runs[-1].append(position)
        elif place != last:
            runs.append([position])
        last = place
    return runs


class StridedRows:
    """What a loop in lanes loads and stores by rows of neighbouring elements."""

    def __init__(self, of: VectorLoop) -> None:
        self.of = of
        self.found: dict[int, Rows] = {}  # statement position -> the neighbours it shares rows with
        self.columns: dict[int, str] = {}  # what this iteration's rows were found to hold

    def find(self) -> None:
        kernel, body = self.of.kernel, self.of.loop.body
        self.found = {
            position: rows
            for position, rows in rows_of(self.of.loop, self.of.width).items()
            if kernel.buffer(body[position].buffer).type.dtype is not bool_  # type: ignore[union-attr]
        }

    def column(self, position: int, i: str, mask: str) -> str:
        if position not in self.columns:
            rows = self.found[position]
            s = self.of.loop.body[position]
            assert isinstance(s, Load)
            found = load_columns(
                self.of.fn, self._row_addresses(rows, i, mask), rows.columns, s.dtype
            )
            self.columns.update(zip(rows.positions, found, strict=True))
        return self.columns[position]

    def _row_addresses(self, rows: Rows, i: str, mask: str) -> list[str]:
        """Where each lane's row begins; lanes that are not in use read the last one that is."""
        fn, first = self.of.fn, rows.positions[0]
        ty, step = self.of.memory_type(first), self.of.steps[first]
        start = fn.do(
            f"getelementptr {ty}, ptr {self.of.bases[first]}, i64 {fn.do(f'mul i64 {i}, {step}')}"
        )
        last = fn.do(f"sub i64 {self.of.left}, 1") if mask else ""
        addresses = [start]
        for lane in range(1, self.of.width):
            place = str(lane)
            if mask:
                inside = fn.do(f"icmp slt i64 {lane}, {self.of.left}")
                place = fn.do(f"select i1 {inside}, i64 {lane}, i64 {last}")
            constant = place.isdigit() and step.isdigit()
            offset = str(lane * int(step)) if constant else fn.do(f"mul i64 {place}, {step}")
            addresses.append(fn.do(f"getelementptr {ty}, ptr {start}, i64 {offset}"))
        return addresses

    def store(self, position: int, i: str, mask: str) -> None:
        """The last store of a row writes it, at once; where a mask is, rows in use by way of the stack."""
        fn, known, rows = self.of.fn, self.of.kernel.known, self.found[position]
        if position != max(rows.positions):
            return
        stores = [
            s for s in map(self.of.loop.body.__getitem__, rows.positions) if isinstance(s, Store)
        ]
        values = [known[s.value] for s in stores]
        dtype, registers = values[0].dtype, [v.register for v in values]
        if not mask:
            store_columns(fn, registers, self._row_addresses(rows, i, ""), dtype)
            return
        row = vector(MEMORY[dtype.name], rows.columns)
        stack = fn.alloca(MEMORY[dtype.name], self.of.width * rows.columns)
        element = MEMORY[dtype.name]

        def at(base: str, offset: str) -> str:
            return fn.do(f"getelementptr {element}, ptr {base}, i64 {offset}")

        places = [at(stack, str(lane * rows.columns)) for lane in range(self.of.width)]
        store_columns(fn, registers, places, dtype)
        first, step = rows.positions[0], self.of.steps[rows.positions[0]]
        start = at(self.of.bases[first], fn.do(f"mul i64 {i}, {step}"))

        def one(lane: str, _: object) -> list[str]:
            source = at(stack, fn.do(f"mul i64 {lane}, {rows.columns}"))
            target = at(start, fn.do(f"mul i64 {lane}, {step}"))
            value = fn.do(f"load {row}, ptr {source}, align {dtype.itemsize}")
            fn.say(f"store {row} {value}, ptr {target}, align {dtype.itemsize}")
            return []

        fn.loop("0", self.of.in_use(), 1, [], one)
