"""fuse: a simplified graph becomes loops. Tasks in one loop share data in registers and cache.

In:   a `Graph` of sources, elementwise, movement, reduction, contraction and indexing gates.
Out:  a `Program` without offsets.
Invariant: two tasks share a loop only if each iteration of the reader needs just the same iteration
of the other.

How: every task has a domain. At each depth, tasks are put into steps as early as their operands
allow; tasks of one step with one leading size share a loop, and the same is done for the rest of
their domains inside of it. A value that is read only inside of the loops that make it lives in a
register; one that is read by a later loop inside of the same outer loop lives in that iteration's
scratch; all others live in the arena or in an output.

>>> from graphc.ir.graph import Builder
>>> from graphc.ir.types import f64
>>> b = Builder()
>>> x = b.input("x", f64["n"])
>>> print(fuse(b.graph("energy", {"y": (x * x).sum(0)})))
program energy(x: f64[n])
sizes n
buffer output y.out: f64[]
kernel k0   mul sum
  for _i in n vector parallel
    acc %1: f64 sum lanes
    %2 = load x[_i] : f64
    %3 = mul %2, %2 : f64
    add %1 %3
  store y.out[0] %1
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from graphc.errors import CompileError
from graphc.ir.graph import Graph, Node
from graphc.ir.types import Size, TensorType, align_up, product
from graphc.lower.loops import WHOLE, Buffer, Kernel, Program
from graphc.lower.order import as_needed
from graphc.lower.tasks import Access, Task, is_again, reads_of, tasks_of

SCALARS_PER_KERNEL = 400  # gates in a run without loops: bounds the size of a native function
Class = tuple[Any, ...]  # what tasks have in common that can share a loop
Reads = dict[Task, list[tuple[Task, Access, int]]]  # and how many steps lie between at least
Needs = dict[Task, list[tuple[Task, Access]]]


@dataclass(eq=False)
class Group:
    """Tasks that share a loop (`size`), a run without a loop (size None), or one call."""

    depth: int
    kind: str  # "scalar", "loop", "call"
    size: Size | None
    tasks: list[Task]
    groups: list[Group] = field(default_factory=list)  # the loop's body


def fuse(graph: Graph, skip: frozenset[str] = frozenset()) -> Program:
    from graphc.lower.abreast import rows_abreast
    from graphc.lower.planes import in_planes
    from graphc.lower.recompute import recomputed
    from graphc.lower.scatters import scatters_apart
    from graphc.lower.schedule import scheduled
    from graphc.lower.statements import Writer
    from graphc.lower.stencils import stencils
    from graphc.lower.unroll import written_out

    _check_limits(graph)
    tasks = tasks_of(graph)
    if "fuse" not in skip:
        tasks = stencils(tasks)
    top = _groups(tasks, 0, fused="fuse" not in skip)
    if "fuse" not in skip and len(top) > 1:
        left = recomputed(tasks, {t: i for i, group in enumerate(top) for t in group.tasks})
        if len(left) < len(tasks):
            tasks, top = left, _groups(left, 0)
    storage = _Storage(graph, tasks, top)
    writer = Writer(storage)
    kernels = tuple(
        Kernel(f"k{i}", writer.kernel(group), _note(group)) for i, group in enumerate(top)
    )
    program = Program(graph.name, graph.sizes, tuple(storage.buffers.values()), kernels)
    if "unroll" not in skip:
        program = in_planes(written_out(program))
    if "parallel" not in skip:
        program = scatters_apart(program)
    if "abreast" not in skip:
        program = rows_abreast(program)
    return scheduled(program, skip)


def _check_limits(graph: Graph) -> None:
    """Loops have 12 variables, whose names no size may take."""
    from graphc.lower.loops import VARIABLES

    for name in graph.sizes:
        if name.startswith("_"):
            raise CompileError(
                f"graph {graph.name}: the size {name!r} begins with _, which is kept for the "
                "variables of loops: rename it"
            )
    for node in graph.nodes:
        if node.type.rank > len(VARIABLES):
            raise CompileError(
                f"graph {graph.name}: {node.op}{graph.place(node)} has {node.type.rank} axes, more "
                f"than the {len(VARIABLES)} that can be compiled: reshape it to fewer"
            )


def _note(group: Group) -> str:
    """The gates in a kernel, and the user's lines they come from, for people."""
    names: dict[str, int] = {}
    again: dict[Task, None] = {}
    pending = list(group.tasks)
    while pending:
        for task in pending:
            names[task.node.op] = names.get(task.node.op, 0) + 1
        read = [a.base for task in pending for a in task.operands()]
        pending = [m for m in dict.fromkeys(read) if is_again(m) and m not in again]
        again.update(dict.fromkeys(pending))
    return " ".join(n if c == 1 else f"{n}*{c}" for n, c in names.items())


