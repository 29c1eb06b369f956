"""diff: what changed between two stages, and what changed it.

In:   the texts of two stages of one graph.
Out:  the lines of nodes that only one of them has (`-` the first, `+` the second), each with the
      part of graphc that made it; values of the second text that the first does not have carry a
      prime.
Invariant: a node counts as the same if its gate, attributes and operands are, whatever its number.

>>> before = "graph f(x: f64[])\\n  %1 = mul %x, %x : f64[]\\nreturn y=%1"
>>> after = "graph f(x: f64[])\\n  %1 = square %x : f64[]   m.py:3 rule mul-self\\nreturn y=%1"
>>> print(diff_stages(before, after))
- %1 = mul %x, %x : f64[]
+ %1' = square %x : f64[]   m.py:3 rule mul-self
- return y=%1
+ return y=%1'
1 node gone, 1 new, 0 kept; made by: rule mul-self 1
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field

from graphc.errors import FormatError
from graphc.ir.graph import Graph, Node
from graphc.ir.text import names_of, node_text, parse_graph, print_graph

SAME = "nothing changed"


def diff_stages(a_text: str, b_text: str) -> str:
    """What differs between two graphs, or between two programs."""
    kinds = tuple(_kind(t) for t in (a_text, b_text))
    if kinds[0] != kinds[1]:
        raise FormatError(
            f"a {kinds[0]} and a {kinds[1]} are two languages: compare two graphs, or two programs"
        )
    if kinds[0] == "graph":
        return _diff_graphs(parse_graph(a_text), parse_graph(b_text))
    lines = difflib.unified_diff(a_text.split("\n"), b_text.split("\n"), n=0, lineterm="")
    found = [f"{line[0]} {line[1:]}" for line in list(lines)[2:] if not line.startswith("@@")]
    return "\n".join(found) or SAME


def _kind(text: str) -> str:
    first = text.lstrip().split(maxsplit=1)[0] if text.strip() else "nothing"
    return first if first in ("graph", "program") else "module"


@dataclass
class _Classes:
    """Numbers for nodes that are equal as expressions, in whichever graph they stand."""

    known: dict[tuple, int] = field(default_factory=dict)

    def of(self, graph: Graph) -> dict[Node, int]:
        found: dict[Node, int] = {}
        for n in graph.nodes:
            attrs = tuple((k, print_graph(v) if isinstance(v, Graph) else v) for k, v in n.attrs)
            key = (n.op, attrs, n.type, tuple(found[a] for a in n.args))
            found[n] = self.known.setdefault(key, len(self.known))
        return found


def _diff_graphs(a: Graph, b: Graph) -> str:
    classes = _Classes()
    of_a, of_b = classes.of(a), classes.of(b)
    names_a, names_b = names_of(a), names_of(b)
    first_name = {c: names_a[n] for n, c in of_a.items()}
    for n, c in of_b.items():  # kept nodes go by their first name, new ones carry a prime
        names_b[n] = first_name.get(c, f"{names_b[n]}'")
    after, before = set(of_b.values()), set(of_a.values())
    gone = [n for n in a.nodes if of_a[n] not in after]
    kept = len(a.nodes) - len(gone)
    new = [n for n in b.nodes if of_b[n] not in before]
    lines = [f"- {_line(a, n, names_a)}" for n in gone] + [f"+ {_line(b, n, names_b)}" for n in new]
    returns = tuple(_returns(g, names) for g, names in ((a, names_a), (b, names_b)))
    if returns[0] != returns[1]:
        lines += [f"- {returns[0]}", f"+ {returns[1]}"]
    if not lines:
        return SAME
    kept -= len(a.inputs)
    return "\n".join(
        [*lines, f"{_count(len(gone))} gone, {len(new)} new, {kept} kept{_makers(b, new)}"]
    )


def _count(n: int) -> str:
    return f"{n} node{'' if n == 1 else 's'}"


def _line(graph: Graph, node: Node, names: Mapping[Node, str]) -> str:
    if node.op == "input":
        return f"input {node['name']}: {node.type}"
    regions = {v: "(graph)" for _, v in node.attrs if isinstance(v, Graph)}
    origin = graph.origin(node)
    return node_text(node, names, regions) + (f"   {origin}" if origin else "")


def _returns(graph: Graph, names: Mapping[Node, str]) -> str:
    return f"return {', '.join(f'{name}={names[n]}' for name, n in graph.outputs)}"


def _makers(graph: Graph, new: list[Node]) -> str:
    """Which parts of graphc made the new nodes, and how many each."""
    counts: dict[str, int] = {}
    for n in new:
        origin = graph.origin(n)
        if origin is not None and origin.made_by:
            counts[origin.made_by] = counts.get(origin.made_by, 0) + 1
    ordered = sorted(counts.items(), key=lambda c: (-c[1], c[0]))
    return f"; made by: {', '.join(f'{name} {n}' for name, n in ordered)}" if counts else ""
