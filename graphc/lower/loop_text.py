"""The text of the loop IR: programs print, and what is printed parses back to the same program.

Statements are one line each, and loops are indented; `lower.loops` shows a program.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from graphc.errors import FormatError
from graphc.ir.scalar import MACHINE, WITH_ATTR, bits_text, parse_bits
from graphc.ir.types import DTYPES, Size, parse_size, parse_type, split_top
from graphc.lower.loops import (
    Acc,
    Add,
    Buffer,
    Contract,
    Fill,
    For,
    Index,
    Inside,
    Iota,
    Kernel,
    Let,
    Load,
    Operand,
    Program,
    Scatter,
    Statement,
    Step,
    Store,
)


def print_program(program: Program) -> str:
    inputs = ", ".join(f"{b.name}: {b.type}" for b in program.of_role("input"))
    lines = [f"program {program.name}({inputs})"]
    if program.sizes:
        lines.append(f"sizes {' '.join(program.sizes)}")
    if program.arena is not None:
        threads = f" private {program.private} partials {program.partials}"
        alone = program.private == 0 and program.partials == 0
        lines.append(f"arena {program.arena}{'' if alone else threads}")
    lines.extend(_buffer_text(b) for b in program.buffers if b.role != "input")
    for kernel in program.kernels:
        sweep = "" if kernel.sweep is None else f" sweep {kernel.sweep} by {kernel.panel}"
        lines.append(f"kernel {kernel.name}{sweep}" + (f"   {kernel.note}" if kernel.note else ""))
        _print_body(kernel.body, 1, lines)
    return "\n".join(lines)


def _buffer_text(b: Buffer) -> str:
    text = f"buffer {b.role} {b.name}: {b.type}"
    if b.data:
        step = b.type.dtype.itemsize
        data = [int.from_bytes(b.data[i : i + step], "little") for i in range(0, len(b.data), step)]
        text += f" data=[{','.join(bits_text(v, b.type.dtype) for v in data)}]"
    if b.scope:
        text += f" scope={b.scope}"
    if b.donor:
        text += f" donor={b.donor}"
    text += f" offset={b.offset}" if b.offset is not None else ""
    return text + (" private" if b.private else "")


def _at_text(at: tuple[tuple[str, Size], ...]) -> str:
    return "".join(f"; {value}*{stride}" for value, stride in at)


def _only_text(only: str) -> str:
    return f" if {only}" if only else ""


def _operand_text(o: Operand) -> str:
    return f"{o.buffer}[{o.index}; {' '.join(f'{c}:{s}' for c, s in o.strides)}]"


def _print_body(body: tuple[Statement, ...], depth: int, lines: list[str]) -> None:
    pad = "  " * depth
    for s in body:
        lines.append(pad + statement_text(s))
        if isinstance(s, For):
            lines.extend(f"{pad}  {_acc_text(a)}" for a in s.accs)
            _print_body(s.body, depth + 1, lines)


def _acc_text(a: Acc) -> str:
    array = f" into {a.into}[{a.index}] size {a.size}" if a.into else ""
    return f"acc {a.name}: {a.dtype} {a.monoid} {a.order}{array}"


def statement_text(s: Statement) -> str:
    """One line; a loop's body and accumulators follow on lines of their own."""
    match s:
        case Let("", _, _, _):
            raise ValueError("a value without a name")
        case Let():
            head = s.op if s.op == "const" or s.attr is None else f"{s.op} {s.attr}"
            operands = bits_text(int(s.attr), s.dtype) if s.op == "const" else ", ".join(s.args)  # type: ignore[arg-type]
            return f"{s.name} = {head} {operands} : {s.dtype}"
        case Iota():
            return f"{s.name} = iota {s.value}"
        case Inside():
            return f"{s.name} = inside {s.value} in {s.low}..{s.high}"
        case Load():
            place = f"{s.buffer}[{s.index}{_at_text(s.at)}]"
            return f"{s.name} = load {place}{_only_text(s.only)} : {s.dtype}"
        case Store():
            return f"store {s.buffer}[{s.index}] {s.value}{_only_text(s.only)}"
        case Index():
            return f"{s.name} = index {s.value} in {s.size}"
        case Add():
            place = f"[{s.index}]" if s.index != 0 else ""
            return f"add {s.acc}{place} {' '.join(s.values)}"
        case Step():
            place = f"[{s.index}]" if s.index != 0 else ""
            return f"{s.name} = step {s.acc}{place} {' '.join(s.values)} : {s.dtype}"
        case Scatter():
            return f"scatter {s.buffer}[{s.index}{_at_text(s.at)}] {s.value}"
        case Fill():
            return f"fill {s.buffer}[{s.index}] {s.bits} size {s.size}"
        case Contract():
            sizes = " ".join(f"{c}:{n}" for c, n in s.sizes)
            parts = " ".join(map(_operand_text, (s.out, s.a, s.b)))
            return f"contract {s.order} {s.dtype} {s.k} {parts} sizes {sizes}"
        case For():
            shared = " parallel" * s.parallel + " ordered" * s.ordered
            return f"for {s.var} in {s.size} {s.mode}{shared}"


