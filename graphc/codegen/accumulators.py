"""Accumulators in machine code: the orders of `gates.reduction`, in registers and in memory.

`lanes` keeps a leaf in a register and a binary counter of vectors on the stack; `rows` and `chain` over an array
keep the leaf in the array itself and the counter in the arena. Orders that cannot change a bit keep one register.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.codegen.llvm import (
    MEMORY,
    REGISTER,
    Function,
    Module,
    literal,
    register,
    splat,
    vector,
)
from graphc.codegen.operations import write_body
from graphc.gates.contraction import BLOCK
from graphc.gates.gate import registry
from graphc.gates.reduction import LEAF, Reduction, lanes_of
from graphc.gates.scan import Scan, start_of, step_of
from graphc.ir.scalar import to_bits
from graphc.ir.types import DType, bool_
from graphc.lower.loops import RUNNING, Acc

LEVELS = 56  # of a counter whose extent is known only at the call


def leaf_of(order: str) -> int:
    """How many elements, or rows, are added in sequence."""
    return BLOCK if order == "chain" else LEAF


def _reduction(monoid: str) -> Reduction:
    gate = registry()["sum" if monoid == "fma" else monoid]
    assert isinstance(gate, Reduction)
    return gate


def identity(monoid: str, dtype: DType, width: int = 1) -> str:
    """The number that changes nothing."""
    return splat(literal(_nothing(monoid, dtype), dtype), REGISTER[dtype.name], width)


def _nothing(monoid: str, dtype: DType) -> int:
    if isinstance(registry().get(monoid), Scan):
        return start_of(monoid, dtype)
    gate = _reduction(monoid)
    assert gate.identity is not None
    return to_bits(gate.identity(dtype), dtype)


def combine(fn: Function, monoid: str, dtype: DType, a: str, b: str, width: int) -> str:
    """One step of a monoid: its gate's body, written in place."""
    gate = _reduction(monoid).combine
    graph = gate.body_graph((dtype, dtype))  # type: ignore[union-attr]
    return write_body(fn, graph, [a, b], width)


def step(fn: Function, acc: Acc, before: str, values: Sequence[str], width: int) -> str:
    """What a running accumulator comes to after one more step, in each lane."""
    return write_body(fn, step_of(acc.monoid, acc.dtype), [before, *values], width)


def fma(fn: Function, dtype: DType, a: str, b: str, c: str, width: int) -> str:
    ty = register(dtype, width)
    suffix = dtype.name if width == 1 else f"v{width}{dtype.name}"
    name = fn.module.intrinsic(f"llvm.fma.{suffix}", ty, [ty] * 3)
    return fn.do(f"call {ty} @{name}({ty} {a}, {ty} {b}, {ty} {c})")


def horizontal(fn: Function, monoid: str, dtype: DType, value: str, width: int) -> str:
    """Lane l takes lane l + width/2, and so on down to one."""
    while width > 1:
        low = fn.half(value, REGISTER[dtype.name], width, upper=False)
        high = fn.half(value, REGISTER[dtype.name], width, upper=True)
        width //= 2
        value = combine(fn, monoid, dtype, low, high, width)
    return value


def folded_lanes(fn: Function, monoid: str, dtype: DType, lanes: Sequence[str], width: int) -> str:
    """The same of lanes that have a vector each."""
    found = list(lanes)
    while len(found) > 1:
        half = len(found) // 2
        parts = zip(found[:half], found[half:], strict=True)
        found = [combine(fn, monoid, dtype, a, b, width) for a, b in parts]
    return found[0]


def neighbours(fn: Function, monoid: str, dtype: DType, vectors: Sequence[str], width: int) -> str:
    """Four vectors of consecutive elements, folded in the order `rows`: runs of four, then pairs."""
    if dtype.itemsize == 8 and width == 8 and not fn.module.avx512:
        return _neighbours_in_quads(fn, monoid, dtype, vectors)
    a, b, c, d = vectors
    even_low, odd_low = fn.alternate(a, b, REGISTER[dtype.name], width)
    even_high, odd_high = fn.alternate(c, d, REGISTER[dtype.name], width)
    first, third = fn.alternate(even_low, even_high, REGISTER[dtype.name], width)
    second, fourth = fn.alternate(odd_low, odd_high, REGISTER[dtype.name], width)
    total = first
    for following in (second, third, fourth):
        total = combine(fn, monoid, dtype, total, following, width)
    while width > 1:
        even, odd = fn.alternate_lanes(total, REGISTER[dtype.name], width)
        width //= 2
        total = combine(fn, monoid, dtype, even, odd, width)
    return total


