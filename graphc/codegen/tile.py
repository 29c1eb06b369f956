"""The innermost part of a matrix product: a few rows by one or two vectors, all in registers.

A tile runs over one block of k with fma in sequence. What it gives then takes part in the binary counter over blocks:
it takes the results of earlier blocks that wait in the levels of `mask`, lowest first, and is written either to the
next level or, at the last block, to the result. With one block the mask is 0 and the result is written at once. The
level `top`, which only the last block takes, may be the result's own memory: then less has to stay near.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphc.codegen import accumulators as accs
from graphc.codegen.llvm import MEMORY, Function, Module, register, splat
from graphc.ir.types import DType, Size

PARAMS = (("ptr", "a"), ("i64", "am"), ("i64", "ak"), ("ptr", "b"), ("i64", "bk"), ("i64", "second"), ("i64", "K"),
          ("ptr", "levels"), ("i64", "stride"), ("i64", "mask"), ("i64", "top"), ("ptr", "to"), ("i64", "row"),
          ("i64", "rows"))  # fmt: skip
LINE = 64  # bytes of a line of the cache
# Steps of k by which operands are asked for before they are read: a tile of the left one and a panel of the right one are
# more than the nearest cache holds.
A_AHEAD, B_AHEAD = 8, 4
FEW_ROWS = 48  # of a product: a tile that is not full is much of them
SMALL = 4  # rows up to which the smaller of two tiles is as fast: a sum waits 4 cycles for its next product


@dataclass(frozen=True)
class Shape:
    """Of the largest tile: `rows` by two vectors of `lanes`. All sums, b and one of a stay in registers.

    If a is `packed`, its columns lie side by side, each with the numbers of all `rows`.
    """

    rows: int
    lanes: int
    packed: bool = False

    @property
    def across(self) -> int:
        return 2 * self.lanes


def shape_of(module: Module, dtype: DType, packed: bool, rows: Size) -> Shape:
    """Where there are 32 registers, 12 rows if a is packed, and 8 if each row has an address of its own, or fit better to
    few `rows`; else 6: 12 sums, 2 of b and one of a in 16.
    """
    if not module.avx512:
        return Shape(6, 32 // dtype.itemsize)
    few = isinstance(rows, int) and rows < FEW_ROWS and rows % 12 != 0
    return Shape(12 if packed and not few else 8, 64 // dtype.itemsize, packed)


def tile(
    module: Module, dtype: DType, shape: Shape, vectors: int, small: bool, carried: bool = False
) -> str:
    """@gc.tile(a, am, ak, b, bk, second, K, levels, stride, mask, top, to, row, rows).

    a has a row each `am` and a column each `ak` elements; b has a row each `bk`, and its second vector starts at
    `second`, as that of a level and of a row of `to` does. Levels lie `stride` elements apart.

    Of a packed one, `am` is 1 and `ak` the rows of its shape, and all of these can be read.

    Of two vectors there is a small tile, for up to 4 rows, and one for more. Where `rows` are less than the tile has,
    the last one takes the place of those that are missing, and is written more than once.

    One that may be `carried` has a further argument: if it is true, sums go on from what `to` holds.
    """
    most = SMALL if small else shape.rows
    least = SMALL + 1 if vectors == 2 and not small else 1
    packed = shape.rows if shape.packed else 0
    name = f"gc.tile.{dtype.name}.{most}x{vectors}x{shape.lanes}"
    name += f".of{packed}" * shape.packed + ".carried" * carried
    return module.once(
        name,
        lambda: _Tile(
            module, name, dtype, least, most, vectors, shape.lanes, carried, packed
        ).write(),
    )


class _Tile:
    def __init__(
        self,
        module: Module,
        name: str,
        dtype: DType,
        least: int,
        most: int,
        vectors: int,
        lanes: int,
        carried: bool,
        packed: int,
    ) -> None:
        params = (*PARAMS, ("i1", "carry")) if carried else PARAMS
        self.fn = Function(module, name, "void", params)
        self.carried, self.packed = carried, packed
        self.dtype, self.least, self.rows = dtype, least, most
        self.vectors, self.lanes = vectors, lanes
        self.one, self.wide = MEMORY[dtype.name], register(dtype, lanes)

    def write(self) -> None:
        fn = self.fn
        self.more = ["true"] * self.least
        self.more += [fn.do(f"icmp sgt i64 %rows, {r}") for r in range(self.least, self.rows)]
        sums = self._levels(self._products())
        for r, to in enumerate(self._lines("%to", "%row")):
            for v, at in enumerate(self._vectors(to)):
                fn.say(
                    f"store {self.wide} {sums[r * self.vectors + v]}, ptr {at}, align {self.dtype.itemsize}"
                )
        fn.say("ret void")
        fn.close()

    def _products(self) -> list[str]:
        fn = self.fn
        rows = [] if self.packed else self._lines("%a", "%am")
        # A small tile has no time for more than its own loads.
        asks = self.packed and self.rows > SMALL
        ahead = fn.do(f"mul i64 %bk, {B_AHEAD}") if asks else ""
        nothing = "0x8000000000000000" if self.dtype.is_float else "0"
        none = splat(nothing, self.one, self.lanes)
        start = [(self.wide, none)] * (self.rows * self.vectors)
        if self.carried:
            places = [at for to in self._lines("%to", "%row") for at in self._vectors(to)]
            start = [(self.wide, self._carried(at, none)) for at in places]

        def step(_: str, carried: list[str]) -> list[str]:
            place, b, *sums = carried
            columns = [
                fn.do(f"load {self.wide}, ptr {at}, align {self.dtype.itemsize}")
                for at in self._vectors(b)
            ]
            if ahead:
                self._ask_for(place, b, ahead)
            after = []
            for r in range(self.rows):
                at = self._moved(place, str(r)) if self.packed else self._moved(rows[r], place)
                a = fn.do(f"load {self.one}, ptr {at}, align {self.dtype.itemsize}")
                wide = fn.spread(a, self.dtype, self.lanes)
                after += [
                    self._fma(wide, c, sums[r * self.vectors + v]) for v, c in enumerate(columns)
                ]
            if self.packed:
                following = self._moved(place, str(self.packed))
            else:
                following = fn.do(f"add i64 {place}, %ak")
            return [following, self._moved(b, "%bk"), *after]

        first = ("ptr", "%a") if self.packed else ("i64", "0")
        _, _, *sums = fn.loop("0", "%K", 1, [first, ("ptr", "%b"), *start], step)
        return sums

    def _ask_for(self, a: str, b: str, ahead: str) -> None:
        """The lines that are read some steps later; nothing happens where there is no such memory."""
        fn = self.fn
        per_line = LINE // self.dtype.itemsize
        column = self._moved(a, str(A_AHEAD * self.packed))
        lines = [self._moved(column, str(r)) for r in range(0, self.rows, per_line)]
        lines += self._vectors(self._moved(b, ahead))
        for line in lines:
            fn.prefetch(line)

    def _carried(self, at: str, none: str) -> str:
        before = self.fn.do(f"load {self.wide}, ptr {at}, align {self.dtype.itemsize}")
        return self.fn.do(f"select i1 %carry, {self.wide} {before}, {self.wide} {none}")

    def _levels(self, sums: list[str]) -> list[str]:
        """While a level of the mask is left: what waits there is added in front."""
        fn = self.fn
        head, inside, after = fn.label("head"), fn.label("take"), fn.label("taken")
        before = fn.block
        fn.jump(head)
        fn.open_block(head)
        mask, next_mask = fn.phi("i64", ("%mask", before))
        phis = [fn.phi(self.wide, (s, before)) for s in sums]
        fn.branch(fn.do(f"icmp ne i64 {mask}, 0"), inside, after)
        fn.open_block(inside)
        count = fn.module.intrinsic("llvm.cttz.i64", "i64", ("i64", "i1"))
        level = fn.do(f"call i64 @{count}(i64 {mask}, i1 true)")
        at = self._moved("%levels", fn.do(f"mul i64 {level}, %stride"))
        in_place = fn.do(f"icmp eq i64 {level}, %top")
        at = fn.do(f"select i1 {in_place}, ptr %to, ptr {at}")
        step = fn.do(f"select i1 {in_place}, i64 %row, i64 {2 * self.lanes}")
        for r, line in enumerate(self._lines(at, step)):
            for v, place in enumerate(self._vectors(line)):
                waiting = fn.do(f"load {self.wide}, ptr {place}, align {self.dtype.itemsize}")
                value, more = phis[r * self.vectors + v]
                more(accs.combine(fn, "sum", self.dtype, waiting, value, self.lanes), inside)
        next_mask(fn.do(f"and i64 {mask}, {fn.do(f'sub i64 {mask}, 1')}"), inside)
        fn.jump(head)
        fn.open_block(after)
        return [name for name, _ in phis]

    def _lines(self, first: str, stride: str) -> list[str]:
        """Where each row begins; the last one stands for those that are missing."""
        lines = [first]
        for more in self.more[1:]:
            step = (
                stride if more == "true" else self.fn.do(f"select i1 {more}, i64 {stride}, i64 0")
            )
            lines.append(self._moved(lines[-1], step))
        return lines

    def _vectors(self, at: str) -> list[str]:
        return [at] if self.vectors == 1 else [at, self._moved(at, "%second")]

    def _moved(self, at: str, offset: str) -> str:
        return self.fn.do(f"getelementptr {self.one}, ptr {at}, i64 {offset}")

    def _fma(self, a: str, b: str, c: str) -> str:
        if self.dtype.is_float:
            return accs.fma(self.fn, self.dtype, a, b, c, self.lanes)
        return self.fn.do(f"add {self.wide} {self.fn.do(f'mul {self.wide} {a}, {b}')}, {c}")
