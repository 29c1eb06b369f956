"""Straight-line code of loops: statements in which nothing is computed or loaded twice.

In:   the statements of a loop's body, short inner loops among them.
Out:  the same without these: each iteration's statements, and for every sum the tree of its order.
Invariant: no bit changes. What a store wrote is not loaded again, unless another store may have
changed it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from graphc.gates.contraction import BLOCK
from graphc.gates.gate import registry
from graphc.gates.reduction import LEAF, Reduction, lanes_of
from graphc.gates.scan import step_of
from graphc.ir.scalar import ScalarGraph, to_bits
from graphc.ir.types import DType, Size
from graphc.lower.loops import (
    RUNNING,
    Acc,
    Add,
    For,
    Index,
    Inside,
    Iota,
    Kernel,
    Let,
    Load,
    Scatter,
    Statement,
    Step,
    Store,
    coefficient,
    walk,
    without,
)
from graphc.lower.names import with_names


class Names:
    """Fresh names for values of a kernel."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.given = 0

    @cached_property
    def last(self) -> int:
        found = [getattr(s, "name", "%0") for s, _ in walk(self.kernel.body)]
        found += [a.name for s, _ in walk(self.kernel.body) if isinstance(s, For) for a in s.accs]
        return max((int(n[1:]) for n in found), default=0)

    def fresh(self) -> str:
        self.given += 1
        return f"%{self.last + self.given}"


