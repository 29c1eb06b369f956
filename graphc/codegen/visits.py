"""Vectors of points as lanes, and others as columns, one after the other (see `codegen.pairs`).

Columns come a square at a time, as many as there are lanes, or in whole leaves of the lanes' sums. Then a leaf of vectors
of rows is visited with a column before the next one, so that the sums of both wait in registers, and a processor that
looks 100 instructions ahead finds enough that need not wait. A long body is cut, and each piece of it but the last runs
over all columns of a leaf (`codegen.chains`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from graphc.codegen.chains import Piece, pieces_of
from graphc.codegen.lanes import LanesLoop
from graphc.codegen.llvm import Function, register
from graphc.codegen.own_sums import OwnSums
from graphc.codegen.state import Known
from graphc.gates.reduction import LEAF
from graphc.lower.loops import Add, For, Statement, lane_count
from graphc.lower.pairs import Pairing

if TYPE_CHECKING:
    from graphc.codegen.writer import KernelWriter


@dataclass
class Visit:
    row: str  # the first point of the rows,
    column: str  # and of the columns
    width: int  # rows: the lanes, of one or more vectors
    known: dict[str, Known]
    first: str  # where the first column's vector of what a piece keeps is,
    step: int  # and from one column's to the next


def abreast(fn: Function) -> int:
    """Vectors of rows in one, in all pieces but the last, where there are registers for it."""
    return 2 if fn.module.avx512 else 1


class Visits(LanesLoop):
    """Writes visits for the inner loop of a loop in lanes."""

    own: OwnSums
    n: str  # points

    def __init__(self, writer: KernelWriter, loop: For, found: Pairing) -> None:
        super().__init__(writer, loop)
        self.found, self.inner = found, found.inner
        self.dtype = self.inner.accs[0].dtype
        self.lanes = self.width = lane_count(loop)
        self.outside: dict[str, Known] = {}  # values from before the loop
        self.memory: dict[str, str] = {}  # of pieces: all rows' vectors for each column of a leaf
        self.added = {s.acc: s.values[0] for s in self.inner.body if isinstance(s, Add)}

    def least(self, a: str, b: str) -> str:
        smaller = self.fn.do(f"icmp slt i64 {a}, {b}")
        return self.fn.do(f"select i1 {smaller}, i64 {a}, i64 {b}")

    def square(self, rows: str, columns: str, sums: tuple[str, str], count: str = "") -> None:
        """A vector of rows, whose last lanes may be no points, with as many columns as there are lanes. `sums` are the
        vectors of own sums that rows and columns add to; if the columns have none, the first `count` of them are added.
        """
        fn, own = self.fn, self.own
        mine, others = sums
        fixed, pieces = self._in_pieces_of(self._with_columns() if others else self.inner.body)
        first = fn.do(f"mul i64 {rows}, {self.lanes}")
        left = fn.spread_type(fn.do(f"sub i64 {self.n}, {first}"), "i64", self.lanes)
        self.mask = fn.do(f"icmp slt <{self.lanes} x i64> {fn.iota(self.lanes)}, {left}")
        visit = self._begin(fixed, rows, columns, 1, "0", 1)
        last = fn.do(f"sub i64 {self.n}, 1")

        def column(piece: Piece, c: str) -> list[str]:
            self._through(visit, piece, c, last)
            if piece is pieces[-1]:
                values = self._values(visit, self.added)
                own.add(mine, c, self._among(values, c, count) if count else values)
                if others:
                    own.add(others, c, self._values(visit, self._taken()), self._signs())
            return []

        for piece in pieces:
            fn.loop("0", str(self.lanes), 1, [], lambda c, _, piece=piece: column(piece, c))

    def leaf(self, rows: str, columns: str, sums: tuple[str, str], t: tuple[str, str]) -> None:
        """A leaf of vectors of rows, all of them points, with a leaf of columns, which is leaf number t[0] of the rows'
        sums, and t[1] of the columns'. `sums` are the first vectors of own sums of both.
        """
        fn, own = self.fn, self.own
        mine, others = sums
        fixed, pieces = self._in_pieces_of(self._with_columns())
        *early, last = pieces
        self.mask = ""
        together = abreast(fn)

        def some_rows(r: str, _: object) -> list[str]:
            vectors = fn.do(f"add i64 {rows}, {r}")
            kept = fn.do(f"mul i64 {r}, {LEAF * self.lanes}")
            visit = self._begin(fixed, vectors, columns, together, kept, together)
            for piece in early:

                def column(c: str, _: object, piece: Piece = piece) -> list[str]:
                    self._through(visit, piece, c)
                    return []

                fn.loop("0", str(LEAF * self.lanes), 1, [], column)
            return []

        if early:
            fn.loop("0", str(LEAF), together, [], some_rows)
        visits = []
        for r in range(LEAF):
            kept = str(r // together * together * LEAF * self.lanes + r % together)
            vector = fn.do(f"add i64 {rows}, {r}")
            visits.append(self._begin(fixed, vector, columns, 1, kept, together))
        count, taken, signs = len(own.accs), self._taken(), self._signs()

        def square_of_slot(k: str, square: str, totals: list[str]) -> list[str]:
            c = fn.do(f"add i64 {fn.do(f'mul i64 {square}, {self.lanes}')}, {k}")
            total, after = own.nothing(), []
            for r, visit in enumerate(visits):
                self._through(visit, last, c)
                before = totals[r * count : (r + 1) * count]
                after += own.added(before, self._values(visit, self.added))
                total = own.added(total, self._values(visit, taken), signs)
            own.push(fn.do(f"add i64 {others}, {square}"), k, total, t[1])
            return after

        start = [(own.type, value) for value in own.nothing()] * LEAF

        def slot(k: str, _: object) -> list[str]:
            leaves = fn.loop("0", str(LEAF), 1, start, lambda q, v: square_of_slot(k, q, v))
            for r in range(LEAF):
                row = fn.do(f"add i64 {mine}, {r}")
                own.push(row, k, leaves[r * count : (r + 1) * count], t[0])
            return []

        fn.loop("0", str(self.lanes), 1, [], slot)

    # -- a column -----------------------------------------------------------------------------------------------------

    def _with_columns(self) -> tuple[Statement, ...]:
        """The body, and what the columns' sums take."""
        added = (Add(acc, (name,)) for acc, (name, _) in self.found.columns.items())
        return (*self.inner.body, *self.found.mirrored, *added)

    def _in_pieces_of(self, body: Sequence[Statement]) -> tuple[list[Statement], Sequence[Piece]]:
        """What is the same for all columns, and the pieces of what is not."""
        fixed, moving = self.split(replace(self.inner, body=tuple(body)))
        return [*self.found.rows, *fixed], pieces_of(moving)

    def _begin(
        self,
        fixed: Sequence[Statement],
        rows: str,
        columns: str,
        vectors: int,
        first: str,
        step: int,
    ) -> Visit:
        """Writes what is the same for all columns; so many vectors of rows are one."""
        fn = self.fn
        row, column = (fn.do(f"mul i64 {v}, {self.lanes}") for v in (rows, columns))
        visit = Visit(row, column, vectors * self.lanes, dict(self.outside), first, step)
        self._go_on(visit)
        for s in fixed:
            self._statement(s)
        return visit

    def _go_on(self, v: Visit) -> None:
        self.writer.known, self.width = v.known, v.width
        self.writer.symbols[self.loop.var] = v.row

    def _through(self, v: Visit, piece: Piece, c: str, last: str = "") -> None:
        """A piece for a column of the visit's; beyond the last of all points, that one."""
        fn, known = self.fn, v.known
        self._go_on(v)
        place = fn.do(f"add i64 {v.column}, {c}")
        self.writer.symbols[self.inner.var] = self.least(place, last) if last else place
        for name, dtype in piece.takes:
            ty = register(dtype, v.width)
            known[name] = Known(
                fn.do(f"load {ty}, ptr {self._kept(v, name, c)}, align 64"), dtype, v.width
            )
        for s in piece.statements:
            if not isinstance(s, Add):
                self._statement(s)
        for name, dtype in piece.keeps:
            value = self._wide(known[name]).register
            fn.say(
                f"store {register(dtype, v.width)} {value}, ptr {self._kept(v, name, c)}, align 64"
            )

    def _kept(self, v: Visit, name: str, c: str) -> str:
        if name not in self.memory:
            self.memory[name] = self.fn.alloca(self.own.type, LEAF * LEAF * self.lanes)
        at = self.fn.do(f"add i64 {self.fn.do(f'mul i64 {c}, {v.step}')}, {v.first}")
        return self.own.vector(self.memory[name], at)

    def _values(self, v: Visit, names: Mapping[str, str]) -> list[str]:
        """What each sum takes."""
        self._go_on(v)
        return [self._wide(v.known[names[acc.name]]).register for acc in self.own.accs]

    def _taken(self) -> dict[str, str]:
        return {acc: name for acc, (name, _) in self.found.columns.items()}

    def _signs(self) -> list[int]:
        return [self.found.columns[acc.name][1] for acc in self.own.accs]

    def _among(self, values: Sequence[str], c: str, count: str) -> list[str]:
        """The values, or what changes nothing where the column is not among so many."""
        fn, ty = self.fn, self.own.type
        among = fn.do(f"icmp slt i64 {c}, {count}")
        return [
            fn.do(f"select i1 {among}, {ty} {value}, {ty} {nothing}")
            for nothing, value in zip(self.own.nothing(), values, strict=True)
        ]


__all__ = ["Visit", "Visits", "abreast"]
