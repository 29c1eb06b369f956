"""A vector of points as lanes, and as many points as columns, one after the other (see `codegen.pairs`).

Some columns are in one vector, of several registers, so that a processor that looks 100 instructions ahead finds enough
that need not wait. Two visits take turns: one computes what the other one, of the square before, only adds up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from graphc.codegen import accumulators as accs
from graphc.codegen.lanes import LanesLoop
from graphc.codegen.llvm import REGISTER, register
from graphc.codegen.own_sums import OwnSum, OwnSums
from graphc.codegen.state import Known
from graphc.codegen.transposed import joined, shuffled
from graphc.gates.reduction import LEAF
from graphc.ir.types import DType, Size, i64
from graphc.lower.lanes import lane_count
from graphc.lower.loops import Add, For, Load, Statement, coefficient
from graphc.lower.pairs import PIECE

if TYPE_CHECKING:
    from graphc.codegen.writer import KernelWriter


@dataclass
class Visit:
    first: str  # of the lanes' points
    mask: str
    column: str  # the first
    t: str  # which vector of columns it is for the lanes' sums
    sides: tuple[str, ...]  # whose sums they enter: the lanes', and straight ones of the columns
    takes: Mapping[str, str]  # values that were computed before, column by column in memory
    gives: Mapping[str, str]  # and those that others want
    known: dict[str, Known]
    body: Sequence[Statement] = ()  # of a column
    added: dict[str, str] = field(default_factory=dict)  # to a sum, of the columns that are written
    places: Sequence[str] = ()  # of these


class Visits(LanesLoop):
    """Writes visits for the inner loop of a loop in lanes."""

    own: OwnSums
    n: str  # points
    visit: Visit  # that is being written

    def __init__(self, writer: KernelWriter, loop: For, inner: For) -> None:
        super().__init__(writer, loop)
        self.inner, self.dtype = inner, inner.accs[0].dtype
        self.lanes = lane_count(loop)
        self.together = PIECE // self.dtype.itemsize  # columns in one vector
        self.width = self.lanes * self.together
        self.outside: dict[str, Known] = {}  # values from before the loop

    def least(self, a: str, b: str) -> str:
        smaller = self.fn.do(f"icmp slt i64 {a}, {b}")
        return self.fn.do(f"select i1 {smaller}, i64 {a}, i64 {b}")

    def begin_visit(
        self,
        rows: Sequence[Statement],
        body: Sequence[Statement],
        vectors: tuple[str, str],
        t: str,
        sides: tuple[str, ...],
        takes: Mapping[str, str] | None = None,
        gives: Mapping[str, str] | None = None,
    ) -> Visit:
        """Writes what is the same for all columns. The vectors are those of the lanes and of the columns."""
        fn = self.fn
        first, column = (fn.do(f"mul i64 {v}, {self.lanes}") for v in vectors)
        left = fn.spread_type(fn.do(f"sub i64 {self.n}, {first}"), "i64", self.lanes)
        mask = fn.do(f"icmp slt <{self.lanes} x i64> {fn.iota(self.lanes)}, {left}")
        known = dict(self.outside)
        visit = Visit(first, mask, column, t, sides, takes or {}, gives or {}, known)
        self._go_to(visit)
        for s in rows:
            self._statement(s)
        visit.body = self._before(replace(self.inner, body=tuple(body)), visit.takes)
        return visit

    def _go_to(self, visit: Visit) -> None:
        self.visit, self.writer.known, self.mask = visit, visit.known, visit.mask
        self.writer.symbols[self.loop.var] = visit.first

    def columns(self, visits: Sequence[Visit], count: str = "") -> None:
        """All columns, or so many, of each visit."""
        fn = self.fn
        last = fn.do(f"sub i64 {self.n}, 1")
        sums = [(v, s) for v in visits for s in self._sums_in_rows(v)]
        nothing = accs.identity("sum", self.dtype, self.lanes)
        start = [(register(self.dtype, self.lanes), nothing)] * len(sums)

        def some(c: str, totals: list[str]) -> list[str]:
            for v in visits:
                self._some_columns(v, c, last, count)
            made = []
            for (v, s), total in zip(sums, totals, strict=True):
                for value in self._apart(v.added[s.acc.name]):
                    total = accs.combine(fn, "sum", self.dtype, total, value, self.lanes)
                made.append(total)
            return made

        def within(size: int) -> Callable[[str, list[str]], list[str]]:
            """Of so many columns: those of each half, and the halves added up."""

            def part(first: str, totals: list[str]) -> list[str]:
                end = fn.do(f"add i64 {first}, {size}")
                step, body = (
                    (size // 2, within(size // 2)) if size > LEAF else (self.together, some)
                )
                found = fn.loop(first, end, step, start, body)
                return [
                    accs.combine(fn, "sum", self.dtype, total, more, self.lanes)
                    for total, more in zip(totals, found, strict=True)
                ]

            return part

        totals = fn.loop("0", str(self.lanes), self.lanes // 2, start, within(self.lanes // 2))
        for (v, s), total in zip(sums, totals, strict=True):
            self.own.add_total(s, v.sides[0], v.t, total)

    def _sums_in_rows(self, v: Visit) -> list[OwnSum]:
        added = {s.acc for s in v.body if isinstance(s, Add)}
        return [s for s in self.own.sums if s.in_rows and s.acc.name in added]

    def _some_columns(self, v: Visit, c: str, last: str, count: str) -> None:
        """Those from c on. What is added of columns that are not among so many changes nothing."""
        fn, known = self.fn, v.known
        self._go_to(v)
        first = fn.do(f"add i64 {v.column}, {c}")
        v.places = [self.least(fn.do(f"add i64 {first}, {k}"), last) for k in range(self.together)]
        for name, square in v.takes.items():
            known[name] = Known(self._taken_over(square, c), self.dtype, self.width)
        for s in v.body:
            if isinstance(s, Add):
                value = self._wide(known[s.values[0]]).register
                v.added[s.acc] = self._among(value, c, count) if count else value
            else:
                self._statement(s)
        for name, square in v.gives.items():
            self._hand_over(self._wide(known[name]).register, square, c)
        for own in self.own.sums:
            if not own.in_rows and own.acc.name in v.added:
                for side in v.sides if own.straight else v.sides[:1]:
                    self.own.add(own, side, c, v.added[own.acc.name], self.width)

    def _among(self, value: str, c: str, count: str) -> str:
        fn, ty = self.fn, register(self.dtype, self.width)
        places = ", ".join(f"i64 {k}" for k in range(self.together) for _ in range(self.lanes))
        left = fn.spread_type(fn.do(f"sub i64 {count}, {c}"), "i64", self.width)
        among = fn.do(f"icmp slt <{self.width} x i64> <{places}>, {left}")
        nothing = accs.identity("sum", self.dtype, self.width)
        return fn.do(f"select <{self.width} x i1> {among}, {ty} {value}, {ty} {nothing}")

    # -- from lanes to columns ----------------------------------------------------------------------------------------

    def _hand_over(self, value: str, square: str, c: str) -> None:
        """Columns from c on are cut into pieces of as many lanes as there are columns together. In memory, the pieces of the
        same lanes lie together, those of each of these columns side by side with other columns'.
        """
        fn, t, ty = self.fn, self.together, REGISTER[self.dtype.name]
        wide = register(self.dtype, self.width)
        for piece in range(self.lanes // t):
            for k in range(t):
                lanes = [k * self.lanes + piece * t + e for e in range(t)]
                part = shuffled(fn, wide, value, "poison", lanes)
                at = self.own.vector(square, str(piece * t + k))
                at = fn.do(f"getelementptr {ty}, ptr {at}, i64 {c}")
                fn.say(f"store <{t} x {ty}> {part}, ptr {at}, align {PIECE}")

    def _taken_over(self, square: str, c: str) -> str:
        """The same lanes of all columns, for as many lanes from c on, which are columns now."""
        t, wide = self.together, register(self.dtype, self.width)
        value = self.fn.do(f"load {wide}, ptr {self.own.vector(square, c)}, align 64")
        firsts = range(0, self.lanes, t)
        lanes = [k * self.lanes + f + e for e in range(t) for f in firsts for k in range(t)]
        return shuffled(self.fn, wide, value, "poison", lanes)

    # -- several columns in one vector --------------------------------------------------------------------------------

    def _loaded(self, s: Load) -> Known:
        rows = super()._loaded
        value = self._for_columns(s.index, s.dtype, lambda: rows(s).register)
        return Known(value, s.dtype, self.width)

    def _numbers(self, value: Size) -> str:
        rows = super()._numbers
        return self._for_columns(value, i64, lambda: rows(value))

    def _for_columns(self, index: Size, dtype: DType, rows: Callable[[], str]) -> str:
        """What `rows` gives for each column, one after the other in one vector."""
        self.width = self.lanes
        if coefficient(index, self.inner.var) == 0:
            parts = [rows()] * self.together
        else:
            parts = []
            for place in self.visit.places:
                self.writer.symbols[self.inner.var] = place
                parts.append(rows())
        self.width = self.lanes * self.together
        return joined(self.fn, parts, REGISTER[dtype.name], self.lanes)

    def _apart(self, value: str) -> list[str]:
        """Each column's vector."""
        wide = register(self.dtype, self.width)
        return [
            shuffled(self.fn, wide, value, "poison", range(first, first + self.lanes))
            for first in range(0, self.width, self.lanes)
        ]


__all__ = ["Visit", "Visits"]
