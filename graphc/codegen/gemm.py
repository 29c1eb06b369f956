"""Matrix products: a register-blocked kernel over packed panels, the same bits for every shape, stride and size.

The result is cut into tiles of 8 rows by 2 vectors. For each panel of columns, b is packed once; then every tile runs
over k in blocks of 256 with fma in sequence, and blocks meet in a binary counter: the order `chain`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphc.codegen import accumulators as accs
from graphc.codegen.llvm import MEMORY, REGISTER, Function, Module, register, splat, vector
from graphc.gates.contraction import BLOCK
from graphc.ir.types import DType, Size
from graphc.lower.loops import Contract, Operand

if TYPE_CHECKING:
    from graphc.codegen.writer import KernelWriter

ROWS = 8  # of a tile
VECTORS = 2  # across a tile: 16 accumulators, 2 vectors of b and one of a stay in 32 registers
TREE_LEVELS = 28  # blocks of k: 2^28 * 256
PARAMS = ("M", "N", "K", "cm", "cn", "am", "ak", "bk", "bn")


def panel_elements(dtype: DType) -> int:
    """The width of a packed panel, in elements."""
    return VECTORS * accs.lanes_of(dtype)


def emit_contract(writer: KernelWriter, s: Contract) -> None:
    """Loops over all letters but the last of each operand's own, around calls of the product of two matrices."""
    a, b, out = (dict(o.strides) for o in (s.a, s.b, s.out))
    sizes = dict(s.sizes)
    own_a = [c for c in out if c in a and c not in b]
    own_b = [c for c in out if c in b and c not in a]
    m, n = own_a[-1], own_b[-1]
    outer = [c for c in out if c not in (m, n)]
    strides = (out[m], out[n], a[m], a[s.k], b[s.k], b[n])
    name = gemm(writer.module, s.dtype)
    panel = writer.pointer(f"{s.out.buffer}.panel")

    def nest(letters: list[str], symbols: dict[str, str]) -> None:
        if letters:
            fn = writer.fn

            def body(i: str, _: object) -> list[str]:
                nest(letters[1:], {**symbols, letters[0]: i})
                return []

            fn.loop("0", writer.size(sizes[letters[0]]), 1, [], body)
            return
        pointers = [_start(writer, o, symbols) for o in (s.out, s.a, s.b)]
        extents = [writer.size(x) for x in (sizes[m], sizes[n], sizes[s.k], *strides)]
        args = [f"ptr {p}" for p in (*pointers, panel)] + [f"i64 {x}" for x in extents]
        writer.fn.say(f"call void @{name}({', '.join(args)})")

    nest(outer, {})


def _start(writer: KernelWriter, operand: Operand, symbols: dict[str, str]) -> str:
    """The address of an operand's first element under the outer letters."""
    fn = writer.fn
    address = writer.address(operand.buffer, operand.index)
    ty = MEMORY[writer.program.buffer(operand.buffer).type.dtype.name]
    strides: dict[str, Size] = dict(operand.strides)
    for letter, i in symbols.items():
        if letter in strides:
            offset = fn.do(f"mul i64 {i}, {writer.size(strides[letter])}")
            address = fn.do(f"getelementptr {ty}, ptr {address}, i64 {offset}")
    return address


def gemm(module: Module, dtype: DType) -> str:
    """@gc.gemm(c, a, b, panel, M, N, K, strides)."""
    name = f"gc.gemm.{dtype.name}"
    return module.once(name, lambda: _Gemm(module, name, dtype).write())


