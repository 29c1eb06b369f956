"""The loop IR: what `fuse` and `plan` write, what `emit` reads, with the text form of both.

    program loss(X: f64[n,3], w: f64[3])
    buffer output loss: f64[]
    kernel
      for _i in n rows
        acc %1: f64 sum lanes
        for _j in 3 vector
          acc %2: f64 fma lanes
          %3 = load X[3*_i+_j] : f64
          %4 = load w[_j] : f64
          add %2 %3 %4
        %5 = mul %2, %2 : f64
        add %1 %5
      store loss[0] %1

Invariant: a program means the same whatever its loops are annotated with. Values are numbers at one
point of the iteration space; an index is a size polynomial over the loop variables and named sizes,
in elements; an accumulator can be read only after its loop, an array accumulator through the buffer
that it fills. The order `running` is of scans: a `Step` gives what such an accumulator has come to,
so the loop's iterations follow each other, in whatever mode they are written.

>>> program = parse_program('''program twice(x: f64[n])
... sizes n
... buffer output y.out: f64[n]
... kernel k0
...   for _i in n vector
...     %1 = load x[_i] : f64
...     %2 = add %1, %1 : f64
...     store y.out[_i] %2''')
>>> parse_program(str(program)) == program
True
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

from graphc.errors import FormatError
from graphc.ir.scalar import MACHINE, WITH_ATTR, Instruction, bits_text, parse_bits
from graphc.ir.types import (
    DTYPES,
    REMEMBERED,
    Dim,
    DType,
    Size,
    TensorType,
    parse_size,
    parse_type,
    size_max,
    size_min,
    split_top,
)

PANEL = "panel"  # begins the scope of a temp that lives while a sweep is at one panel of rows
PANEL_ROWS = 256  # of a panel at most: whole leaves of every order
RUNNING = "running"  # the order of accumulators that are read inside of their loop
WHOLE = 16  # elements that are whole vectors, of any dtype
COLUMNS = 16  # that a loop of the mode `turned` copies at a time
VARIABLES = ("_i", "_j", "_k", "_l", "_m", "_n", "_o", "_p", "_q", "_r", "_s", "_t")  # by depth


@dataclass(frozen=True)
class Buffer:
    """Memory: an input, an output, a constant, or a piece of the arena (`temp`)."""

    name: str
    role: str  # "input", "output", "constant", "temp"
    type: TensorType
    data: bytes = b""  # of a constant
    scope: str = ""  # of a temp: the loop variable whose iterations each have their own, or "panel"
    offset: Size | None = None  # of a temp, in bytes, set by plan
    donor: str = ""  # of an output: the input whose memory it takes, set by donate
    private: bool = False  # of a temp: every thread has its own, set by plan

    @property
    def panel(self) -> int:
        """The rows that it has memory for, as its scope says, if it lives in panels of a sweep."""
        return int(self.scope.removeprefix(PANEL)) if self.scope.startswith(PANEL) else 0

    def bytes(self) -> Size:
        if not self.panel:
            return self.type.bytes_expr()
        rows, *row = self.type.shape
        return replace(self.type, shape=(rows_at_once(rows, self.panel), *row)).bytes_expr()


def rows_at_once(rows: Size, panel: int) -> Size:
    """The rows of a sweep that its buffers have memory for: those of a panel, or all of them where
    they are no more than a part would take: then threads share its loops and products.
    """
    if panel == PANEL_ROWS:
        return panel
    few = size_max(0, size_min(1, PANEL_ROWS + 1 - rows))  # 1 or 0
    return size_max(panel, rows * few)


@dataclass(frozen=True)
class Acc:
    """An accumulator of a loop. `into` names the buffer that an array accumulator fills."""

    name: str
    dtype: DType
    monoid: str  # "fma", or the name of a reduction; where it is running, that of a scan
    order: str  # "lanes", "rows", "chain", "any", "running"
    into: str = ""
    index: Size = 0  # of the first element in that buffer
    size: Size = 1


@dataclass(frozen=True)
class Let:
    """%name = op args: a machine operation, a call of a gate, or a constant."""

    name: str
    op: str
    args: tuple[str, ...]
    dtype: DType
    attr: int | str | None = None


@dataclass(frozen=True)
class Iota:
    """%name = an index or a size as an i64."""

    name: str
    value: Size


@dataclass(frozen=True)
class Inside:
    """%name = low <= value < high: is this iteration in a range of a loop's?"""

    name: str
    value: Size
    low: Size
    high: Size


@dataclass(frozen=True)
class Load:
    """%name = buffer[index + sum of value*stride]; 0 with nothing read where `only` is false."""

    name: str
    buffer: str
    index: Size
    dtype: DType
    at: tuple[tuple[str, Size], ...] = ()
    only: str = ""


@dataclass(frozen=True)
class Store:
    """buffer[index] = value, where `only` is true."""

    buffer: str
    index: Size
    value: str
    only: str = ""


@dataclass(frozen=True)
class Index:
    """%name = value wrapped into 0..size-1; out of bounds it is clamped, and the run fails."""

    name: str
    value: str
    size: Size


@dataclass(frozen=True)
class Add:
    """Fold a value (for fma: a product) into an accumulator, at an index if it is an array."""

    acc: str
    values: tuple[str, ...]
    index: Size = 0


@dataclass(frozen=True)
class Step:
    """%name = a running accumulator, or its element at an index, after one more step."""

    name: str
    acc: str
    values: tuple[str, ...]
    dtype: DType
    index: Size = 0


