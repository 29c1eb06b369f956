"""A kernel: the machine code of one program, called on NumPy arrays.

In:   C-contiguous arrays of the program's dtypes, in the order of its inputs.
Out:  new arrays, in the order of its outputs.
Invariant: sizes are checked before anything runs; a failed run leaves its inputs as they were and returns nothing.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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

_ENTRY_TYPE = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)


@dataclass(frozen=True, eq=False)
class Kernel:
    """A compiled graph. It keeps its machine code alive."""

    graph: Graph
    program: Program
    library: Library

    def __post_init__(self) -> None:
        object.__setattr__(self, "_choosing", _choosing(self.graph))
        object.__setattr__(self, "_entry", _ENTRY_TYPE(self.library.address(ENTRY)))

    def run(self, arrays: Sequence[np.ndarray], out: Sequence[np.ndarray] | None = None) -> list[np.ndarray]:
        """The outputs for inputs of the right dtype and layout; an IndexError where an index is out of bounds."""
        sizes = sizes_of(self.graph, arrays)
        for node in self._choosing:  # type: ignore[attr-defined]
            _check_choice(self.graph, node, sizes)
        outputs = list(out) if out is not None else self._allocate(sizes)
        arena = np.empty(self.arena_bytes(sizes) + 64, np.uint8)
        slots = (ctypes.c_int64 * (HEADER_SLOTS + len(arrays) + len(outputs) + len(self.program.sizes)))()
        slots[2] = (arena.ctypes.data + 63) & -64
        pointers = [a.ctypes.data for a in (*arrays, *outputs)]
        slots[HEADER_SLOTS : HEADER_SLOTS + len(pointers)] = pointers
        for i, name in enumerate(self.program.sizes, start=HEADER_SLOTS + len(pointers)):
            slots[i] = sizes[name]
        if self._entry(ctypes.addressof(slots)):  # type: ignore[attr-defined]
            raise IndexOutOfBounds(f"index {slots[0]} is out of bounds for an axis of size {slots[1]}")
        return outputs

    def _allocate(self, sizes: Mapping[str, int]) -> list[np.ndarray]:
        buffers = self.program.of_role("output")
        return [np.empty([evaluate(s, sizes) for s in b.type.shape], b.type.dtype.numpy) for b in buffers]

    def arena_bytes(self, sizes: Mapping[str, int]) -> int:
        return evaluate(self.program.arena or 0, sizes)


def _choosing(graph: Graph) -> list[Node]:
    """The reductions that need an element to choose, over axes whose sizes are known only at the call."""
    return [
        n
        for n in graph.nodes
        if isinstance(n.gate, Reduction) and n.gate.needs_elements and isinstance(n.args[0].type.shape[n["axis"]], Dim)
    ]


def _check_choice(graph: Graph, node: Node, sizes: Mapping[str, int]) -> None:
    if evaluate(node.args[0].type.shape[node["axis"]], sizes) == 0 and 0 not in [evaluate(s, sizes) for s in node.type.shape]:
        origin = graph.origin(node)
        where = f" at {origin}" if origin else ""
        raise ShapeError(f"{node.op}{where}: axis {node['axis']} of {node.args[0].type} is empty: nothing to choose from")


def compile_graph(graph: Graph, options: Options | None = None, observer: Observer | None = None) -> Kernel:
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