def _neighbours_in_quads(fn: Function, monoid: str, dtype: DType, vectors: Sequence[str]) -> str:
    """The same where a register of 32 bytes holds one run of four: runs are transposed four by four."""
    ty = register(dtype, 4)

    def both(x: str, y: str, lanes: tuple[int, ...]) -> str:
        mask = ", ".join(f"i32 {i}" for i in lanes)
        return fn.do(f"shufflevector {ty} {x}, {ty} {y}, <4 x i32> <{mask}>")

    quads = [fn.half(v, REGISTER[dtype.name], 8, upper) for v in vectors for upper in (False, True)]
    sums = []
    for a, b, c, d in (quads[:4], quads[4:]):
        low, high = (both(x, y, (0, 4, 2, 6)) for x, y in ((a, b), (c, d)))
        low_odd, high_odd = (both(x, y, (1, 5, 3, 7)) for x, y in ((a, b), (c, d)))
        total = both(low, high, (0, 1, 4, 5))
        for x, y, lanes in (
            (low_odd, high_odd, (0, 1, 4, 5)),
            (low, high, (2, 3, 6, 7)),
            (low_odd, high_odd, (2, 3, 6, 7)),
        ):
            total = combine(fn, monoid, dtype, total, both(x, y, lanes), 4)
        sums.append(total)
    first, second = sums
    even, odd = both(first, second, (0, 4, 2, 6)), both(first, second, (1, 5, 3, 7))
    pairs = combine(fn, monoid, dtype, even, odd, 4)  # runs 0+1, 4+5, 2+3, 6+7
    return horizontal(fn, monoid, dtype, pairs, 4)


@dataclass(frozen=True)
class Counter:
    """A binary counter in memory, level by level, and the monoid that merges what is in it.

    From one level to the next there are `stride` elements; with none, one vector.
    """

    levels: str
    monoid: str
    dtype: DType
    width: int
    stride: str = ""

    @property
    def step(self) -> tuple[str, str]:
        """The type in which levels are counted, and how many of it there are between two."""
        if self.stride:
            return MEMORY[self.dtype.name], self.stride
        return register(self.dtype, self.width), "1"


def push(
    fn: Function,
    levels: str,
    leaf: str,
    t: str,
    monoid: str,
    dtype: DType,
    width: int,
    stride: str = "",
) -> None:
    """Enter leaf number t into a counter."""
    push_all(fn, [(Counter(levels, monoid, dtype, width, stride), leaf)], t)


def push_all(fn: Function, leaves: Sequence[tuple[Counter, str]], t: str) -> None:
    """Enter leaf number t into each counter: while the bit is set, take the vector that waits at that level."""
    before, head, inside, after = fn.block, fn.label("carry"), fn.label("merge"), fn.label("wait")
    types = [register(c.dtype, c.width) for c, _ in leaves]
    fn.jump(head)
    fn.open_block(head)
    values = [fn.phi(ty, (leaf, before)) for ty, (_, leaf) in zip(types, leaves, strict=True)]
    bits, next_bits = fn.phi("i64", (t, before))
    steps = dict.fromkeys(c.step[1] for c, _ in leaves)
    places = {step: fn.phi("i64", ("0", before)) for step in steps}
    addresses = [
        fn.do(f"getelementptr {c.step[0]}, ptr {c.levels}, i64 {places[c.step[1]][0]}")
        for c, _ in leaves
    ]
    fn.branch(fn.do(f"trunc i64 {bits} to i1"), inside, after)
    fn.open_block(inside)
    for (c, _), ty, (value, next_value), address in zip(
        leaves, types, values, addresses, strict=True
    ):
        waiting = fn.do(f"load {ty}, ptr {address}, align {c.dtype.itemsize}")
        next_value(combine(fn, c.monoid, c.dtype, waiting, value, c.width), inside)
    next_bits(fn.do(f"lshr i64 {bits}, 1"), inside)
    for step, (place, next_place) in places.items():
        next_place(fn.do(f"add i64 {place}, {step}"), inside)
    fn.jump(head)
    fn.open_block(after)
    for (c, _), ty, (value, _), address in zip(leaves, types, values, addresses, strict=True):
        fn.say(f"store {ty} {value}, ptr {address}, align {c.dtype.itemsize}")


