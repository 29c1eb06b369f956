"""explain: what the compiler made of a graph, in at most 40 lines of prose.

In:   a `Compiled`.
Out:  text: its kernels and what was fused in each, sweeps over the inputs, bytes moved against the
      least possible, what is saved for the backward, and what was not fused and why.
Invariant: every number is read off the planned program and the emitted code, predicted times apart,
which are there when asked for; nothing of the graph is run.

>>> from graphc.dsl.declare import graph
>>> from graphc.ir.types import f64
>>> from graphc.runtime.compiled import compile
>>> @graph
... def energy(x: f64["n"]):
...     return (x * x).sum()
>>> explain(compile(energy, wrt="x")).split("\\n")[0]
'energy(x: f64[n]), with gradients by x'
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graphc.ir.graph import Graph, Node
from graphc.ir.types import Size, evaluate
from graphc.lower.donate import donors, refusals
from graphc.lower.loops import (
    Buffer,
    Contract,
    For,
    Inside,
    Kernel,
    Load,
    Program,
    Scatter,
    Store,
    walk,
)
from graphc.lower.plan import traffic
from graphc.lower.tasks import tasks_of
from graphc.lower.work import works
from graphc.report.cost import count, duration, predict
from graphc.report.plan import Plan

if TYPE_CHECKING:
    from graphc.runtime.compiled import Compiled

LINES = 40
WIDTH = 104
SAMPLE = 1000  # the value of a named size where an example needs one
MOST_KERNELS, MOST_REASONS, MOST_SAVED = 8, 5, 3  # so that 40 lines always suffice


def explain(
    compiled: Compiled, sizes: Mapping[str, int] | None = None, measure: bool = False
) -> str:
    """At most 40 lines on a compiled graph; `sizes` are the values of named sizes that the bytes
    are for. With `measure`, each kernel's time is predicted from what this machine takes."""
    made = compiled.stages.items_made
    graph, program = made["simplify"], made["plan"]
    values = {s: SAMPLE for s in program.sizes} | dict(sizes or {})
    parts = [
        _head(compiled, graph, program, made["emit"]),
        _kernels(compiled, graph, program, values, measure),
        _sweeps(program),
        _stencils(program),
        _bytes(program, values),
        _saved(compiled, values) if compiled.wrt else [],
        _donated(program, compiled.options.donate),
        _apart(program, {f"t{t.serial}": t.node.op for t in tasks_of(graph)}),
    ]
    lines = [line for part in parts for line in ([*part, ""] if part else [])][:-1]
    shown = [line if len(line) <= WIDTH else f"{line[: WIDTH - 3]}..." for line in lines]
    return "\n".join(shown[:LINES])


# -- the parts -------------------------------------------------------------------------------------


def _head(compiled: Compiled, graph: Graph, program: Program, text: str) -> list[str]:
    inputs = ", ".join(f"{n['name']}: {n.type}" for n in graph.inputs)
    by = f", with gradients by {', '.join(compiled.wrt)}" if compiled.wrt else ""
    gates = sum(n.gate.kind != "source" for n in graph.nodes)
    loops = sum(isinstance(s, For) for k in program.kernels for s in k.body)
    calls = sum(isinstance(s, Contract) for k in program.kernels for s in k.body)
    what = [
        _count(gates, "gate"),
        _count(len(program.kernels), "kernel"),
        _count(loops, "outer loop"),
    ]
    products = f" and {_count(calls, 'matrix product')}" if calls else ""
    body = (
        f"{what[0]} in {what[1]}: {what[2]}{products}, all in one native function of "
        f"{instructions(text):,} LLVM instructions, {_machine_instructions(text):,} of this "
        "processor."
    )
    return [*_filled(f"{compiled.__name__}({inputs}){by}"), *_filled(body)]


def _kernels(
    compiled: Compiled, graph: Graph, program: Program, sizes: Mapping[str, int], measure: bool
) -> list[str]:
    places = _places(compiled, graph, program)
    costs, total = _costs(program, sizes, measure)
    lines = _filled(f"Kernels, and the gates fused in each{total}")
    for kernel, cost in list(zip(program.kernels, costs, strict=True))[:MOST_KERNELS]:
        what = f"{_shape_of(kernel)}{places.get(kernel.name, '')}"
        lines.extend(_wrapped(f"{kernel.name}  {what}, {cost}: {_gates(kernel)}", 1))
    return lines + _rest(program.kernels, MOST_KERNELS)


