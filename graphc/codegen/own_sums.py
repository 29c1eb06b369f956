"""Sums of a thread's points while pairs of blocks are visited, and what is left of them (see `codegen.pairs`).

All are of order `lanes`. A vector of points has, for each sum, a slot for each lane of the vectors of the others, where
a few of these are added up, and for each slot a binary counter that full slots enter. A row adds a column's value in
the slot that is the column's place among its vector, with the rows as lanes. A column has a vector: its own slots are
the lanes, for the same value lies right as it comes. Before a column's sums are used as those of rows are, they are
turned. Slots of all sums lie side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from graphc.codegen import accumulators as accs
from graphc.codegen.llvm import MEMORY, Function, register
from graphc.codegen.transposed import shuffled
from graphc.gates.reduction import LEAF, lanes_of
from graphc.ir.types import DType
from graphc.lower.loops import Acc

SHIFT = LEAF.bit_length() - 1


@dataclass(frozen=True)
class PartialSums:
    """The sums of all points over one block after the other, in memory that all threads share."""

    fn: Function
    dtype: DType
    base: str
    stride: str  # from one kind of sum to the next, in elements
    places: dict[str, int]  # of each sum's first slot

    def address(self, acc: str, block: str, slot: str, point: str) -> str:
        fn, count = self.fn, len(self.places) * lanes_of(self.dtype)
        kind = fn.do(f"add i64 {fn.do(f'mul i64 {block}, {count}')}, {self.places[acc]}")
        row = fn.do(f"mul i64 {fn.do(f'add i64 {kind}, {slot}')}, {self.stride}")
        at = fn.do(f"add i64 {row}, {point}")
        return fn.do(f"getelementptr {MEMORY[self.dtype.name]}, ptr {self.base}, i64 {at}")


@dataclass
class Layout:
    """What all functions that work with the sums of one loop know."""

    name: str  # of these functions, at the beginning
    dtype: DType
    lanes: int
    accs: Sequence[Acc]
    written: set[str] = field(default_factory=set)


class OwnSums:
    """All of them, of so many vectors of points. What is done after some squares is written once, as a function."""

    def __init__(
        self,
        fn: Function,
        layout: Layout,
        base: str,
        vectors: str,
        partial: PartialSums,
    ) -> None:
        self.fn, self.layout, self.partial = fn, layout, partial
        self.given = base, vectors, partial.base, partial.stride
        self.dtype, self.lanes = layout.dtype, layout.lanes
        self.vectors = vectors
        self.type = register(self.dtype, self.lanes)
        self.base, self.accs = base, layout.accs

    def _once(self, what: str, write: Callable[[OwnSums, str, str], None], a: str, b: str) -> None:
        """A call of a function of two numbers."""
        name = f"{self.layout.name}.{what}"
        params = [
            ("ptr", "base"),
            ("i64", "vectors"),
            ("ptr", "shared"),
            ("i64", "stride"),
        ]
        if name not in self.layout.written:
            self.layout.written.add(name)
            fn = Function(self.fn.module, name, "void", [*params, ("i64", "a"), ("i64", "b")])
            partial = replace(self.partial, fn=fn, base="%shared", stride="%stride")
            write(OwnSums(fn, self.layout, "%base", "%vectors", partial), "%a", "%b")
            fn.say("ret void")
            fn.close()
        values = zip(params, self.given, strict=True)
        given = ", ".join(f"{ty} {value}" for (ty, _), value in values)
        self.fn.say(f"call void @{name}({given}, i64 {a}, i64 {b})")

    def vector(self, base: str, k: str) -> str:
        return base if k == "0" else self.fn.do(f"getelementptr {self.type}, ptr {base}, i64 {k}")

    def slots(self, vector: str, k: str) -> list[str]:
        """The k-th of each sum; the counters' levels follow on those of all vectors."""
        place = self.fn.do(f"mul i64 {vector}, {self.lanes}")
        place = place if k == "0" else self.fn.do(f"add i64 {place}, {k}")
        first = self.vector(self.base, self.fn.do(f"mul i64 {place}, {len(self.accs)}"))
        return [self.vector(first, str(i)) for i in range(len(self.accs))]

    def _between(self) -> str:
        """From the slots of a vector to the lowest level of their counters, and from level to level, in vectors."""
        return self.fn.do(f"mul i64 {self.vectors}, {self.lanes * len(self.accs)}")

    def _counters(self, vector: str, k: str) -> list[accs.Counter]:
        between = self._between()
        stride = self.fn.do(f"mul i64 {between}, {self.lanes}")
        return [
            accs.Counter(self.vector(at, between), acc.monoid, self.dtype, self.lanes, stride)
            for acc, at in zip(self.accs, self.slots(vector, k), strict=True)
        ]

    def nothing(self) -> list[str]:
        return [accs.identity(acc.monoid, self.dtype, self.lanes) for acc in self.accs]

    def begin(self, vector: str) -> None:
        for k in range(self.lanes):
            self._clear(vector, str(k))

    def _clear(self, vector: str, k: str) -> None:
        self.keep(vector, k, self.nothing())

    def add(
        self, vector: str, k: str, values: Sequence[str], signs: Sequence[int] | None = None
    ) -> None:
        """To the k-th slot of each sum."""
        self.keep(vector, k, self.added(self.leaf_so_far(vector, k), values, signs))

    def leaf_so_far(self, vector: str, k: str) -> list[str]:
        """What is in the k-th slot of each sum."""
        return [self.fn.do(f"load {self.type}, ptr {at}") for at in self.slots(vector, k)]

    def keep(self, vector: str, k: str, values: Sequence[str]) -> None:
        for at, value in zip(self.slots(vector, k), values, strict=True):
            self.fn.say(f"store {self.type} {value}, ptr {at}")

    def added(
        self, before: Sequence[str], values: Sequence[str], signs: Sequence[int] | None = None
    ) -> list[str]:
        signs = signs or [1] * len(values)
        return [
            self.fn.do(f"{'fadd' if sign == 1 else 'fsub'} {self.type} {total}, {value}")
            for total, value, sign in zip(before, values, signs, strict=True)
        ]

    def push(self, vector: str, k: str, leaves: Sequence[str], t: str) -> None:
        """Leaf number t of the k-th slot of each sum."""
        counters = self._counters(vector, k)
        accs.push_all(self.fn, list(zip(counters, leaves, strict=True)), t)

    def end_of_square(self, t: str, *vectors: str) -> None:
        """After vector t of the others: leaves that are full enter their counters."""
        fn = self.fn
        place = fn.do(f"and i64 {t}, {LEAF - 1}")
        with fn.when(fn.do(f"icmp eq i64 {place}, {LEAF - 1}")):
            for vector in vectors:
                self._enter(vector, fn.do(f"lshr i64 {t}, {SHIFT}"))

    def _enter(self, vector: str, t: str) -> None:
        """Leaf number t of all slots."""
        self._once("enter", OwnSums._entered, vector, t)

    def _entered(self, vector: str, t: str) -> None:
        def one(k: str) -> None:
            self.push(vector, k, self.leaf_so_far(vector, k), t)
            self._clear(vector, k)

        self._each_slot(one)

    def finish(self, vector: str, count: str) -> None:
        """After so many vectors of the others: the sums are in the slots."""
        self._once("finish", OwnSums._finished, vector, count)

    def _finished(self, vector: str, count: str) -> None:
        fn = self.fn
        rest = fn.do(f"and i64 {count}, {LEAF - 1}")
        with fn.when(fn.do(f"icmp ne i64 {rest}, 0")):
            self._enter(vector, fn.do(f"lshr i64 {count}, {SHIFT}"))
        leaves = shifted_up(fn, count, str(SHIFT))

        def collapse(k: str) -> None:
            counters = self._counters(vector, k)
            for at, counter in zip(self.slots(vector, k), counters, strict=True):
                total = accs.collapse_counter(fn, counter, leaves)
                fn.say(f"store {self.type} {total}, ptr {at}")

        self._each_slot(collapse)

    def turn(self, vector: str, count: str) -> None:
        """Sums over so many vectors so far: what belonged to a column becomes a slot's, in all levels."""
        self._once("turn", OwnSums._turned, vector, count)

    def _turned(self, vector: str, count: str) -> None:
        fn = self.fn
        leaves = fn.do(f"lshr i64 {count}, {SHIFT}")
        zeros = fn.module.intrinsic("llvm.ctlz.i64", "i64", ("i64", "i1"))
        depth = fn.do(f"sub i64 65, {fn.do(f'call i64 @{zeros}(i64 {leaves}, i1 false)')}")
        step = self._between()
        rows = [self.slots(vector, str(k)) for k in range(self.lanes)]

        def level(k: str, _: object) -> list[str]:
            between = fn.do(f"mul i64 {k}, {step}")
            for places in zip(*rows, strict=True):
                self._transpose([self.vector(at, between) for at in places])
            return []

        fn.loop("0", depth, 1, [], level)

    def leave(self, vector: str, block: str, first: str) -> None:
        """The sums over a block, of the points from the first on."""

        def leave(k: str) -> None:
            for acc, slot in zip(self.accs, self.slots(vector, k), strict=True):
                at = self.partial.address(acc.name, block, k, first)
                value = self.fn.do(f"load {self.type}, ptr {slot}")
                self.fn.say(f"store {self.type} {value}, ptr {at}, align {self.dtype.itemsize}")

        self._each_slot(leave)

    def _each_slot(self, action: Callable[[str], None]) -> None:
        def one(k: str, _: object) -> list[str]:
            action(k)
            return []

        self.fn.loop("0", str(self.lanes), 1, [], one)

    def _transpose(self, places: Sequence[str]) -> None:
        """As many vectors as there are lanes, where they are: halves change places, then halves of these."""
        fn, lanes, ty = self.fn, self.lanes, self.type
        rows = [fn.do(f"load {ty}, ptr {place}") for place in places]
        half = lanes // 2
        while half:
            for r in range(lanes):
                if r & half:
                    continue
                a, b = rows[r], rows[r + half]
                low = [k if not k & half else lanes + k - half for k in range(lanes)]
                high = [k + half if not k & half else lanes + k for k in range(lanes)]
                rows[r], rows[r + half] = (shuffled(fn, ty, a, b, m) for m in (low, high))
            half //= 2
        for place, value in zip(places, rows, strict=True):
            fn.say(f"store {ty} {value}, ptr {place}")


def shifted_up(fn: Function, n: str, bits: str) -> str:
    """n / 2^bits, rounded up."""
    less = fn.do(f"sub i64 {fn.do(f'shl i64 1, {bits}')}, 1")
    return fn.do(f"lshr i64 {fn.do(f'add i64 {n}, {less}')}, {bits}")


__all__ = ["Layout", "OwnSums", "PartialSums", "shifted_up"]