def collapse(
    fn: Function,
    levels: str,
    t: str,
    monoid: str,
    dtype: DType,
    width: int,
    stride: str = "",
    start: str = "",
) -> str:
    """What is left in a counter after t leaves, folded smallest first; `start` is smaller than all of them."""
    ty = register(dtype, width)
    before, head, inside, after = fn.block, fn.label("left"), fn.label("fold"), fn.label("folded")
    fn.jump(head)
    fn.open_block(head)
    total, next_total = fn.phi(ty, (start or identity(monoid, dtype, width), before))
    bits, next_bits = fn.phi("i64", (t, before))
    fn.branch(fn.do(f"icmp ne i64 {bits}, 0"), inside, after)
    fn.open_block(inside)
    count = fn.module.intrinsic("llvm.cttz.i64", "i64", ("i64", "i1"))
    level = fn.do(f"call i64 @{count}(i64 {bits}, i1 true)")
    offset = fn.do(f"mul i64 {level}, {stride}") if stride else level
    address = fn.do(
        f"getelementptr {MEMORY[dtype.name] if stride else ty}, ptr {levels}, i64 {offset}"
    )
    waiting = fn.do(f"load {ty}, ptr {address}, align {dtype.itemsize}")
    next_total(combine(fn, monoid, dtype, waiting, total, width), inside)
    next_bits(fn.do(f"and i64 {bits}, {fn.do(f'sub i64 {bits}, 1')}"), inside)
    fn.jump(head)
    fn.open_block(after)
    return total


def collapse_counter(fn: Function, c: Counter, t: str) -> str:
    """What is left in a counter after t leaves."""
    return collapse(fn, c.levels, t, c.monoid, c.dtype, c.width, c.stride)


def counter(fn: Function, monoid: str, dtype: DType, leaves: Sequence[str], width: int) -> str:
    """The counter's total of a few leaves, all in registers."""
    waiting: list[str] = []
    level = list(leaves)
    while len(level) > 1:
        if len(level) % 2:
            waiting.append(level.pop())
        level = [
            combine(fn, monoid, dtype, a, b, width)
            for a, b in zip(level[::2], level[1::2], strict=True)
        ]
    total, *larger = [*waiting, level[0]]
    for part in larger:
        total = combine(fn, monoid, dtype, part, total, width)
    return total


# -- arrays ---------------------------------------------------------------------------------------------------------


def fill(module: Module, dtype: DType) -> str:
    """@gc.fill(array, count, value)."""
    name = f"gc.fill.{dtype.name}"

    def make() -> None:
        ty = MEMORY[dtype.name]
        fn = Function(module, name, "void", [("ptr", "p"), ("i64", "n"), (ty, "v")])
        wide = vector(ty, 8)
        value = fn.spread_type("%v", ty, 8)
        whole = fn.do("and i64 %n, -8")

        def eight(i: str, _: object) -> list[str]:
            fn.say(
                f"store {wide} {value}, ptr {fn.do(f'getelementptr {ty}, ptr %p, i64 {i}')}, align {dtype.itemsize}"
            )
            return []

        def one(i: str, _: object) -> list[str]:
            fn.say(f"store {ty} %v, ptr {fn.do(f'getelementptr {ty}, ptr %p, i64 {i}')}")
            return []

        fn.loop("0", whole, 8, [], eight)
        fn.loop(whole, "%n", 1, [], one)
        fn.say("ret void")
        fn.close()

    return module.once(name, make)