def _class_of(task: Task, depth: int) -> Class:
    if task.kind in ("contract", "memory"):
        return ("call", task.serial)
    return ("loop", task.loops[depth]) if depth < len(task.domain) else ("scalar",)


def _aligned(made: Task, access: Access, depth: int) -> bool:
    """Does the reader's iteration at this depth need just the same iteration of the made value?"""
    if access.reshaped or made.region is not None or made.kind in ("scatter", "memory", "contract"):
        return False
    if depth not in made.out_axes:
        return False  # reduced here: ready only after the loop
    entry = access.map[made.out_axes.index(depth)]
    return entry.axis == depth and entry.start == 0 and entry.step == 1


def _groups(
    tasks: list[Task], depth: int, fused: bool = True, needs: Needs | None = None
) -> list[Group]:
    """Steps by longest path; a reader shares its operand's where classes and iterations agree."""
    classes = {task: _class_of(task, depth) for task in tasks}
    needs = {task: _needs(task) for task in tasks} if needs is None else needs
    reads = _reads_among(classes, needs, depth)
    step: dict[Task, int] = {}
    loops = _Loops()
    for n, task in enumerate(tasks):
        kind = classes[task]
        at = 0 if fused or kind[0] != "loop" else n
        for made, _, gap in reads[task]:
            at = max(at, step[made] + gap)
        while not loops.take((at, kind), [task], depth):
            at += 1
        step[task] = at
    if fused and any(kind[0] == "loop" for kind in classes.values()):
        _sink(classes, reads, step, loops, depth)
        _sink_together(classes, reads, step, loops, depth)
    members: dict[tuple[int, int, Any], list[Task]] = {}
    rank = {"scalar": 0, "loop": 1, "call": 2}
    for task, kind in classes.items():
        members.setdefault((step[task], rank[kind[0]], kind), []).append(task)
    ordered = sorted(members.items(), key=lambda m: (m[0][0], m[0][1], m[1][0].serial))
    groups = []
    for (_, _, kind), group in ordered:
        if kind[0] == "scalar" and len(group) > SCALARS_PER_KERNEL:
            among = set(group)
            group = as_needed({t: [m for m, *_ in reads[t] if m in among] for t in group})
        chunk = SCALARS_PER_KERNEL if kind[0] == "scalar" and depth == 0 else len(group)
        for i in range(0, len(group), chunk):
            part = group[i : i + chunk]
            inner = _groups(part, depth + 1, fused, needs) if kind[0] == "loop" else []
            groups.append(
                Group(depth, kind[0], kind[1] if kind[0] == "loop" else None, part, inner)
            )
    return groups


def _reads_among(classes: dict[Task, Class], needs: Needs, depth: int) -> Reads:
    """What each task reads of the others."""
    return {
        task: [
            (made, access, _gap(classes[made], kind, made, access, depth))
            for made, access in needs[task]
            if made in classes
        ]
        for task, kind in classes.items()
    }


def _sink(
    classes: dict[Task, Class], reads: Reads, step: dict[Task, int], loops: _Loops,
    depth: int,
) -> None:  # fmt: skip
    """Tasks move on to a later step whose loop reads them, if what they share a loop with moves."""
    readers: dict[Task, list[tuple[Task, int]]] = {t: [] for t in classes}
    for task in classes:
        for made, _, gap in reads[task]:
            readers[made].append((task, gap))
    for task in reversed(classes):
        kind = classes[task]
        if kind[0] != "loop" or not readers[task]:
            continue
        latest = min(step[r] - gap for r, gap in readers[task])
        if latest <= step[task]:
            continue
        joined = any(step[r] == latest and gap == 0 for r, gap in readers[task])
        together = all(
            all(step[r] >= latest or r is task for r, _ in readers[made])
            for made, access, _ in reads[task]
            if step[made] == step[task] and _aligned(made, access, depth)
        )
        if joined and together and loops.take((latest, kind), [task], depth):
            step[task] = latest


