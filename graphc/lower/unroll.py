"""Short inner loops are written out, so that the loop around them can run in lanes.

In:   a `Program` of plain loops.
Out:  the same with some loops over short axes, as the 3 of a vector in space, replaced by their
      iterations; what one of these hands to another through scratch stays in a register.
Invariant: no bit changes: a sum over a written-out axis is the tree of its order, operation by
operation.

An innermost loop runs in lanes, and over 3 elements most lanes are idle. With the short axes
written out, the lanes are the iterations of the next larger axis: the points, not their
coordinates. It is done where it costs fewer vector instructions. What it asks for in return are
operands whose neighbours along the larger axis do not lie side by side; see `lower.planes`.

>>> from graphc.lower.loops import parse_program
>>> print(written_out(parse_program(EXAMPLE)))
program lengths(x: f64[n,3])
sizes n
buffer output y.out: f64[n]
kernel k0
  for _i in n rows
    %1 = load x[3*_i] : f64
    %2 = mul %1, %1 : f64
    %3 = load x[3*_i+1] : f64
    %4 = mul %3, %3 : f64
    %5 = load x[3*_i+2] : f64
    %6 = mul %5, %5 : f64
    %7 = add %2, %6 : f64
    %8 = add %7, %4 : f64
    store y.out[_i] %8
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from graphc.gates.contraction import BLOCK
from graphc.gates.gate import registry
from graphc.gates.reduction import LEAF, VECTOR_BYTES, Reduction
from graphc.ir.scalar import to_bits
from graphc.ir.types import DType, Size
from graphc.lower.loops import (
    Acc,
    Add,
    Contract,
    Fill,
    For,
    Index,
    Iota,
    Kernel,
    Let,
    Load,
    Program,
    Scatter,
    Statement,
    Store,
    coefficient,
    walk,
    without,
)

SHORT = 8  # iterations up to which a loop is written out
MOST = 400  # statements of a loop whose inner loops have been written out
FEW = 8  # elements of an array accumulator that may be held apart
EXAMPLE = """program lengths(x: f64[n,3])
sizes n
buffer output y.out: f64[n]
kernel k0
  for _i in n rows
    for _j in 3 rows
      acc %1: f64 sum lanes
      %2 = load x[3*_i+_j] : f64
      %3 = mul %2, %2 : f64
      add %1 %3
    store y.out[_i] %1