@dataclass
class Straight:
    """Statements of a loop's body, in which nothing is computed or loaded twice."""

    names: Names
    outer: tuple[Acc, ...]  # the accumulators of the loop itself
    statements: list[Statement] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    known: dict[tuple, str] = field(default_factory=dict)
    memory: dict[tuple, str] = field(default_factory=dict)  # (buffer, index, at, only) -> value
    at: dict[str, int] = field(default_factory=dict)  # written-out variables
    sums: dict[str, dict[int, list[tuple[str, ...]]]] = field(default_factory=dict)
    running: dict[str, tuple[Acc, dict[int, str]]] = field(default_factory=dict)  # of each element

    def unroll(self, loop: For) -> None:
        """All iterations of a loop, one after the other; then its accumulators."""
        assert isinstance(loop.size, int)
        running = [acc for acc in loop.accs if acc.order == RUNNING]
        sums = [acc for acc in loop.accs if acc.order != RUNNING]
        self.running.update((acc.name, (acc, {})) for acc in running)
        for acc in sums:
            self.sums[acc.name] = {}
        for i in range(loop.size):
            self.at[loop.var] = i
            for s in loop.body:
                if isinstance(s, For):
                    self.unroll(s)
                else:
                    self.add(s)
        self.at.pop(loop.var, None)  # an empty loop never had a value
        for acc in running:
            del self.running[acc.name]
        for acc in sums:
            self._finish(acc, self.sums.pop(acc.name), loop.size)

    def _finish(self, acc: Acc, added: dict[int, list[tuple[str, ...]]], n: int) -> None:
        fold = Fold(self, acc)
        if not acc.into:
            self.renamed[acc.name] = fold.total(added.get(0, []))
            return
        size = self._size(acc.size)
        assert isinstance(size, int)
        for element in range(size):
            place = self._size(acc.index) + element
            self.add(Store(acc.into, place, fold.total(added.get(element, []))))

    def _size(self, size: Size) -> Size:
        for var, i in self.at.items():
            size = without(size, var) + coefficient(size, var) * i
        return size

    def _name(self, name: str) -> str:
        return self.renamed.get(name, name)

    def add(self, s: Statement) -> None:
        match s:
            case Let():
                args = tuple(map(self._name, s.args))
                self.renamed[s.name] = self.let(s.op, args, s.dtype, s.attr)
            case Iota():
                value = self._size(s.value)
                self.renamed[s.name] = self._once(("iota", value), lambda name: Iota(name, value))
            case Inside():
                bounds = tuple(map(self._size, (s.value, s.low, s.high)))
                self.renamed[s.name] = self._once(
                    ("inside", *bounds), lambda name: Inside(name, *bounds)
                )
            case Index():
                wrapped = self._name(s.value), self._size(s.size)
                self.renamed[s.name] = self._once(
                    ("index", *wrapped), lambda name: Index(name, *wrapped)
                )
            case Load():
                index = self._size(s.index)
                at = tuple((self._name(v), self._size(stride)) for v, stride in s.at)
                only = self._name(s.only)
                key = (s.buffer, index, at, only)
                if key not in self.memory:
                    name = self.memory[key] = self.names.fresh()
                    self.statements.append(Load(name, s.buffer, index, s.dtype, at, only))
                self.renamed[s.name] = self.memory[key]
            case Store(only=""):
                self._store(s.buffer, self._size(s.index), self._name(s.value))
            case Store():
                self._forget(s.buffer, None)
                stored, only = self._name(s.value), self._name(s.only)
                self.statements.append(Store(s.buffer, self._size(s.index), stored, only))
            case Add():
                values = tuple(map(self._name, s.values))
                index = self._size(s.index)
                if s.acc in self.sums:
                    assert isinstance(index, int)
                    self.sums[s.acc].setdefault(index, []).append(values)
                else:
                    self.statements.append(Add(s.acc, values, index))
            case Step():
                self.renamed[s.name] = self._step(s)
            case Scatter():
                at = tuple((self._name(v), self._size(stride)) for v, stride in s.at)
                self._forget(s.buffer, None)
                self.statements.append(
                    Scatter(s.buffer, self._size(s.index), at, self._name(s.value))
                )
            case For():
                self.keep(with_names(s, self.renamed))
            case _:
                raise AssertionError(f"{s} in a loop that is written out")

    def keep(self, loop: Statement) -> None:
        """A loop as it is."""
        assert isinstance(loop, For)
        self.statements.append(loop)
        for written in {t.buffer for t, _ in walk(loop.body) if isinstance(t, Store)}:
            self._forget(written, None)

    def _step(self, s: Step) -> str:
        """The first value of a scan is that of the last operand."""
        values, index = [*map(self._name, s.values)], self._size(s.index)
        if s.acc not in self.running:
            name = self.names.fresh()
            self.statements.append(replace(s, name=name, values=tuple(values), index=index))
            return name
        acc, now = self.running[s.acc]
        assert isinstance(index, int)
        if index in now:
            step = step_of(acc.monoid, acc.dtype)
            now[index] = self.written(step, [now[index], *values])
        else:
            now[index] = values[-1]
        return now[index]

    def written(self, graph: ScalarGraph, values: list[str]) -> str:
        """A scalar graph over values, in place."""
        for ins in graph.code:
            args = tuple(values[i] for i in ins.args)
            values.append(self.let(ins.op, args, ins.dtype, ins.attr))
        return values[graph.result]

    def _store(self, buffer: str, index: Size, value: str) -> None:
        self._forget(buffer, index)
        self.memory[buffer, index, (), ""] = value
        self.statements.append(Store(buffer, index, value))

    def _forget(self, buffer: str, index: Size | None) -> None:
        """What a store may have changed: all but elements at another distance known now."""

        def survives(key: tuple) -> bool:
            if key[0] != buffer:
                return True
            apart = None if index is None or key[2] or key[3] else key[1] - index
            return isinstance(apart, int) and apart != 0

        self.memory = {k: v for k, v in self.memory.items() if survives(k)}

    def let(
        self, op: str, args: tuple[str, ...], dtype: DType, attr: int | str | None = None
    ) -> str:
        return self._once(
            ("let", op, args, dtype, attr), lambda name: Let(name, op, args, dtype, attr)
        )

    def _once(self, key: tuple, make: Callable[[str], Statement]) -> str:
        if key not in self.known:
            self.known[key] = self.names.fresh()
            self.statements.append(make(self.known[key]))
        return self.known[key]


