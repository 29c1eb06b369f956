"""What must hold of any graph with data: every stage's meaning is the reference's, bit for bit,
NaNs all being equal.

`problem(case, options)` is the first thing that does not hold, in words, or "". `minimised` makes
the graph in which it shows small: outputs are dropped and nodes become inputs for as long as the
problem stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from unittest.mock import patch

import llvmlite.binding as llvm
import numpy as np

from graphc.codegen import target
from graphc.errors import GraphcError, IndexOutOfBounds
from graphc.ir.graph import Builder, Value
from graphc.ir.reference import run_graph
from graphc.ir.types import evaluate
from graphc.ir.verify import verify
from graphc.lower import parallel
from graphc.lower.interpreter import run_program
from graphc.lower.plan import verify_plan
from graphc.pipeline import NAMES, STAGES, Options, run_stages
from graphc.runtime import jit, threads
from graphc.runtime.kernel import ENTRY, Kernel
from tests.random_graphs import Case, Run, used_sizes

PLAIN = Options()
STAGE = {s.name: s for s in STAGES}
CHECKS = ("simplify", "fuse", "plan", "jit", "text")


def same(a, b):
    """Equal dtype, shape and bits; one NaN is as good as another."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    bits = np.dtype(f"u{a.dtype.itemsize}")
    equal = np.ascontiguousarray(a).view(bits) == np.ascontiguousarray(b).view(bits)
    return bool((equal | (a != a) & (b != b)).all())


def difference(graph, got, expected, sizes):
    for (name, node), a, b in zip(graph.outputs, got, expected, strict=True):
        if not same(a, b):
            at = f"{a.dtype}{a.shape} against {b.dtype}{b.shape}"
            if a.dtype == b.dtype and a.shape == b.shape:
                wrong = np.flatnonzero(
                    ~((a == b) & (np.signbit(a) == np.signbit(b)) | (a != a) & (b != b))
                )
                first = int(wrong[0]) if wrong.size else 0
                here, there = a.reshape(-1)[first], b.reshape(-1)[first]
                at = f"{wrong.size} of {a.size} elements, element {first}: {here!r}, not {there!r}"
            return f"output {name} = {node!r} at sizes {sizes}: {at}"
    return ""


def stages_of(graph, options, first="trace", item=None, last="jit"):
    """Every stage's result by name."""
    seen: dict[str, object] = {}
    run_stages(graph if item is None else item, options, seen.__setitem__, first, last)
    return seen


@cache
def quick_machine():
    """This processor, with LLVM's own optimisations of machine code left out: compiles in a third
    of the time.
    """
    host = target.host()
    of = llvm.Target.from_triple(llvm.get_process_triple())
    return of.create_target_machine(
        cpu=host.cpu, features=host.features, opt=0, reloc="pic", codemodel="default", jit=True
    )


def library(text, quick):
    if not quick:
        return jit.Jit.link(text, (ENTRY,))
    jit.host_machine()  # brings LLVM up
    return jit.Jit.link_objects((jit.object_image(text, quick_machine()),), (ENTRY,))


def problem(
    case: Case, options: Options = PLAIN, checks=CHECKS, restart: str = "trace", quick: bool = False
) -> str:
    """The first thing that does not hold; `restart` is the stage whose text is parsed and gone on
    from.
    """
    seen = stages_of(case.graph, options, last="emit")
    verify(case.graph)
    verify(seen["simplify"])
    verify_plan(seen["plan"])
    meanings: dict[str, Callable[[Run], list[np.ndarray]]] = {
        "simplify": lambda run: run_graph(seen["simplify"], run.args, run.sizes),
        "fuse": lambda run: run_program(seen["fuse"], run.args, run.sizes),
        "plan": lambda run: run_program(seen["plan"], run.args, run.sizes),
        "jit": lambda run: kernel.run(run.args),
    }
    if "jit" in checks:
        code = library(seen["emit"], quick)
        kernel = Kernel.of(seen["simplify"], seen["plan"], code, options.threads)
    for i, run in enumerate(case.runs):
        for stage in (s for s in meanings if s in checks):
            if stage != "jit" and (i + (stage == "plan")) % len(case.runs):
                continue  # one run each for the slow ones
            found = difference(case.graph, meanings[stage](run), run.expected, run.sizes)
            if found:
                return f"{stage} changes {found}"
    return text_problem(seen, options, restart) if "text" in checks else ""


