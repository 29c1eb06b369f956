"""The statements of fused loops: loads, scalar operations, accumulators, stores; task by task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from graphc.gates.contraction import parse_spec
from graphc.gates.elementwise import Elementwise
from graphc.gates.movement import Along, IndexMap
from graphc.gates.reduction import Reduction
from graphc.ir.graph import Node
from graphc.ir.scalar import to_bits
from graphc.ir.types import (
    Dim,
    DType,
    Size,
    at_least,
    bool_,
    i64,
    product,
    size_min,
    unclipped,
)
from graphc.lower.fuse import Group, Place, _Storage, row_major, runs_down
from graphc.lower.loops import (
    RUNNING,
    VARIABLES,
    Acc,
    Add,
    Contract,
    Fill,
    For,
    Index,
    Inside,
    Iota,
    Let,
    Load,
    Operand,
    Scatter,
    Statement,
    Step,
    Store,
    coefficient,
    without,
)
from graphc.lower.tasks import UNIT, Access, Task, is_again, made_from, part_from

Range = tuple[int, Size, Size]  # iterations of the loop at a depth, from one on and before another
INLINE = 8  # instructions up to which a gate's body is written in place of a call


@dataclass
class _Body:
    """The statements of one loop body, and what is already known in it."""

    statements: list[Statement] = field(default_factory=list)
    known: dict[Any, str] = field(default_factory=dict)
    outer: _Body | None = None

    def find(self, key: Any) -> str | None:
        body: _Body | None = self
        while body is not None:
            if key in body.known:
                return body.known[key]
            body = body.outer
        return None


class Writer:
    """Writes the statements of groups."""

    def __init__(self, storage: _Storage) -> None:
        self.storage = storage
        self.count = 0
        self.accs: dict[Task, str] = {}
        self.loops: tuple[Size, ...] = ()  # the sizes of the loops around what is written
        self.ranges: tuple[Range, ...] = ()  # in which it has a value

    def kernel(self, group: Group) -> tuple[Statement, ...]:
        self.count = 0
        body = _Body(self._fills(group))
        self._group(group, body)
        return tuple(body.statements)

    def name(self) -> str:
        self.count += 1
        return f"%{self.count}"

    def _group(self, group: Group, body: _Body) -> None:
        if group.kind != "loop":
            for task in group.tasks:
                self._task(task, body)
            return
        finishing = [t for t in group.tasks if t.reduced == group.depth]
        running = [t for t in group.tasks if t.running == group.depth]
        accs = (*map(self._acc, finishing), *map(self._running, running))
        inner = _Body(outer=body)
        for g in group.groups:
            self._group(g, inner)
        assert group.size is not None
        var, statements = VARIABLES[group.depth], tuple(inner.statements)
        if any(runs_down(t, group.depth) for t in running):
            statements = tuple(_from_the_end(s, var, group.size) for s in statements)
        body.statements.append(For(var, group.size, accs, statements))
        for task in finishing:
            self._finished(task, body)

    def _fills(self, group: Group) -> list[Statement]:
        """What is in memory before parts are placed into it, or updates added to it."""
        made: list[Statement] = []
        for t in group.tasks:
            if t.kind == "scatter":
                made.append(Fill(self.storage.places[t].buffer, 0, 0, t.type.size))
            elif t.region is not None and t.node.op == "place":
                made.extend(self._around(t, self.storage.places[t.region[0]].buffer))
        return made

    def _around(self, part: Task, buffer: str) -> list[Statement]:
        """The number around a placed part: before and after whole rows, else everywhere."""
        node, whole, own = part.node, part.type.shape, part.node.args[0].type.shape
        if not whole or node["steps"][0] != 1 or whole[1:] != own[1:]:
            return [Fill(buffer, node["fill"], 0, part.type.size)]
        row, first = product(whole[1:]), size_min(node["starts"][0], whole[0])
        last = size_min(node["starts"][0] + own[0], whole[0])
        slabs = ((0, first * row), (last * row, (whole[0] - last) * row))
        return [Fill(buffer, node["fill"], start, size) for start, size in slabs if size != 0]

    def _acc(self, task: Task) -> Acc:
        name = self.accs[task] = self.name()
        node, r = task.node, task.reduced
        assert r is not None
        monoid = node.op if task.kind != "fma" else "fma" if task.type.dtype.is_float else "sum"
        if r == len(task.domain) - 1:
            return Acc(name, task.type.dtype, monoid, node["order"])
        place = self.storage.places[task]
        start, inner = self._at(place, task, before=r), product(task.domain[r + 1 :])
        return Acc(name, task.type.dtype, monoid, node["order"], place.buffer, start, inner)

    def _running(self, task: Task) -> Acc:
        name = self.accs[task] = self.name()
        row = self.storage.running.get(task)
        array = (row.buffer, 0, product(row.shape)) if row else ()
        return Acc(name, task.type.dtype, task.node.op, RUNNING, *array)

    def _at(self, place: Place, task: Task, before: int | None = None) -> Size:
        """The index of the task's own element in its memory (up to a domain position)."""
        index: Size = 0
        for p, stride in zip(place.axes, row_major(place.shape), strict=True):
            if p != UNIT and (before is None or p < before):
                index = index + stride * Dim.symbol(VARIABLES[p])
        return index

    def _finished(self, task: Task, body: _Body) -> None:
        """After a loop: scalar accumulators have their values."""
        if task.reduced != len(task.domain) - 1:
            return
        value = body.known[task] = self._unless_empty(task, self.accs[task], body)
        place = self.storage.places.get(task)
        if place is not None:
            with self._around_task(task, outside=True):
                self._store(place.buffer, self._at(place, task), value, body)

    def _unless_empty(self, task: Task, total: str, body: _Body) -> str:
        """A sum of nothing is 0, though the loop is not empty and its identities add up to -0."""
        own, is_sum = task.domain[-1], task.kind == "fma" or task.node.op == "sum"
        if own == task.loops[-1] or not (is_sum and task.type.dtype.is_float) or at_least(own, 1):
            return total
        count = self._once(("iota", own), body, lambda name: Iota(name, own))
        none = self._let("eq", (count, self.constant(0, i64, body)), bool_, None, body)
        zero = self.constant(0, task.type.dtype, body)
        return self._let("select", (none, zero, total), task.type.dtype, None, body)

    # -- ranges of loops ---------------------------------------------------------------------------

    @contextmanager
    def _around_task(self, task: Task, outside: bool = False) -> Iterator[None]:
        """While a task is written (or, `outside` of the loop that it reduces, its result), what is
        beyond its domain in longer loops has no value.
        """
        self.loops = task.loops
        axes = [p for p in range(len(task.domain)) if not (outside and p == task.reduced)]
        self.ranges = self._ranges((Along(p), 0, task.domain[p]) for p in axes)
        yield
        self.loops, self.ranges = (), ()

    def _ranges(self, along: Iterable[tuple[Along, Size, Size]]) -> tuple[Range, ...]:
        """Where positions along the loops are from one size on and before another."""
        found: list[Range] = []
        for e, low, high in along:
            if e.axis is None:
                assert e.start == low, "a part of one element is read elsewhere"
                continue
            start, span = low - e.start, self.loops[e.axis]
            if at_least(0, start) and at_least(high - e.start, span):
                continue
            end = start + unclipped(high - low)
            start = 0 if at_least(0, start) else start
            end = span if at_least(end, span) else end
            if (start, end) != (0, span):
                found.append((e.axis, start, end))
        return tuple(found)

    def _only(self, ranges: Iterable[Range], body: _Body) -> str:
        """Is this iteration in all ranges? Empty where there is none."""
        found = ""
        for axis, low, high in dict.fromkeys(ranges):
            bounds = (Dim.symbol(VARIABLES[axis]), low, high)
            one = self._once(("inside", *bounds), body, lambda name, b=bounds: Inside(name, *b))
            found = self._let("and", (found, one), bool_, None, body) if found else one
        return found

    def _bounds(self, access: Access) -> tuple[Range, ...]:
        """Where there is something to read, in the longest loops."""
        pairs = list(zip(access.map, access.shape, strict=True))
        if any(e.axis is not None and e.step != 1 for e, _ in pairs):
            return self.ranges
        return self._ranges((e, 0, size) for e, size in pairs if e.axis is not None)

    def _again(self, access: Access, body: _Body) -> str:
        """The value of a task that no loop makes, made here."""
        made = access.base
        assert isinstance(made, Task)
        key = ("again", made, access.map, self.ranges)
        found = body.find(key)
        if found is None:
            make = self._padded if made.kind == "memory" else self._shifted
            found = body.known[key] = make(made, access.map, body)
        return found

    def _shifted(self, made: Task, along: IndexMap, body: _Body) -> str:
        return self._computed(made, [self.read(a, body) for a in made_from(made, along)], body)

    def _padded(self, made: Task, along: IndexMap, body: _Body) -> str:
        """The number around the parts, or what a part has there."""
        dtype, node = made.type.dtype, made.node
        value, around = "", self.ranges
        if node.op == "place":
            value = self.constant(node["fill"], dtype, body)
        for part in made.extra["parts"]:
            sizes = [1 if e.axis is None else part.domain[e.axis] for e in part.region[1]]
            places = zip(along, part.region[1], sizes, strict=True)
            inside = self._ranges((a, e.start, e.start + s) for a, e, s in places)
            self.ranges = (*around, *inside)
            (access,) = part_from(part, along)
            here, self.ranges = self.read(access, body), around
            if value and inside:
                only = self._only(inside, body)
                here = self._let("select", (only, here, value), dtype, None, body)
            value = here
        return value

    # -- reading -----------------------------------------------------------------------------------

    def read(self, access: Access, body: _Body, at: tuple[tuple[str, Size], ...] = ()) -> str:
        """The name of the value that an access reads."""
        base = access.base
        if is_again(base):
            return self._again(access, body)
        if isinstance(base, Task) and not at and not access.reshaped:
            found = body.find(base)
            if found is not None:
                return found
        if isinstance(base, Node) and base.op in ("constant", "size", "iota"):
            if base.op != "constant" or len(base["data"]) == base.type.dtype.itemsize:
                return self._source(base, access.map, body)
        buffer, index = self.address(access)
        dtype = base.type.dtype
        only = self._only(self._bounds(access), body) if self.ranges else ""
        key = ("load", buffer, index, at, only)
        return self._once(key, body, lambda name: Load(name, buffer, index, dtype, at, only))

    def address(self, access: Access) -> tuple[str, Size]:
        """The buffer of an access and the index in it, in elements."""
        base = access.base
        if isinstance(base, Node):
            buffer = base["name"] if base.op == "input" else self.storage.constant(base)
            return buffer, _linear(access.map, access.shape)
        place = self.storage.places[base]
        if access.reshaped or not place.depth:
            return place.buffer, _linear(access.map, access.shape)
        kept = tuple(e for e, p in zip(access.map, base.out_axes, strict=True) if p >= place.depth)
        return place.buffer, _linear(kept, place.shape)

    def _source(self, node: Node, along: IndexMap, body: _Body) -> str:
        if node.op == "constant":
            return self.constant(int.from_bytes(node["data"], "little"), node.type.dtype, body)
        value = node["size"] if node.op == "size" else _position(along[node["axis"]])
        return self._once(("iota", value), body, lambda name: Iota(name, value))

    def constant(self, bits: int, dtype: DType, body: _Body) -> str:
        return self._once(
            ("const", bits, dtype), body, lambda name: Let(name, "const", (), dtype, bits)
        )

    def _once(self, key: Any, body: _Body, make: Any) -> str:
        found = body.find(key)
        if found is None:
            found = body.known[key] = self.name()
            body.statements.append(make(found))
        return found

    # -- writing -----------------------------------------------------------------------------------

    def _task(self, task: Task, body: _Body) -> None:
        if not task.span:
            self.loops = task.domain
            self._write(task, body)
            return
        with self._around_task(task):
            self._write(task, body)

    def _write(self, task: Task, body: _Body) -> None:
        match task.kind:
            case "elementwise":
                value = self._elementwise(task, body)
            case "copy":
                value = self.read(task.reads[0], body)
            case "take":
                value = self._take(task, body)
            case "scan":
                value = self._scan(task, body)
            case "reduce" | "fma":
                self._fold(task, body)
                return
            case "scatter":
                self._scatter(task, body)
                return
            case "contract":
                self._contract(task, body)
                return
            case "memory":
                return
        body.known[task] = value
        if task.region is not None:
            self._store_region(task, value, body)
        elif (place := self.storage.places.get(task)) is not None:
            self._store(place.buffer, self._at(place, task), value, body)

    def _store(self, buffer: str, index: Size, value: str, body: _Body) -> None:
        only = self._only(self.ranges, body) if self.ranges else ""
        body.statements.append(Store(buffer, index, value, only))

    def _store_region(self, task: Task, value: str, body: _Body) -> None:
        assert task.region is not None
        target, where = task.region
        place = self.storage.places[target]
        body.statements.append(Store(place.buffer, _linear(where, place.shape), value))

    def _elementwise(self, task: Task, body: _Body) -> str:
        return self._computed(task, [self.read(a, body) for a in task.reads], body)

    def _computed(self, task: Task, operands: Sequence[str], body: _Body) -> str:
        gate = task.node.gate
        assert isinstance(gate, Elementwise)
        graph = gate.node_body(task.node)
        if len(graph.code) > INLINE:
            return self._let("call", tuple(operands), task.type.dtype, gate.name, body)
        values = list(operands)
        for ins in graph.code:
            args = tuple([values[a] for a in ins.args])
            values.append(self._let(ins.op, args, ins.dtype, ins.attr, body))
        return values[graph.result]

    def _let(
        self, op: str, args: tuple[str, ...], dtype: DType, attr: int | str | None, body: _Body
    ) -> str:
        if op == "const":
            return self.constant(int(attr), dtype, body)  # type: ignore[arg-type]
        key = ("let", op, args, dtype, attr)
        return self._once(key, body, lambda name: Let(name, op, args, dtype, attr))

    def _fold(self, task: Task, body: _Body) -> None:
        values = tuple(self.read(a, body) for a in task.reads)
        if task.kind == "fma" and not task.type.dtype.is_float:
            values = (self._let("mul", values, task.type.dtype, None, body),)
        if self.ranges:
            values = tuple(map(partial(self._or_nothing, task, body), values, ("-0", "0")))
        assert task.reduced is not None
        index = self._inside(task, task.reduced)
        body.statements.append(Add(self.accs[task], values, index))

    def _scan(self, task: Task, body: _Body) -> str:
        values = tuple(self.read(a, body) for a in task.reads)
        assert task.running is not None
        index, name = self._inside(task, task.running), self.name()
        body.statements.append(Step(name, self.accs[task], values, task.type.dtype, index))
        return name

    def _inside(self, task: Task, along: int) -> Size:
        """The place of an element among those that lie inside of one of its loops."""
        index: Size = 0
        inner = range(along + 1, len(task.domain))
        for p, stride in zip(inner, row_major(task.domain[along + 1 :]), strict=True):
            index = index + stride * Dim.symbol(VARIABLES[p])
        return index

    def _or_nothing(self, task: Task, body: _Body, value: str, zero: str) -> str:
        """A value in the ranges, and elsewhere what changes no sum."""
        gate, dtype = task.node.gate, task.type.dtype
        number = float(zero) if dtype.is_float else 0
        if isinstance(gate, Reduction):
            assert gate.identity is not None
            number = gate.identity(dtype)
        nothing = self.constant(to_bits(number, dtype), dtype, body)
        return self._let(
            "select", (self._only(self.ranges, body), value, nothing), dtype, None, body
        )

    def _index(self, access: Access, size: Size, body: _Body) -> str:
        raw = self.read(access, body)
        if access.base.type.dtype.itemsize < 8:
            raw = self._let("convert", (raw,), i64, None, body)
        return self._once(("index", raw, size), body, lambda name: Index(name, raw, size))

    def _take(self, task: Task, body: _Body) -> str:
        places, source = task.reads
        index = self._index(places, task.extra["size"], body)
        stride = row_major(source.shape)[task.extra["axis"]] * task.extra["step"]
        return self.read(source, body, ((index, stride),))

    def _scatter(self, task: Task, body: _Body) -> None:
        value = self.read(task.reads[0], body)
        axis, where = task.extra["axis"], task.extra["where"]
        index = self._index(task.reads[1], task.type.shape[axis], body)
        strides = row_major(task.type.shape)
        place: Size = 0
        for a, stride in enumerate(strides):
            if a != axis:
                p = a if a < axis else a + len(where) - 1
                place = place + stride * Dim.symbol(VARIABLES[p])
        buffer = self.storage.places[task].buffer
        body.statements.append(Scatter(buffer, place, ((index, strides[axis]),), value))

    def _contract(self, task: Task, body: _Body) -> None:
        a, b, out = parse_spec(task.node["spec"])
        left, right = task.reads
        operands = self._operand(left, a), self._operand(right, b)
        place = self.storage.places[task]
        target = Operand(place.buffer, 0, tuple(zip(out, row_major(place.shape), strict=True)))
        sizes = tuple(task.extra["sizes"].items())
        body.statements.append(
            Contract(target, *operands, sizes, task.extra["k"], task.node["order"], task.type.dtype)
        )

    def _operand(self, access: Access, letters: str) -> Operand:
        buffer, _ = self.address(access)
        strides = row_major(access.shape)
        start: Size = 0
        steps: dict[str, Size] = dict.fromkeys(letters, 0)
        for entry, stride in zip(access.map, strides, strict=True):
            start = start + stride * entry.start
            if entry.axis is not None:
                letter = letters[entry.axis]
                steps[letter] = steps[letter] + stride * entry.step
        return Operand(buffer, start, tuple(steps.items()))


def _from_the_end(s: Statement, var: str, n: Size) -> Statement:
    """The statement with iteration n-1-i in place of i."""

    def turned(index: Size) -> Size:
        step = coefficient(index, var)
        return index if step == 0 else without(index, var) + step * (n - 1 - Dim.symbol(var))

    match s:
        case Iota():
            return replace(s, value=turned(s.value))
        case Inside() if coefficient(s.value, var) != 0:
            low, high = (n + without(s.value, var) - bound for bound in (s.high, s.low))
            return replace(s, value=Dim.symbol(var), low=low, high=high)
        case Load() | Store() | Add() | Step():
            return replace(s, index=turned(s.index))
        case For():
            accs = tuple(replace(a, index=turned(a.index)) for a in s.accs)
            return replace(s, accs=accs, body=tuple(_from_the_end(t, var, n) for t in s.body))
    return s


def _position(entry: Any) -> Size:
    return (
        entry.start
        if entry.axis is None
        else entry.start + entry.step * Dim.symbol(VARIABLES[entry.axis])
    )


def _linear(along: IndexMap, shape: Sequence[Size]) -> Size:
    index: Size = 0
    for entry, stride in zip(along, row_major(shape), strict=True):
        index = index + stride * _position(entry)
    return index
