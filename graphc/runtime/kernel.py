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
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc.codegen.kernels import ENTRY, HEADER_SLOTS
from graphc.errors import IndexOutOfBounds, ShapeError
from graphc.gates.reduction import Reduction
from graphc.ir.graph import Graph, Node
from graphc.ir.reference import sizes_of
from graphc.ir.types import Dim, evaluate
from graphc.lower.loops import Program
from graphc.pipeline import Observer, Options, run_stages
from graphc.runtime.jit import Library
from graphc.runtime.objects import call_through

_ENTRY_TYPE = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)


Shapes = tuple[tuple[int, ...], ...]
LAYOUTS = 256  # shapes whose layouts are remembered


@dataclass(frozen=True)
class Layout:
    """What a call with some shapes needs: outputs, arena bytes, sizes, the type of its slots."""

    outputs: tuple[tuple[tuple[int, ...], np.dtype], ...]
    arena: int
    sizes: tuple[int, ...]
    slots: Any


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

    _choosing: list[Node] = field(init=False, repr=False)
    _address: int = field(init=False, repr=False)
    _entry: Callable[..., int] = field(init=False, repr=False)
    _layouts: dict[Shapes, Layout] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_choosing", _choosing(self.graph))
        object.__setattr__(self, "_address", self.library.address(ENTRY))
        object.__setattr__(self, "_entry", _ENTRY_TYPE(self._address))

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The outputs for inputs of the right dtype and layout.

        Raises `IndexOutOfBounds` where an index is out of bounds.
        """
        shapes = tuple([a.shape for a in arrays])
        layout = self._layouts.get(shapes) or self._layout(shapes)
        outputs = [np.empty(shape, dtype) for shape, dtype in layout.outputs]
        arena = np.empty(layout.arena, np.uint8)
        slots, failed = self._call(layout, (arena, *arrays, *outputs))
        if failed:
            raise IndexOutOfBounds(
                f"index {slots[0]} is out of bounds for an axis of size {slots[1]}"
            )
        return outputs

    def _call(self, layout: Layout, arrays: tuple[np.ndarray, ...]) -> tuple[ctypes.Array, int]:
        """Run on the arena, inputs and outputs, whose addresses native code reads if it can."""
        through = call_through()
        if through is not None:
            slots = layout.slots(0, 0, *map(id, arrays), *layout.sizes)
            return slots, through(self._address, slots, 1 + len(arrays))
        arena, *pointers = (a.ctypes.data for a in arrays)
        slots = layout.slots(0, 0, (arena + 63) & -64, *pointers, *layout.sizes)
        return slots, self._entry(slots)

    def _layout(self, shapes: Shapes) -> Layout:
        """What a call with these shapes needs; sizes are checked here, once for all calls alike."""
        sizes = sizes_of(self.graph, [_Shaped(s) for s in shapes])
        for node in self._choosing:
            _check_choice(self.graph, node, sizes)
        buffers = self.program.of_role("output")
        outputs = tuple(
            (tuple(evaluate(s, sizes) for s in b.type.shape), b.type.dtype.numpy) for b in buffers
        )
        values = tuple(sizes[name] for name in self.program.sizes)
        slots = ctypes.c_int64 * (HEADER_SLOTS + len(shapes) + len(outputs) + len(values))
        if len(self._layouts) >= LAYOUTS:
            self._layouts.clear()
        layout = self._layouts[shapes] = Layout(
            outputs, self.arena_bytes(sizes) + 64, values, slots
        )
        return layout

    def arena_bytes(self, sizes: Mapping[str, int]) -> int:
        return evaluate(self.program.arena or 0, sizes)


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
    return Kernel(final, program, library)
