"""Long bodies of loops in lanes, written once for whole and partial vectors.

The last vector, a partial one, is loaded and stored by way of the stack: a body of its own, under a mask, would take
longer to compile than that takes to run. Where a body is longer than a processor looks ahead, two vectors take turns,
statement by statement.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from graphc.codegen.llvm import register
from graphc.codegen.state import Known
from graphc.codegen.vector_memory import backwards, in_place
from graphc.gates.gate import registry
from graphc.ir.types import i64
from graphc.lower.loops import RUNNING, VARIABLES, Add, Iota, Let, Load, Step, Store, is_running
from graphc.lower.parallel import cost

if TYPE_CHECKING:
    from graphc.codegen.vectors import VectorLoop

ALONG = ("1", "-1")  # steps from lane to lane of a vector that lies in memory as it is, or turned
LONG = 100  # instructions from which on a body is written once, under a mask that is nearly always full
# Instructions of bodies in which two vectors take turns, up to where that is not worth what it takes to compile. In
# registers of 32 bytes, a vector is two as it is.
PAIRED = (250, 500)
# Picoseconds that a loop takes at least, if that is known: an eighth of it, a thousand times, is what it takes.
REPAID = 40_000_000


class WrittenOnce:
    """The body of one loop, if it is long."""

    def __init__(self, of: VectorLoop) -> None:
        self.of = of
        self.spare: dict[int, str] = {}  # statement position -> where a partial vector's data go
        self.vectors = 1  # that an iteration takes
        self.place = 0  # of the one among them that is written
        self.partial = ""  # is the last of them partial?
        self.chosen: dict[int, str] = {}  # the same -> the first vector's place, or its spare

    def fits(self) -> bool:
        """Would the body of the last vector take longer to compile than a mask for all takes to run?"""
        n, own = self.of.loop.size, {a.name for a in self.of.loop.accs}
        if self.of.rows or self.of.strided.found or self.of.pieces is not None:
            return False
        if isinstance(n, int) and n % self.of.step() == 0:
            return False
        loaded, stored = set(), set()
        for position, s in enumerate(self.of.loop.body):
            match s:
                case Load() if not s.at and self.of.steps[position] in ("0", *ALONG):
                    loaded.add(s.buffer)
                case Store() if self.of.steps[position] in ALONG:
                    stored.add(s.buffer)
                case Let() | Iota():
                    pass
                case Add() | Step() if s.acc in own:
                    pass
                case _:
                    return False
        return not loaded & stored and self.is_long()

    def is_long(self) -> bool:
        return sum(self._instructions()) >= LONG

    def _instructions(self) -> tuple[int, int]:
        """Of the body: those of the gates that it calls, and its own."""
        types = {name: known.dtype for name, known in self.of.kernel.known.items()}
        gates, own = 0, 0
        for s in self.of.loop.body:
            if isinstance(s, (Let, Load, Step)):
                types[s.name] = s.dtype
            elif isinstance(s, Iota):
                types[s.name] = i64
            if isinstance(s, Let) and s.op == "call":
                dtypes = tuple(types[a] for a in s.args)
                gates += len(registry()[str(s.attr)].body_graph(dtypes).code)
            else:
                own += 1
        return gates, own

    def in_pairs(self) -> bool:
        """Is it worth writing two vectors into an iteration?"""
        n, added = self.of.loop.size, [s.acc for s in self.of.loop.body if isinstance(s, Add)]
        gates, own = self._instructions()
        return (
            self.of.fn.module.avx512
            and PAIRED[0] <= gates + own <= PAIRED[1]
            and 2 * gates <= self.of.fn.module.inline_left
            and len(set(added)) == len(added)
            and not (isinstance(n, int) and n <= self.of.width)
            and not self._is_brief()
            and not is_running(self.of.loop)
            and "-1" not in self.of.steps.values()
        )

    def _is_brief(self) -> bool:
        """Does a loop that no other one runs again take so little that few calls would notice?"""
        alone = self.of.start == "" and self.of.kernel.symbols.keys().isdisjoint(VARIABLES)
        return alone and isinstance(n := self.of.loop.size * cost(self.of.loop), int) and n < REPAID

    def write(
        self, n: str, values: list[str], levels: list[str], single: bool
    ) -> tuple[list[str], list[str]]:
        """All vectors. A partial one at the end is loaded and stored by way of the stack."""
        fn, step = self.of.fn, self.of.step()
        self.vectors = 2 if self.in_pairs() else 1
        taken = self.of.width * self.vectors
        whole = str(int(n) // taken * taken) if n.isdigit() else fn.do(f"and i64 {n}, {-taken}")
        partial = "" if whole == n else fn.do(f"icmp slt i64 {whole}, {n}")
        if partial:
            self._load_spare(n, whole, partial)

        def some(i: str, before: list[str]) -> list[str]:
            if partial:
                self.partial = fn.do(f"icmp eq i64 {i}, {whole}")
            after = self._vectors(i, before)
            if partial and before:
                return self._only_lanes_in_use(before, after, n, i)
            return after[-1]

        def leaf(i: str, before: list[str]) -> list[str]:
            carried = self.of.carried(
                [*self.of.others, *self.of.lanes], [*before, *self.of.identities()]
            )
            end = n
            if not single:
                full = fn.do(f"add i64 {i}, {step}")
                end = fn.do(f"select i1 {fn.do(f'icmp slt i64 {full}, {n}')}, i64 {full}, i64 {n}")
            after = fn.loop(i, end, taken, carried, some)
            leaves[:] = after[len(before) :]
            if not single:
                self.of.push(leaves, levels, i, step)
            return after[: len(before)]

        leaves: list[str] = []
        carried = self.of.carried(self.of.others, values)
        if not self.of.lanes:
            values = fn.loop("0", n, taken, carried, some)
        elif single:
            values = leaf("0", values)
        else:
            values = fn.loop("0", n, step, carried, leaf)
        self._store_spare(n, whole, partial)
        return values, leaves

    def _vectors(self, i: str, before: Sequence[str]) -> list[list[str]]:
        """An iteration of a body written once: the accumulators after each of its vectors.

        Two of them take turns, statement by statement.
        """
        kernel, names = self.of.kernel, [a.name for a in (*self.of.others, *self.of.lanes)]
        outside, state = kernel.known, dict(zip(names, before, strict=True))
        starts = [i, *(self.of.fn.do(f"add i64 {i}, {at}") for at in self._further())]
        known = [dict(outside) for _ in starts]
        after: list[dict[str, str]] = [{} for _ in starts]
        for position, s in enumerate(self.of.loop.body):
            for self.place, start in enumerate(starts):
                kernel.known = known[self.place]
                self.of.statement(position, s, start, "", state)
                if isinstance(s, (Add, Step)):
                    after[self.place][s.acc] = state[s.acc]
        kernel.known, self.place = outside, 0
        return [[found.get(a, value) for a, value in zip(names, before)] for found in after]

    def _further(self) -> list[int]:
        """How far behind the first vector of an iteration the others are."""
        return [k * self.of.width for k in range(1, self.vectors)]

    def write_partial(self, count: str) -> None:
        """One vector, of which so many lanes are in use."""
        self.partial = self.of.fn.do(f"icmp slt i64 {count}, {self.of.width}")
        self._load_spare(count, "0", self.partial)
        self.of.iteration("0", [], "")
        self._store_spare(count, "0", self.partial)

    def _only_lanes_in_use(
        self, before: Sequence[str], after: Sequence[Sequence[str]], n: str, i: str
    ) -> list[str]:
        """Accumulators after some vectors: where these are partial, other lanes stay as they were.

        A branch, as a blend in every iteration would wait for the end of the body.
        """
        fn, width, accumulators = (
            self.of.fn,
            self.of.width,
            (*self.of.others, *self.of.lanes),
        )
        came, full = fn.block, fn.label("full")
        part = fn.label("part")
        fn.branch(self.partial, part, full)
        fn.open_block(part)
        chosen = list(before)
        for at, values in zip((0, *self._further()), after, strict=True):
            mask = self.of.mask(n, fn.do(f"add i64 {i}, {at}") if at else i)
            for k, acc in enumerate(accumulators):
                if acc.order == RUNNING:  # nothing goes on from a partial vector
                    chosen[k] = values[k]
                    continue
                ty = register(acc.dtype, width)
                chosen[k] = fn.do(
                    f"select <{width} x i1> {mask}, {ty} {values[k]}, {ty} {chosen[k]}"
                )
        fn.jump(full)
        fn.open_block(full)
        return [
            fn.phi(self.of.state_type(acc), (new, came), (kept, part))[0]
            for acc, new, kept in zip(accumulators, after[-1], chosen, strict=True)
        ]

    def _load_spare(self, n: str, whole: str, partial: str) -> None:
        """What partial vectors load goes to the stack, with zeros in the lanes that are not in use."""
        for position, s in enumerate(self.of.loop.body):
            if isinstance(s, (Load, Store)) and s.buffer in self.of.kernel.slot_of:
                continue  # whole vectors on their own
            if isinstance(s, Store) or (isinstance(s, Load) and self.of.steps[position] in ALONG):
                count = self.of.width * self.vectors
                self.spare[position] = self.of.fn.alloca(self.of.memory_type(position), count)
        if not self.spare:
            return
        with self.of.fn.when(partial):
            for start, at, mask in self._parts(n, whole):
                for position, place in self.spare.items():
                    s = self.of.loop.body[position]
                    if isinstance(s, Load):
                        loaded = self.of.load(self.of.addresses(position, (), start), s.dtype, mask)
                        value = Known(loaded, s.dtype, self.of.width)
                        self.of.store(self._behind(position, place, at), value, "")

    def _store_spare(self, n: str, whole: str, partial: str) -> None:
        """What partial vectors have stored goes from the stack to its place."""
        stores = {p: s for p in self.spare if isinstance(s := self.of.loop.body[p], Store)}
        if not stores:
            return
        with self.of.fn.when(partial):
            for start, at, mask in self._parts(n, whole):
                for position, s in stores.items():
                    dtype = self.of.kernel.buffer(s.buffer).type.dtype
                    spare = self._behind(position, self.spare[position], at)
                    value = Known(self.of.load(spare, dtype, ""), dtype, self.of.width)
                    self.of.store(self.of.addresses(position, (), start), value, mask)

    def _parts(self, n: str, whole: str) -> Iterator[tuple[str, int, str]]:
        """The vectors behind the whole ones: where each begins, in the loop and here, and its mask."""
        for at in (0, *self._further()):
            start = self.of.fn.do(f"add i64 {whole}, {at}") if at else whole
            yield start, at, self.of.mask(n, start)

    def _behind(self, position: int, address: str, at: int) -> str:
        """Where another vector's data lie on the stack, in the order of memory."""
        ty = self.of.memory_type(position)
        place = self.of.fn.do(f"getelementptr {ty}, ptr {address}, i64 {at}") if at else address
        return backwards(place) if self.of.steps[position] == "-1" else place

    def place_of(self, position: int, i: str) -> str:
        """Where a vector lies: a partial one on the stack."""
        if not self.place:
            spare, address = self.spare[position], in_place(self.of.addresses(position, (), i))
            self.chosen[position] = self.of.fn.do(
                f"select i1 {self.partial}, ptr {spare}, ptr {address}"
            )
        return self._behind(position, self.chosen[position], self.place * self.of.width)
