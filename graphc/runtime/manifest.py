"""What a kernel's calls need to know of its graph: its manifest.

In:   a simplified graph and its planned program; or the text of a manifest.
Out:  a `Manifest`: the types of inputs and outputs, named sizes, bytes of temporaries, and what is
      checked before a run.
Invariant: a kernel runs from its manifest and machine code alone. The text says everything and
parses back; text of unknown origin gives a manifest or a FormatError.

>>> from graphc.ir.graph import Builder
>>> from graphc.ir.types import f64
>>> from graphc.lower.fuse import fuse
>>> from graphc.lower.plan import plan
>>> b = Builder()
>>> x = b.input("x", f64["n"])
>>> graph = b.graph("energy", {"y": (x * x).sum(0)})
>>> manifest = manifest_of(graph, plan(fuse(graph)))
>>> print(manifest)
manifest energy
input x f64[n]
output y f64[] sum
sizes n
arena 0 private 0 partials 64
work 3*n+2
>>> parse_manifest(str(manifest)) == manifest
True
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from graphc.errors import FormatError
from graphc.ir.types import (
    DTYPES,
    Dim,
    Size,
    TensorType,
    evaluate,
    parse_size,
    product,
    split_top,
)

if TYPE_CHECKING:
    from graphc.ir.graph import Graph, Node
    from graphc.lower.loops import Program

MOST_TEXT = 1 << 20  # characters of a manifest,
MOST_SIZE = 4000  # of one size in it,
MOST_DEPTH = 40  # and functions of sizes in each other
_OPERATIONS = {"call": 20, "div": 4, "sqrt": 4}  # scalar operations in one statement
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")

Input = tuple[str, TensorType]
Output = tuple[str, TensorType, str]  # the last is what computes it: an input's name, or a gate's
Choice = tuple[Size, Size]  # elements to choose from, and results that need one


@dataclass(frozen=True)
class Manifest:
    """See above. `donors` says which input's memory an output may take."""

    name: str
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    sizes: tuple[str, ...]
    arena: Size = 0  # bytes of temporaries,
    private: Size = 0  # of these, what each further thread has of its own,
    partials: Size = 0  # and what each part of a loop that threads share gives its sums
    work: Size = 0  # scalar operations in lanes, roughly
    donors: tuple[tuple[int, int], ...] = ()
    choices: tuple[Choice, ...] = ()

    def arena_bytes(self, sizes: Mapping[str, int], threads: int = 1) -> int:
        """What a call needs with so many threads."""
        if threads == 1:
            return evaluate(self.arena, sizes)
        from graphc.lower.plan import arena_for

        return evaluate(arena_for(self, threads), sizes)

    def __str__(self) -> str:
        lines = [f"manifest {self.name}"]
        lines += [f"input {name} {ty}" for name, ty in self.inputs]
        lines += [f"output {name} {ty} {what}" for name, ty, what in self.outputs]
        lines.append(" ".join(("sizes", *self.sizes)))
        lines.append(f"arena {self.arena} private {self.private} partials {self.partials}")
        lines.append(f"work {self.work}")
        lines += [f"donor {output} {given}" for output, given in self.donors]
        lines += [f"choice {elements} {results}" for elements, results in self.choices]
        return "\n".join(lines)


# -- from a graph ----------------------------------------------------------------------------------


def manifest_of(graph: Graph, program: Program) -> Manifest:
    """The manifest of a simplified graph and what was planned for it."""
    buffers = program.of_role("output")
    inputs = [b.name for b in program.of_role("input")]
    return Manifest(
        program.name,
        tuple((n["name"], n.type) for n in graph.inputs),
        tuple(
            (b.name.removesuffix(".out"), b.type, _what(n))
            for b, n in zip(buffers, graph.output_nodes, strict=True)
        ),
        program.sizes,
        program.arena or 0,
        program.private,
        program.partials,
        _work(program),
        tuple((i, inputs.index(b.donor)) for i, b in enumerate(buffers) if b.donor),
        tuple(map(_choice, choosing(graph))),
    )


def _what(node: Node) -> str:
    return node["name"] if node.op == "input" else node.op