def index_problem(case: Case) -> str:
    """An index out of bounds is an error, compiled as by the reference.

    Only where something is read with it: what simplify has no use for is not computed, and an
    index into which nothing is moved is not looked at.
    """
    seen = stages_of(case.graph, PLAIN, last="emit")
    kernel = Kernel.of(seen["simplify"], seen["plan"], library(seen["emit"], True))
    run, graph = case.runs[0], seen["simplify"]
    for node in graph.nodes:
        if node.op not in ("take", "scatter_add") or node.args[1] not in graph.inputs:
            continue
        moved, into = node.type, node.args[0].type
        if node.op == "scatter_add":
            moved, into = into, moved
        if evaluate(moved.size, run.sizes) == 0:
            continue
        at, size = graph.inputs.index(node.args[1]), evaluate(into.shape[node["axis"]], run.sizes)
        for wrong in (size, -size - 1):
            args = [np.array(a) for a in run.args]
            args[at].reshape(-1)[args[at].size // 2] = wrong
            taking = (("reference", partial(run_graph, case.graph)), ("jit", kernel.run))
            for what, call in taking:
                try:
                    call(args)
                except IndexOutOfBounds:
                    continue
                return f"{what} takes the index {wrong} into an axis of size {size}: {node!r}"
    return ""


def text_problem(seen, options, restart):
    """The text of a stage parses back, and what follows from it is the same to the byte."""
    stage = STAGE[restart]
    text = stage.show(seen[restart])
    parsed = stage.parse(text)
    if stage.show(parsed) != text:
        return f"{restart}: the text does not parse back"
    following = NAMES[NAMES.index(restart) + 1]
    last = "emit" if restart == "plan" else "plan"  # equal plans are emitted equally
    again = stages_of(None, options, following, parsed, last)
    for name, item in again.items():
        if STAGE[name].show(item) != STAGE[name].show(seen[name]):
            return f"{name} differs when it begins from the text of {restart}"
    return ""


@contextmanager
def sharing(count: int | None) -> Iterator[None]:
    """Several threads share any work, however little."""
    if count is None:
        yield
        return
    with patch.object(parallel, "LEAST", 0), patch.object(threads, "LEAST_WORK", 0):
        yield


def outcome(case, options=PLAIN, checks=CHECKS, restart="trace", quick=False):
    """`problem`, an exception being one, too."""
    try:
        with sharing(options.threads):
            return problem(case, options, checks, restart, quick)
    except (
        GraphcError,
        AssertionError,
        KeyError,
        ValueError,
        RuntimeError,
        IndexError,
        TypeError,
        AttributeError,
        Warning,
    ) as e:
        return f"{type(e).__name__}: {e}"


# -- making it small -------------------------------------------------------------------------------


def kind_of(found):
    """What two problems have in common that are one: the first word."""
    return found.split(" ", 1)[0]


def part_of(case, outputs, cut):
    """The case with some of its outputs, and nodes replaced by inputs that hold their values."""
    graph, builder = case.graph, Builder()
    roots = [n for name, n in graph.outputs if name in outputs]
    needed, pending = set(roots), list(roots)
    for node in pending:  # grows while it runs
        for a in () if node in cut else node.args:
            if a not in needed:
                needed.add(a)
                pending.append(a)
    sizes = {s for n in needed for s in used_sizes(n)}
    mapping, arguments = {}, [[] for _ in case.runs]
    values = [_values_of(graph, run) for run in case.runs]
    for node in graph.nodes:
        is_input = node in graph.inputs
        carries = is_input and any(str(d) in sizes for d in node.type.shape)
        if not (node in needed or carries):
            continue
        if node in cut or is_input:
            mapping[node] = builder.input(
                node["name"] if is_input else f"v{len(mapping)}", node.type
            ).node
            for into, of in zip(arguments, values, strict=True):
                into.append(np.ascontiguousarray(of[node]).reshape(np.shape(of[node])))
        else:
            mapping[node] = builder.copy(node, tuple(mapping[a] for a in node.args), None)
    made = builder.graph(
        graph.name,
        {name: Value(builder, mapping[n]) for name, n in graph.outputs if name in outputs},
    )
    runs = []
    for run, args in zip(case.runs, arguments, strict=True):
        used = {s: run.sizes[s] for s in made.sizes}
        with np.errstate(all="ignore"):
            runs.append(Run(used, args, run_graph(made, args, used)))
    return Case(case.name, made, tuple(runs))


def _values_of(graph, run):
    values = dict(zip(graph.inputs, run.args, strict=True))
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            if node not in values:
                values[node] = node.gate.reference(node, [values[a] for a in node.args], run.sizes)
    return values


def minimised(case: Case, fails: Callable[[Case], str], effort: int = 150) -> Case:
    """The smallest case found in which `fails` says the same kind of thing."""
    kind = kind_of(fails(case))
    left = effort

    def still(make, *arguments):
        nonlocal left
        left -= 1
        try:
            made = make(*arguments)
            return made if left > 0 and kind_of(fails(made)) == kind else None
        except GraphcError:
            return None

    for name, _ in case.graph.outputs:
        if alone := still(part_of, case, {name}, ()):
            case = alone
            break
    case = _without_outputs(case, still)
    for run in case.runs:
        if len(case.runs) > 1 and (single := still(Case, case.name, case.graph, (run,))):
            case = single
            break
    progress = True
    while progress and left > 0:
        progress = False
        for node in reversed(case.graph.nodes):
            if node.args and (smaller := still(part_of, case, dict(case.graph.outputs), {node})):
                case, progress = smaller, True
                break
    return _without_outputs(case, still)


def _without_outputs(case, still):
    for name in [n for n, _ in case.graph.outputs]:
        kept = {n for n, _ in case.graph.outputs} - {name}
        if kept and (smaller := still(part_of, case, kept, ())):
            case = smaller
    return case


def report(case: Case, found: str) -> str:
    """A case as text that can be run again."""
    lines = [f"{case.name}: {found}", str(case.graph)]
    for run in case.runs:
        lines.append(f"sizes {run.sizes}")
        lines.extend(
            f"{n['name']} = {a!r}" for n, a in zip(case.graph.inputs, run.args, strict=True)
        )
        lines.extend(
            f"expected {name} = {a!r}"
            for (name, _), a in zip(case.graph.outputs, run.expected, strict=True)
        )
    return "\n".join(lines)
