"""What must hold of a graph after each stage.

In:   a graph.
Out:  nothing; a `VerifyError` names the node that breaks a rule.
Invariant: operands stand before their users, types are what the gates derive, inputs are nominal
and all listed, sizes are those of the inputs, and each attribute prints as text that parses back.

>>> from graphc.ir.graph import Builder
>>> from graphc.ir.types import f64
>>> b = Builder()
>>> x = b.input("x", f64["n"])
>>> verify(b.graph("f", {"y": x + x}))
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

from graphc.errors import GraphcError, VerifyError
from graphc.gates.gate import registry
from graphc.ir.graph import Graph, Node
from graphc.ir.text import ATTRIBUTES, names_of, node_text
from graphc.ir.types import Dim


def verify(graph: Graph) -> None:
    """Check a graph, and those that its nodes carry."""
    checked: dict[Graph, None] = {graph: None}
    pending = [graph]
    known = _known_sizes(graph)
    for g in pending:  # grows while it runs
        _verify_flat(g, known)
        for _, value in _attributes(g):
            if isinstance(value, Graph) and value not in checked:
                checked[value] = None
                pending.append(value)


def _verify_flat(graph: Graph, outer_sizes: frozenset[str]) -> None:
    _check_names(graph)
    inputs, seen = frozenset(graph.inputs), set(graph.inputs)
    sizes = (
        _known_sizes(graph) | outer_sizes
    )  # a region is inlined where its graph's sizes are known
    for node in graph.nodes:
        if node.op == "input":
            if node not in inputs:
                _fail(graph, node, "is an input, but not one of the graph's")
            if node.args:
                _fail(graph, node, "is an input with operands")
        else:
            _check_node(graph, node, seen)
        if not sizes.issuperset(_symbols(node)):
            _fail(graph, node, "has a size that no input has")
        seen.add(node)


def _check_names(graph: Graph) -> None:
    for n in graph.inputs:
        if n.op != "input":
            _fail(graph, n, "is listed as an input")
    for what, names in (
        ("inputs", [n["name"] for n in graph.inputs]),
        ("outputs", [name for name, _ in graph.outputs]),
    ):
        twice = (
            [name for i, name in enumerate(names) if name in names[:i]]
            if len(set(names)) < len(names)
            else []
        )
        if twice:
            raise VerifyError(f"graph {graph.name} has two {what} of the name {twice[0]!r}")


def _check_node(graph: Graph, node: Node, seen: set[Node]) -> None:
    gate = registry().get(node.op)
    if gate is None:
        _fail(graph, node, f"there is no gate {node.op!r}")
    if not seen.issuperset(node.args):
        _fail(graph, node, "stands before one of its operands")
    if tuple(name for name, _ in node.attrs) != tuple(sorted(gate.attrs)):
        _fail(graph, node, f"has other attributes than {', '.join(gate.attrs) or 'none'}")
    for name, value in node.attrs:
        if not _parses_back(name, value):
            _fail(graph, node, f"the attribute {name} does not parse back")
    try:
        derived = gate.infer([a.type for a in node.args], dict(node.attrs))
    except GraphcError as error:
        raise VerifyError(f"graph {graph.name}: {_text(graph, node)}: {error}") from error
    if derived != node.type:
        _fail(graph, node, f"the gate derives {derived}")


def _parses_back(name: str, value: Any) -> bool:
    if name in ("data", "type", "items") or value is None or isinstance(value, Graph):
        return True
    if name not in ATTRIBUTES:
        return False
    show, parse = ATTRIBUTES[name]
    try:
        return parse(show(value)) == value
    except (GraphcError, KeyError, ValueError, TypeError):
        return False


def _attributes(graph: Graph) -> Iterator[tuple[str, Any]]:
    for node in graph.nodes:
        for name, value in node.attrs:
            yield name, value
            if name == "items":
                yield from value


def _known_sizes(graph: Graph) -> frozenset[str]:
    """The names that stand alone as some input's size: those that a call gives a value to."""
    return frozenset(
        d.text
        for n in graph.inputs
        for d in n.type.shape
        if isinstance(d, Dim) and d.text.isidentifier()
    )


def _symbols(node: Node) -> Iterator[str]:
    """The named sizes in a node's type and attributes."""
    for value in (node.type.shape, *(v for _, v in node.attrs)):
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, Dim):
                yield from part.symbols()


def _text(graph: Graph, node: Node) -> str:
    listed = Graph(graph.name, tuple(n for n in graph.inputs if n.op == "input"), graph.outputs)
    names = names_of(listed)
    for a in (node, *node.args):
        names.setdefault(a, "%?")
    regions = {v: "@" for n in (node,) for _, v in n.attrs if isinstance(v, Graph)}
    try:
        return node_text(node, names, regions)
    except (KeyError, ValueError, TypeError):
        return repr(node)


def _fail(graph: Graph, node: Node, what: str) -> NoReturn:
    raise VerifyError(f"graph {graph.name}: {_text(graph, node)}: {what}")
