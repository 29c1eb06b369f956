"""Scans in loops in lanes: steps that wait for each other, lane after lane.

A vector holds consecutive elements of one row. Where steps of several rows stand side by side, which have nothing to do
with each other, these vectors are transposed in registers: the rows are then the lanes, and all of them take a step at
once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphc.codegen import accumulators as accs
from graphc.codegen.llvm import register
from graphc.codegen.state import Known
from graphc.codegen.transposed import transposed
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
        fn, known, width = self.of.fn, self.of.kernel.known, self.of.width
        first, dtype = steps[0], steps[0].dtype
        operands = [
            transposed(fn, [known[s.values[k]].register for s in steps], width, dtype)
            for k in range(len(first.values))
        ]
        before, made = state[first.acc], []
        for values in zip(*operands, strict=True):
            before = accs.step(fn, self.accs[first.acc], before, values, len(steps))
            made.append(before)
        state[first.acc] = before
        for s, row in zip(steps, transposed(fn, made, len(steps), dtype), strict=True):
            self._made(s, row)

    def _made(self, s: Step, value: str) -> None:
        self.of.kernel.known[s.name] = Known(value, s.dtype, self.of.width)
