"""What machine code depends on, as bytes that are equal exactly where it is: the keys of the cache.

In:   a traced graph and options; this installation of graphc; this processor.
Out:  bytes for each, of which a key is the digest.
Invariant: what is written is all that the stages read, and can be read in one way only, so that
different graphs have different bytes. Lines of the user's files are no part of it. None where
something cannot be told: then nothing is kept.

>>> from graphc.ir.graph import Builder
>>> from graphc.ir.types import f64
>>> b = Builder()
>>> x = b.input("x", f64["n"])
>>> graph_bytes(b.graph("twice", {"y": x + x}))
b'graph;s5:twice;i1;s1:x;T6:f64[n];i2;s3:add;i2;i0;i0;i0;i1;s1:y;i1;'
"""

from __future__ import annotations

import os
import sys
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import graphc
from graphc.ir.graph import Graph
from graphc.ir.types import Dim, DType, TensorType
from graphc.pipeline import Options
from graphc.runtime.processor import answers
from graphc.runtime.store import blake2b

PACKAGE = os.path.dirname(os.path.abspath(graphc.__file__))
ABOVE = frozenset(
    ("aot", "dsl", "numpy", "report", "selftest")
)  # no stage after `trace` reads them
_TICK = 20_000_000  # ns: a file's time may be so much earlier than the moment of its change
_SETTLED = 2_000_000_000  # ns, after which a file that changes again has another time

DIGEST_BYTES = 32


class Unknown(Exception):
    """A graph whose meaning depends on more than what can be written down."""


# -- graphs and options ----------------------------------------------------------------------------


def graph_bytes(graph: Graph) -> bytes:
    """A graph with all that it carries; `Unknown` where it has gates that are not graphc's own."""
    parts: list[str] = []
    regions: dict[Graph, int] = {}
    for g in _regions_first(graph):
        _write_graph(g, parts, regions)
        regions[g] = len(regions)
    return "".join(parts).encode("utf-8", "surrogatepass")


def _regions_first(graph: Graph) -> list[Graph]:
    """The graphs that a graph's nodes carry, each after those that its own nodes carry."""
    found: dict[Graph, None] = {}
    pending = [(graph, False)]
    while pending:
        g, opened = pending.pop()
        if g in found:
            continue
        inner = () if opened else [r for n in g.nodes for r in _regions(n.attrs) if r not in found]
        if inner:
            pending.append((g, True))
            pending.extend((r, False) for r in reversed(inner))
        else:
            found[g] = None
    return list(found)


def _regions(attrs: Iterable[tuple[str, Any]]) -> Iterable[Graph]:
    for name, value in attrs:
        if type(value) is Graph:
            yield value
        elif name == "items":  # the attributes of another gate
            yield from _regions(value)


def _write_graph(graph: Graph, parts: list[str], regions: dict[Graph, int]) -> None:
    nodes = graph.nodes
    number = {n: i for i, n in enumerate(nodes)}
    count = len(graph.inputs)
    parts.append("graph;")
    _write(graph.name, parts, regions)
    parts.append(f"i{count};")
    for n in graph.inputs:
        _write(n["name"], parts, regions)
        _write(n.type, parts, regions)
    parts.append(f"i{len(nodes)};")
    for n in nodes[count:]:
        if not _is_own(n.op):
            raise Unknown(n.op)
        parts.append(f"s{len(n.op)}:{n.op};i{len(n.args)};")
        parts.extend([f"i{number[a]};" for a in n.args])
        parts.append(f"i{len(n.attrs)};")
        for name, value in n.attrs:
            parts.append(f"s{len(name)}:{name};")
            _write(value, parts, regions)
    parts.append(f"i{len(graph.outputs)};")
    for name, node in graph.outputs:
        _write(name, parts, regions)
        parts.append(f"i{number[node]};")


def _write(value: Any, parts: list[str], regions: dict[Graph, int]) -> None:
    """One value: a letter for its kind, and its length where that is not clear."""
    kind = type(value)
    if kind is int:
        parts.append(f"i{value};")
    elif kind is str:
        parts.append(f"s{len(value)}:{value};")
    elif kind is tuple:
        parts.append(f"t{len(value)};")
        for v in value:
            _write(v, parts, regions)
    elif kind is bytes:
        parts.append(f"b{len(value)}:{value.hex()};")
    elif kind is Graph:
        parts.append(f"g{regions[value]};")
    elif value is None or kind is bool:
        parts.append(f"{value};")
    elif kind in _TEXTS:
        text = str(value)
        parts.append(f"{_TEXTS[kind]}{len(text)}:{text};")
    else:
        raise Unknown(kind.__name__)


