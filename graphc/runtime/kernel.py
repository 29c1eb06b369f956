"""A kernel: the machine code of one program, called on NumPy arrays.

In:   C-contiguous arrays of the program's dtypes, in the order of its inputs.
Out:  new arrays, in the order of its outputs.
Invariant: sizes are checked before anything runs; a failed run leaves its inputs as they were and
returns nothing.

>>> from graphc.ir.graph import Builder
>>> from graphc.ir.types import f64
>>> b = Builder()
>>> x = b.input("x", f64["n"])
>>> kernel = compile_graph(b.graph("twice", {"y": x + x}))
>>> kernel.run([np.array([1.0, 2.0])])
[array([2., 4.])]
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from graphc.codegen.kernels import ENTRY, HEADER_SLOTS
from graphc.errors import IndexOutOfBounds, ShapeError
from graphc.gates.reduction import Reduction
from graphc.ir.graph import Graph, Node
from graphc.ir.reference import sizes_of
from graphc.ir.types import Dim, Size, evaluate, product
from graphc.lower.loops import Contract, Program, walk
from graphc.lower.plan import arena_for
from graphc.pipeline import Observer, Options, run_stages
from graphc.runtime import interrupts, threads
from graphc.runtime.jit import Library
from graphc.runtime.objects import native
from graphc.runtime.pool import Arenas, empty

_ENTRY_TYPE = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)


Shapes = tuple[tuple[int, ...], ...]
LAYOUTS = 256  # shapes whose layouts are remembered
_OPERATIONS = {"call": 20, "div": 4, "sqrt": 4}  # scalar operations in one statement
LONG = 1 << 15  # scalar operations from which on a call lets other Python threads run
VERY_LONG = 1 << 27  # and from which on it is made so that Ctrl-C ends it: tens of milliseconds


@dataclass(frozen=True)
class Layout:
    """What a call with some shapes needs: outputs, arena bytes, sizes, the type of its slots."""

    outputs: tuple[tuple[tuple[int, ...], np.dtype], ...]
    arena: int
    sizes: tuple[int, ...]
    slots: Any
    work: int  # scalar operations, roughly
    pool: int = 0  # the address of the structure of its threads

    @property
    def is_long(self) -> bool:
        """Does it take long enough for other Python threads to be let in?"""
        return self.work >= LONG

    @property
    def is_very_long(self) -> bool:
        """Does it take long enough for somebody to lose patience?"""
        return self.work >= VERY_LONG


@dataclass(frozen=True)
class _Shaped:
    """Stands for an array where only its shape is asked for."""

    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Kernel:
    """A compiled graph. It keeps its machine code alive."""

    graph: Graph
    program: Program
    library: Library
    threads: int | None = None  # at most so many in a call; None: as `set_threads` says

    _choosing: list[Node] = field(init=False, repr=False)
    address: int = field(init=False, repr=False)
    donors: dict[int, int] = field(
        init=False, repr=False
    )  # outputs -> inputs whose memory they take
    entry: Callable[..., int] = field(init=False, repr=False)
    _layouts: dict[tuple[Shapes, int], Layout] = field(init=False, repr=False, default_factory=dict)
    _work: list[tuple[Size, int]] = field(init=False, repr=False)
    arenas: Arenas = field(init=False, repr=False, default_factory=Arenas)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_choosing", _choosing(self.graph))
        object.__setattr__(self, "address", self.library.address(ENTRY))
        object.__setattr__(self, "donors", _donors(self.program))
        object.__setattr__(self, "entry", _ENTRY_TYPE(self.address))
        object.__setattr__(self, "_work", _work(self.program))

    def run(
        self, arrays: Sequence[np.ndarray], outputs: Sequence[np.ndarray] | None = None
    ) -> list[np.ndarray]:
        """The outputs for inputs of the right dtype and layout; into `outputs`, if given.

        Raises `IndexOutOfBounds` where an index is out of bounds. Where `outputs` are the caller's,
        Ctrl-C waits for the end of the run.
        """
        layout = self.layout(tuple([a.shape for a in arrays]))
        beside = outputs is None and layout.is_very_long and interrupts.wanted()
        if outputs is None:
            outputs = [empty(shape, dtype) for shape, dtype in layout.outputs]
        call = partial(self._call, layout, (*arrays, *outputs))
        slots, failed = interrupts.interruptibly(call) if beside else call()
        if failed:
            raise out_of_bounds(slots[0], slots[1])
        return list(outputs)

    __call__ = run

    def layout(self, shapes: Shapes) -> Layout:
        """What a call with these shapes needs; a ShapeError where they do not fit."""
        pool, count = threads.pool(self.threads)
        found = self._layouts.get((shapes, pool))
        if found is None:
            if len(self._layouts) >= LAYOUTS:
                self._layouts.clear()
            made = self._layout(shapes, count)
            found = self._layouts[shapes, pool] = replace(made, pool=pool)
        return found

    def _call(self, layout: Layout, arrays: tuple[np.ndarray, ...]) -> tuple[ctypes.Array, int]:
        """Run on inputs and outputs, whose addresses native code reads if it can."""
        routines = native()
        if routines is None:
            memory = np.empty(layout.arena + 64, np.uint8)
            arena, *pointers = (a.ctypes.data for a in (memory, *arrays))
            slots = layout.slots(0, 0, (arena + 63) & -64, layout.pool, *pointers, *layout.sizes)
            return slots, self.entry(slots)
        arena = self.arenas.take(layout.arena)
        try:
            slots = layout.slots(0, 0, arena, layout.pool, *map(id, arrays), *layout.sizes)
            last = HEADER_SLOTS + len(arrays) - 1
            return slots, routines.through(self.address, slots, HEADER_SLOTS, last)
        finally:
            self.arenas.give(arena)

    def _layout(self, shapes: Shapes, threads: int = 1) -> Layout:
        """Sizes are checked here, once for all calls alike."""
        sizes = sizes_of(self.graph, [_Shaped(s) for s in shapes])
        for node in self._choosing:
            _check_choice(self.graph, node, sizes)
        buffers = self.program.of_role("output")
        outputs = tuple(
            (tuple(evaluate(s, sizes) for s in b.type.shape), b.type.dtype.numpy) for b in buffers
        )
        values = tuple(sizes[name] for name in self.program.sizes)
        slots = ctypes.c_int64 * (HEADER_SLOTS + len(shapes) + len(outputs) + len(values))
        work = sum(count * evaluate(size, sizes) for size, count in self._work)
        return Layout(outputs, self.arena_bytes(sizes, threads), values, slots, work)

    def arena_bytes(self, sizes: Mapping[str, int], threads: int = 1) -> int:
        return evaluate(arena_for(self.program, threads), sizes)


def out_of_bounds(index: int, size: int) -> IndexOutOfBounds:
    return IndexOutOfBounds(f"index {index} is out of bounds for an axis of size {size}")


def _donors(program: Program) -> dict[int, int]:
    inputs = [b.name for b in program.of_role("input")]
    outputs = program.of_role("output")
    return {i: inputs.index(b.donor) for i, b in enumerate(outputs) if b.donor}


def _work(program: Program) -> list[tuple[Size, int]]:
    """How often statements run, and how many of them."""
    counts: dict[Size, int] = {}
    for kernel in program.kernels:
        for s, outer in walk(kernel.body):
            times = product(f.size for f in outer)
            if isinstance(s, Contract):
                times = product(n for _, n in s.sizes)
            counts[times] = counts.get(times, 0) + _OPERATIONS.get(getattr(s, "op", ""), 1)
    return list(counts.items())


def _choosing(graph: Graph) -> list[Node]:
    """The reductions that need an element to choose, over axes of sizes known only at the call."""
    return [
        n
        for n in graph.nodes
        if isinstance(n.gate, Reduction)
        and n.gate.needs_elements
        and isinstance(n.args[0].type.shape[n["axis"]], Dim)
    ]


def _check_choice(graph: Graph, node: Node, sizes: Mapping[str, int]) -> None:
    if evaluate(node.args[0].type.shape[node["axis"]], sizes) == 0 and 0 not in [
        evaluate(s, sizes) for s in node.type.shape
    ]:
        axis = f"axis {node['axis']} of {node.args[0].type}"
        raise ShapeError(
            f"{node.op}{graph.place(node)}: {axis} is empty: there is nothing to choose from"
        )


def compile_graph(
    graph: Graph, options: Options | None = None, observer: Observer | None = None
) -> Kernel:
    """Run a traced graph through every stage."""
    seen: dict[str, object] = {}

    def watch(stage: str, item: object) -> None:
        seen[stage] = item
        if observer is not None:
            observer(stage, item)

    library = run_stages(graph, options or Options(), watch)
    program = seen["plan"]
    assert isinstance(program, Program)
    final = seen["simplify"]
    assert isinstance(final, Graph)
    return Kernel(final, program, library, (options or Options()).threads)
