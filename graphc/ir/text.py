"""Graphs as text that parses back: `parse_graph(str(g))` prints the same bytes.

    graph loss(x: f64[n,4], w: f64[4])
      %2 = broadcast %w shape=(n,4) : f64[n,4]   model.py:12
      %3 = mul %x, %2 : f64[n,4]   model.py:12
      %4 = sum %3 axis=1 order=lanes : f64[n]   model.py:13
    return loss=%4

Values are numbered in order, inputs go by name. A user's gate prints its graphs first, as `@1`,
`@2`, ...

>>> graph = parse_graph("graph twice(x: f64[n])\\n  %1 = add %x, %x : f64[n]\\nreturn y=%1")
>>> print(graph)
graph twice(x: f64[n])
  %1 = add %x, %x : f64[n]
return y=%1
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from graphc.errors import FormatError
from graphc.ir.graph import Builder, Graph, Node, Origin, Value
from graphc.ir.scalar import bits_text, parse_bits
from graphc.ir.types import DTYPES, TensorType, parse_size, parse_type, split_top

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")


def _tuple_text(values: tuple[Any, ...]) -> str:
    return f"({','.join(map(str, values))})"


def _parse_tuple(parse: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    return lambda text: tuple(parse(t) for t in split_top(text[1:-1]))


# How each attribute prints and parses. Data, types and graphs have forms of their own below.
_WORD = (str, str)
_INT = (str, int)
_INTS = (_tuple_text, _parse_tuple(int))
_SIZES = (_tuple_text, _parse_tuple(parse_size))
_BOOL = (lambda v: "true" if v else "false", lambda t: {"true": True, "false": False}[t])
ATTRIBUTES: Mapping[str, tuple[Callable[[Any], str], Callable[[str], Any]]] = {
    "axis": _INT, "axes": _INTS, "dtype": (str, lambda t: DTYPES[t]), "fill": _INT, "label": _WORD,
    "name": _WORD, "op": _WORD, "operands": _INT, "order": _WORD, "perm": _INTS, "reverse": _BOOL,
    "shape": _SIZES,
    "size": (str, parse_size), "spec": _WORD, "starts": _SIZES, "steps": _INTS,
}  # fmt: skip


def _item_text(name: str, value: Any, regions: Mapping[Graph, str]) -> str:
    if isinstance(value, Graph):
        return f"{name}={regions[value]}"
    if value is None:
        return f"{name}=none"
    if name == "items":  # the attributes of another gate
        return f"items={{{','.join(_item_text(k, v, regions) for k, v in value)}}}"
    return f"{name}={ATTRIBUTES[name][0](value)}"


def _parse_item(text: str, regions: Mapping[str, Graph]) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    if value.startswith("@"):
        return name, regions[value]
    if value == "none":
        return name, None
    if name == "items":
        return name, tuple(_parse_item(t, regions) for t in split_top(value[1:-1]))
    if name not in ATTRIBUTES:
        raise FormatError(f"{name!r} is not an attribute")
    return name, ATTRIBUTES[name][1](value)


def names_of(graph: Graph) -> dict[Node, str]:
    """%x for an input, %7 for the node at position 7."""
    names = {n: f"%{n['name']}" for n in graph.inputs}
    for i, n in enumerate(graph.nodes):
        names.setdefault(n, f"%{i}")
    return names


def node_text(node: Node, names: Mapping[Node, str], regions: Mapping[Graph, str]) -> str:
    """One node, without its origin."""
    operands = ", ".join(names[a] for a in node.args)
    if node.op == "constant":
        attrs = _data_text(node)
    else:
        attrs = " ".join(_item_text(k, v, regions) for k, v in node.attrs)
    words = " ".join(w for w in (node.op, operands, attrs) if w)
    return f"{names[node]} = {words} : {node.type}"


def _data_text(node: Node) -> str:
    dtype, data = node.type.dtype, node["data"]
    step = dtype.itemsize
    numbers = [
        bits_text(int.from_bytes(data[i : i + step], "little"), dtype)
        for i in range(0, len(data), step)
    ]
    return numbers[0] if len(numbers) == 1 else f"[{','.join(numbers)}]"


def _regions_of(node: Node) -> list[Graph]:
    """The graphs that a node carries, those in the attributes of another gate included."""
    values = [v for _, v in node.attrs]
    values += [v for name, items in node.attrs if name == "items" for _, v in items]
    return [v for v in values if isinstance(v, Graph)]


def print_graph(graph: Graph) -> str:
    texts: list[str] = []
    regions: dict[Graph, str] = {}
    pending = [(graph, False)]
    while pending:  # regions first, without recursion
        g, opened = pending.pop()
        inner = [v for n in g.nodes for v in _regions_of(n) if v not in regions]
        if inner and not opened:
            pending.append((g, True))
            pending.extend((v, False) for v in reversed(inner))
        elif g is graph:
            texts.append(_print_flat(g, "", regions))
        elif g not in regions:
            regions[g] = f"@{len(regions) + 1}"
            texts.append(_print_flat(g, f" {regions[g]}", regions))
    return "\n".join(texts)


def _print_flat(graph: Graph, label: str, regions: Mapping[Graph, str]) -> str:
    names = names_of(graph)
    inputs = ", ".join(f"{names[n][1:]}: {n.type}" for n in graph.inputs)
    lines = [f"graph{label} {graph.name}({inputs})"]
    given = set(graph.inputs)
    for n in graph.nodes:
        if n not in given:
            origin = graph.origin(n)
            lines.append(f"  {node_text(n, names, regions)}" + (f"   {origin}" if origin else ""))
    outputs = ", ".join(f"{name}={names[n]}" for name, n in graph.outputs)
    return "\n".join([*lines, f"return {outputs}"])


_HEADER = re.compile(r"graph(?: (@\d+))? ([A-Za-z_][A-Za-z0-9_.]*)\((.*)\)$")
_LINE = re.compile(r"  (%\S+) = (\S+)(.*?) : ([a-z0-9]+\[[^\]]*\])(?:   (.+))?$")


def parse_graph(text: str) -> Graph:
    """The inverse of `print_graph`; a FormatError names the line that it cannot read."""
    regions: dict[str, Graph] = {}
    lines = text.strip("\n").split("\n")
    position, graph = 0, None
    while position < len(lines):
        graph, label, position = _parse_flat(lines, position, regions)
        if label:
            regions[label] = graph
    if graph is None:
        raise FormatError("no graph in the text")
    return graph


def _parse_flat(
    lines: list[str], start: int, regions: Mapping[str, Graph]
) -> tuple[Graph, str | None, int]:
    header = _HEADER.match(lines[start])
    if not header:
        raise FormatError(f"line {start + 1}: {lines[start]!r} does not begin a graph")
    label, name, inputs = header.groups()
    builder = Builder()
    values: dict[str, Value] = {}
    for part in split_top(inputs):
        input_name, _, ty = part.partition(":")
        values[f"%{input_name.strip()}"] = builder.input(input_name.strip(), parse_type(ty))
    position = start + 1
    while position < len(lines) and not lines[position].startswith("return "):
        _parse_line(lines[position], position + 1, builder, values, regions)
        position += 1
    if position == len(lines):
        raise FormatError(f"graph {name} has no return")
    outputs = {}
    for part in split_top(lines[position].removeprefix("return ")):
        output, _, value = part.partition("=")
        outputs[output] = _known(value, values, position + 1)
    return builder.graph(name, outputs), label, position + 1


def _known(name: str, values: Mapping[str, Value], line: int) -> Value:
    if name not in values:
        raise FormatError(f"line {line}: {name} is not defined above")
    return values[name]


def _parse_line(
    text: str, line: int, builder: Builder, values: dict[str, Value], regions: Mapping[str, Graph]
) -> None:
    match = _LINE.match(text)
    if not match:
        raise FormatError(f"line {line}: {text!r} is not a node")
    name, op, rest, ty_text, origin = match.groups()
    ty = parse_type(ty_text)
    from graphc.gates.gate import registry

    if op not in registry():
        raise FormatError(f"line {line}: {op!r} is not a gate")
    operands, attrs = _split_rest(rest.strip(), op)
    builder.at = (_parse_origin(origin, line),) if origin else ()
    args = tuple(_known(o, values, line).node for o in operands)
    try:
        items = (
            _parse_data(attrs, ty)
            if op == "constant"
            else dict(_parse_item(a, regions) for a in attrs.split())
        )
        node = builder.add(op, args, items)
    except (KeyError, ValueError, TypeError) as error:
        raise FormatError(f"line {line}: {text.strip()!r}: {error}") from error
    except IndexError as error:
        raise FormatError(f"line {line}: {text.strip()!r}: {op} needs more operands") from error
    if node.type != ty:
        raise FormatError(f"line {line}: {op} gives {node.type}, the text says {ty}")
    values[name] = Value(builder, node)


def _split_rest(rest: str, op: str) -> tuple[list[str], str]:
    """Operands and the text of the attributes."""
    match = re.match(r"(%[A-Za-z0-9_.]+(?:, %[A-Za-z0-9_.]+)*)?\s*(.*)$", rest)
    assert match
    operands = match.group(1).split(", ") if match.group(1) else []
    return operands, match.group(2)


def _parse_data(text: str, ty: TensorType) -> dict[str, Any]:
    numbers = split_top(text[1:-1]) if text.startswith("[") else [text]
    data = b"".join(parse_bits(t, ty.dtype).to_bytes(ty.dtype.itemsize, "little") for t in numbers)
    return {"data": data, "type": ty}


def _parse_origin(text: str, line: int) -> Origin:
    match = re.match(r"(.*?):(\d+)(?: (.*))?$", text)
    if not match:
        raise FormatError(f"line {line}: {text!r} is not a place in a file")
    return Origin(match.group(1), int(match.group(2)), match.group(3) or "")
