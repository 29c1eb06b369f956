"""Tasks: what a graph asks to be computed, each over its own iteration space, before loops exist.

In:   a simplified `Graph`.
Out:  `Task`s in order. Each has a domain (one size for every loop around its innermost statement),
      the domain positions that it reduces, and for every operand an `Access`: what is read, and
      where along the domain.
Invariant: views cost nothing. A chain of them is folded into the access of whoever reads it;
`reshape` reads the operand's memory under another shape.

>>> from graphc.ir.graph import Builder
>>> from graphc.ir.types import f64
>>> b = Builder()
>>> x = b.input("x", f64["n"])
>>> [(t.kind, t.domain) for t in tasks_of(b.graph("energy", {"y": (x * x).sum(0)}))]
[('elementwise', (Dim('n'),)), ('reduce', (Dim('n'),))]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

from graphc.gates.contraction import Contraction, contracted_letters, parse_spec
from graphc.gates.elementwise import Elementwise
from graphc.gates.movement import Along, IndexMap, Movement, compose, identity_map
from graphc.gates.reduction import Reduction
from graphc.gates.scan import Scan
from graphc.ir.graph import Graph, Node
from graphc.ir.types import Size, TensorType, at_least, product

TINY = 128  # products of numbers in one of matrices that is loops like any other task
UNIT = -1  # no position: an axis of size 1 has no loop


@dataclass(frozen=True, slots=True)
class Access:
    """The element of `base` at start + step * loop; `map` has an entry for each of its axes."""

    base: Task | Node  # a node is a source
    map: IndexMap
    shape: tuple[Size, ...]  # of the memory that is read: not the base's own after a reshape
    reshaped: bool = False


@dataclass(eq=False, slots=True)
class Task:
    """One gate to be computed. Operands are accessed along the task's own domain."""

    node: Node
    kind: str  # elementwise, copy, reduce, fma, scan, contract, take, scatter
    domain: tuple[Size, ...]
    out_axes: tuple[int, ...]  # of each axis of the result, in the domain; UNIT for size 1
    reads: tuple[Access, ...]
    type: TensorType  # of the value
    region: tuple[Task, IndexMap] | None = None  # a copy into a part of another task's memory
    output: str = ""  # the graph output that is its memory
    extra: dict[str, Any] = field(default_factory=dict)
    serial: int = 0
    again: bool = False  # no loop makes it, but whoever reads it does: see `lower.stencils`
    span: tuple[Size, ...] = ()  # the sizes of its loops, where some are longer than its domain

    @property
    def loops(self) -> tuple[Size, ...]:
        return self.span or self.domain

    @property
    def axes(self) -> tuple[int, ...]:
        """Of each axis of the value, its place among those that have loops."""
        if self.kind != "memory":
            return self.out_axes
        return tuple(UNIT if s == 1 else i for i, s in _numbered(self.type.shape))

    @property
    def reduced(self) -> int | None:
        """The domain position that disappears."""
        if self.kind not in ("reduce", "fma"):
            return None
        return (set(range(len(self.domain))) - set(self.out_axes)).pop()

    @property
    def running(self) -> int | None:
        """The domain position along which elements go on from each other."""
        return self.out_axes[self.node["axis"]] if self.kind == "scan" else None

    def tasks_read(self) -> list[tuple[Task, Access]]:
        """What loops make and it reads, be it by way of what is made again."""
        found = [(a.base, a) for a in self.reads if isinstance(a.base, Task)]
        if not any([made.again for made, _ in found]):
            return found
        known: dict[tuple[Task, IndexMap], Access] = {}
        pending = [a for _, a in reversed(found)]
        while pending:
            access = pending.pop()
            made = access.base
            if not isinstance(made, Task) or (made, access.map) in known:
                continue
            known[made, access.map] = access
            if made.again:
                pending.extend(reversed(made_from(made, access.map)))
        return [(made, access) for (made, _), access in known.items() if not made.again]

    def operands(self) -> Sequence[Access]:
        """What it is made from; of a memory, what its parts are."""
        if self.kind != "memory":
            return self.reads
        return [a for part in self.extra["parts"] for a in part.reads]


def is_again(base: Task | Node) -> TypeGuard[Task]:
    return isinstance(base, Task) and base.again