_BUFFER = re.compile(
    r"buffer (\w+) ([\w.]+): (\w+\[[^\]]*\])"
    r"(?: data=\[([^\]]*)\])?(?: scope=(\w+))?(?: donor=(\S+))?(?: offset=(\S+))?( private)?$"
)
_FOR = re.compile(
    r"for (\w+) in (\S+) (vector|rows|blocks|lanes|turned|pairs)( parallel| ordered)?$"
)
_ACC = re.compile(r"acc (%\w+): (\w+) (\w+) (\w+)(?: into ([\w.]+)\[(.*)\] size (\S+))?$")


def parse_program(text: str) -> Program:
    """The inverse of `print_program`."""
    lines = [line for line in text.split("\n") if line.strip()] or [""]
    header = re.match(r"program ([A-Za-z_][\w.]*)\((.*)\)$", lines[0])
    if not header:
        raise FormatError(f"line 1: {lines[0]!r} does not begin a program")
    buffers = []
    for part in split_top(header.group(2)):
        name, _, ty = part.partition(":")
        buffers.append(Buffer(name, "input", parse_type(ty)))
    sizes: tuple[str, ...] = ()
    arena: Size | None = None
    private: Size = 0
    partials: Size = 0
    kernels: list[Kernel] = []
    position = 1
    while position < len(lines):
        line = lines[position]
        if line.startswith("sizes "):
            sizes = tuple(line.split()[1:])
        elif line.startswith("arena "):
            arena, private, partials = _parse_arena(line, position)
        elif line.startswith("buffer "):
            buffers.append(_parse_buffer(line, position))
        elif line.startswith("kernel "):
            name, _, note = line[7:].partition("   ")
            body, position = _parse_body(lines, position + 1, 1)
            name, _, sweep = name.partition(" sweep ")
            rows, _, panel = sweep.partition(" by ")
            made = Kernel(name, body, note)
            if sweep:
                made = replace(made, sweep=parse_size(rows), panel=int(panel))
            kernels.append(made)
            continue
        else:
            raise FormatError(f"line {position + 1}: {line!r} is not a part of a program")
        position += 1
    return Program(header.group(1), sizes, tuple(buffers), tuple(kernels), arena, private, partials)


def _parse_arena(line: str, position: int) -> tuple[Size, ...]:
    match = re.match(r"arena (\S+)(?: private (\S+) partials (\S+))?$", line)
    if not match:
        raise FormatError(f"line {position + 1}: {line!r} is not an arena")
    return tuple(parse_size(size or "0") for size in match.groups())


def _parse_buffer(line: str, position: int) -> Buffer:
    match = _BUFFER.match(line)
    if not match:
        raise FormatError(f"line {position + 1}: {line!r} is not a buffer")
    role, name, ty_text, data, scope, donor, offset, private = match.groups()
    ty = parse_type(ty_text)
    raw = b"".join(
        parse_bits(v, ty.dtype).to_bytes(ty.dtype.itemsize, "little")
        for v in (data.split(",") if data else ())
    )
    place = parse_size(offset) if offset else None
    return Buffer(name, role, ty, raw, scope or "", place, donor or "", bool(private))


def _depth(line: str) -> int:
    return (len(line) - len(line.lstrip(" "))) // 2


def _parse_body(lines: list[str], position: int, depth: int) -> tuple[tuple[Statement, ...], int]:
    body: list[Statement] = []
    while position < len(lines) and _depth(lines[position]) == depth:
        text = lines[position].strip()
        if text.startswith("for "):
            statement, position = _parse_for(lines, position, depth)
            body.append(statement)
            continue
        try:
            body.append(_parse_statement(text))
        except (ValueError, KeyError, AttributeError) as error:
            raise FormatError(f"line {position + 1}: {text!r}: {error}") from error
        position += 1
    return tuple(body), position