"""


def written_out(program: Program) -> Program:
    """Every loop whose inner loops are short, with these written out where it pays."""
    kernels = []
    for kernel in program.kernels:
        body = _in_body(kernel.body, 0, _Names(kernel))
        kernels.append(replace(kernel, body=renumbered(body)))
    return _without_idle_scratch(replace(program, kernels=tuple(kernels)))


def _in_body(body: tuple[Statement, ...], depth: int, names: _Names) -> tuple[Statement, ...]:
    made: list[Statement] = []
    for s in body:
        if not isinstance(s, For):
            made.append(s)
            continue
        s = replace(s, body=_in_body(s.body, depth + 1, names))
        flat = _flattened(s, depth, names)
        if flat is not None and _cost_in_lanes(flat, depth) < _cost_of_inner_loops(s):
            made.extend(_apart(flat, names))
        else:
            made.append(s)
    return tuple(made)


# -- which loops ---------------------------------------------------------------------------------


def _flattened(loop: For, depth: int, names: _Names) -> For | None:
    """The loop with its inner loops written out, or None where one of them cannot be."""
    inner = [s for s in loop.body if isinstance(s, For)]
    if not inner or any(isinstance(s, Contract) for s in loop.body):
        return None
    if isinstance(loop.size, int) and loop.size < _lanes(loop):
        return None
    arrays = {a.name: a for a in loop.accs if a.into}
    kept = {id(f) for f in inner if _sums_of_columns(f, arrays)}
    rest = [f for f in inner if id(f) not in kept]
    if not rest or (kept and depth > 0):
        return None
    if not all(map(_straight, rest)) or sum(map(_statements, rest)) > MOST:
        return None
    writer = _Straight(names, loop.accs)
    for s in loop.body:
        if isinstance(s, For) and id(s) not in kept:
            writer.unroll(s)
        else:
            writer.add(s)
    if kept and _handed_over(writer.statements, depth):
        return None
    return replace(loop, body=tuple(writer.statements))


def _straight(loop: For) -> bool:
    """Is it short, and so is all inside of it?"""
    if not isinstance(loop.size, int) or loop.size > SHORT:
        return False
    return all(
        _straight(s) if isinstance(s, For) else not isinstance(s, (Scatter, Contract, Fill))
        for s in loop.body
    )


def _statements(loop: For) -> int:
    """Of a short loop that is written out."""
    inner = (_statements(s) if isinstance(s, For) else 1 for s in loop.body)
    return int(str(loop.size)) * sum(inner)


def _sums_of_columns(inner: For, arrays: dict[str, Acc]) -> bool:
    """Does it add to columns that the lanes cannot be? They stay a loop over the columns."""
    inside = (s for s, _ in walk(inner.body))
    added = [arrays[s.acc] for s in inside if isinstance(s, Add) and s.acc in arrays]
    return any(a.order == "chain" or not isinstance(a.size, int) or a.size > FEW for a in added)


def _handed_over(body: Sequence[Statement], depth: int) -> bool:
    """Does a loop that is kept read memory that the straight part writes?"""
    stored = {s.buffer for s in body if isinstance(s, Store)}
    loaded = {
        s.buffer
        for f in body
        if isinstance(f, For)
        for s, _ in walk(f.body)
        if isinstance(s, (Load, Store))
    }
    return bool(stored & loaded)


def _lanes(loop: For) -> int:
    """The lanes of a vector that holds one value of the loop for each of its iterations."""
    wide = any(getattr(s, "dtype", None) and s.dtype.itemsize == 8 for s, _ in walk(loop.body))  # type: ignore[union-attr]
    return 8 if wide else 16


# -- what it costs, in vector instructions for one iteration -------------------------------------

CALL, ROOT, HORIZONTAL, STRIDED, GATHERED = 25.0, 6.0, 7.0, 2.5, 3.0
ARRAY = 30.0  # an array accumulator is filled, and its counter pushed and finished


def _weight(s: Statement) -> float:
    if isinstance(s, Let):
        return CALL if s.op in ("call", "rare") else ROOT if s.op in ("div", "sqrt") else 1.0
    return 1.0


def _cost_of_inner_loops(loop: For) -> float:
    total = 0.0
    for s in loop.body:
        if isinstance(s, For):
            total += sum(ARRAY if a.into else HORIZONTAL for a in s.accs)
        if isinstance(s, For) and any(isinstance(t, For) for t in s.body):
            many = s.size if isinstance(s.size, int) else 1e9
            total += many * _cost_of_inner_loops(s) + 2.0
        elif isinstance(s, For):
            lanes = _lanes(s)
            vectors = -(-s.size // lanes) if isinstance(s.size, int) else 1e9
            total += vectors * sum(map(_weight, s.body)) + 2.0
        else:
            total += 2 * _weight(s) / _lanes(loop)  # lanes of a block at best, and handed over
    return total


def _cost_in_lanes(loop: For, depth: int) -> float:
    lanes = _lanes(loop)
    total = 0.0
    for s in loop.body:
        if isinstance(s, For):
            total += _cost_of_inner_loops(replace(loop, body=(s,)))
            continue
        total += _weight(s) / lanes
        if isinstance(s, Load) and s.at:
            total += GATHERED
        elif isinstance(s, (Load, Store)):
            if coefficient(s.index, loop.var) not in (0, 1) and not _in_planes(s, loop, depth):
                total += STRIDED
        elif isinstance(s, Add):
            total += 5.0 / lanes * any(a.name == s.acc and a.into for a in loop.accs)
    return total


def _in_planes(s: Load | Store, loop: For, depth: int) -> bool:
    """Will `lower.planes` lay it out for the lanes? If all iterations around the loop read it."""
    around = without(s.index, loop.var)
    return depth > 0 and isinstance(s, Load) and not _variables(around)


def _variables(size: Size) -> list[str]:
    return [] if isinstance(size, int) else [v for v in size.symbols() if v.startswith("_")]


# -- straight-line code --------------------------------------------------------------------------


class _Names:
    """Fresh names for values of a kernel."""

    def __init__(self, kernel: Kernel) -> None:
        found = [getattr(s, "name", "%0") for s, _ in walk(kernel.body)]
        found += [a.name for s, _ in walk(kernel.body) if isinstance(s, For) for a in s.accs]
        self.last = max((int(n[1:]) for n in found), default=0)

    def fresh(self) -> str:
        self.last += 1
        return f"%{self.last}"


@dataclass
class _Straight:
    """Statements of a loop's body, in which nothing is computed or loaded twice."""

    names: _Names
    outer: tuple[Acc, ...]  # the accumulators of the loop itself
    statements: list[Statement] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    known: dict[tuple, str] = field(default_factory=dict)
    memory: dict[tuple, str] = field(default_factory=dict)  # (buffer, index, at) -> value there
    at: dict[str, int] = field(default_factory=dict)  # written-out variables
    sums: dict[str, dict[int, list[tuple[str, ...]]]] = field(default_factory=dict)

    def unroll(self, loop: For) -> None:
        """All iterations of a loop, one after the other; then its accumulators."""
        assert isinstance(loop.size, int)
        for acc in loop.accs:
            self.sums[acc.name] = {}
        for i in range(loop.size):
            self.at[loop.var] = i
            for s in loop.body:
                if isinstance(s, For):
                    self.unroll(s)
                else:
                    self.add(s)
        self.at.pop(loop.var, None)  # an empty loop never had a value
        for acc in loop.accs:
            self._finish(acc, self.sums.pop(acc.name), loop.size)

    def _finish(self, acc: Acc, added: dict[int, list[tuple[str, ...]]], n: int) -> None:
        fold = _Fold(self, acc)
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
            case Index():
                wrapped = self._name(s.value), self._size(s.size)
                self.renamed[s.name] = self._once(
                    ("index", *wrapped), lambda name: Index(name, *wrapped)
                )
            case Load():
                index = self._size(s.index)
                at = tuple((self._name(v), self._size(stride)) for v, stride in s.at)
                key = (s.buffer, index, at)
                if key not in self.memory:
                    self.memory[key] = self.names.fresh()
                    self.statements.append(Load(self.memory[key], s.buffer, index, s.dtype, at))
                self.renamed[s.name] = self.memory[key]
            case Store():
                self._store(s.buffer, self._size(s.index), self._name(s.value))
            case Add():
                values = tuple(map(self._name, s.values))
                index = self._size(s.index)
                if s.acc in self.sums:
                    assert isinstance(index, int)
                    self.sums[s.acc].setdefault(index, []).append(values)
                else:
                    self.statements.append(Add(s.acc, values, index))
            case Scatter():
                at = tuple((self._name(v), self._size(stride)) for v, stride in s.at)
                self._forget(s.buffer, None)
                self.statements.append(
                    Scatter(s.buffer, self._size(s.index), at, self._name(s.value))
                )
            case For():
                self.statements.append(replace(s, body=tuple(map(self._with_names, s.body))))
                for written in {t.buffer for t, _ in walk(s.body) if isinstance(t, Store)}:
                    self._forget(written, None)
            case _:
                raise AssertionError(f"{s} in a loop that is written out")

    def _with_names(self, s: Statement) -> Statement:
        """A statement of a loop that stays, with the names that values have now."""
        match s:
            case Let():
                return replace(s, args=tuple(map(self._name, s.args)))
            case Load() | Scatter():
                at = tuple((self._name(v), stride) for v, stride in s.at)
                s = replace(s, at=at)
                return replace(s, value=self._name(s.value)) if isinstance(s, Scatter) else s
            case Store() | Index():
                return replace(s, value=self._name(s.value))
            case Add():
                return replace(s, values=tuple(map(self._name, s.values)))
            case For():
                return replace(s, body=tuple(map(self._with_names, s.body)))
        return s

    def _store(self, buffer: str, index: Size, value: str) -> None:
        self._forget(buffer, index)
        self.memory[buffer, index, ()] = value
        self.statements.append(Store(buffer, index, value))

    def _forget(self, buffer: str, index: Size | None) -> None:
        """What a store may have changed: all but elements at another distance known now."""

        def survives(key: tuple) -> bool:
            if key[0] != buffer:
                return True
            apart = None if index is None or key[2] else key[1] - index
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


