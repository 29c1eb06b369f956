"""The command line: compile, explain, check and look at graphs that stand in a Python file.

In:   `FILE:NAME`, a graph by the path of its file and its name there, or the text of a stage.
Out:  text on standard output, files where a folder is named.
Invariant: what the user got wrong is one line on standard error that names the place, and the exit
code 2.

    graphc compile model.py:loss --wrt w,b -o build/            NAME.o NAME.h NAME.so
    graphc compile model.py:loss --wrt w,b --stop-after fuse    the loops, as text
    graphc compile model.py:loss --dump out/                    1-trace.txt ... 7-jit.s
    graphc compile --resume out/3-simplify.txt --dump later/    the stages after that text
    graphc diff adjoint simplify model.py:loss --wrt w          what changed, and which rule did it
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import inspect
import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from graphc.errors import GraphcError
from graphc.pipeline import NAMES, STAGES, Options, run_stages

if TYPE_CHECKING:
    from graphc.runtime.compiled import Compiled

FILES = {
    name: f"{i}-{name}.{'ll' if name == 'emit' else 's' if name == 'jit' else 'txt'}"
    for i, name in enumerate(NAMES, 1)
}


class UsageError(Exception):
    """What the user asked for cannot be done; the message is one line."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, too."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"graphc: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; gives the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except UsageError as error:
        print(f"graphc: {error}", file=sys.stderr)
    except GraphcError as error:
        place = _user_place(error, getattr(options, "graph", None))
        print(f"graphc: {place}{type(error).__name__}: {_one_line(str(error))}", file=sys.stderr)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  the interpreter flushes it at exit
        return 1
    return 2


def _one_line(text: str) -> str:
    return re.sub(r" +", " ", re.sub(r"\s*\n\s*", "; ", text.strip()))


def _user_place(error: BaseException, graph: str | None) -> str:
    """`model.py:7: `, the last line of the user's file that led to an error."""
    file = (graph or "").rpartition(":")[0]
    path = os.path.abspath(file)
    lines = [
        f.lineno
        for f in traceback.extract_tb(error.__traceback__)
        if os.path.abspath(f.filename) == path
    ]
    return f"{file}:{lines[-1]}: " if lines else ""


