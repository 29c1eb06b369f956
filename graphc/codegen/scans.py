"""Scans in loops in lanes: steps that wait for each other, lane after lane.

A vector holds consecutive elements of one row. Where steps of several rows stand side by side, which have nothing to do
with each other, these vectors are transposed in registers: the rows are then the lanes, and all of them take a step at
once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphc.codegen import accumulators as accs
from graphc.codegen.llvm import REGISTER, register
from graphc.codegen.state import Known
from graphc.codegen.strided import zipped
from graphc.ir.types import DType
from graphc.lower.abreast import steps_abreast
from graphc.lower.loops import RUNNING, Acc, Step

if TYPE_CHECKING:
    from graphc.codegen.vectors import VectorLoop


class Scans:
    """Those of one loop."""

    def __init__(self, of: VectorLoop) -> None:
        self.of = of
        self.accs = {a.name: a for a in of.loop.accs if a.order == RUNNING}
        self.groups = steps_abreast(of.loop)
        self.rows: dict[str, int] = {}  # accumulators that have the values of so many rows, or none
        for group in self.groups.values():
            names = [of.loop.body[p].acc for p in group]  # type: ignore[union-attr]
            self.rows.update({name: 0 for name in names}, **{names[0]: len(group)})

    def lanes_of(self, acc: Acc) -> int:
        """How many numbers an accumulator has: those of all rows are in that of the first."""
        return max(self.rows.get(acc.name, 1), 1)

    def write(self, position: int, state: dict[str, str]) -> None:
        """A step, or with it those that stand beside it."""
        step = self.of.loop.body[position]
        assert isinstance(step, Step)
        if position in self.groups:
            self._abreast([self.of.loop.body[p] for p in self.groups[position]], state)  # type: ignore[misc]
        elif step.acc not in self.rows:
            self._alone(step, state)

    def _alone(self, s: Step, state: dict[str, str]) -> None:
        fn, width = self.of.fn, self.of.width
        ty, wide = register(s.dtype, 1), register(s.dtype, width)
        made, before = "poison", state[s.acc]
        operands = [self.of.kernel.known[v].register for v in s.values]
        for lane in range(width):
            values = [fn.do(f"extractelement {wide} {v}, i64 {lane}") for v in operands]
            before = accs.step(fn, self.accs[s.acc], before, values, 1)
            made = fn.do(f"insertelement {wide} {made}, {ty} {before}, i64 {lane}")
        self._made(s, made)
        state[s.acc] = before

    def _abreast(self, steps: Sequence[Step], state: dict[str, str]) -> None:
        known, first, dtype = self.of.kernel.known, steps[0], steps[0].dtype
        operands = [
            self._columns([known[s.values[k]].register for s in steps], dtype)
            for k in range(len(first.values))
        ]
        before, made = state[first.acc], []
        for values in zip(*operands, strict=True):
            before = accs.step(self.of.fn, self.accs[first.acc], before, values, len(steps))
            made.append(before)
        state[first.acc] = before
        for s, row in zip(steps, self._rows(made, len(steps), dtype), strict=True):
            self._made(s, row)

    def _made(self, s: Step, value: str) -> None:
        self.of.kernel.known[s.name] = Known(value, s.dtype, self.of.width)

    # -- transposed ---------------------------------------------------------------------------------------------------

    def _columns(self, rows: Sequence[str], dtype: DType) -> list[str]:
        """From a vector of each row, one of each column."""
        fn, width, count, ty = self.of.fn, self.of.width, len(rows), REGISTER[dtype.name]
        mixed = zipped(fn, [[row] for row in rows], ty, width, width)
        if count == width:
            return mixed
        wide, columns = register(dtype, width), []
        for k in range(width):
            source, start = mixed[k * count // width], k * count % width
            lanes = ", ".join(f"i32 {start + row}" for row in range(count))
            part = f"shufflevector {wide} {source}, {wide} poison, <{count} x i32> <{lanes}>"
            columns.append(fn.do(part))
        return columns

    def _rows(self, columns: Sequence[str], count: int, dtype: DType) -> list[str]:
        return zipped(
            self.of.fn, [[c] for c in columns], REGISTER[dtype.name], count, self.of.width
        )
