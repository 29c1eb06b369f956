"""What the next row reads is asked for while this one is computed with.

A loop of rows with several passes over each of them reads memory by fits and starts: the first pass over a row waits
for it, and during the others memory has nothing to do, for a processor that looks ahead by itself forgets a stream that
pauses, and stops at the end of a page. So the last pass that reads an array asks for the same elements of its next row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphc.ir.types import size_min
from graphc.lower.loops import For, Load, coefficient

if TYPE_CHECKING:
    from graphc.codegen.writer import KernelWriter

SHORT = 1024  # bytes of a row below which the next one is too near
MOST = 32768  # bytes ahead, which the nearest caches have room for


class RowsAhead:
    """The loads of a loop's rows that ask, and how far ahead of them."""

    def __init__(self, writer: KernelWriter, loop: For) -> None:
        self.fn = writer.fn
        passes = [s for s in loop.body if isinstance(s, For)]
        last: dict[tuple[str, object], tuple[Load, str]] = {}
        for inner in passes if len(passes) > 1 else ():
            for s in inner.body:
                if not isinstance(s, Load) or s.at or s.only or inner.mode != "vector":
                    continue
                b = writer.buffer(s.buffer)
                row = coefficient(s.index, loop.var) * s.dtype.itemsize
                short = isinstance(row, int) and row < SHORT
                if b.scope or short or coefficient(s.index, inner.var) != 1:
                    continue
                last[s.buffer, s.index] = s, writer.size(size_min(row, MOST))
        self.found = {id(s): distance for s, distance in last.values()}

    def ask(self, s: Load, address: str) -> None:
        """A load is about to be written."""
        distance = self.found.get(id(s))
        if distance is not None:
            self.fn.prefetch(self.fn.do(f"getelementptr i8, ptr {address}, i64 {distance}"))


__all__ = ["RowsAhead"]