def _sink_together(
    classes: dict[Task, Class], reads: Reads, step: dict[Task, int], loops: _Loops,
    depth: int,
) -> None:  # fmt: skip
    """Whole loops move on to a later step, where one of the same size reads what they make."""
    cluster = {t: t for t in classes}  # a task of each loop stands for it

    def first(task: Task) -> Task:
        while cluster[task] is not task:
            cluster[task] = cluster[cluster[task]]
            task = cluster[task]
        return task

    for task, kind in classes.items():
        for made, _, gap in reads[task]:
            if gap == 0 and kind[0] == "loop" and step[made] == step[task]:
                cluster[first(made)] = first(task)
    members: dict[Task, list[Task]] = {}
    for task in classes:
        members.setdefault(first(task), []).append(task)
    if len(members) == 1:
        return
    readers: dict[Task, list[tuple[Task, int]]] = {}
    for task in classes:
        for made, _, gap in reads[task]:
            if first(made) is not first(task):
                readers.setdefault(first(made), []).append((task, gap))
    for group in sorted(members.values(), key=lambda group: -step[group[0]]):
        kind, outside = classes[group[0]], readers.get(first(group[0]), [])
        if kind[0] != "loop" or not outside:
            continue
        latest = min(step[r] - gap for r, gap in outside)
        joined = any(step[r] == latest and gap == 0 for r, gap in outside)
        if latest > step[group[0]] and joined and loops.take((latest, kind), group, depth):
            step.update(dict.fromkeys(group, latest))


def _needs(task: Task) -> list[tuple[Task, Access]]:
    needs = task.tasks_read()
    if task.kind == "memory":
        needs += [(part, _whole(part)) for part in task.extra["parts"]]
    return needs


def _whole(part: Task) -> Access:
    return Access(part, (), (), reshaped=True)


def _gap(made: Class, reader: Class, task: Task, access: Access, depth: int) -> int:
    if made[0] == "scalar":
        return 0
    return 0 if made == reader and made[0] == "loop" and _aligned(task, access, depth) else 1


class _Loops:
    """What the loops are like that are known so far: all in one have to agree."""

    def __init__(self) -> None:
        self.found: dict[tuple[tuple[int, Class], str], int] = {}

    def take(self, loop: tuple[int, Class], tasks: Sequence[Task], depth: int) -> bool:
        """Can a loop take these tasks? From now on it is as they want it."""
        wanted: dict[tuple[tuple[int, Class], str], int] = {}
        for task in tasks:
            for what, value in _wants(task, depth):
                if wanted.setdefault((loop, what), value) != value:
                    return False
        if any(self.found.get(key, value) != value for key, value in wanted.items()):
            return False
        self.found.update(wanted)
        return True


def _wants(task: Task, depth: int) -> list[tuple[str, int]]:
    """A sum in lanes over this loop: a vector's length, by the size of its elements. A sum or scan
    along it, and what has to keep the order of its elements: a direction.
    """
    if task.running == depth:
        return [("down", runs_down(task, depth))]
    if task.kind in ("take", "scatter"):
        return [("down", False)]
    if task.kind not in ("reduce", "fma") or task.reduced != depth:
        return []
    order = task.node["order"]
    lanes = [("lanes", task.type.dtype.itemsize)] if order == "lanes" else []
    return lanes if order == "any" else [*lanes, ("down", False)]


def runs_down(task: Task, depth: int) -> bool:
    """Does it go from the last iteration of this loop to the first?"""
    return task.running == depth and bool(task.node["reverse"])


@dataclass(frozen=True)
class Place:
    """Where a value lives: a buffer that holds its axes from domain position `depth` on."""

    buffer: str
    depth: int
    shape: tuple[Size, ...]
    axes: tuple[int, ...]  # the domain position of each of its axes


