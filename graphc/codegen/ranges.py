"""Stencils: loops in lanes whose statements ask for ranges of the iterations.

Elements near the ends lack a neighbour. Vectors in the interior, where all ranges agree, take no mask; those at the
ends are the same body under masks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphc.ir.types import Dim, at_least
from graphc.lower.loops import Inside, coefficient, without

if TYPE_CHECKING:
    from graphc.codegen.vectors import VectorLoop

TRUE, FALSE = "splat (i1 true)", "splat (i1 false)"


@dataclass
class Range:
    """The iterations of a loop that are inside of a range."""

    most: bool  # are they nearly all?
    first: str = ""  # empty where none is below
    last: str = ""  # the one behind them
    always: str = ""  # all or none: which


class Ranges:
    """Those of one loop, by the positions of the statements."""

    def __init__(self, of: VectorLoop) -> None:
        self.of = of
        self.found: dict[int, Range] = {}
        self.interior = False  # do all ranges agree about what is being written?

    def write(
        self, n: str, values: list[str], levels: list[str], single: bool
    ) -> tuple[list[str], list[str]]:
        """Vectors in the interior, where all ranges agree, as they are; the others under masks."""
        loop, fn = self.of, self.of.fn
        width, step, accumulators = loop.width, loop.step(), [*loop.others, *loop.lanes]
        agree = self._interior(n)

        def some(i: str, before: list[str]) -> list[str]:
            inner, edge, after = fn.label("interior"), fn.label("edge"), fn.label("joined")
            fn.branch(agree(i), inner, edge)
            fn.open_block(inner)
            self.interior = True
            first = loop.iteration(i, before, "")
            self.interior = False
            fn.jump(after)
            came = fn.block
            fn.open_block(edge)
            second = loop.iteration(i, before, loop.mask(n, i))
            fn.jump(after)
            also = fn.block
            fn.open_block(after)
            return [
                fn.phi(loop.state_type(acc), (a, came), (b, also))[0]
                for acc, a, b in zip(accumulators, first, second, strict=True)
            ]

        leaves: list[str] = []

        def leaf(i: str, before: list[str]) -> list[str]:
            full = fn.do(f"add i64 {i}, {step}")
            whole = fn.do(f"icmp sle i64 {full}, {n}")
            if loop.rows:
                with fn.when(fn.do(f"xor i1 {whole}, true")):
                    for acc in loop.rows:
                        loop.empty_stage(acc)
            carried = loop.carried(accumulators, [*before, *loop.identities()])
            end = fn.do(f"select i1 {whole}, i64 {full}, i64 {n}")
            found = fn.loop(i, end, width, carried, some)
            leaves[:] = found[len(before) :]
            if not single:
                loop.push(leaves, levels, i, step)
            return found[: len(before)]

        if single and loop.lanes:
            return leaf("0", values), leaves
        each = leaf if loop.lanes or loop.rows else some
        return fn.loop("0", n, step, loop.carried(loop.others, values), each), leaves

    def _interior(self, n: str) -> Callable[[str], str]:
        """A test of the vector at i: is it whole, in each range that is most of the loop, and in no
        other?"""
        fn, first, last = self.of.fn, "0", n
        least, most = (
            fn.module.intrinsic(f"llvm.{name}.i64", "i64", ("i64", "i64"))
            for name in ("smax", "smin")
        )
        for r in self.found.values():
            if r.always:
                yes, no = (last, "-1") if r.most else ("-1", last)
                last = fn.do(f"select i1 {r.always}, i64 {yes}, i64 {no}")
            elif r.most:
                first = (
                    fn.do(f"call i64 @{least}(i64 {first}, i64 {r.first})") if r.first else first
                )
                last = fn.do(f"call i64 @{most}(i64 {last}, i64 {r.last})")
        narrow = [r for r in self.found.values() if not r.most and not r.always]

        def agree(i: str) -> str:
            end = fn.do(f"add i64 {i}, {self.of.width}")
            tests = [fn.do(f"icmp sle i64 {end}, {last}")]
            tests += [fn.do(f"icmp sge i64 {i}, {first}")] if first != "0" else []
            for r in narrow:
                behind = fn.do(f"icmp sge i64 {i}, {r.last}")
                before = fn.do(f"icmp sle i64 {end}, {r.first}") if r.first else "false"
                tests.append(fn.do(f"or i1 {behind}, {before}"))
            found, *rest = tests
            for test in rest:
                found = fn.do(f"and i1 {found}, {test}")
            return found

        return agree

    def add(self, position: int, s: Inside) -> None:
        """The iterations of the loop that a statement asks for."""
        kernel, size, extent = self.of.kernel, self.of.loop.size, s.high - s.low
        most = not isinstance(extent, int) or (isinstance(size, int) and 2 * extent >= size)
        var, start = self.of.loop.var, self.of.start
        if coefficient(s.value, var) == 0:
            self.found[position] = Range(most, always=kernel.inside(s))
            return
        before = without(s.value, var) + (Dim.symbol(start) if start else 0)
        first = "" if at_least(s.value, s.low) else kernel.size(s.low - before)
        self.found[position] = Range(most, first, kernel.size(s.high - before))

    def inside(self, position: int, i: str) -> str:
        """In each lane: is this iteration in the range?"""
        fn, width, r = self.of.fn, self.of.width, self.found[position]
        if self.interior:
            return TRUE if r.most else FALSE
        if r.always:
            return fn.spread_type(r.always, "i1", width)
        place = fn.do(f"add <{width} x i64> {fn.spread_type(i, 'i64', width)}, {fn.iota(width)}")
        inside = fn.do(f"icmp slt <{width} x i64> {place}, {fn.spread_type(r.last, 'i64', width)}")
        if not r.first:
            return inside
        above = fn.do(f"icmp sge <{width} x i64> {place}, {fn.spread_type(r.first, 'i64', width)}")
        return fn.do(f"and <{width} x i1> {inside}, {above}")
