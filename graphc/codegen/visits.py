"""A vector of points as lanes, and others as columns, one after the other (see `codegen.pairs`).

Columns come a square at a time, as many as there are lanes, or in whole leaves of the lanes' sums, which then wait in
registers. Of a leaf, with AVX-512, two columns are in one vector of twice the lanes, so that a processor that looks 100
instructions ahead finds enough that need not wait. With half as many registers, of half the size, a long body is cut
instead, and each piece of it runs over all columns (`codegen.chains`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from graphc.codegen import accumulators as accs
from graphc.codegen.chains import Piece, pieces_of
from graphc.codegen.lanes import LanesLoop
from graphc.codegen.llvm import REGISTER, Function, register
from graphc.codegen.own_sums import OwnSums
from graphc.codegen.state import Known
from graphc.codegen.transposed import joined, shuffled
from graphc.gates.reduction import LEAF
from graphc.ir.types import DType, Size, i64
from graphc.lower.loops import Add, For, Load, Statement, coefficient, lane_count
from graphc.lower.pairs import Pairing

if TYPE_CHECKING:
    from graphc.codegen.writer import KernelWriter


@dataclass
class Visit:
    column: str  # the first point of the columns'
    rows: str  # the vector whose sums those of the lanes are,
    columns: str  # and the first one of the columns', if they have any
    known: dict[str, Known]
    pieces: Sequence[Piece]  # of what is done for a column


def columns_at_once(fn: Function) -> int:
    """Of a leaf, in one vector: half of the registers are enough for one."""
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
        self.memory: dict[str, str] = {}  # of pieces: a vector for each column of a leaf
        self.places: Sequence[str] = ()  # of the columns that are being written

    def least(self, a: str, b: str) -> str:
        smaller = self.fn.do(f"icmp slt i64 {a}, {b}")
        return self.fn.do(f"select i1 {smaller}, i64 {a}, i64 {b}")

    def begin_visit(
        self,
        rows: Sequence[Statement],
        body: Sequence[Statement],
        vectors: tuple[str, str],
        sums: tuple[str, str],
        together: int = 1,
    ) -> Visit:
        """Writes what is the same for all columns. The vectors are those of the lanes and of the first columns; so are
        those whose sums it enters, the columns' only if there are any.
        """
        fn = self.fn
        first, column = (fn.do(f"mul i64 {v}, {self.lanes}") for v in vectors)
        left = fn.spread_type(fn.do(f"sub i64 {self.n}, {first}"), "i64", self.lanes)
        self.mask = fn.do(f"icmp slt <{self.lanes} x i64> {fn.iota(self.lanes)}, {left}")
        known = self.writer.known = dict(self.outside)
        self.writer.symbols[self.loop.var] = first
        with self._columns_at([""] * together):
            for s in rows:
                self._statement(s)
            moving = self._before(replace(self.inner, body=tuple(body)))
        return Visit(column, *sums, known, pieces_of(moving))

    def square(self, visit: Visit, count: str = "") -> None:
        """As many columns as there are lanes; so many of them are added to the lanes' sums."""
        fn = self.fn
        last = fn.do(f"sub i64 {self.n}, 1")

        def column(piece: Piece, c: str) -> list[str]:
            place = self.least(fn.do(f"add i64 {visit.column}, {c}"), last)
            self._through(visit, piece, [c], [place])
            if piece is visit.pieces[-1]:
                mine, others = self._added(visit, 1)
                self.own.add(visit.rows, c, self._among(mine[0], c, count) if count else mine[0])
                if visit.columns:
                    self.own.add(visit.columns, c, others[0], self._signs())
            return []

        for piece in visit.pieces:
            fn.loop("0", str(self.lanes), 1, [], lambda c, _, piece=piece: column(piece, c))

    def leaf(self, visit: Visit, t: str, together: int) -> None:
        """Leaf number t of the lanes' sums: that many squares, so many columns of one slot at once."""
        fn, own = self.fn, self.own
        *early, last = visit.pieces
        for piece in early:

            def some(c: str, _: object, piece: Piece = piece) -> list[str]:
                at = [fn.do(f"add i64 {c}, {k}") for k in range(together)]
                places = [fn.do(f"add i64 {visit.column}, {c}") for c in at]
                self._through(visit, piece, at, places)
                return []

            fn.loop("0", str(LEAF * self.lanes), together, [], some)
        start = [(own.type, own.nothing(acc)) for acc in own.accs]

        def columns_of_slot(k: str) -> Callable[[str, list[str]], list[str]]:
            def columns(square: str, totals: list[str]) -> list[str]:
                squares = [fn.do(f"add i64 {square}, {m}") for m in range(together)]
                at = [fn.do(f"add i64 {fn.do(f'mul i64 {q}, {self.lanes}')}, {k}") for q in squares]
                places = [fn.do(f"add i64 {visit.column}, {c}") for c in at]
                self._through(visit, last, at, places)
                mine, others = self._added(visit, together)
                for q, values in zip(squares, others, strict=True):
                    vector = fn.do(f"add i64 {visit.columns}, {q}")
                    own.add(vector, k, values, self._signs())
                for values in mine:
                    totals = [
                        accs.combine(fn, acc.monoid, self.dtype, total, value, self.lanes)
                        for acc, total, value in zip(own.accs, totals, values, strict=True)
                    ]
                return totals

            return columns

        def slot(k: str, _: object) -> list[str]:
            leaves = fn.loop("0", str(LEAF), together, start, columns_of_slot(k))
            own.push(visit.rows, k, leaves, t)
            return []

        fn.loop("0", str(self.lanes), 1, [], slot)

    def _through(self, v: Visit, piece: Piece, at: Sequence[str], places: Sequence[str]) -> None:
        """A piece for some columns; where they are among the visit's, and among all points."""
        fn, known = self.fn, v.known
        self.writer.known = known
        with self._columns_at(places):
            ty = self.own.type
            for name, dtype in piece.takes:
                taken = [fn.do(f"load {ty}, ptr {self._kept(name, c)}, align 64") for c in at]
                value = joined(fn, taken, REGISTER[dtype.name], self.lanes)
                known[name] = Known(value, dtype, self.width)
            for s in piece.statements:
                if not isinstance(s, Add):
                    self._statement(s)
            for name, _ in piece.keeps:
                parts = self._apart(self._wide(known[name]).register)
                for c, value in zip(at, parts, strict=True):
                    fn.say(f"store {ty} {value}, ptr {self._kept(name, c)}, align 64")

    def _kept(self, name: str, c: str) -> str:
        if name not in self.memory:
            self.memory[name] = self.fn.alloca(self.own.type, LEAF * self.lanes)
        return self.own.vector(self.memory[name], c)

    def _added(self, v: Visit, together: int) -> tuple[list[list[str]], list[list[str]]]:
        """What the columns, one after the other, add to the lanes' sums, and to their own."""
        added = {s.acc: s.values[0] for s in self.inner.body if isinstance(s, Add)}
        mine = [added[acc.name] for acc in self.own.accs]
        others = [self.found.columns[acc.name][0] for acc in self.own.accs] if v.columns else []
        with self._columns_at([""] * together):
            parts = [
                [self._apart(self._wide(v.known[n]).register) for n in names]
                for names in (mine, others)
            ]
        return tuple([list(column) for column in zip(*part, strict=True)] for part in parts)  # type: ignore[return-value]

    def _signs(self) -> list[int]:
        return [self.found.columns[acc.name][1] for acc in self.own.accs]

    def _among(self, values: Sequence[str], c: str, count: str) -> list[str]:
        """The values, or what changes nothing where the column is not among so many."""
        fn, ty = self.fn, self.own.type
        among = fn.do(f"icmp slt i64 {c}, {count}")
        return [
            fn.do(f"select i1 {among}, {ty} {value}, {ty} {self.own.nothing(acc)}")
            for acc, value in zip(self.own.accs, values, strict=True)
        ]

    # -- several columns in one vector --------------------------------------------------------------------------------

    @contextmanager
    def _columns_at(self, places: Sequence[str]) -> Iterator[None]:
        self.places, self.width = places, self.lanes * len(places)
        yield
        self.places, self.width = (), self.lanes

    def _loaded(self, s: Load) -> Known:
        rows = super()._loaded
        value = self._for_columns(s.index, s.dtype, lambda: rows(s).register)
        return Known(value, s.dtype, self.width)

    def _numbers(self, value: Size) -> str:
        rows = super()._numbers
        return self._for_columns(value, i64, lambda: rows(value))

    def _for_columns(self, index: Size, dtype: DType, rows: Callable[[], str]) -> str:
        """What `rows` gives for each column, one after the other in one vector."""
        whole, self.width = self.width, self.lanes
        if coefficient(index, self.inner.var) == 0:
            parts = [rows()] * len(self.places)
        else:
            parts = []
            for place in self.places:
                self.writer.symbols[self.inner.var] = place
                parts.append(rows())
        self.width = whole
        return joined(self.fn, parts, REGISTER[dtype.name], self.lanes)

    def _apart(self, value: str) -> list[str]:
        """Each column's vector."""
        if self.width == self.lanes:
            return [value]
        wide = register(self.dtype, self.width)
        return [
            shuffled(self.fn, wide, value, "poison", range(first, first + self.lanes))
            for first in range(0, self.width, self.lanes)
        ]


__all__ = ["Visit", "Visits", "columns_at_once"]
