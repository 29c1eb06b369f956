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
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.codegen.slots import ENTRY, HEADER_SLOTS
from graphc.errors import IndexOutOfBounds, ShapeError
from graphc.ir.graph import Graph
from graphc.ir.types import evaluate, named_sizes
from graphc.pipeline import Observer, Options, is_verified, run_stages
from graphc.runtime import cache, interrupts, threads
from graphc.runtime.compiling import once
from graphc.runtime.jit import Jit, Library
from graphc.runtime.manifest import Manifest, choosing, manifest_of
from graphc.runtime.objects import is_linked, native
from graphc.runtime.pool import Arenas, empty

if TYPE_CHECKING:
    from graphc.lower.loops import Program

_ENTRY_TYPE = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)


Shapes = tuple[tuple[int, ...], ...]
LAYOUTS = 256  # shapes whose layouts are remembered
LONG = 1 << 15  # scalar operations in lanes, from which on a call lets other Python threads run,
VERY_LONG = 1 << 29  # and from which on another thread makes it, so that Ctrl-C ends it: some 30 ms


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


Lowered = tuple[Graph, "Program"]  # a graph after `simplify`, and what was planned for it


@dataclass(frozen=True, eq=False)
class Kernel:
    """A compiled graph. It keeps its machine code alive."""

    manifest: Manifest
    library: Library
    lowered: Callable[[], Lowered] = field(repr=False)  # what it was made from, made once more
    threads: int | None = None  # at most so many in a call; None: as `set_threads` says

    address: int = field(init=False, repr=False)
    donors: dict[int, int] = field(
        init=False, repr=False
    )  # outputs -> inputs whose memory they take
    entry: Callable[..., int] = field(init=False, repr=False)
    _layouts: dict[tuple[Shapes, int], Layout] = field(init=False, repr=False, default_factory=dict)
    arenas: Arenas = field(init=False, repr=False, default_factory=Arenas)
    _was_called: bool = field(init=False, repr=False, default=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "address", self.library.address(ENTRY))
        object.__setattr__(self, "donors", dict(self.manifest.donors))
        object.__setattr__(self, "entry", _ENTRY_TYPE(self.address))

    @classmethod
    def of(
        cls, graph: Graph, program: Program, library: Library, threads: int | None = None
    ) -> Kernel:
        """The kernel of a simplified graph, its planned program and its code."""
        return cls(manifest_of(graph, program), library, lambda: (graph, program), threads)

    @once
    def _lowered(self) -> Lowered:
        return self.lowered()

    @property
    def graph(self) -> Graph:
        """The graph as `simplify` left it; a run does not need it."""
        return self._lowered[0]

    @property
    def program(self) -> Program:
        """The program as planned; a run does not need it."""
        return self._lowered[1]

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
        pool, count = self.pool()
        found = self._layouts.get((shapes, pool))
        if found is None:
            if len(self._layouts) >= LAYOUTS:
                self._layouts.clear()
            made = self._layout(shapes, count)
            found = self._layouts[shapes, pool] = replace(made, pool=pool)
        return found

    def pool(self) -> tuple[int, int]:
        """The structure of the threads that a call may use, 0 for one thread, and their count."""
        return threads.pool(self.threads)

    def _call(self, layout: Layout, arrays: tuple[np.ndarray, ...]) -> tuple[ctypes.Array, int]:
        """Run on inputs and outputs, whose addresses native code reads if it can.

        A kernel's first call does not wait for native routines: it may be the only one.
        """
        routines = native() if is_linked() or self._was_called else None
        object.__setattr__(self, "_was_called", True)
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
        manifest = self.manifest
        sizes = named_sizes(manifest.inputs, shapes)
        for i, (elements, results) in enumerate(manifest.choices):
            if evaluate(elements, sizes) == 0 and evaluate(results, sizes) != 0:
                raise self._nothing_to_choose(i)
        outputs = tuple(
            (tuple(evaluate(s, sizes) for s in ty.shape), ty.dtype.numpy)
            for _, ty, _ in manifest.outputs
        )
        values = tuple(sizes[name] for name in manifest.sizes)
        slots = ctypes.c_int64 * (HEADER_SLOTS + len(shapes) + len(outputs) + len(values))
        work = evaluate(manifest.work, sizes)
        return Layout(outputs, self.arena_bytes(sizes, threads), values, slots, work)

    def _nothing_to_choose(self, number: int) -> ShapeError:
        """It names the user's line, which the graph of this process knows."""
        node = choosing(self.graph)[number]
        what = f"{node.op}{self.graph.place(node)}: axis {node['axis']} of {node.args[0].type}"
        return ShapeError(f"{what} is empty: there is nothing to choose from")

    def arena_bytes(self, sizes: Mapping[str, int], threads: int = 1) -> int:
        return self.manifest.arena_bytes(sizes, threads)


def out_of_bounds(index: int, size: int) -> IndexOutOfBounds:
    return IndexOutOfBounds(f"index {index} is out of bounds for an axis of size {size}")


def compile_graph(
    graph: Graph, options: Options | None = None, observer: Observer | None = None
) -> Kernel:
    """Run a traced graph through every stage, or find what that gave an earlier process.

    An observer sees every stage, so for it all of them run.
    """
    options = options or Options()
    if observer is not None or is_verified():
        return _compiled(lambda: graph, options, observer)
    return _kept(cache.kernel_key(graph, options), lambda: graph, options)


def compile_part(
    traced: Graph, options: Options, part: str, start: Callable[[], Graph], rest: Options
) -> Kernel:
    """A part of what a traced graph gives with some options, found or compiled.

    `start` makes the part's graph, which runs through the stages with the options `rest`. It may be
    asked more than once, or never.
    """
    if is_verified():
        return _compiled(start, rest, None)
    return _kept(cache.kernel_key(traced, options, part), start, rest)


def _kept(key: bytes | None, start: Callable[[], Graph], options: Options) -> Kernel:
    """The kernel that was kept under a key; else it is made, and kept."""
    if key is None:
        return _compiled(start, options, None)
    found = cache.load_kernel(key)
    if found is not None:
        try:
            library = Jit.load(found[1], (ENTRY,))
        except RuntimeError:  # it cannot be loaded
            cache.refuse_kernel(key)
        else:
            return _kernel(found[0], library, start, options)
    seen: dict[str, Any] = {}
    text = run_stages(start(), options, seen.__setitem__, last="emit")
    library, code = Jit.linked(text, (ENTRY,))
    manifest = manifest_of(seen["simplify"], seen["plan"])
    kernel = _kernel(manifest, library, start, options)
    cache.keep_kernel(key, manifest, code)
    return kernel


def _compiled(start: Callable[[], Graph], options: Options, observer: Observer | None) -> Kernel:
    seen: dict[str, Any] = {}

    def watch(stage: str, item: object) -> None:
        seen[stage] = item
        if observer is not None:
            observer(stage, item)

    library = run_stages(start(), options, watch)
    return _kernel(manifest_of(seen["simplify"], seen["plan"]), library, start, options)


def _kernel(
    manifest: Manifest, library: Library, start: Callable[[], Graph], options: Options
) -> Kernel:
    return Kernel(manifest, library, partial(_lowered, start, options), options.threads)


def _lowered(start: Callable[[], Graph], options: Options) -> Lowered:
    """The stages whose results a kernel can be asked for."""
    seen: dict[str, Any] = {}
    run_stages(start(), options, seen.__setitem__, last="plan")
    return seen["simplify"], seen["plan"]
