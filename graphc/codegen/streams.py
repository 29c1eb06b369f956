"""Stores past the caches: of large arrays, by loops in lanes that move more than they compute.

A line of a cache is read before a part of it is written. Where no cache keeps the line until somebody reads it, that is
a third of what a loop moves. Whether an array is so large is often known at the call alone, and such a store needs an
address that is a multiple of a line: so there is a branch at each of them, which goes one way all the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphc.codegen.state import Known
from graphc.codegen.vector_memory import store_vector, stream_vector
from graphc.ir.types import bool_
from graphc.lower.loops import Store

if TYPE_CHECKING:
    from graphc.codegen.vectors import VectorLoop

LINE = 64  # bytes of a line of a cache
FAR = 3 << 23  # bytes of an array from which on no cache keeps it until it is read


class Streams:
    """Those of one loop."""

    def __init__(self, of: VectorLoop) -> None:
        self.of = of
        self.found: dict[int, str] = {}  # statement position -> does it go past the caches?

    def add(self, position: int, s: Store) -> None:
        """A store to neighbouring elements, whose first address is known."""
        fn, kernel = self.of.fn, self.of.kernel
        b = kernel.buffer(s.buffer)
        size = b.type.bytes_expr()
        lasting = b.role in ("output", "temp") and not b.scope
        if not lasting or b.type.dtype is bool_ or self.of.kept or not fn.module.x86:
            return
        if (isinstance(size, int) and size < FAR) or self.of.once.is_long():
            return
        address = fn.do(f"ptrtoint ptr {self.of.bases[position]} to i64")
        aligned = fn.do(f"icmp eq i64 {fn.do(f'and i64 {address}, {LINE - 1}')}, 0")
        far = fn.do(f"icmp sge i64 {kernel.size(size)}, {FAR}")
        self.found[position] = fn.do(f"and i1 {aligned}, {far}")

    def store(self, position: int, address: str, value: Known) -> None:
        """A whole vector."""
        fn = self.of.fn
        past, through, after = (fn.label(x) for x in ("past", "through", "stored"))
        fn.branch(self.found[position], past, through)
        fn.open_block(past)
        stream_vector(fn, address, value)
        fn.jump(after)
        fn.open_block(through)
        store_vector(fn, address, value, "")
        fn.jump(after)
        fn.open_block(after)

    def end(self) -> None:
        """Whoever reads the array next finds all of it."""
        fn = self.of.fn
        for past in dict.fromkeys(self.found.values()):
            with fn.when(past):
                fence = fn.module.intrinsic("llvm.x86.sse.sfence", "void", ())
                fn.say(f"call void @{fence}()")