def tree_push(module: Module, monoid: str, dtype: DType) -> str:
    """@gc.push(leaf, tree, count, t, stride): every element's leaf number t enters its counter; the leaf starts anew."""
    name = f"gc.push.{monoid}.{dtype.name}"

    def make() -> None:
        fn = Function(
            module,
            name,
            "void",
            [("ptr", "leaf"), ("ptr", "tree"), ("i64", "n"), ("i64", "t"), ("i64", "stride")],
        )

        def step(width: int) -> object:
            def body(i: str, _: object) -> list[str]:
                ty = register(dtype, width)
                at = fn.do(f"getelementptr {MEMORY[dtype.name]}, ptr %leaf, i64 {i}")
                value = fn.do(f"load {ty}, ptr {at}, align {dtype.itemsize}")
                levels = fn.do(f"getelementptr {MEMORY[dtype.name]}, ptr %tree, i64 {i}")
                push(fn, levels, value, "%t", monoid, dtype, width, stride="%stride")
                fn.say(
                    f"store {ty} {identity(monoid, dtype, width)}, ptr {at}, align {dtype.itemsize}"
                )
                return []

            return body

        both(fn, step, lanes_of(dtype))

    return module.once(name, make)


def tree_finish(module: Module, monoid: str, dtype: DType) -> str:
    """@gc.finish(leaf, tree, count, t, stride): the array takes what is left in the counters after t leaves."""
    name = f"gc.finish.{monoid}.{dtype.name}"

    def make() -> None:
        fn = Function(
            module,
            name,
            "void",
            [("ptr", "leaf"), ("ptr", "tree"), ("i64", "n"), ("i64", "t"), ("i64", "stride")],
        )

        def step(width: int) -> object:
            def body(i: str, _: object) -> list[str]:
                ty = register(dtype, width)
                at = fn.do(f"getelementptr {MEMORY[dtype.name]}, ptr %leaf, i64 {i}")
                levels = fn.do(f"getelementptr {MEMORY[dtype.name]}, ptr %tree, i64 {i}")
                total = collapse(fn, levels, "%t", monoid, dtype, width, stride="%stride")
                fn.say(f"store {ty} {total}, ptr {at}, align {dtype.itemsize}")
                return []

            return body

        both(fn, step, lanes_of(dtype))

    return module.once(name, make)


def array_of_lanes(module: Module, monoid: str, dtype: DType) -> str:
    """@gc.lanes(array, lanes, count, stride): the array takes the arrays of all lanes, folded."""
    name = f"gc.lanes.{monoid}.{dtype.name}"

    def make() -> None:
        params = [("ptr", "array"), ("ptr", "lanes"), ("i64", "n"), ("i64", "stride")]
        fn = Function(module, name, "void", params)

        def step(width: int) -> object:
            def body(i: str, _: object) -> list[str]:
                ty, element = register(dtype, width), MEMORY[dtype.name]
                found = []
                for lane in range(lanes_of(dtype)):
                    place = fn.do(f"add i64 {fn.do(f'mul i64 %stride, {lane}')}, {i}")
                    at = fn.do(f"getelementptr {element}, ptr %lanes, i64 {place}")
                    found.append(fn.do(f"load {ty}, ptr {at}, align {dtype.itemsize}"))
                total = folded_lanes(fn, monoid, dtype, found, width)
                at = fn.do(f"getelementptr {element}, ptr %array, i64 {i}")
                fn.say(f"store {ty} {total}, ptr {at}, align {dtype.itemsize}")
                return []

            return body

        both(fn, step, lanes_of(dtype))

    return module.once(name, make)


def both(fn: Function, step: object, width: int) -> None:
    """Whole vectors, then single elements."""
    whole = fn.do(f"and i64 %n, {-width}")
    fn.loop("0", whole, width, [], step(width))  # type: ignore[operator]
    fn.loop(whole, "%n", 1, [], step(1))  # type: ignore[operator]
    fn.say("ret void")
    fn.close()


def is_ordered(monoid: str, order: str, dtype: DType) -> bool:
    return order not in ("any", RUNNING) and dtype is not bool_