def _parse_for(lines: list[str], position: int, depth: int) -> tuple[For, int]:
    head = _FOR.match(lines[position].strip())
    if not head:
        raise FormatError(f"line {position + 1}: {lines[position].strip()!r} is not a loop")
    var, size, mode, shared = head.groups()
    position += 1
    accs = []
    while position < len(lines) and lines[position].strip().startswith("acc "):
        match = _ACC.match(lines[position].strip())
        if not match or match.group(2) not in DTYPES:
            raise FormatError(
                f"line {position + 1}: {lines[position].strip()!r} is not an accumulator"
            )
        name, dtype, monoid, order, into, index, extent = match.groups()
        array = (into, parse_size(index), parse_size(extent)) if into else ("", 0, 1)
        accs.append(Acc(name, DTYPES[dtype], monoid, order, *array))
        position += 1
    body, position = _parse_body(lines, position, depth + 1)
    kinds = (shared == " parallel", shared == " ordered")
    return For(var, parse_size(size), tuple(accs), body, mode, *kinds), position


def _parse_at(text: str) -> tuple[Size, tuple[tuple[str, Size], ...]]:
    index, *rest = text.split("; ")
    at = tuple((t.partition("*")[0], parse_size(t.partition("*")[2])) for t in rest)
    return parse_size(index), at


def _parse_statement(text: str) -> Statement:
    word, _, rest = text.partition(" ")
    if word in _PARSERS:
        return _PARSERS[word](rest)
    match = re.match(r"(%\w+) = (\w+) (.*)$", text)
    if not match:
        raise ValueError("not a statement")
    name, op, rest = match.groups()
    if op == "iota":
        return Iota(name, parse_size(rest))
    if op == "inside":
        value, _, bounds = rest.partition(" in ")
        low, _, high = bounds.partition("..")
        return Inside(name, parse_size(value), parse_size(low), parse_size(high))
    if op == "index":
        value, _, size = rest.partition(" in ")
        return Index(name, value, parse_size(size))
    operands, _, dtype_name = rest.rpartition(" : ")
    dtype = DTYPES[dtype_name]
    if op == "load":
        operands, _, only = operands.partition(" if ")
        buffer, _, inside = operands.partition("[")
        index, at = _parse_at(inside[:-1])
        return Load(name, buffer, index, dtype, at, only)
    if op == "const":
        return Let(name, op, (), dtype, parse_bits(operands, dtype))
    if op == "step":
        place, *values = operands.split(" ")
        acc, _, inside = place.partition("[")
        return Step(name, acc, tuple(values), dtype, parse_size(inside[:-1]) if inside else 0)
    attr = None
    if op in WITH_ATTR or (op in MACHINE and not operands.startswith("%")):
        attr, _, operands = operands.partition(" ")
    elif op not in MACHINE:
        raise ValueError(f"{op!r} is not an operation")
    return Let(name, op, tuple(operands.split(", ")), dtype, attr)


def _parse_store(rest: str) -> Store:
    rest, _, only = rest.partition(" if ")
    place, _, value = rest.rpartition(" ")
    buffer, _, inside = place.partition("[")
    return Store(buffer, parse_size(inside[:-1]), value, only)


def _parse_add(rest: str) -> Add:
    place, *values = rest.split(" ")
    acc, _, inside = place.partition("[")
    return Add(acc, tuple(values), parse_size(inside[:-1]) if inside else 0)


def _parse_scatter(rest: str) -> Scatter:
    place, _, value = rest.rpartition(" ")
    buffer, _, inside = place.partition("[")
    index, at = _parse_at(inside[:-1])
    return Scatter(buffer, index, at, value)


def _parse_fill(rest: str) -> Fill:
    place, _, size = rest.partition(" size ")
    place, _, bits = place.rpartition(" ")
    buffer, _, inside = place.partition("[")
    return Fill(buffer, int(bits), parse_size(inside[:-1]), parse_size(size))


def _parse_contract(rest: str) -> Contract:
    match = re.match(r"(\w+) (\w+) (\w) (\S+\[.*?\]) (\S+\[.*?\]) (\S+\[.*?\]) sizes (.*)$", rest)
    if not match:
        raise ValueError("not a contraction")
    order, dtype, k, *operands, sizes = match.groups()
    out, a, b = map(_parse_operand, operands)
    return Contract(out, a, b, _parse_pairs(sizes), k, order, DTYPES[dtype])


def _parse_operand(text: str) -> Operand:
    buffer, _, inside = text.partition("[")
    index, _, strides = inside[:-1].partition("; ")
    return Operand(buffer, parse_size(index), _parse_pairs(strides))


def _parse_pairs(text: str) -> tuple[tuple[str, Size], ...]:
    return tuple((p.partition(":")[0], parse_size(p.partition(":")[2])) for p in text.split())


_PARSERS: dict[str, Callable[[str], Statement]] = {
    "store": _parse_store,
    "add": _parse_add,
    "scatter": _parse_scatter,
    "fill": _parse_fill,
    "contract": _parse_contract,
}


__all__ = ["parse_program", "print_program", "statement_text"]