class _Gemm:
    def __init__(self, module: Module, name: str, dtype: DType) -> None:
        pointers = [("ptr", p) for p in ("c", "a", "b", "panel")]
        self.fn = Function(module, name, "void", [*pointers, *(("i64", p) for p in PARAMS)])
        self.dtype, self.lanes = dtype, accs.lanes_of(dtype)
        self.one = MEMORY[dtype.name]
        self.wide = register(dtype, self.lanes)
        self.across = self.lanes * VECTORS
        tile = ROWS * VECTORS
        self.leaf = self.fn.alloca(self.wide, tile)
        self.tree = self.fn.alloca(self.wide, tile * TREE_LEVELS)

    def write(self) -> None:
        fn = self.fn
        self.start = self._start_value()
        fn.loop("0", "%N", self.across, [], self._panel)
        fn.say("ret void")
        fn.close()

    def _start_value(self) -> str:
        """The identity -0; +0 where nothing is added."""
        if not self.dtype.is_float:
            return splat("0", self.one, self.lanes)
        none = self.fn.do("icmp eq i64 %K, 0")
        minus = "0x8000000000000000"
        one = self.fn.do(f"select i1 {none}, {self.one} 0x0000000000000000, {self.one} {minus}")
        return self.fn.spread(one, self.dtype, self.lanes)

    def _panel(self, j: str, _: object) -> list[str]:
        fn = self.fn
        left = fn.do(f"sub i64 %N, {j}")
        self.count = fn.do(
            f"select i1 {fn.do(f'icmp slt i64 {left}, {self.across}')}, i64 {left}, i64 {self.across}"
        )
        self._pack(j)
        whole = fn.do(f"and i64 %M, {-ROWS}")
        fn.loop("0", whole, ROWS, [], lambda i, _: self._tile(i, j, ROWS))
        fn.loop(whole, "%M", 1, [], lambda i, _: self._tile(i, j, 1))
        return []

    def _pack(self, j: str) -> None:
        """Columns j.. of b, row after row, filled with zeros to the width of a panel."""
        fn = self.fn
        first = self._at("%b", (j, "%bn"))
        direct = fn.do(
            f"and i1 {fn.do('icmp eq i64 %bn, 1')}, {fn.do(f'icmp eq i64 {self.count}, {self.across}')}"
        )
        vectors, scalars, after = fn.label("packv"), fn.label("packs"), fn.label("packed")
        fn.branch(direct, vectors, scalars)
        fn.open_block(vectors)
        fn.loop("0", "%K", 1, [], lambda k, _: self._pack_vectors(first, k))
        fn.jump(after)
        fn.open_block(scalars)
        total = fn.do(f"mul i64 %K, {self.across}")
        zero = "0x0000000000000000" if self.dtype.is_float else "0"
        fn.say(
            f"call void @{accs.fill(fn.module, self.dtype)}(ptr %panel, i64 {total}, {self.one} {zero})"
        )
        fn.loop("0", self.count, 1, [], lambda jj, _: self._pack_column(first, jj))
        fn.jump(after)
        fn.open_block(after)

    def _pack_vectors(self, first: str, k: str) -> list[str]:
        fn = self.fn
        source, target = self._at(first, (k, "%bk")), self._at("%panel", (k, str(self.across)))
        for v in range(VECTORS):
            value = fn.do(
                f"load {self.wide}, ptr {self._at(source, (str(v), str(self.lanes)))}, align {self.dtype.itemsize}"
            )
            fn.say(
                f"store {self.wide} {value}, ptr {self._at(target, (str(v), str(self.lanes)))}, align {self.dtype.itemsize}"
            )
        return []

    def _pack_column(self, first: str, jj: str) -> list[str]:
        fn = self.fn
        column, target = self._at(first, (jj, "%bn")), self._at("%panel", (jj, "1"))

        def element(k: str, _: object) -> list[str]:
            value = fn.do(f"load {self.one}, ptr {self._at(column, (k, '%bk'))}")
            fn.say(f"store {self.one} {value}, ptr {self._at(target, (k, str(self.across)))}")
            return []

        fn.loop("0", "%K", 1, [], element)
        return []

    def _at(self, base: str, *terms: tuple[str, str]) -> str:
        for i, stride in terms:
            offset = i if stride == "1" else self.fn.do(f"mul i64 {i}, {stride}")
            base = self.fn.do(f"getelementptr {self.one}, ptr {base}, i64 {offset}")
        return base

    def _tile(self, i: str, j: str, rows: int) -> list[str]:
        """`rows` rows of the panel's columns: one block of k in registers, several through a counter."""
        fn = self.fn
        short = fn.do(f"icmp sle i64 %K, {BLOCK}")
        once, many, after = fn.label("once"), fn.label("many"), fn.label("tiled")
        fn.branch(short, once, many)
        fn.open_block(once)
        values = self._block(i, "0", "%K", rows)
        self._to_leaf(values)
        fn.jump(after)
        fn.open_block(many)
        self._blocks(i, rows)
        fn.jump(after)
        fn.open_block(after)
        self._write_tile(i, j, rows)
        return []

    def _block(self, i: str, start: str, end: str, rows: int) -> list[str]:
        fn = self.fn
        row = [self._at("%a", (fn.do(f"add i64 {i}, {r}"), "%am")) for r in range(rows)]
        carried = [(self.wide, self.start)] * (rows * VECTORS)

        def step(k: str, sums: list[str]) -> list[str]:
            packed = self._at("%panel", (k, str(self.across)))
            columns = [
                fn.do(
                    f"load {self.wide}, ptr {self._at(packed, (str(v), str(self.lanes)))}, align {self.dtype.itemsize}"
                )
                for v in range(VECTORS)
            ]
            after = []
            for r in range(rows):
                a = fn.do(f"load {self.one}, ptr {self._at(row[r], (k, '%ak'))}")
                wide = fn.spread(a, self.dtype, self.lanes)
                after += [self._fma(wide, c, sums[r * VECTORS + v]) for v, c in enumerate(columns)]
            return after

        return fn.loop(start, end, 1, carried, step)

    def _fma(self, a: str, b: str, c: str) -> str:
        if self.dtype.is_float:
            return accs.fma(self.fn, self.dtype, a, b, c, self.lanes)
        return self.fn.do(f"add {self.wide} {self.fn.do(f'mul {self.wide} {a}, {b}')}, {c}")

    def _to_leaf(self, values: list[str]) -> None:
        for position, value in enumerate(values):
            at = self.fn.do(f"getelementptr {self.wide}, ptr {self.leaf}, i64 {position}")
            self.fn.say(f"store {self.wide} {value}, ptr {at}")

    def _blocks(self, i: str, rows: int) -> None:
        fn = self.fn
        count = rows * VECTORS * self.lanes
        push = accs.tree_push(fn.module, "sum", self.dtype)
        finish = accs.tree_finish(fn.module, "sum", self.dtype)

        def block(k: str, _: object) -> list[str]:
            next_k = fn.do(f"add i64 {k}, {BLOCK}")
            end = fn.do(f"select i1 {fn.do(f'icmp slt i64 {next_k}, %K')}, i64 {next_k}, i64 %K")
            self._to_leaf(self._block(i, k, end, rows))
            t = fn.do(f"lshr i64 {k}, {BLOCK.bit_length() - 1}")
            fn.say(
                f"call void @{push}(ptr {self.leaf}, ptr {self.tree}, i64 {count}, i64 {t}, i64 {count})"
            )
            return []

        fn.loop("0", "%K", BLOCK, [], block)
        t = fn.do(f"lshr i64 {fn.do(f'add i64 %K, {BLOCK - 1}')}, {BLOCK.bit_length() - 1}")
        fn.say(
            f"call void @{finish}(ptr {self.leaf}, ptr {self.tree}, i64 {count}, i64 {t}, i64 {count})"
        )

    def _write_tile(self, i: str, j: str, rows: int) -> None:
        """From the leaf to c: whole vectors under a mask where columns lie side by side, else one by one."""
        fn = self.fn
        first = self._at("%c", (i, "%cm"), (j, "%cn"))
        beside, apart, after = fn.label("beside"), fn.label("apart"), fn.label("written")
        fn.branch(fn.do("icmp eq i64 %cn, 1"), beside, apart)
        fn.open_block(beside)
        self._write_vectors(first, rows)
        fn.jump(after)
        fn.open_block(apart)

        def row(r: str, _: object) -> list[str]:
            def column(jj: str, _: object) -> list[str]:
                source = self._at(self.leaf, (r, str(self.across)), (jj, "1"))
                value = fn.do(f"load {self.one}, ptr {source}")
                fn.say(f"store {self.one} {value}, ptr {self._at(first, (r, '%cm'), (jj, '%cn'))}")
                return []

            fn.loop("0", self.count, 1, [], column)
            return []

        fn.loop("0", str(rows), 1, [], row)
        fn.jump(after)
        fn.open_block(after)

    def _write_vectors(self, first: str, rows: int) -> None:
        fn, lanes = self.fn, self.lanes
        ones = vector("i1", lanes)
        suffix = (
            f"v{lanes}{REGISTER[self.dtype.name].replace('double', 'f64').replace('float', 'f32')}"
        )
        store = fn.module.intrinsic(
            f"llvm.masked.store.{suffix}.p0", "void", (self.wide, "ptr", "i32", ones)
        )
        for v in range(VECTORS):
            left = fn.spread_type(fn.do(f"sub i64 {self.count}, {v * lanes}"), "i64", lanes)
            mask = fn.do(f"icmp slt <{lanes} x i64> {fn.iota(lanes)}, {left}")
            for r in range(rows):
                at = fn.do(f"getelementptr {self.wide}, ptr {self.leaf}, i64 {r * VECTORS + v}")
                value = fn.do(f"load {self.wide}, ptr {at}")
                target = self._at(first, (str(r), "%cm"), (str(v), str(lanes)))
                fn.say(
                    f"call void @{store}({self.wide} {value}, ptr {target}, i32 {self.dtype.itemsize}, {ones} {mask})"
                )