# -- the commands and their options ----------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    from graphc import __version__

    parser = _Parser(
        prog="graphc", description="A graph compiler: value and gradient as machine code."
    )
    parser.add_argument("--version", action="version", version=f"graphc {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_compile(commands)
    explain = _command(
        commands, "explain", _explain, "what was fused, moved and saved, in 40 lines"
    )
    _graph_arguments(explain)
    explain.add_argument("--measure", action="store_true", help="predict seconds, too")
    check = _command(
        commands, "check", _check, "hold value and gradient against extended precision"
    )
    _graph_arguments(check)
    check.add_argument("--seed", type=int, default=0, help="of the random inputs (default: 0)")
    check.add_argument(
        "--sizes",
        type=_sizes,
        default={},
        metavar="n=5,m=3",
        help="of named sizes (default: 5 each)",
    )
    diff = _command(commands, "diff", _diff, "what changed between two stages, and what changed it")
    diff.add_argument("first", metavar="STAGE", choices=NAMES)
    diff.add_argument("second", metavar="STAGE", choices=NAMES)
    _graph_arguments(diff)
    gates = _command(
        commands, "gates", _gates, "list the gates, with the structure of their Jacobians"
    )
    gates.add_argument("--json", action="store_true", help="as JSON")
    _command(commands, "rules", _rules, "list the rules of `simplify`")
    cache = _command(commands, "cache", _cache, "look after the machine code that is kept on disk")
    cache.add_argument("action", choices=("info", "clear", "verify"))
    return parser


def _command(
    commands: Any, name: str, run: Callable[[Any], int | None], what: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
    parser.set_defaults(run=run)
    return parser


def _graph_arguments(parser: argparse.ArgumentParser, optional: bool = False) -> None:
    parser.add_argument(
        "graph",
        metavar="FILE:NAME",
        nargs="?" if optional else None,
        help="a graph in a Python file",
    )
    parser.add_argument(
        "--wrt", type=_names, default=(), metavar="a,b", help="differentiate by these parameters"
    )


def _add_compile(commands: Any) -> None:
    parser = _command(
        commands, "compile", _compile, "compile a graph to a C library, or to any stage"
    )
    _graph_arguments(parser, optional=True)
    parser.add_argument(
        "-o", dest="output", metavar="DIR", type=Path, help="write NAME.o, NAME.h and NAME.so there"
    )
    parser.add_argument("--name", help="the name to export (default: the graph's)")
    parser.add_argument(
        "--emit", type=_names, default=(), metavar="ll,s", help="with -o: LLVM text, assembly, too"
    )
    parser.add_argument(
        "--isa", choices=("v3", "host"), default="v3", help="with -o: processors to make code for"
    )
    parser.add_argument(
        "--stop-after",
        metavar="STAGE",
        choices=NAMES,
        default="jit",
        help=f"one of {', '.join(NAMES)}",
    )
    parser.add_argument(
        "--dump",
        metavar="DIR",
        type=Path,
        help="write the text of every stage there (or GRAPHC_DUMP)",
    )
    parser.add_argument(
        "--resume", metavar="FILE", type=Path, help="go on from a dump, such as 3-simplify.txt"
    )
    parser.add_argument(
        "--deterministic", action="store_true", help="keep matrix products in graphc's own kernel"
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _sizes(text: str) -> dict[str, int]:
    pairs = [part.partition("=") for part in _names(text)]
    if any(not value.isdigit() for _, _, value in pairs):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form n=5,m=3")
    return {name: int(value) for name, _, value in pairs}


# -- graphs in files -------------------------------------------------------------------------------


def load_graph(place: str) -> Any:
    """The `@graphc.graph`, `graphc.Graph` or `Compiled` that `FILE:NAME` says."""
    file, _, name = place.rpartition(":")
    if not file or not name:
        raise UsageError(f"{place!r} is not FILE:NAME, such as model.py:loss")
    path = Path(file)
    if not path.is_file():
        raise UsageError(f"there is no file {file}")
    module = _run_module(path)
    if not hasattr(module, name):
        raise UsageError(f"{file} has no {name!r}; {_graphs_text(module)}")
    found = getattr(module, name)
    if not _is_graph(found):
        raise UsageError(
            f"{place} is a {type(found).__name__}, not a declared graph: "
            "decorate the function with @graphc.graph"
        )
    return found


def _is_graph(x: Any) -> bool:
    from graphc.dsl.declare import Declared, Graph
    from graphc.runtime.compiled import Compiled

    return isinstance(x, (Declared, Graph, Compiled))


def _graphs_text(module: Any) -> str:
    names = [n for n, x in vars(module).items() if _is_graph(x)]
    return f"its graphs are {', '.join(names)}" if names else "it has no graphs"


def _run_module(path: Path) -> Any:
    """The file, run as a module, with its folder on the path as `python FILE` has it."""
    sys.path.insert(0, str(path.parent.absolute()))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    try:
        spec.loader.exec_module(module)
    except GraphcError:
        raise
    except SyntaxError as error:
        raise UsageError(f"{error.filename}:{error.lineno}: SyntaxError: {error.msg}") from error
    except Exception as error:
        place = _user_place(error, f"{path}:") or f"{path}: "
        raise UsageError(f"{place}{type(error).__name__}: {_one_line(str(error))}") from error
    return module


def _compiled(options: argparse.Namespace, **more: Any) -> Compiled:
    """The graph of the command line, compiled as asked."""
    from graphc.runtime.compiled import Compiled, compile

    found = load_graph(options.graph)
    if not isinstance(found, Compiled):
        return compile(found, options.wrt, **more)
    if not options.wrt and not any(more.values()):
        return found
    return compile(found.declared, options.wrt or found.wrt, **more)


# -- compile ---------------------------------------------------------------------------------------


def _compile(options: argparse.Namespace) -> None:
    dump = options.dump or (
        Path(os.environ["GRAPHC_DUMP"]) if os.environ.get("GRAPHC_DUMP") else None
    )
    if options.resume is not None:
        item, first, stages = (
            _resumed(options.resume),
            _stage_after(options.resume),
            Options(deterministic=options.deterministic),
        )
        if options.graph or options.output or options.wrt:
            raise UsageError(
                "--resume goes on from a text: give it without FILE:NAME, --wrt and -o"
            )
    elif options.graph is None:
        raise UsageError("compile needs FILE:NAME, such as model.py:loss, or --resume FILE")
    else:
        compiled = _compiled(options, deterministic=options.deterministic)
        item, first = compiled.traced.graph, NAMES[0]
        stages = compiled._gradient_options() if compiled.wrt else compiled.options
    if NAMES.index(options.stop_after) < NAMES.index(first):
        raise UsageError(
            f"--stop-after {options.stop_after} comes before {first}, "
            f"where {options.resume} goes on"
        )
    rows = _run(item, first, options.stop_after, stages, dump, quiet=options.output is not None)
    if options.output is not None:
        _build(compiled, options)
    elif rows:
        _table(("stage", "seconds", "bytes of text", "file"), rows)


def _resumed(path: Path) -> Any:
    """What the text of a stage stands for."""
    try:
        text = path.read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from error
    parse = STAGES[NAMES.index(_stage_of(path))].parse
    assert parse is not None
    try:
        return parse(text)
    except GraphcError as error:
        raise UsageError(f"{path}: {_one_line(str(error))}") from error


def _stage_of(path: Path) -> str:
    """The stage that a dump's name says: `3-simplify.txt` is simplify's."""
    name = path.stem.rpartition("-")[2]
    if name not in NAMES[:-1]:
        raise UsageError(
            f"the name of {path} does not say which stage it is from: "
            f"use one such as {FILES['simplify']}"
        )
    return name


def _stage_after(path: Path) -> str:
    return NAMES[NAMES.index(_stage_of(path)) + 1]


def _run(
    item: Any, first: str, last: str, options: Options, dump: Path | None, quiet: bool
) -> list[tuple[str, ...]]:
    """Run stages; dump each one's text, or print the last one's if a stage was named. Gives a row
    for each."""
    rows: list[tuple[str, ...]] = []
    texts: dict[str, str] = {}
    started = time.perf_counter()

    def watch(stage: str, made: Any) -> None:
        nonlocal started
        seconds = time.perf_counter() - started
        texts[stage] = _text(stage, made, texts.get("emit") or (item if first == "jit" else ""))
        where = _dumped(dump, stage, texts[stage]) if dump else ""
        rows.append((stage, f"{seconds:.4f}", f"{len(texts[stage]):,}", where))
        started = time.perf_counter()

    run_stages(item, options, watch, first, last)
    if dump is None and last != NAMES[-1]:
        print(texts[last])
    return [] if quiet or (dump is None and last != NAMES[-1]) else rows


def _text(stage: str, made: Any, emitted: str) -> str:
    if stage == "jit":
        from graphc.runtime.jit import assembly

        return assembly(emitted)
    return STAGES[NAMES.index(stage)].show(made)


def _dumped(folder: Path, stage: str, text: str) -> str:
    from graphc.aot.files import write

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder {folder}: {error.strerror}") from error
    return str(write(folder / FILES[stage], f"{text}\n".encode()))


def _build(compiled: Compiled, options: argparse.Namespace) -> None:
    from graphc.aot.library import build

    built = build(compiled, options.output, name=options.name, emit=options.emit, isa=options.isa)
    for path in built.paths:
        print(f"{path}  {path.stat().st_size:,} bytes")
    if built.note:
        print(f"graphc: no shared library: {built.note}", file=sys.stderr)


# -- explain, check, diff --------------------------------------------------------------------------


def _explain(options: argparse.Namespace) -> None:
    print(_compiled(options).explain(measure=options.measure))


def _check(options: argparse.Namespace) -> int:
    from graphc.aot.certificate import check_random

    certificate = check_random(_compiled(options), seed=options.seed, sizes=options.sizes)
    print(certificate)
    return 0 if certificate.ok else 1


def _diff(options: argparse.Namespace) -> None:
    from graphc.report.diff import diff_stages

    stages = _compiled(options).stages
    for name in (options.first, options.second):
        if name not in stages:
            raise UsageError(f"{name} has no text to compare: use {', '.join(stages)}")
    print(diff_stages(stages[options.first], stages[options.second]))


def _cache(options: argparse.Namespace) -> int:
    from graphc.report.cache import ACTIONS

    answer = ACTIONS[options.action]()
    if answer.rows:
        _table(answer.head, answer.rows)
    print(answer.text)
    return answer.code


# -- tables ----------------------------------------------------------------------------------------


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*head, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def gate_rows() -> list[dict[str, Any]]:
    """Every gate, as `graphc gates` lists it."""
    from graphc.gates.gate import registry

    return [
        {
            "name": g.name,
            "kind": g.kind,
            "parameters": list(g.params),
            "jacobian": g.structure,
            "dtypes": getattr(g, "accepts", "any"),
            "ulp": getattr(g, "ulp", None),
            "doc": g.doc,
        }
        for g in registry().values()
    ]


def _gates(options: argparse.Namespace) -> None:
    rows = gate_rows()
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    shown = [
        [
            r["name"],
            r["kind"],
            r["jacobian"],
            r["dtypes"],
            "-" if r["ulp"] is None else str(r["ulp"]),
            r["doc"],
        ]
        for r in rows
    ]
    _table(("gate", "kind", "Jacobian", "dtypes", "ULP", "what it is"), shown)


def _rules(options: argparse.Namespace) -> None:
    from graphc.passes.rules import RULES

    rows = [(r.name, r.dtype, "exact" if r.exact else "inexact", _source(r), r.doc) for r in RULES]
    _table(("rule", "dtypes", "bits", "rewrite", "note"), rows)


def _source(rule: Any) -> str:
    """Both sides of a rule, as they are written; empty where it is a family of rewrites."""
    try:
        text = inspect.getsource(rule.lhs).strip().rstrip(",")
        sides = [node.body for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Lambda)][
            :2
        ]
    except (TypeError, OSError, SyntaxError):
        return ""
    return " -> ".join(map(ast.unparse, sides)) if len(sides) == 2 else ""


__all__ = ["FILES", "gate_rows", "load_graph", "main"]
