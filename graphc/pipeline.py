"""READ THIS FIRST: the stages of the compiler, in order, and the one loop that runs them.

    trace     a Python function           -> Graph      graphc/dsl/trace.py
    adjoint   Graph                       -> Graph      graphc/transforms/adjoint.py
    simplify  Graph                       -> Graph      graphc/passes/simplify.py
    fuse      Graph                       -> Program    graphc/lower/fuse.py
    plan      Program                     -> Program    graphc/lower/plan.py
    emit      Program                     -> LLVM text  graphc/codegen/kernels.py
    jit       LLVM text                   -> Kernel     graphc/runtime/kernel.py

A stage's name is its module, its dump file, its golden folder and its test file. What goes in and
what comes out prints as text that parses back, except for the last, so a compilation can stop after
any stage and go on from text. An observer sees every stage's output: dumps, timings, verification
and `explain` all hang there.

>>> from graphc.ir.graph import Builder
>>> from graphc.ir.types import f64
>>> b = Builder()
>>> x = b.input("x", f64["n"])
>>> seen = []
>>> graph = b.graph("energy", {"y": (x * x).sum(0)})
>>> text = run_stages(graph, Options(), lambda stage, item: seen.append(stage), last="emit")
>>> seen
['trace', 'adjoint', 'simplify', 'fuse', 'plan', 'emit']
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from graphc.ir.graph import Graph
from graphc.runtime.compiling import whole
from graphc.runtime.garbage import collected_later

Observer = Callable[[str, Any], None]


@dataclass(frozen=True)
class Options:
    """How to compile; part of every key."""

    wrt: tuple[str, ...] = ()  # inputs whose gradients are outputs, too
    donate: tuple[str, ...] = ()  # inputs whose memory outputs may take
    seeds: str = "one"  # the cotangent of a scalar output is 1; "input": cotangents are inputs
    deterministic: bool = False
    skip: frozenset[str] = frozenset()  # optional passes left out
    isa: str = "host"
    threads: int | None = None  # that a call may use; None: as `set_threads` says


@dataclass(frozen=True)
class Stage:
    name: str
    run: Callable[[Any, Options], Any]
    show: Callable[[Any], str]
    parse: Callable[[str], Any] | None  # the inverse of `show`
    modules: tuple[str, ...] = ()  # that `run` imports

    def load(self) -> None:
        """Import them as a whole: an import that Ctrl-C ends may raise anything."""
        if any(name not in sys.modules for name in self.modules):
            with whole():
                for name in self.modules:
                    import_module(name)


def _adjoint(graph: Graph, options: Options) -> Graph:
    from graphc.transforms.adjoint import adjoint
    from graphc.transforms.gram import written_out

    graph = written_out(graph)
    return adjoint(graph, options.wrt, options.seeds) if options.wrt else graph


def _simplify(graph: Graph, options: Options) -> Graph:
    from graphc.passes.simplify import simplify

    return simplify(graph, options.skip)


def _fuse(graph: Graph, options: Options) -> Any:
    from graphc.lower.fuse import fuse

    return fuse(graph, options.skip)


def _plan(program: Any, options: Options) -> Any:
    from graphc.lower.donate import donate
    from graphc.lower.plan import plan

    return donate(plan(program, options.skip), options.donate)


def _emit(program: Any, options: Options) -> str:
    from graphc.codegen.kernels import emit

    return emit(program, options.isa)


def _jit(text: str, options: Options) -> Any:
    from graphc.codegen.slots import ENTRY
    from graphc.runtime.jit import Jit

    return Jit.link(text, (ENTRY,))


def _parse_graph(text: str) -> Graph:
    from graphc.ir.text import parse_graph

    return parse_graph(text)


def _parse_program(text: str) -> Any:
    from graphc.lower.loop_text import parse_program

    return parse_program(text)


STAGES = (
    Stage("trace", lambda graph, options: graph, str, _parse_graph),
    Stage(
        "adjoint",
        _adjoint,
        str,
        _parse_graph,
        ("graphc.transforms.adjoint", "graphc.transforms.gram"),
    ),
    Stage("simplify", _simplify, str, _parse_graph, ("graphc.passes.simplify",)),
    Stage("fuse", _fuse, str, _parse_program, ("graphc.lower.fuse",)),
    Stage("plan", _plan, str, _parse_program, ("graphc.lower.donate", "graphc.lower.plan")),
    Stage("emit", _emit, str, str, ("graphc.codegen.kernels",)),
    Stage("jit", _jit, repr, None),
)
NAMES = tuple(stage.name for stage in STAGES)


def is_verified() -> bool:
    """Does GRAPHC_VERIFY ask for every stage to be checked?"""
    return os.environ.get("GRAPHC_VERIFY", "") in ("1", "2")


def _checker() -> Observer | None:
    if not is_verified():
        return None
    from graphc.report.verification import Checker

    return Checker(int(os.environ["GRAPHC_VERIFY"]))


def run_stages(
    item: Any,
    options: Options,
    observer: Observer | None = None,
    first: str = "trace",
    last: str = "jit",
) -> Any:
    """Run the stages from `first` to `last` on what the stage before `first` gave.

    GRAPHC_VERIFY=1 checks what each stage gives; GRAPHC_VERIFY=2 also runs it, and names the first
    stage that changed a value.
    """
    checker = _checker()
    for stage in STAGES[NAMES.index(first) : NAMES.index(last) + 1]:
        stage.load()
        with collected_later():
            item = stage.run(item, options)
        if checker is not None:
            checker(stage.name, item)
        if observer is not None:
            observer(stage.name, item)
    return item