def _costs(program: Program, sizes: Mapping[str, int], measure: bool) -> tuple[list[str], str]:
    """Bytes and operations of each kernel; with `measure` also its time, and that of a call."""
    counted = [f"{_amount(w.bytes)}, {count(w):,} ops" for w in works(program, sizes)]
    if not measure:
        return counted, ""
    found = predict(program, sizes)
    each = [f"{c}, {duration(k.seconds)}" for c, k in zip(counted, found.kernels, strict=True)]
    at = "".join(f"{s} = {n:,}, " for s, n in sizes.items())
    total = f"a call ({at}1 thread) should take {duration(found.seconds)}, most of it {found.limit}"
    return each, f"; {total}"


def _amount(size: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size} B"


def _shape_of(kernel: Kernel) -> str:
    loops = [s for s in kernel.body if isinstance(s, For)]
    if kernel.sweep is not None:
        products = sum(isinstance(s, Contract) for s in kernel.body)
        what = f"{_count(len(loops), 'loop')} and {_count(products, 'product')}"
        return f"one sweep over {kernel.sweep} rows: {what}"
    if any(isinstance(s, Contract) for s in kernel.body):
        return "one call"
    if not loops:
        return "no loop"
    return f"one loop over {loops[0].size}" if len(loops) == 1 else f"{len(loops)} loops"


def _gates(kernel: Kernel) -> str:
    names = (re.fullmatch(r"(.+)\*(\d+)", word) for word in kernel.note.split())
    words = [f"{m[2]} {m[1]}" if m else w for m, w in zip(names, kernel.note.split(), strict=True)]
    return ", ".join(words) or "nothing but copies"


def _sweeps(program: Program) -> list[str]:
    found = [f"{b.name} {Plan(program).passes_over(b.name)}" for b in program.of_role("input")]
    return _filled("Sweeps over each input (farther apart than 256 kB): " + ", ".join(found))


def _stencils(program: Program) -> list[str]:
    """Where neighbours are made again rather than kept: see `lower.stencils`."""
    found = []
    for kernel in program.kernels:
        places: dict[str, set[Size]] = {}
        if any(isinstance(s, Inside) for s, _ in walk(kernel.body)):
            for s, _ in walk(kernel.body):
                if isinstance(s, Load):
                    places.setdefault(s.buffer, set()).add(s.index)
        found += [
            f"{kernel.name} reads {name} at {len(indices)} places"
            for name, indices in places.items()
            if len(indices) > 1
        ]
    head = "Stencils, with values made again for neighbours rather than kept: "
    return _filled(head + ", ".join(found)) if found else []


def _bytes(program: Program, sizes: Mapping[str, int]) -> list[str]:
    moved = Plan(program).bytes_moved(**sizes)
    read = {name for k in program.kernels for name in traffic(k)[0]}
    least = sum(
        evaluate(b.bytes(), sizes)
        for b in program.buffers
        if b.role == "output" or (b.role == "input" and b.name in read)
    )
    at = f", at {', '.join(f'{s} = {n:,}' for s, n in sizes.items())}" if sizes else ""
    text = (
        f"Bytes moved{at}: {moved:,}; reading each input and writing each output once takes "
        f"{least:,}: {moved / max(least, 1):.2f} times the least. "
        f"Temporaries take {evaluate(program.arena or 0, sizes):,} bytes."
    )
    return _filled(text)


def _saved(compiled: Compiled, sizes: Mapping[str, int]) -> list[str]:
    """What `forward` keeps for `backward`."""
    from graphc.runtime.compiled import dense_bytes

    forward = compiled._halves[0].graph
    kept = forward.outputs[len(compiled.traced.graph.outputs) :]
    total = sum(evaluate(n.type.bytes_expr(), sizes) for _, n in kept)
    dense = evaluate(dense_bytes(compiled.traced.graph, compiled._wrt_inputs), sizes)
    head = (
        f"Saved by forward() for backward(): {total:,} bytes; "
        f"all Jacobians, stored dense, would take {dense:,} "
        f"({dense / max(total, 1):,.0f} times as many)."
    )
    lines = [
        f"  {_what(n)}: {n.type}, {evaluate(n.type.bytes_expr(), sizes):,} bytes"
        for _, n in kept[:MOST_SAVED]
    ]
    return [*_filled(head), *lines, *_rest(kept, MOST_SAVED)]


def _donated(program: Program, names: Sequence[str]) -> list[str]:
    """Which outputs take the memory of donated inputs, and why others do not."""
    taken = {name: output.removesuffix(".out") for output, name in donors(program).items()}
    lines = [f"Donated: {taken[n]} is written into the memory of {n}." for n in names if n in taken]
    for name, why in refusals(program, names).items():
        lines.append(f"Donated in vain: {name}: {why}.")
    return [part for line in lines for part in _filled(line)]


def _what(node: Node) -> str:
    return f"the input {node['name']}" if node.op == "input" else f"the result of {node.op}"


