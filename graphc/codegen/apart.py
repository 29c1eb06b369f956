"""A long body piece by piece: each piece is a function of its own, and none grows with the graph.

In:   a loop in lanes that `lower.pieces` cuts up.
Out:  functions `i32 piece(ptr args, ptr frame, i64 worker, i64 first, i64 count)`, which compute one vector, and calls
      of them.
Invariant: values go from piece to piece through slots of a working buffer; what else a piece needs of the function
around it, and that is few numbers, stands in the frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphc.codegen.llvm import register
from graphc.codegen.state import BEGIN, FIRST, OWNER, Known
from graphc.ir.types import Dim, i64
from graphc.lower.loops import For, Iota, Load, Statement, Store
from graphc.lower.pieces import Piece, cut_up, made_by, read_by
from graphc.lower.plan import pieces_name

if TYPE_CHECKING:
    from graphc.codegen.vectors import VectorLoop
    from graphc.codegen.writer import KernelWriter

PARAMS = (("ptr", "args"), ("ptr", "frame"), ("i64", "worker"), ("i64", "first"), ("i64", "count"))
START, COUNT = (
    "_vector",
    "_lanes",
)  # symbols: a vector's first iteration, and how many lanes are in use


class Pieces:
    """The pieces of a loop's body: written when it is made, then called for each vector."""

    def __init__(self, loop: VectorLoop) -> None:
        self.loop, self.outer, self.fn = loop, loop.kernel, loop.fn
        self.cut = cut_up(loop.loop)
        self.memory = pieces_name(self.outer.kernel, loop.loop)
        self.outer.body(self.cut.same)
        module = self.fn.module
        left, module.inline_left = module.inline_left, 0  # it would not last for all of the gates
        self.calls = [self._write(piece) for piece in self.cut.pieces]
        module.inline_left = left

    def call(self, i: str, count: str) -> None:
        """All pieces, for the vector at iteration i; then what they made for sums is known."""
        fn, start = self.fn, self.loop.start
        first = fn.do(f"add i64 {i}, {self.outer.symbols[start]}") if start else i
        worker = "%worker" if self.outer.part_of else "0"
        for name, frame in self.calls:
            fn.do(
                f"call i32 @{name}(ptr %args, ptr {frame}, i64 {worker}, i64 {first}, i64 {count})"
            )
        types = {n: ty for piece in self.cut.pieces for n, ty in piece.goes.items()}
        for name in dict.fromkeys(n for s in self.cut.adds for n in s.values):
            if name in types:
                memory = self.outer.pointer(self.memory)
                at = fn.do(f"getelementptr i8, ptr {memory}, i64 {self._offset(name)}")
                value = self.loop.load(at, types[name], "")
                self.outer.known[name] = Known(value, types[name], self.loop.width)
            else:
                self.loop.spread(name)

    def _write(self, piece: Piece) -> tuple[str, str]:
        """The function of a piece, and its frame."""
        from graphc.codegen.vectors import VectorLoop

        outer, var = self.outer, self.loop.loop.var
        inner = outer.beside(PARAMS)
        inner.symbols[START], inner.symbols[COUNT] = "%first", "%count"
        words: list[tuple[str, str]] = []
        for name in dict.fromkeys(n for s in piece.statements for n in read_by(s)):
            if name in outer.known:
                value = outer.known[name]
                inner.known[name] = Known(self._word(inner, value, words), value.dtype, value.width)
        for name in _symbols(piece, outer):
            if name not in inner.symbols:
                number = Known(outer.symbols[name], i64, 1)
                inner.symbols[name] = self._word(inner, number, words)
        base = inner.pointer(self.memory)

        def place(name: str) -> str:
            slot = f"slot{self.cut.slot[name]}"
            inner.slot_of[slot] = f"{base}, i64 {self._offset(name)}"
            return slot

        comes = {n: Load(n, place(n), 0, ty) for n, ty in piece.comes.items()}
        goes = {n: Store(place(n), 0, n) for n in piece.goes}
        body: list[Statement] = []
        for s in piece.statements:  # loaded when it is needed, stored when it is made
            body.extend(comes.pop(n) for n in dict.fromkeys(read_by(s)) if n in comes)
            body.append(s)
            body.extend(goes[n] for n, _ in made_by(s) if n in goes)
        loop = For(var, Dim.symbol(COUNT), (), tuple(body), "vector")
        VectorLoop(inner, loop, START, width=self.loop.width).write_vector("%count")
        inner.end()
        frame = self.fn.alloca("i64", max(len(words), 1))
        for i, (ty, text) in enumerate(words):
            at_word = self.fn.do(f"getelementptr i64, ptr {frame}, i64 {i}")
            self.fn.say(f"store {ty} {text}, ptr {at_word}")
        return inner.fn.name, frame

    def _offset(self, name: str) -> int:
        return self.cut.slot[name] * self.cut.slot_bytes

    def _word(self, inner: KernelWriter, value: Known, words: list[tuple[str, str]]) -> str:
        """The piece's register of a value; numbers stay what they are."""
        if not value.register.startswith("%"):
            return value.register
        ty = register(value.dtype, value.width)
        with inner.fn.in_entry():
            at = inner.fn.do(f"getelementptr i64, ptr %frame, i64 {len(words)}")
            words.append((ty, value.register))
            return inner.fn.do(f"load {ty}, ptr {at}")


def _symbols(piece: Piece, outer: KernelWriter) -> list[str]:
    """Variables of loops around it, and where a thread's part begins."""
    sizes = [s.index if isinstance(s, (Load, Store)) else s.value
             for s in piece.statements if isinstance(s, (Load, Store, Iota))]  # fmt: skip
    names = dict.fromkeys(name for s in sizes if isinstance(s, Dim) for name in s.symbols())
    names.update(dict.fromkeys((FIRST, OWNER, BEGIN)))
    return [n for n in names if n in outer.symbols]


__all__ = ["Pieces"]