def tasks_of(graph: Graph) -> list[Task]:
    return _Collector(graph).run()


def made_from(made: Task, along: IndexMap) -> list[Access]:
    """What an elementwise task, or the parts of a memory, read for the element that is read along
    somebody's loops.
    """
    if made.kind == "memory":
        return [a for part in made.extra["parts"] for a in part_from(part, along)]
    here = {p: e for p, e in zip(made.out_axes, along, strict=True) if p != UNIT}
    outer = tuple(here[p] for p in range(len(made.domain)))
    return [replace(a, map=compose(a.map, outer)) for a in made.reads]


def part_from(part: Task, along: IndexMap) -> list[Access]:
    """What a part of a memory reads for the element of the memory that is read."""
    assert part.region is not None
    pairs = zip(part.region[1], along, strict=True)
    here = {e.axis: Along(a.axis, a.start - e.start, a.step) for e, a in pairs}
    outer = tuple(here[p] for p in range(len(part.domain)))
    return [replace(a, map=compose(a.map, outer)) for a in part.reads]


class _Collector:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.tasks: list[Task] = []
        self.of: dict[Node, Task] = {}
        self.copies: dict[Node, Task] = {}
        self.whole: dict[Node, Access] = {}

    def run(self) -> list[Task]:
        for node in self.graph.nodes:
            make = self._maker(node)
            if make is not None:
                make(node)
        claimed: set[Task] = set()
        for name, node in self.graph.outputs:
            task = self.of.get(node)
            if task is None or task in claimed:
                task = self._copy(node)
            task.output = name
            claimed.add(task)
        return self.tasks

    def _maker(self, node: Node) -> Any:
        gate = node.gate
        if isinstance(gate, Elementwise):
            return self._elementwise
        if isinstance(gate, Reduction):
            return self._reduce
        if isinstance(gate, Scan):
            return self._scan
        if isinstance(gate, Contraction):
            return self._contract
        if isinstance(gate, Movement) and gate.view is None and node.op != "reshape":
            return self._into
        return {"take": self._take, "scatter_add": self._scatter}.get(node.op)

    def _add(self, task: Task) -> Task:
        _drop_units(task)
        task.serial = len(self.tasks)
        self.tasks.append(task)
        return task

    def access(self, node: Node, along: IndexMap) -> Access:
        """How a domain reads a node, through all views between."""
        while node not in self.of:  # what is computed is no view
            gate = node.gate
            if isinstance(gate, Movement) and gate.view is not None:
                along = compose(gate.view(node), along)
                node = node.args[0]
            elif node.op == "reshape":
                units = _unit_view(node)
                if units is None:
                    return self._reshaped(node, along)
                along, node = compose(units, along), node.args[0]
            else:
                break
        return Access(self.of.get(node, node), along, node.type.shape)

    def _reshaped(self, node: Node, along: IndexMap) -> Access:
        """Read the operand's memory under another shape; views and constants are copied first."""
        base = node.args[0]
        while base.op == "reshape":
            base = base.args[0]
        if base.op == "input":
            return Access(base, along, node.type.shape, reshaped=True)
        task = self.of.get(base) or self._copy(base)
        return Access(task, along, node.type.shape, reshaped=True)

    def _copy(self, node: Node) -> Task:
        """The node's elements in memory of their own."""
        rank = node.type.rank
        read = self.access(node, identity_map(rank))
        return self._add(
            Task(node, "copy", node.type.shape, tuple(range(rank)), (read,), node.type)
        )

    def _elementwise(self, node: Node) -> None:
        rank = node.type.rank
        reads = tuple([self._whole(a, rank) for a in node.args])
        axes = tuple(range(rank))
        self.of[node] = self._add(
            Task(node, "elementwise", node.type.shape, axes, reads, node.type)
        )

    def _whole(self, node: Node, rank: int) -> Access:
        """How a domain of its own shape reads a node."""
        found = self.whole.get(node)
        if found is None:
            found = self.whole[node] = self.access(node, identity_map(rank))
        return found

    def _reduce(self, node: Node) -> None:
        x = node.args[0]
        kept = tuple(i for i in range(x.type.rank) if i != node["axis"])
        reads = (self.access(x, identity_map(x.type.rank)),)
        self.of[node] = self._add(Task(node, "reduce", x.type.shape, kept, reads, node.type))

    def _scan(self, node: Node) -> None:
        """Of one element it is that of the last operand."""
        rank, one = node.type.rank, node.type.shape[node["axis"]] == 1
        kind, operands = ("copy", node.args[-1:]) if one else ("scan", node.args)
        reads = tuple(self._whole(a, rank) for a in operands)
        axes = tuple(range(rank))
        self.of[node] = self._add(Task(node, kind, node.type.shape, axes, reads, node.type))

    def _contract(self, node: Node) -> None:
        a, b, out = parse_spec(node["spec"])
        k = contracted_letters(node["spec"])
        letters = a if set(b) <= set(a) else b if set(a) <= set(b) else ""
        if letters and letters[-1] == k and node["order"] == "chain" and len(letters) > 1:
            letters = letters[:-2] + k + letters[-2]  # a chain runs over an outer loop
        inner = letters.partition(k)[2]
        if not out.endswith(inner):  # an array accumulator is a row of the result
            letters = out[: len(out) - len(inner)] + k + out[len(out) - len(inner) :]
        sizes = dict(zip(a + b, node.args[0].type.shape + node.args[1].type.shape, strict=True))
        if not letters and _tiny(sizes, a, b, out, k):
            letters = out[:-1] + k + out[-1]  # the whole domain, the result's rows as sums
        if letters:  # a vector along the last loops: fused like any reduction
            domain = tuple(sizes[c] for c in letters)
            out_axes, *maps = (tuple(map(letters.index, part)) for part in (out, a, b))
            reads = tuple(
                self.access(x, tuple(map(Along, axes)))
                for x, axes in zip(node.args, maps, strict=True)
            )
            self.of[node] = self._add(Task(node, "fma", domain, out_axes, reads, node.type))
            return
        reads = tuple(self._in_memory(x) for x in node.args)
        task = Task(node, "contract", (), (), reads, node.type, extra={"sizes": sizes, "k": k})
        self.of[node] = self._add(task)

    def _in_memory(self, node: Node) -> Access:
        """An access whose base has memory that strides can walk."""
        read = self.access(node, identity_map(node.type.rank))
        if isinstance(read.base, Task) or read.base.op == "input":
            return read
        copy = self.copies.get(node) or self.copies.setdefault(node, self._copy(node))
        return Access(copy, identity_map(node.type.rank), node.type.shape)

    def _take(self, node: Node) -> None:
        x, index = node.args
        axis, rank = node["axis"], node.type.rank
        where = tuple(range(axis, axis + index.type.rank))
        places = self.access(index, tuple(Along(i) for i in where))
        rest = tuple(Along(i if i < axis else i + len(where) - 1) for i in range(x.type.rank))
        outer = tuple(Along(None) if i == axis else e for i, e in enumerate(rest))
        source = self.access(x, outer)
        if (
            not isinstance(source.base, Task)
            and source.base.op != "input"
            and not _array_constant(source.base)
        ):
            copy = self._copy(x)
            source = Access(copy, outer, x.type.shape)
        gathered = self._gathered_axis(x, axis, source)
        if gathered is None:  # the axis was split or merged by a view: read a copy
            source = Access(self._copy(x), outer, x.type.shape)
            gathered = (axis, 1)
        # An index is known only at run time: the source is read from memory, never from a register.
        source = replace(source, reshaped=True)
        self.of[node] = self._add(
            Task(node, "take", node.type.shape, tuple(range(rank)), (places, source), node.type,
                 extra={"axis": gathered[0], "step": gathered[1], "size": x.type.shape[axis]})
        )  # fmt: skip

    def _gathered_axis(self, x: Node, axis: int, source: Access) -> tuple[int, int] | None:
        """The axis of the memory, and the step, along which the taken axis runs."""
        probe = self.access(x, tuple(Along(i) for i in range(x.type.rank)))
        if probe.base is not source.base:
            return None
        found = [(i, e.step) for i, e in enumerate(probe.map) if e.axis == axis]
        return found[0] if len(found) == 1 else None

    def _scatter(self, node: Node) -> None:
        updates, index = node.args
        axis = node["axis"]
        where = tuple(range(axis, axis + index.type.rank))
        reads = (
            self.access(updates, identity_map(updates.type.rank)),
            self.access(index, tuple(Along(i) for i in where)),
        )
        self.of[node] = self._add(
            Task(
                node,
                "scatter",
                updates.type.shape,
                (),
                reads,
                node.type,
                extra={"axis": axis, "where": where},
            )
        )

    def _into(self, node: Node) -> None:
        """concat and place: memory that copies fill, part by part."""
        target = Task(node, "memory", (), (), (), node.type)
        target.extra["parts"] = parts = []
        start: Size = 0
        for a in node.args:
            rank = a.type.rank
            if node.op == "concat":
                where = tuple(Along(i, start if i == node["axis"] else 0) for i in range(rank))
                start = start + a.type.shape[node["axis"]] if rank else start
            else:
                where = tuple(
                    Along(i, s, t)
                    for i, (s, t) in enumerate(zip(node["starts"], node["steps"], strict=True))
                )
            read = self.access(a, identity_map(rank))
            part = Task(
                node,
                "copy",
                a.type.shape,
                tuple(range(rank)),
                (read,),
                node.type,
                region=(target, where),
            )
            parts.append(self._add(part))
        self.of[node] = self._add(target)  # after its parts, which it needs