class Fold:
    """The tree of an accumulator's order over values that are all known by name.

    Identities fill the ragged edge of a tree and change no bit, so they are left out; but for +0,
    which is added to the total: it changes -0.
    """

    def __init__(self, code: Straight, acc: Acc) -> None:
        self.code, self.acc, self.dtype = code, acc, acc.dtype
        gate = registry()["sum" if acc.monoid == "fma" else acc.monoid]
        assert isinstance(gate, Reduction) and gate.combine is not None
        self.gate = gate
        self.graph = gate.combine.body_graph((acc.dtype, acc.dtype))

    def total(self, values: Sequence[tuple[str, ...]]) -> str:
        if not values:
            assert self.gate.identity is not None
            start = self.gate.identity(self.dtype)
            return self.code.let("const", (), self.dtype, to_bits(start or 0, self.dtype))
        lanes = lanes_of(self.dtype) if self.acc.order == "lanes" else 1
        leaf = BLOCK if self.acc.order == "chain" else LEAF
        if self.acc.order == "any":
            leaf = len(values)
        step = leaf * lanes
        leaves = [
            [self._leaf(values[start + lane : start + step : lanes]) for lane in range(lanes)]
            for start in range(0, len(values), step)
        ]
        found = [self._counter([leaf[lane] for leaf in leaves]) for lane in range(lanes)]
        while len(found) > 1:
            half = len(found) // 2
            found = [self._both(a, b) for a, b in zip(found[:half], found[half:], strict=True)]
        total = found[0]
        if self.acc.monoid == "sum0" and self.dtype.is_float:
            total = self._both(total, self.code.let("const", (), self.dtype, 0))
        assert total is not None
        return total

    def _leaf(self, values: Iterable[tuple[str, ...]]) -> str | None:
        """One after the other."""
        total: str | None = None
        for operands in values:
            if self.acc.monoid != "fma":
                total = self._both(total, operands[0])
            elif total is None:
                total = self.code.let("mul", operands, self.dtype)
            else:
                total = self.code.let("fma", (*operands, total), self.dtype)
        return total

    def _counter(self, leaves: Sequence[str | None]) -> str | None:
        """A binary counter; what is left in it is folded smallest first."""
        waiting: list[str | None] = []
        level = list(leaves)
        while len(level) > 1:
            if len(level) % 2:
                waiting.append(level.pop())
            level = [self._both(a, b) for a, b in zip(level[::2], level[1::2], strict=True)]
        total, *larger = [*waiting, level[0]]
        for part in larger:
            total = self._both(part, total)
        return total

    def _both(self, a: str | None, b: str | None) -> str | None:
        if a is None or b is None:
            return a or b
        return self.code.written(self.graph, [a, b])


def renumbered(body: tuple[Statement, ...], after: int = 0) -> tuple[Statement, ...]:
    """Values numbered in the order in which they are made, from `after` on; statements that have
    their numbers stay."""
    names: dict[str, str] = {}

    def new(name: str) -> str:
        return names.setdefault(name, f"%{len(names) + after + 1}")

    def pairs(at: tuple[tuple[str, Size], ...]) -> tuple[tuple[str, Size], ...]:
        return tuple([(new(value), stride) for value, stride in at]) if at else at

    def done(s: Statement) -> Statement:
        match s:
            case Let():
                args = tuple([new(a) for a in s.args])
                name = new(s.name)
                same = name == s.name and args == s.args
                return s if same else Let(name, s.op, args, s.dtype, s.attr)
            case Load():
                at, only = pairs(s.at), new(s.only) if s.only else ""
                name = new(s.name)
                same = name == s.name and at == s.at and only == s.only
                return s if same else Load(name, s.buffer, s.index, s.dtype, at, only)
            case Iota() | Inside():
                name = new(s.name)
                return s if name == s.name else replace(s, name=name)
            case Index():
                value, name = new(s.value), new(s.name)
                return Index(name, value, s.size)
            case Store():
                value, only = new(s.value), new(s.only) if s.only else ""
                same = value == s.value and only == s.only
                return s if same else Store(s.buffer, s.index, value, only)
            case Scatter():
                value = new(s.value)
                return replace(s, value=value, at=pairs(s.at))
            case Add():
                return replace(s, acc=new(s.acc), values=tuple(map(new, s.values)))
            case Step():
                values, acc = tuple(map(new, s.values)), new(s.acc)
                return replace(s, name=new(s.name), acc=acc, values=values)
            case For():
                accs = tuple(replace(a, name=new(a.name)) for a in s.accs)
                return replace(s, accs=accs, body=tuple(map(done, s.body)))
        return s

    return tuple(map(done, body))


__all__ = ["Names", "Straight", "renumbered"]
