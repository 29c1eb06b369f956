"""Sums of a thread's points while pairs of blocks are visited, and what is left of them (see `codegen.pairs`).

A vector of points has, for each sum, its slots, which a few vectors of the others fill, and for each slot a binary
counter that full slots enter. Of a sum of order `lanes` there is a slot for each lane; of one in rows, one for every
two vectors of the others, and all of them together make a leaf.

A sum of order `lanes` has a column's value in the slot that is the column's place among its vector. Where rows and
columns have the same values, those of a column lie right as they come: the row's lane is the slot. Such sums of columns
are `straight`: a vector for each column. They are turned before they are used as those of rows are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from graphc.codegen import accumulators as accs
from graphc.codegen.llvm import MEMORY, Function, register
from graphc.codegen.transposed import shuffled
from graphc.gates.reduction import LEAF
from graphc.ir.types import DType
from graphc.lower.loops import Acc
from graphc.lower.pairs import slots_of

SHIFT = LEAF.bit_length() - 1


@dataclass
class OwnSum:
    acc: Acc
    slots: int
    start: str  # of the first vector's first slot; the counters' levels follow, for all vectors
    straight: bool

    @property
    def in_rows(self) -> bool:
        return self.acc.order == "rows"

    @property
    def results(self) -> int:
        """How many slots hold a result in the end."""
        return 1 if self.in_rows else self.slots


@dataclass(frozen=True)
class PartialSums:
    """The sums of all points over one block after the other, in memory that all threads share."""

    fn: Function
    dtype: DType
    base: str
    stride: str  # from one kind of sum to the next, in elements
    places: dict[str, tuple[int, int]]  # of each sum, and how many of its kind there are

    def address(self, acc: str, block: str, slot: str, point: str) -> str:
        fn, count = self.fn, sum(count for _, count in self.places.values())
        kind = fn.do(f"add i64 {fn.do(f'mul i64 {block}, {count}')}, {self.places[acc][0]}")
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
    straight: frozenset[str]
    written: set[str] = field(default_factory=set)


class OwnSums:
    """All of them, of so many vectors of points. What is done after some squares is written once, as a function."""

    def __init__(
        self,
        fn: Function,
        layout: Layout,
        base: str,
        vectors: str,
        depth: str,
        partial: PartialSums,
    ) -> None:
        self.fn, self.layout, self.partial = fn, layout, partial
        self.given = base, vectors, depth, partial.base, partial.stride
        self.dtype, self.lanes = layout.dtype, layout.lanes
        self.vectors = vectors
        self.type = register(self.dtype, self.lanes)
        self.sums: list[OwnSum] = []
        start = base
        for acc in layout.accs:
            s = OwnSum(acc, slots_of(acc), start, acc.name in layout.straight)
            self.sums.append(s)
            start = self.vector(start, fn.do(f"mul i64 {self._between(s)}, {depth}"))

    def _once(self, what: str, write: Callable[[OwnSums, str, str], None], a: str, b: str) -> None:
        """A call of a function of two numbers."""
        name = f"{self.layout.name}.{what}"
        params = [
            ("ptr", "base"),
            ("i64", "vectors"),
            ("i64", "depth"),
            ("ptr", "shared"),
            ("i64", "stride"),
        ]
        if name not in self.layout.written:
            self.layout.written.add(name)
            fn = Function(self.fn.module, name, "void", [*params, ("i64", "a"), ("i64", "b")])
            partial = replace(self.partial, fn=fn, base="%shared", stride="%stride")
            write(OwnSums(fn, self.layout, "%base", "%vectors", "%depth", partial), "%a", "%b")
            fn.say("ret void")
            fn.close()
        values = zip(params, self.given, strict=True)
        given = ", ".join(f"{ty} {value}" for (ty, _), value in values)
        self.fn.say(f"call void @{name}({given}, i64 {a}, i64 {b})")

    def vector(self, base: str, k: str) -> str:
        return base if k == "0" else self.fn.do(f"getelementptr {self.type}, ptr {base}, i64 {k}")

    def slot(self, s: OwnSum, vector: str, k: str) -> str:
        place = self.fn.do(f"mul i64 {vector}, {s.slots}")
        return self.vector(s.start, place if k == "0" else self.fn.do(f"add i64 {place}, {k}"))

    def _between(self, s: OwnSum) -> str:
        """From the slots of a vector to the lowest level of their counters, and from level to level, in vectors."""
        return self.fn.do(f"mul i64 {self.vectors}, {s.slots}")

    def _counter(self, s: OwnSum, vector: str, k: str) -> accs.Counter:
        between = self._between(s)
        first = self.vector(self.slot(s, vector, k), between)
        stride = self.fn.do(f"mul i64 {between}, {self.lanes}")
        return accs.Counter(first, "sum", self.dtype, self.lanes, stride)

    def begin(self, vector: str) -> None:
        nothing = accs.identity("sum", self.dtype, self.lanes)
        for s in self.sums:
            for k in range(s.slots):
                self.fn.say(f"store {self.type} {nothing}, ptr {self.slot(s, vector, str(k))}")

    def add_total(self, s: OwnSum, vector: str, t: str, total: str) -> None:
        """Of a sum in rows over vector t of the others."""
        fn = self.fn
        slot = fn.do(f"lshr i64 {fn.do(f'and i64 {t}, {LEAF - 1}')}, 1")
        self.add(s, vector, slot, total, self.lanes)

    def add(self, s: OwnSum, vector: str, k: str, value: str, width: int) -> None:
        """To as many slots, from k on, as the value has vectors."""
        fn, ty = self.fn, register(self.dtype, width)
        at = self.slot(s, vector, k)
        before = fn.do(f"load {ty}, ptr {at}, align 64")
        total = accs.combine(fn, "sum", self.dtype, before, value, width)
        fn.say(f"store {ty} {total}, ptr {at}, align 64")

    def end_of_square(self, vector: str, t: str) -> None:
        """After vector t of the others: leaves that are full enter their counters."""
        fn = self.fn
        place = fn.do(f"and i64 {t}, {LEAF - 1}")
        with fn.when(fn.do(f"icmp eq i64 {place}, {LEAF - 1}")):
            self._enter(vector, fn.do(f"lshr i64 {t}, {SHIFT}"))

    def _enter(self, vector: str, t: str) -> None:
        """Leaf number t of all sums."""
        self._once("enter", OwnSums._entered, vector, t)

    def _entered(self, vector: str, t: str) -> None:
        fn = self.fn
        leaves: list[tuple[accs.Counter, str]] = []
        for s in self.sums:
            slots = map(str, range(s.slots))
            found = [fn.do(f"load {self.type}, ptr {self.slot(s, vector, k)}") for k in slots]
            if s.in_rows:
                found = [accs.counter(fn, "sum", self.dtype, found, self.lanes)]
            leaves += [(self._counter(s, vector, str(k)), leaf) for k, leaf in enumerate(found)]
        accs.push_all(fn, leaves, t)
        self.begin(vector)

    def finish(self, vector: str, count: str) -> None:
        """After so many vectors of the others: the sums are in the slots, one in rows in the first."""
        self._once("finish", OwnSums._finished, vector, count)

    def _finished(self, vector: str, count: str) -> None:
        fn = self.fn
        rest = fn.do(f"and i64 {count}, {LEAF - 1}")
        with fn.when(fn.do(f"icmp ne i64 {rest}, 0")):
            self._enter(vector, fn.do(f"lshr i64 {count}, {SHIFT}"))
        leaves = shifted_up(fn, count, str(SHIFT))

        def collapse(s: OwnSum, k: str) -> None:
            total = accs.collapse_counter(fn, self._counter(s, vector, k), leaves)
            fn.say(f"store {self.type} {total}, ptr {self.slot(s, vector, k)}")

        self._each_result(collapse)

    def turn(self, vector: str, count: str) -> None:
        """Straight sums over so many vectors so far: what belonged to a column becomes a slot's, in all levels."""
        self._once("turn", OwnSums._turned, vector, count)

    def _turned(self, vector: str, count: str) -> None:
        fn = self.fn
        for s in self.sums:
            if s.straight:
                leaves = fn.do(f"lshr i64 {count}, {SHIFT}")
                zeros = fn.module.intrinsic("llvm.ctlz.i64", "i64", ("i64", "i1"))
                depth = fn.do(f"sub i64 65, {fn.do(f'call i64 @{zeros}(i64 {leaves}, i1 false)')}")
                between, first = self._between(s), self.slot(s, vector, "0")

                def level(k: str, _: object, first: str = first, step: str = between) -> list[str]:
                    self._transpose(self.vector(first, fn.do(f"mul i64 {k}, {step}")))
                    return []

                fn.loop("0", depth, 1, [], level)

    def leave(self, vector: str, block: str, first: str) -> None:
        """The sums over a block, of the points from the first on."""

        def leave(s: OwnSum, k: str) -> None:
            at = self.partial.address(s.acc.name, block, k, first)
            value = self.fn.do(f"load {self.type}, ptr {self.slot(s, vector, k)}")
            self.fn.say(f"store {self.type} {value}, ptr {at}, align {self.dtype.itemsize}")

        self._each_result(leave)

    def _each_result(self, action: Callable[[OwnSum, str], None]) -> None:
        for s in self.sums:

            def one(k: str, _: object, s: OwnSum = s) -> list[str]:
                action(s, k)
                return []

            if s.results == 1:
                action(s, "0")
            else:
                self.fn.loop("0", str(s.results), 1, [], one)

    def _transpose(self, first: str) -> None:
        """As many vectors as there are lanes, where they are: halves change places, then halves of these."""
        fn, lanes, ty = self.fn, self.lanes, self.type
        places = [self.vector(first, str(k)) for k in range(lanes)]
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


__all__ = ["Layout", "OwnSum", "OwnSums", "PartialSums", "shifted_up"]