def _numbered(shape: Sequence[Size]) -> list[tuple[int, Size]]:
    """Axes, with their places among those that are not of size 1."""
    found, place = [], 0
    for s in shape:
        found.append((place, s))
        place += s != 1
    return found


def _tiny(sizes: dict[str, Size], a: str, b: str, out: str, k: str) -> bool:
    """Are there many products of matrices so small that calls of a kernel for them cost more than
    they do? Loops around them can be written out, and run in lanes over the products.
    """
    m, n = ([c for c in out if c in x and c not in y][-1:] for x, y in ((a, b), (b, a)))
    numbers = [sizes[c] for c in (*m, *n, k)]
    known = all(isinstance(s, int) for s in numbers)
    return len(out) > 2 and known and at_least(TINY, product(numbers))


def _drop_units(task: Task) -> None:
    """Axes of size 1 need no loop: their index is 0. A scatter, read by position, keeps them."""
    if task.kind == "scatter" or 1 not in task.domain:
        return
    kept = [p for p, s in enumerate(task.domain) if s != 1 or p == task.reduced]
    if task.reduced is not None and kept[-1] == task.reduced < len(task.domain) - 1:
        if task.node["order"] in (
            "rows",
            "chain",
        ):  # orders of arrays, be it an array of one element
            kept.append(len(task.domain) - 1)
    new = {p: i for i, p in enumerate(kept)}

    def moved(along: IndexMap) -> IndexMap:
        return tuple(
            e
            if e.axis is None
            else Along(new[e.axis], e.start, e.step)
            if e.axis in new
            else Along(None, e.start)
            for e in along
        )

    task.domain = tuple(task.domain[p] for p in kept)
    task.out_axes = tuple(new.get(p, UNIT) for p in task.out_axes)
    task.reads = tuple(replace(a, map=moved(a.map)) for a in task.reads)
    if task.region is not None:
        task.region = (task.region[0], moved(task.region[1]))


def _array_constant(node: Node) -> bool:
    return node.op == "constant" and len(node["data"]) != node.type.dtype.itemsize


def _unit_view(node: Node) -> IndexMap | None:
    """A reshape that only adds or drops axes of size 1, as a view."""
    before, after = node.args[0].type.shape, node.type.shape
    kept = [i for i, s in enumerate(after) if s != 1]
    if [s for s in before if s != 1] != [after[i] for i in kept]:
        return None
    rest = iter(kept)
    return tuple(Along(None) if s == 1 else Along(next(rest)) for s in before)


def reads_of(tasks: Sequence[Task]) -> dict[Task, list[tuple[Task, Access]]]:
    """For each task the tasks that read it, with how."""
    readers: dict[Task, list[tuple[Task, Access]]] = {t: [] for t in tasks}
    for t in tasks:
        for base, access in t.tasks_read():
            readers[base].append((t, access))
    return readers