class _Fold:
    """The tree of an accumulator's order over values that are all known by name.

    Identities fill the ragged edge of a tree and change no bit, so they are left out.
    """

    def __init__(self, code: _Straight, acc: Acc) -> None:
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
        lanes = VECTOR_BYTES // max(self.dtype.itemsize, 4) if self.acc.order == "lanes" else 1
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
        assert found[0] is not None
        return found[0]

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
        values = [a, b]
        for ins in self.graph.code:
            args = tuple(values[i] for i in ins.args)
            values.append(self.code.let(ins.op, args, ins.dtype, ins.attr))
        return values[self.graph.result]


# -- accumulators of the loop itself -------------------------------------------------------------


def _apart(loop: For, names: _Names) -> list[Statement]:
    """Array accumulators of few elements, each added to at fixed places, become single ones."""
    accs: list[Acc] = []
    single: dict[tuple[str, Size], str] = {}
    stores: list[Statement] = []
    for acc in loop.accs:
        places = [s.index for s in loop.body if isinstance(s, Add) and s.acc == acc.name]
        if not acc.into or acc.order == "chain" or not _few(acc, places):
            accs.append(acc)
            continue
        for element in range(int(str(acc.size))):
            name = single[acc.name, element] = names.fresh()
            accs.append(Acc(name, acc.dtype, acc.monoid, acc.order))
            stores.append(Store(acc.into, acc.index + element, name))
    body = tuple(
        Add(single[s.acc, s.index], s.values)
        if isinstance(s, Add) and (s.acc, s.index) in single
        else s
        for s in loop.body
    )
    return [replace(loop, accs=tuple(accs), body=body), *stores]