@dataclass(frozen=True)
class Scatter:
    """buffer[index + sum of value*stride] += value, in the order of the loops."""

    buffer: str
    index: Size
    at: tuple[tuple[str, Size], ...]
    value: str


@dataclass(frozen=True)
class Fill:
    """`size` elements of a buffer from `index` on become one number."""

    buffer: str
    bits: int
    index: Size
    size: Size


@dataclass(frozen=True)
class Operand:
    """An operand of a call: a buffer, its first element, and the stride of each letter."""

    buffer: str
    index: Size
    strides: tuple[tuple[str, Size], ...]


@dataclass(frozen=True)
class Contract:
    """A matrix product: out[letters] = sum over k of a * b; `sizes` gives every letter's extent."""

    out: Operand
    a: Operand
    b: Operand
    sizes: tuple[tuple[str, Size], ...]
    k: str
    order: str
    dtype: DType


@dataclass(frozen=True)
class For:
    """A loop.

    `mode` is a schedule and changes no value: `vector` (iterations are lanes), `lanes` (the same,
    with loops inside), `rows` (one after the other), `blocks` (`BLOCK_ROWS` iterations at once,
    part by part), `turned` (for `COLUMNS` iterations of the loop around it at once), `pairs` (in a
    loop in lanes: what (i, j) and (j, i) have in common is computed once). Nor does `parallel`:
    several threads may share the iterations. `ordered` stands behind a parallel loop of as many
    iterations: each thread goes on with those of its part, as soon as all before them are through.
    """

    var: str
    size: Size
    accs: tuple[Acc, ...]
    body: tuple[Statement, ...]
    mode: str = "rows"
    parallel: bool = False
    ordered: bool = False

    @cached_property
    def touching(self) -> tuple[Statement, ...]:
        """The body without what only computes, which is most of it."""
        return tuple([s for s in self.body if not isinstance(s, Let)])


Statement = (
    Let | Iota | Inside | Load | Store | Index | Add | Step | Scatter | Fill | Contract | For
)


@dataclass(frozen=True)
class Kernel:
    """A run of statements that becomes one native function.

    `sweep` is a schedule and changes no value: that many rows go through all statements, `panel`
    of them at once.
    """

    name: str
    body: tuple[Statement, ...]
    note: str = ""  # the gates in it, for people
    sweep: Size | None = None
    panel: int = PANEL_ROWS


@dataclass(frozen=True)
class Program:
    name: str
    sizes: tuple[str, ...]
    buffers: tuple[Buffer, ...]
    kernels: tuple[Kernel, ...]
    arena: Size | None = None  # bytes, set by plan
    private: Size = 0  # of these, at the end, for what each thread has of its own
    partials: Size = 0  # bytes of what a part of a parallel loop gives its sums, at most
    _by_name: dict[str, Buffer] = field(default_factory=dict, init=False, repr=False, compare=False)

    def buffer(self, name: str) -> Buffer:
        if not self._by_name:
            self._by_name.update({b.name: b for b in self.buffers})
        return self._by_name[name]

    def has(self, name: str) -> bool:
        return any(b.name == name for b in self.buffers)

    def of_role(self, role: str) -> tuple[Buffer, ...]:
        return tuple(b for b in self.buffers if b.role == role)

    def __str__(self) -> str:
        return print_program(self)


def walk(
    body: tuple[Statement, ...], outer: tuple[For, ...] = ()
) -> Iterator[tuple[Statement, tuple[For, ...]]]:
    """Every statement with the loops around it, in order. Loops nest no deeper than ranks do."""
    for s in body:
        yield s, outer
        if isinstance(s, For):
            yield from walk(s.body, (*outer, s))


def touching(
    body: tuple[Statement, ...], outer: tuple[For, ...] = ()
) -> Iterator[tuple[Statement, tuple[For, ...]]]:
    """As `walk`, without what only computes: what reads, writes, adds up or loops."""
    for s in body:
        if not isinstance(s, Let):
            yield s, outer
            if isinstance(s, For):
                yield from touching(s.touching, (*outer, s))


@lru_cache(maxsize=REMEMBERED)
def is_turned(s: Statement) -> bool:
    """Does it copy columns for several iterations of the loop around it?"""
    return isinstance(s, For) and s.mode == "turned"


def is_running(loop: For) -> bool:
    """Does an iteration go on from what the one before it came to?"""
    return any(a.order == RUNNING for a in loop.accs)


def coefficient(index: Size, var: str) -> Size:
    """The factor of a loop variable in an index."""
    if isinstance(index, int):
        return 0
    total: Size = 0
    for monomial, c in index.terms:
        if var in monomial:
            rest = list(monomial)
            rest.remove(var)
            total = total + (Dim({tuple(rest): c}) if rest else c)
    return total


@lru_cache(maxsize=REMEMBERED)
def without(index: Size, var: str) -> Size:
    """An index at iteration 0 of a loop variable."""
    if isinstance(index, int):
        return index
    return index - coefficient(index, var) * Dim.symbol(var)


# -- text ------------------------------------------------------------------------------------------


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


def let(name: str, ins: Instruction, args: tuple[str, ...]) -> Let:
    """A scalar instruction as a statement."""
    return Let(name, ins.op, args, ins.dtype, ins.attr)


__all__ = [
    "Acc", "Add", "Buffer", "Contract", "Fill", "For", "Index", "Inside", "Iota", "Kernel", "Let",
    "Load", "Operand", "Program", "Scatter", "Statement", "Step", "Store", "coefficient",
    "is_running", "is_turned", "let", "parse_program", "print_program", "statement_text", "walk",
    "without",
]  # fmt: skip