class _Storage:
    """Buffers, and for every task where its value is to be found."""

    def __init__(self, graph: Graph, tasks: Sequence[Task], top: Sequence[Group]) -> None:
        self.graph = graph
        self.buffers: dict[str, Buffer] = {}
        self.loops: dict[Task, tuple[int, ...]] = {}  # the loops around a task, outermost first
        self.kernel: dict[Task, int] = {}
        self.places: dict[Task, Place] = {}
        self.running: dict[Task, Place] = {}  # of a scan along an outer loop: what it has come to
        self.constants: dict[Node, str] = {}
        for n in graph.inputs:
            self.buffers[n["name"]] = Buffer(n["name"], "input", n.type)
        self.outputs: dict[str, str] = {}
        for name, n in graph.outputs:
            buffer = self.outputs[name] = self._fresh(f"{name}.out")
            self.buffers[buffer] = Buffer(buffer, "output", n.type)
        self._walk(top)
        readers = reads_of(tasks)
        for task in tasks:
            self._place(task, readers[task])
            if task.running is not None and task.running != len(task.domain) - 1:
                self.running[task] = self._row_of(task, task.running)

    def _fresh(self, name: str) -> str:
        """A buffer's name that no input has, nor a private buffer that plan adds to it."""
        while any(
            name + suffix in self.buffers for suffix in ("", ".tree", ".panel", ".work", ".levels")
        ):
            name += "_"
        return name

    def _walk(self, top: Sequence[Group]) -> None:
        pending: list[tuple[Group, tuple[int, ...], int]] = [(g, (), i) for i, g in enumerate(top)]
        while pending:
            group, loops, kernel = pending.pop()
            if group.kind == "loop":
                inner = (*loops, id(group))
                pending.extend((g, inner, kernel) for g in group.groups)
                continue
            for t in group.tasks:
                self.loops[t], self.kernel[t] = loops, kernel

    def scope(self, task: Task) -> tuple[int, ...]:
        """The loops in which the value is known: around the task, or around its reducing loop."""
        loops = self.loops[task]
        return loops if task.reduced is None else loops[: task.reduced]

    def visible(self, made: Task, reader: Task, access: Access) -> bool:
        """Is the value in a register where it is read?"""
        if access.reshaped or made.region or made.kind in ("scatter", "memory", "contract"):
            return False
        if made.reduced is not None and made.reduced != len(made.domain) - 1:
            return False  # an array accumulator: in memory
        scope = self.scope(made)
        return (
            self.kernel[made] == self.kernel[reader] and self.loops[reader][: len(scope)] == scope
        )

    def _place(self, task: Task, readers: list[tuple[Task, Access]]) -> None:
        if task.region is not None:
            return
        in_memory = [(r, a) for r, a in readers if not self.visible(task, r, a)]
        array = task.reduced is not None and task.reduced != len(task.domain) - 1
        if task.output:
            self.places[task] = Place(self.outputs[task.output], 0, task.type.shape, task.out_axes)
            return
        if not in_memory and not array and task.kind not in ("scatter", "memory", "contract"):
            return
        depth = min((self._shared(task, r, a) for r, a in in_memory), default=0)
        if not in_memory and array:
            depth = len(self.scope(task))
        name = self._fresh(f"t{task.serial}")
        kept = (
            [(s, p) for s, p in zip(task.type.shape, task.out_axes, strict=True) if p >= depth]
            if depth
            else []
        )
        shape = tuple(s for s, _ in kept) if depth else task.type.shape
        axes = tuple(p for _, p in kept) if depth else task.out_axes
        ty = TensorType(task.type.dtype, shape) if depth else task.type
        self.buffers[name] = Buffer(name, "temp", ty, scope=_variable(depth - 1) if depth else "")
        self.places[task] = Place(name, depth, shape, axes)

    def _row_of(self, task: Task, along: int) -> Place:
        """Scratch for what lies inside of one of its loops, for each iteration around that loop; of
        whole vectors, so that a last, partial one needs no mask."""
        shape, axes = task.domain[along + 1 :], tuple(range(along + 1, len(task.domain)))
        room = (align_up(product(shape), WHOLE),)
        name = self._fresh(f"t{task.serial}.row")
        scope = _variable(along - 1) if along else ""
        self.buffers[name] = Buffer(name, "temp", TensorType(task.type.dtype, room), scope=scope)
        return Place(name, along, shape, axes)

    def _shared(self, task: Task, reader: Task, access: Access) -> int:
        """How many loops a value and a later loop that reads it have in common."""
        if (
            access.reshaped
            or task.kind in ("scatter", "memory", "contract")
            or self.kernel[task] != self.kernel[reader]
        ):
            return 0
        common = 0
        for a, b in zip(self.scope(task), self.loops[reader], strict=False):
            if a != b:
                break
            common += 1
        return common

    def constant(self, node: Node) -> str:
        """The buffer of a constant array."""
        if node not in self.constants:
            name = self._fresh(f"c{len(self.constants)}")
            self.constants[node] = name
            self.buffers[name] = Buffer(name, "constant", node.type, node["data"])
        return self.constants[node]


def _variable(depth: int) -> str:
    from graphc.lower.loops import VARIABLES

    return VARIABLES[depth]


def row_major(shape: Sequence[Size]) -> list[Size]:
    """Strides in elements."""
    return [product(shape[i + 1 :]) for i in range(len(shape))]