def _few(acc: Acc, places: Sequence[Size]) -> bool:
    return (
        isinstance(acc.size, int)
        and acc.size <= FEW
        and sorted(map(str, places)) == sorted(map(str, range(acc.size)))
    )


# -- tidying -------------------------------------------------------------------------------------


def renumbered(body: tuple[Statement, ...]) -> tuple[Statement, ...]:
    """Values numbered in the order in which they are made."""
    names: dict[str, str] = {}

    def new(name: str) -> str:
        return names.setdefault(name, f"%{len(names) + 1}")

    def done(s: Statement) -> Any:
        match s:
            case Let():
                return replace(s, args=tuple(map(new, s.args)), name=new(s.name))
            case Load():
                return replace(s, at=tuple((new(v), t) for v, t in s.at), name=new(s.name))
            case Iota():
                return replace(s, name=new(s.name))
            case Index():
                return replace(s, value=new(s.value), name=new(s.name))
            case Store():
                return replace(s, value=new(s.value))
            case Scatter():
                return replace(s, value=new(s.value), at=tuple((new(v), t) for v, t in s.at))
            case Add():
                return replace(s, acc=new(s.acc), values=tuple(map(new, s.values)))
            case For():
                accs = tuple(replace(a, name=new(a.name)) for a in s.accs)
                return replace(s, accs=accs, body=tuple(map(done, s.body)))
        return s

    return tuple(map(done, body))


def _without_idle_scratch(program: Program) -> Program:
    """Stores into temporaries that nothing reads any more go, with the temporaries."""
    read: set[str] = set()
    filled: set[str] = set()
    for kernel in program.kernels:
        for s, _ in walk(kernel.body):
            match s:
                case Load():
                    read.add(s.buffer)
                case Contract():
                    read |= {s.a.buffer, s.b.buffer, s.out.buffer}
                case Scatter() | Fill():
                    filled.add(s.buffer)
                case For():
                    filled |= {a.into for a in s.accs if a.into}
    idle = {b.name for b in program.of_role("temp")} - read - filled
    if not idle:
        return program

    def kept(body: tuple[Statement, ...]) -> tuple[Statement, ...]:
        return tuple(
            replace(s, body=kept(s.body)) if isinstance(s, For) else s
            for s in body
            if not (isinstance(s, Store) and s.buffer in idle)
        )

    kernels = tuple(replace(k, body=kept(k.body)) for k in program.kernels)
    buffers = tuple(b for b in program.buffers if b.name not in idle)
    return replace(program, kernels=kernels, buffers=buffers)


__all__ = ["EXAMPLE", "renumbered", "written_out"]