def _work(program: Program) -> Size:
    """How often statements run; what is computed for one element at a time counts as in lanes."""
    from graphc.lower.loops import Contract, walk
    from graphc.lower.parallel import ALONE

    counts: dict[Size, int] = {}
    for kernel in program.kernels:
        for outer, statements in groupby(walk(kernel.body), key=itemgetter(1)):
            rows = product(f.size for f in outer)  # iterations of these loops
            weight = ALONE if outer and all(f.mode == "rows" for f in outer) else 1
            count = 0
            for s, _ in statements:
                if isinstance(s, Contract):
                    times = product(n for _, n in s.sizes)
                    counts[times] = counts.get(times, 0) + weight
                else:
                    count += _OPERATIONS.get(getattr(s, "op", ""), 1)
            counts[rows] = counts.get(rows, 0) + count * weight
    return sum((times * count for times, count in counts.items()), start=0)


def choosing(graph: Graph) -> list[Node]:
    """The reductions that need an element to choose, over axes of sizes known only at the call."""
    ops = _choosing_ops()
    return [
        n for n in graph.nodes if n.op in ops and isinstance(n.args[0].type.shape[n["axis"]], Dim)
    ]


@cache
def _choosing_ops() -> frozenset[str]:
    from graphc.gates.gate import registry
    from graphc.gates.reduction import Reduction

    found = [g for g in registry().values() if isinstance(g, Reduction) and g.needs_elements]
    return frozenset(g.name for g in found)


def _choice(node: Node) -> Choice:
    return node.args[0].type.shape[node["axis"]], product(node.type.shape)


# -- from text -------------------------------------------------------------------------------------


def parse_manifest(text: str) -> Manifest:
    """The inverse of `str`."""
    if len(text) > MOST_TEXT:
        raise FormatError(f"a manifest of {len(text)} characters is too long")
    found: dict[str, list[list[str]]] = {}
    for line in text.split("\n"):
        word, *rest = line.split(" ")
        found.setdefault(word, []).append(rest)
    try:
        manifest = _read(found)
    except (ValueError, KeyError, RecursionError) as error:  # FormatError and ShapeError, too
        raise FormatError(f"not a manifest: {error}") from error
    if found:
        raise FormatError(f"{next(iter(found))!r} is not a part of a manifest")
    return manifest


def _read(found: dict[str, list[list[str]]]) -> Manifest:
    """Takes every line that it knows out of `found`. A ValueError where a line has too few or too
    many words.
    """
    ((name,),) = found.pop("manifest")
    inputs = tuple([(_name(n), _type(ty)) for n, ty in found.pop("input", [])])
    outputs = tuple([(_name(n), _type(ty), _name(what)) for n, ty, what in found.pop("output")])
    (sizes,) = found.pop("sizes")
    ((arena, _, private, _, partials),) = found.pop("arena")
    ((work,),) = found.pop("work")
    donors = [(_below(o, len(outputs)), _below(i, len(inputs))) for o, i in found.pop("donor", [])]
    return Manifest(
        _name(name),
        inputs,
        outputs,
        tuple(map(_name, sizes)),
        _size(arena),
        _size(private),
        _size(partials),
        _size(work),
        tuple(donors),
        tuple([(_size(a), _size(b)) for a, b in found.pop("choice", [])]),
    )


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise FormatError(f"{text!r} is not a name")
    return text


def _below(text: str, count: int) -> int:
    number = int(text)
    if not 0 <= number < count:
        raise FormatError(f"there is no number {number} of {count}")
    return number


def _type(text: str) -> TensorType:
    dtype, _, shape = text.partition("[")
    if dtype not in DTYPES or not shape.endswith("]"):
        raise FormatError(f"{text!r} is not a type")
    return TensorType(DTYPES[dtype], tuple(map(_size, split_top(shape[:-1]))))


def _size(text: str) -> Size:
    """Most sizes are a number or a name."""
    _check(text)
    if text.isdecimal():
        return int(text)
    return Dim.symbol(text) if text.isidentifier() else parse_size(text)


def _check(text: str) -> None:
    """Parsing takes quadratic time in the terms of a size, and recurses as sizes nest."""
    depth = most = 0
    if "(" in text:
        for c in text:
            depth += (c == "(") - (c == ")")
            most = max(most, depth)
    if len(text) > MOST_SIZE or most > MOST_DEPTH:
        raise FormatError("a size is too long")


__all__ = ["Choice", "Input", "Manifest", "Output", "choosing", "manifest_of", "parse_manifest"]