_TEXTS = {Dim: "d", DType: "D", TensorType: "T"}  # equal texts are equal values


@cache
def _is_own(op: str) -> bool:
    """Is this gate's meaning in graphc's own source?"""
    from graphc.gates.gate import registry

    return registry()[op].source.startswith(PACKAGE + os.sep)


def options_bytes(options: Options) -> bytes:
    """Options that code depends on. Threads are none of them: every kernel can use them."""
    parts: list[str] = []
    skip = tuple(sorted(options.skip))
    for value in (options.wrt, options.donate, options.seeds, skip, options.deterministic):
        _write(value, parts, {})
    _write(options.isa, parts, {})
    return "".join(parts).encode("utf-8", "surrogatepass")


# -- graphc itself, and this machine ---------------------------------------------------------------


class Changed(Exception):
    """A source file is newer than what this process imported; so it may run older code."""


def source_names() -> list[str]:
    """The files that say what becomes of a traced graph, and their folders, which end in a slash.

    Relative to the package, whose own name is `./`.
    """
    folders, files = ["./"], []
    for folder in folders:  # grows while it runs
        with os.scandir(os.path.join(PACKAGE, folder)) as items:
            for item in items:
                if item.name.endswith(".py"):
                    files.append(folder + item.name)
                elif "." not in item.name and item.name not in ABOVE and item.is_dir():
                    if item.name != "__pycache__":
                        folders.append(f"{folder}{item.name}/")
    return [*sorted(files), *sorted(folders)]


def source_stamp(names: Sequence[str]) -> bytes:
    """What changes with any of these files, and with the names in these folders. Nothing is read.

    The time of a file's last change is given by the system alone. `Changed` if it is after the
    import of graphc.
    """
    latest = graphc._IMPORTED - _TICK
    facts = array("q")
    package = os.open(PACKAGE, os.O_RDONLY | os.O_CLOEXEC)  # short paths are quicker
    try:
        for name in names:
            s = os.stat(name, dir_fd=package)
            if name[-1] == "/":
                facts.extend((s.st_mtime_ns, s.st_ino))
            else:
                if s.st_ctime_ns > latest:
                    raise Changed(name)
                facts.extend((s.st_ctime_ns, s.st_ino, s.st_size))
    finally:
        os.close(package)
    return facts.tobytes()


def source_digest(names: Sequence[str]) -> bytes:
    """A digest of these files."""
    found = blake2b(digest_size=DIGEST_BYTES)
    for name in names:
        if name[-1] != "/":
            with open(f"{PACKAGE}/{name}", "rb") as file:
                raw = file.read()
            found.update(f"{name} {len(raw)}\n".encode())
            found.update(raw)
    return found.digest()


def is_settled(names: Sequence[str]) -> bool:
    """Would a change that is made now show in the stamp? Times of files have a grain."""
    newest = max(os.stat(f"{PACKAGE}/{name}").st_ctime_ns for name in names)
    return newest < time.time_ns() - _SETTLED


def machine_facts() -> bytes | None:
    """What `machine_text` follows from, told without LLVM, which takes 25 ms to load: this run of
    the system, its processor, and LLVM's file. None where one of them cannot be told.
    """
    processor = answers()
    try:
        boot, s = _boot(), next(_llvm_files())
    except (OSError, StopIteration):
        return None
    if processor is None:
        return None
    return boot + processor + f"{s.st_dev} {s.st_ino} {s.st_ctime_ns} {s.st_size}".encode()


def _boot() -> bytes:
    """A number that each run of the system has for itself."""
    file = os.open("/proc/sys/kernel/random/boot_id", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(file, 64)
    finally:
        os.close(file)


def _llvm_files() -> Iterator[os.stat_result]:
    """The libraries that `import llvmlite` may load, the first one first."""
    for folder in sys.path:
        with suppress(OSError):
            yield os.stat(os.path.join(folder, "llvmlite/binding/libllvmlite.so"))


@cache
def machine_text() -> str:
    """What makes machine code of text, and for which processor; the features come last."""
    import llvmlite
    import llvmlite.binding as llvm

    from graphc.codegen.target import host

    versions = f"{llvmlite.__version__} {llvm.llvm_version_info}"
    return f"{versions} {llvm.get_process_triple()} {host().cpu} {host().isa}"
