"""The right operand of a matrix product, copied into panels of two vectors of columns.

A last panel that is not full starts earlier, so that its vectors end where the rows do. Columns that are less than a
vector are filled up with zeros.
"""

from __future__ import annotations

from graphc.codegen import accumulators as accs
from graphc.codegen.llvm import Module
from graphc.codegen.product import ContextWriter, Kind

PARAMS = (("ptr", "context"), ("i64", "k"), ("i64", "depth"), ("i64", "begin"), ("i64", "end"),
          ("ptr", "to"), ("i64", "jump"))  # fmt: skip


class Panels(ContextWriter):
    """@gc.product.panels(context, k, depth, begin, end, to, jump): a block of the right operand.

    It has `depth` rows from k on, in panels from `begin` to `end`, which go to `to`, row after row, `jump` elements
    from one panel to the next.
    """

    def __init__(self, module: Module, kind: Kind) -> None:
        super().__init__(module, kind, ".panels", "void", PARAMS)

    def write(self) -> None:
        fn = self.fn
        b, self.n, self.bk, self.bn = self.get("b", "N", "bk", "bn")
        self.b, self.k = self.at(b, ("%k", self.bk)), "%depth"
        begin, end = "%begin", "%end"
        if self.kind.right == "beside":
            full = self.smaller(end, fn.do(f"udiv i64 {self.n}, {self.across}"))
            self._whole(begin, full)
            most = fn.do(f"icmp sgt i64 {begin}, {full}")
            begin = self.either(most, "i64", begin, full)
        fn.loop(begin, end, 1, [], self._panel)
        fn.say("ret void")
        fn.close()

    def _whole(self, begin: str, end: str) -> None:
        """Panels that are full, a row of the operand for all of them: it is read as it lies in memory."""
        fn = self.fn
        first = self.at(self.b, (begin, str(self.across)))

        def row(k: str, _: object) -> list[str]:
            def panel(_: str, carried: list[str]) -> list[str]:
                source, to = carried
                for v in (0, self.lanes):
                    self.store(
                        self.load(self.at(source, (str(v), "1"))), self.at(to, (str(v), "1"))
                    )
                return [self.at(source, (str(self.across), "1")), self.at(to, ("%jump", "1"))]

            source, to = self.at(first, (k, self.bk)), self.at("%to", (k, str(self.across)))
            fn.loop(begin, end, 1, [("ptr", source), ("ptr", to)], panel)
            return []

        fn.loop("0", self.k, 1, [], row)

    def _panel(self, p: str, _: object) -> list[str]:
        fn = self.fn
        to = self.at("%to", (fn.do(f"sub i64 {p}, %begin"), "%jump"))
        two, j, second = self.columns_of(fn.do(f"mul i64 {p}, {self.across}"), self.n)
        first = self.at(self.b, (j, self.bn))
        done = fn.label("copied")
        if self.kind.narrow:
            few, many = fn.label("few"), fn.label("many")
            fn.branch(fn.do(f"icmp slt i64 {self.n}, {self.lanes}"), few, many)
            fn.open_block(few)
            self._few_columns(to)
            fn.jump(done)
            fn.open_block(many)
        copy = {"beside": self._beside, "ahead": self._ahead, "apart": self._apart}[self.kind.right]
        copy(first, to)
        with fn.when(two):
            copy(self.at(first, (second, self.bn)), self.at(to, (second, "1")))
        fn.jump(done)
        fn.open_block(done)
        return []

    def _few_columns(self, to: str) -> None:
        """Less than a vector: what is missing is 0."""
        zero = "0x0000000000000000" if self.dtype.is_float else "0"
        total = self.fn.do(f"mul i64 {self.k}, {self.across}")
        fill = accs.fill(self.fn.module, self.dtype)
        self.fn.say(f"call void @{fill}(ptr {to}, i64 {total}, {self.one} {zero})")
        self._elements(self.b, to, "0", self.n)

    def _elements(self, first: str, to: str, start: str, columns: str) -> None:
        def row(k: str, _: object) -> list[str]:
            def element(j: str, _: object) -> list[str]:
                self.move(
                    self.at(first, (k, self.bk), (j, self.bn)),
                    self.at(to, (k, str(self.across)), (j, "1")),
                )
                return []

            self.fn.loop("0", columns, 1, [], element)
            return []

        self.fn.loop(start, self.k, 1, [], row)

    def _beside(self, first: str, to: str) -> None:
        def row(k: str, _: object) -> list[str]:
            self.move(self.at(first, (k, self.bk)), self.at(to, (k, str(self.across))), self.lanes)
            return []

        self.fn.loop("0", self.k, 1, [], row)

    def _apart(self, first: str, to: str) -> None:
        self._elements(first, to, "0", str(self.lanes))

    def _ahead(self, first: str, to: str) -> None:
        """Columns lie along memory: squares of them are turned in registers."""
        fn, lanes = self.fn, self.lanes

        def square(k: str, _: object) -> list[str]:
            corner = self.at(first, (k, "1"))
            columns = [self.load(self.at(corner, (str(j), self.bn))) for j in range(lanes)]
            target = self.at(to, (k, str(self.across)))
            for i, row in enumerate(self.turned(columns)):
                self.store(row, self.at(target, (str(i * self.across), "1")))
            return []

        whole = fn.do(f"and i64 {self.k}, {-lanes}")
        fn.loop("0", whole, lanes, [], square)
        self._elements(first, to, whole, str(lanes))
