"""Regions of the result of a matrix product: tiles, block of k after block.

A block of the right operand is copied into panels, and then, for 48 rows after the other, one of the left operand into
tiles, unless k runs along its memory and its rows are near each other. Both copies are small enough to stay near.
"""

from __future__ import annotations

from graphc.codegen.llvm import Module
from graphc.codegen.product import PART, ContextWriter, Kind
from graphc.codegen.tile import SMALL, tile
from graphc.gates.contraction import BLOCK
from graphc.lower.matrix import FAR, IN_PLACE, PACKED_ELEMENTS, SLICE, TILE_GAP, USES


class Region(ContextWriter):
    """@gc.product.region(context, index, worker): some rows of some panels, block of k after block."""

    def __init__(self, module: Module, kind: Kind) -> None:
        super().__init__(module, kind, ".region", "i32", PART)
        self.packed = kind.packs_left != "never"
        self.stack = (
            ""
            if kind.beside and not kind.narrow and not kind.carried
            else self.fn.alloca(self.wide, 2 * kind.shape.rows)
        )

    def write(self) -> None:
        fn = self.fn
        names = ("c", "a", "work", "M", "N", "K", "cm", "cn", "am", "ak", "private", "rows", "tall", "across", "below",
                 "regions", "share", "level", "carry", "b", "bk")  # fmt: skip
        self.f = f = dict(zip(names, self.get(*names), strict=True))
        own = fn.do(f"mul i64 %worker, {f['private']}")
        f["work"] = fn.do(f"getelementptr i8, ptr {f['work']}, i64 {own}")
        self._places()
        self.panels = self.ceiling(f["N"], str(self.across))
        fn.loop(*self.share(f["share"], f["regions"]), 1, [], self._region)
        fn.say("ret i32 0")
        fn.close()

    def _places(self) -> None:
        """Where this thread's memory begins for each purpose, and how rows and panels of the right operand lie."""
        fn, f = self.fn, self.f
        left = PACKED_ELEMENTS if self.packed else 0
        self.right = self.levels = self.at(f["work"], (str(left), "1")) if left else f["work"]
        self.top = self._top()
        self.copies, self.step, self.jump = "false", f["bk"], "0"
        if self.kind.packs_right == "never":
            return
        depth = self.smaller(f["K"], str(BLOCK))
        self.jump = fn.do(f"add i64 {fn.do(f'mul i64 {depth}, {self.across}')}, {TILE_GAP}")
        self.levels = self.at(self.right, (self.jump, f["across"]))
        self.copies, self.step = "true", str(self.across)
        if self.kind.packs_right == "large":
            self.copies = fn.do(f"icmp sgt i64 {f['M']}, {IN_PLACE}")
            self.step = self.either(self.copies, "i64", self.step, f["bk"])

    def _top(self) -> str:
        """The level whose sums wait in the result itself, until the last block takes them; -1 if none does. Elements
        that two panels make must not be found there when one of them is through.
        """
        if not self.kind.beside or self.kind.carried:
            return "-1"
        fn = self.fn
        n, k = self.f["N"], self.f["K"]
        blocks = fn.do(f"lshr i64 {fn.do(f'sub i64 {k}, 1')}, {BLOCK.bit_length() - 1}")
        zeros = fn.module.intrinsic("llvm.ctlz.i64", "i64", ("i64", "i1"))
        highest = fn.do(f"sub i64 63, {fn.do(f'call i64 @{zeros}(i64 {blocks}, i1 false)')}")
        part = fn.do(f"and i64 {n}, {self.lanes - 1}")
        return self.either(fn.do(f"icmp eq i64 {part}, 0"), "i64", highest, "-1")

    def _region(self, number: str, _: object) -> list[str]:
        fn, f = self.fn, self.f
        i, j = fn.do(f"urem i64 {number}, {f['below']}"), fn.do(f"udiv i64 {number}, {f['below']}")
        # Regions below the tall ones have a tile less.
        beyond = self.larger(fn.do(f"sub i64 {i}, {f['tall']}"), "0")
        less = fn.do(f"mul i64 {beyond}, {self.shape.rows}")
        above = fn.do(f"mul i64 {i}, {f['rows']}")
        first = fn.do(f"sub i64 {above}, {less}")
        low = self.either(fn.do(f"icmp sge i64 {i}, {f['tall']}"), "i64", str(self.shape.rows), "0")
        high = fn.do(f"sub i64 {f['rows']}, {low}")
        self.high = self.smaller(high, fn.do(f"sub i64 {f['M']}, {first}"))
        self.panel = fn.do(f"mul i64 {j}, {f['across']}")
        self.panel_end = self.smaller(fn.do(f"add i64 {self.panel}, {f['across']}"), self.panels)
        self.c = self.at(f["c"], (first, f["cm"]))
        self.a = self.at(f["a"], (first, f["am"]))
        fn.loop("0", f["K"], BLOCK, [], self._block)
        return []

    def _block(self, k: str, _: object) -> list[str]:
        """One block of k: its number tells with which earlier ones it meets, and where it waits."""
        fn = self.fn
        self.k = k
        self.depth = self.smaller(fn.do(f"sub i64 {self.f['K']}, {k}"), str(BLOCK))
        t = fn.do(f"lshr i64 {k}, {BLOCK.bit_length() - 1}")
        self.last = fn.do(f"icmp sge i64 {fn.do(f'add i64 {k}, {BLOCK}')}, {self.f['K']}")
        following = fn.do(f"add i64 {t}, 1")
        ones = fn.do(f"and i64 {t}, {fn.do(f'xor i64 {following}, -1')}")
        self.mask = self.either(self.last, "i64", t, ones)
        count = fn.module.intrinsic("llvm.ctpop.i64", "i64", ("i64",))
        level = fn.do(f"call i64 @{count}(i64 {ones})")
        at_top = fn.do(f"icmp eq i64 {level}, {self.top}")
        self.in_place = fn.do(f"or i1 {self.last}, {at_top}")
        self.waiting = self.at(self.levels, (level, self.f["level"]))
        self._right()
        fn.loop("0", self.high, SLICE, [], self._slice)
        return []

    def _right(self) -> None:
        """The panels of this block, copied where that pays."""
        if self.kind.packs_right == "never":
            return
        with self.fn.when(self.copies):
            self.fn.say(
                f"call void @{self.kind.name}.panels(ptr %context, i64 {self.k}, i64 {self.depth}, "
                f"i64 {self.panel}, i64 {self.panel_end}, ptr {self.right}, i64 {self.jump})"
            )

    def _slice(self, i: str, _: object) -> list[str]:
        """Some rows of the block."""
        fn, rows = self.fn, self.shape.rows
        self.i = i
        self.count = self.smaller(fn.do(f"sub i64 {self.high}, {i}"), str(SLICE))
        self.whole = fn.do(f"mul i64 {fn.do(f'sdiv i64 {self.count}, {rows}')}, {rows}")
        self._left()
        fn.loop(self.panel, self.panel_end, 1, [], self._panel)
        return []

    def _left(self) -> None:
        """Where tiles of the left operand begin; copied if k does not run along its memory."""
        fn, f, rows = self.fn, self.f, self.shape.rows
        source = self.at(self.a, (self.i, f["am"]), (self.k, f["ak"]))
        lies = (source, f["am"], f["ak"], fn.do(f"mul i64 {f['am']}, {rows}"))
        gap = rows * BLOCK + TILE_GAP
        copied = (f["work"], "1", str(rows), str(gap))
        if self.kind.packs_left == "large":
            many = fn.do(f"icmp sge i64 {f['N']}, {USES}")
            far = fn.do(f"icmp uge i64 {f['am']}, {FAR // self.dtype.itemsize}")
            packs = fn.do(f"and i1 {many}, {far}")
            with fn.when(packs):
                self._pack(source, gap)
            types = ("ptr", "i64", "i64", "i64")
            chosen = (
                self.either(packs, ty, x, y) for ty, x, y in zip(types, copied, lies, strict=True)
            )
            self.tiles = tuple(chosen)
        elif self.packed:
            self._pack(source, gap)
            self.tiles = copied
        else:
            self.tiles = lies

    def _pack(self, source: str, gap: int) -> None:
        if self.kind.left == "ahead":
            self._pack_ahead(source, gap)
            return
        start = "0"
        if self.kind.left == "beside":
            self._pack_beside(source, gap)
            start = self.whole
        self._pack_rows(source, gap, start)

    def _pack_ahead(self, source: str, gap: int) -> None:
        """k runs along memory: squares are turned. A row that is missing is the last one again; what is written beyond
        a column is overwritten by the next, or lies in the gap."""
        fn, lanes, rows = self.fn, self.lanes, self.shape.rows
        last = fn.do(f"sub i64 {self.count}, 1")
        whole = fn.do(f"and i64 {self.depth}, {-lanes}")

        def one(i: str, carried: list[str]) -> list[str]:
            lines = []
            for r in range(rows):
                line = self.smaller(fn.do(f"add i64 {i}, {r}"), last)
                lines.append(self.at(source, (line, self.f["am"])))

            def square(k: str, _: object) -> list[str]:
                read = [self.load(self.at(line, (k, "1"))) for line in lines]
                read += [read[-1]] * (-rows % lanes)
                turned = [self.turned(read[r : r + lanes]) for r in range(0, rows, lanes)]
                to = self.at(carried[0], (k, str(rows)))
                for column in range(lanes):
                    for group, vectors in enumerate(turned):
                        place = self.at(to, (str(column * rows + group * lanes), "1"))
                        self.store(vectors[column], place)
                return []

            fn.loop("0", whole, lanes, [], square)

            def rest(k: str, _: object) -> list[str]:
                for r, line in enumerate(lines):
                    self.move(
                        self.at(line, (k, "1")), self.at(carried[0], (k, str(rows)), (str(r), "1"))
                    )
                return []

            fn.loop(whole, self.depth, 1, [], rest)
            return [self.at(carried[0], (str(gap), "1"))]

        fn.loop("0", self.count, rows, [("ptr", self.f["work"])], one)

    def _pack_beside(self, source: str, gap: int) -> None:
        fn, rows = self.fn, self.shape.rows

        def column(k: str, _: object) -> list[str]:
            first, to = self.at(source, (k, self.f["ak"])), self.at(self.f["work"], (k, str(rows)))

            def piece(i: str, at: list[str]) -> list[str]:
                self.move(self.at(first, (i, "1")), at[0], rows)
                return [self.at(at[0], (str(gap), "1"))]

            fn.loop("0", self.whole, rows, [("ptr", to)], piece)
            return []

        fn.loop("0", self.depth, 1, [], column)

    def _pack_rows(self, source: str, gap: int, start: str) -> None:
        """One row after the other, up to whole tiles: a row that is missing is the last one again."""
        fn, rows = self.fn, self.shape.rows
        last = fn.do(f"sub i64 {self.count}, 1")
        whole = fn.do(f"mul i64 {self.ceiling(self.count, str(rows))}, {rows}")

        def row(i: str, _: object) -> list[str]:
            tile_number, r = fn.do(f"udiv i64 {i}, {rows}"), fn.do(f"urem i64 {i}, {rows}")
            to = self.at(self.f["work"], (tile_number, str(gap)), (r, "1"))
            first = self.at(source, (self.smaller(i, last), self.f["am"]))

            def element(k: str, _: object) -> list[str]:
                self.move(self.at(first, (k, self.f["ak"])), self.at(to, (k, str(rows))))
                return []

            fn.loop("0", self.depth, 1, [], element)
            return []

        fn.loop(start, whole, 1, [], row)

    def _panel(self, p: str, _: object) -> list[str]:
        fn, f = self.fn, self.f
        j = fn.do(f"mul i64 {p}, {self.across}")
        start = j
        two, j, self.second = self.columns_of(j, f["N"])
        # Columns that the panel before has made: sums that go on must not be added to twice.
        self.made = fn.do(f"sub i64 {start}, {j}") if self.kind.carried else "0"
        number = fn.do(f"sub i64 {p}, {self.panel}")
        self.b = self.at(self.right, (number, self.jump))
        if self.kind.packs_right != "always":
            lies = self.at(f["b"], (self.k, f["bk"]), (j, "1"))
            self.b = self.either(self.copies, "ptr", self.b, lies)
        above = fn.do(f"mul i64 {self.i}, {self.across}")
        before = fn.do(f"mul i64 {fn.do(f'mul i64 {number}, {self.across}')}, {f['rows']}")
        self.level = fn.do(f"add i64 {before}, {above}")
        self.to = self.at(self.c, (self.i, f["cm"]), (j, f["cn"]))
        tiles = self._callees(two)
        rows = self.shape.rows
        fn.loop("0", self.count, rows, [], lambda i, _: self._tile(i, *tiles))
        return []

    def _callees(self, two: str) -> tuple[str, str]:
        """The tiles of this panel: for all rows but a few, and for these."""
        made: dict[int, tuple[str, str]] = {}
        for vectors in self.kind.vectors:
            large, small = (
                "@" + self._made(vectors, small)
                if vectors == 2 and small in self.kind.small
                else ""
                for small in (False, True)
            )
            if vectors == 1:
                large = small = "@" + self._made(1, False)
            made[vectors] = large or small, small or large
        if len(made) == 1:
            return made[self.kind.vectors[0]]
        large, small = (self.either(two, "ptr", made[2][i], made[1][i]) for i in (0, 1))
        return large, small

    def _made(self, vectors: int, small: bool) -> str:
        return tile(self.fn.module, self.dtype, self.shape, vectors, small, self.kind.carried)

    def _tile(self, i: str, large: str, small: str) -> list[str]:
        fn, f = self.fn, self.f
        rows = self.smaller(fn.do(f"sub i64 {self.count}, {i}"), str(self.shape.rows))
        callee = large
        if large != small:
            callee = self.either(fn.do(f"icmp sle i64 {rows}, {SMALL}"), "ptr", small, large)
        first, am, ak, gap = self.tiles
        number = fn.do(f"udiv i64 {i}, {self.shape.rows}")
        a = self.at(first, (number, gap))
        place = fn.do(f"add i64 {self.level}, {fn.do(f'mul i64 {i}, {self.across}')}")
        levels, waiting = self.at(self.levels, (place, "1")), self.at(self.waiting, (place, "1"))
        result = self.at(self.to, (i, f["cm"]))
        target, row = result, f["cm"]
        if self.stack:
            direct = self._direct()
            target = self.either(direct, "ptr", result, self.stack)
            row = self.either(direct, "i64", row, str(self.across))
        to = self.either(self.in_place, "ptr", target, waiting)
        row = self.either(self.in_place, "i64", row, str(self.across))
        carry, going = "", ""
        if self.kind.carried:
            going = fn.do(f"icmp ne i64 {f['carry']}, 0")
            carry = f", i1 {going}"
        if self.kind.carried and self.stack:
            with fn.when(fn.do(f"and i1 {going}, {fn.do(f'xor i1 {direct}, true')}")):
                self._copy(result, rows, back=True)
        fn.say(
            f"call void {callee}(ptr {a}, i64 {am}, i64 {ak}, ptr {self.b}, i64 {self.step}, i64 {self.second}, "
            f"i64 {self.depth}, ptr {levels}, i64 {f['level']}, i64 {self.mask}, i64 {self.top}, ptr {to}, i64 {row}, i64 {rows}{carry})"
        )
        if self.stack:
            apart = fn.do(f"xor i1 {direct}, true")
            with fn.when(fn.do(f"and i1 {self.last}, {apart}")):
                self._copy(result, rows)
        return []

    def _direct(self) -> str:
        """Does a tile write to the result itself? Not if columns lie apart, or fill no vector."""
        if not self.kind.beside:
            return "false"
        full = self.fn.do(f"icmp sge i64 {self.f['N']}, {self.lanes}")
        if not self.kind.carried:
            return full
        return self.fn.do(f"and i1 {full}, {self.fn.do(f'icmp eq i64 {self.made}, 0')}")

    def _copy(self, result: str, rows: str, back: bool = False) -> None:
        """From the stack to the result, or what is to go on there."""
        fn = self.fn
        columns = self.smaller(fn.do(f"add i64 {self.second}, {self.lanes}"), self.f["N"])

        def row(r: str, _: object) -> list[str]:
            def element(j: str, _: object) -> list[str]:
                source = self.at(self.stack, (r, str(self.across)), (j, "1"))
                place = self.at(result, (r, self.f["cm"]), (j, self.f["cn"]))
                self.move(*((place, source) if back else (source, place)))
                return []

            fn.loop(self.made, columns, 1, [], element)
            return []

        fn.loop("0", rows, 1, [], row)