def _apart(program: Program, made_by: Mapping[str, str]) -> list[str]:
    """Values that go through memory from one kernel to another, by reason."""
    reasons: dict[str, list[str]] = {}
    for b in program.of_role("temp"):
        if not b.scope and (why := _why(program, b)):
            reasons.setdefault(why, []).append(f"{made_by.get(b.name, b.name)} {b.type}")
    if not reasons:
        return ["Not fused: nothing; no value goes from one kernel to another through memory."]
    lines = ["Not fused: values that go from one kernel to another through memory"]
    for why, names in list(reasons.items())[:MOST_REASONS]:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        lines.extend(_wrapped(f"{', '.join(names[:3])}{more}: {why}"))
    return lines + _rest(list(reasons), MOST_REASONS)


def _rest(items: Sequence[Any], shown: int) -> list[str]:
    return [f"  and {len(items) - shown} more"] if len(items) > shown else []


def _filled(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, max_lines=2, placeholder=" ...", break_on_hyphens=False)


def _wrapped(text: str, most: int = 2) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent="  ",
        subsequent_indent="      ",
        max_lines=most,
        placeholder=" ...",
        break_on_hyphens=False,
        break_long_words=False,
    )


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


# -- why two kernels -------------------------------------------------------------------------------


def _why(program: Program, b: Buffer) -> str:
    """Why a value's maker and its reader are two kernels; empty where they are one."""
    made = [k for k in program.kernels if b.name in traffic(k)[1]]
    read = [k for k in program.kernels if b.name in traffic(k)[0] and k not in made]
    if not made or not read:
        return ""
    maker, reader = made[-1], read[0]
    if _has_call(maker) or _has_call(reader):
        return "a matrix product runs as one call, on operands in memory"
    if _is_sum_of(maker, b):
        return "a sum is complete only after the last iteration of its loop"
    if any(isinstance(s, Scatter) and s.buffer == b.name for s, _ in walk(maker.body)):
        return "a scatter may write any element in any iteration"
    if b.type.rank == 0:
        looped = any(isinstance(s, For) for s in maker.body)
        return (
            "complete only after the loop that makes it"
            if looped
            else "made once, before the loops that use it"
        )
    here, there = _size_of_loop(maker, b), _size_of_loop(reader, b)
    if here != there:
        return f"the loops have different sizes, {here} and {there}"
    return (
        "read in another order than it is made: "
        "a reshape, a transpose, a shift or a reduction stands between"
    )


def _has_call(kernel: Kernel) -> bool:
    return any(isinstance(s, Contract) for s in kernel.body)


def _is_sum_of(kernel: Kernel, b: Buffer) -> bool:
    """Is the buffer filled by an accumulator of a loop that does not lie inside of another one?"""
    return any(
        isinstance(s, For) and any(a.into == b.name for a in s.accs) for s, _ in walk(kernel.body)
    )


def _size_of_loop(kernel: Kernel, b: Buffer) -> Size:
    """The size of the outermost loop around the accesses to a buffer; 1 where there is none."""
    for s, outer in walk(kernel.body):
        if isinstance(s, (Load, Store, Scatter)) and s.buffer == b.name:
            return outer[0].size if outer else 1
    return 1


# -- where it comes from ---------------------------------------------------------------------------


def _places(compiled: Compiled, graph: Graph, program: Program) -> dict[str, str]:
    """The user's lines behind each kernel, as ` (model.py:7, 9)`."""
    from graphc.lower.fuse import _groups

    groups = _groups(tasks_of(graph), 0, "fuse" not in compiled.options.skip)
    made = {f"k{i}": group for i, group in enumerate(groups)}
    parts = {k.name: k.name.split("_") for k in program.kernels}  # of a sweep: see `lower.sweep`
    if sorted(made) != sorted(name for names in parts.values() for name in names):
        return {}
    return {
        kernel: _lines_text(graph, (t.node for name in names for t in made[name].tasks))
        for kernel, names in parts.items()
    }


def _lines_text(graph: Graph, nodes: Iterable[Node]) -> str:
    found: dict[str, dict[int, None]] = {}
    for origin in filter(None, map(graph.origin, nodes)):
        found.setdefault(origin.file.rsplit("/", 1)[-1], {})[origin.line] = None
    files = [
        f"{file}:{','.join(map(str, sorted(lines)[:6]))}"
        for file, lines in sorted(found.items())[:2]
    ]
    return f" ({' '.join(files)})" if files else ""


# -- instructions ----------------------------------------------------------------------------------


def instructions(text: str) -> int:
    """Instructions in the text of an LLVM module: the indented lines of its functions."""
    return sum(line.startswith("  ") for line in text.split("\n"))


def _machine_instructions(text: str) -> int:
    from graphc.runtime.jit import assembly

    return len(re.findall(r"^\t[a-z]", assembly(text), re.MULTILINE))


__all__ = ["explain", "instructions"]
