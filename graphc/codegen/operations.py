"""Machine operations as LLVM instructions: emitted here and nowhere else, for any width.

In:   an instruction of the scalar language and the registers of its operands.
Out:  the register of its result.
Invariant: the same operation gives the same bits at every width and on every processor.

Where a processor lacks an operation of the last section, it is written in the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple, Protocol

from graphc.codegen.llvm import (
    REGISTER,
    Function,
    Module,
    literal,
    overload,
    register,
    splat,
    vector,
)
from graphc.codegen.registers import by_register
from graphc.codegen.tables import by_rows, look_up_rows, lookup
from graphc.codegen.target import Target
from graphc.ir import scalar as s
from graphc.ir.scalar import Instruction, Scalar, ScalarGraph, table_bits, trace_scalar
from graphc.ir.types import DType, bool_, f32, f64, i64

_FLOAT = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_INTRINSIC = {
    "fma": "llvm.fma",
    "sqrt": "llvm.sqrt",
    "rint": "llvm.roundeven",
    "floor": "llvm.floor",
    "abs": "llvm.fabs",  # of floats
}
_COMPARE = {"lt": ("olt", "slt"), "le": ("ole", "sle"), "eq": ("oeq", "eq")}


class Operation(Protocol):
    """An instruction of the scalar language or a statement of a loop."""

    @property
    def op(self) -> str: ...
    @property
    def dtype(self) -> DType: ...
    @property
    def attr(self) -> Any: ...


def emit_instruction(
    fn: Function, ins: Operation, args: Sequence[str], dtypes: Sequence[DType], width: int
) -> str:
    """One instruction of the scalar language, on scalars or vectors of one width.

    What has been computed since the last label is not computed again: bodies of a value and of its
    derivative share what they have in common.
    """
    if ins.op == "const":
        return splat(literal(ins.attr, ins.dtype), REGISTER[ins.dtype.name], width)
    single = _single(ins.op, ins.dtype, dtypes[0], width)
    if single is not None:
        fn.module.declared |= single.declared
        return fn.do_once(single.text.format(*args))
    key = _key(ins, args, width)
    found = fn.computed.get(key)
    if found is None:
        found = fn.computed[key] = _emit(fn, ins, args, dtypes, width)
    return found


def _key(ins: Operation, args: Sequence[str], width: int) -> tuple:
    return (ins.op, ins.attr, *args, ins.dtype, width)


class Single(NamedTuple):
    """What is one instruction of LLVM: its text, with a place for each operand, and what it refers to."""

    text: str
    declared: Mapping[str, str] = {}


@cache
def _single(op: str, dtype: DType, operand: DType, width: int) -> Single | None:
    ty, of = register(dtype, width), register(operand, width)
    if op in _INTRINSIC and dtype.is_float:
        return _intrinsic(_INTRINSIC[op], dtype, width)
    if op in _COMPARE:
        ordered, signed = _COMPARE[op]
        return Single(
            f"{f'fcmp {ordered}' if operand.is_float else f'icmp {signed}'} {of} {{}}, {{}}"
        )
    if op == "select":
        return Single(f"select {of} {{}}, {ty} {{}}, {ty} {{}}")
    if op in _FLOAT:
        return Single(f"{_FLOAT[op] if dtype.is_float else op} {ty} {{}}, {{}}")
    if op in ("and", "or", "xor"):
        return Single(f"{op} {ty} {{}}, {{}}")
    if op == "neg":
        zero = splat("0", REGISTER[dtype.name], width)
        return Single(f"fneg {ty} {{}}" if dtype.is_float else f"sub {ty} {zero}, {{}}")
    return Single(f"bitcast {of} {{}} to {ty}") if op == "bitcast" else None


def _intrinsic(base: str, dtype: DType, width: int) -> Single:
    ty, name = register(dtype, width), f"{base}.{overload(dtype, width)}"
    count = 3 if base == "llvm.fma" else 1
    text = f"call {ty} @{name}({', '.join([f'{ty} {{}}'] * count)})"
    return Single(text, {name: f"declare {ty} @{name}({', '.join([ty] * count)})"})


def _emit(
    fn: Function, ins: Operation, args: Sequence[str], dtypes: Sequence[DType], width: int
) -> str:
    if ins.op == "call":
        return emit_call(fn, str(ins.attr), args, dtypes, ins.dtype, width)
    if ins.op == "rare":
        return _rare(fn, ins, args, dtypes, width)
    if ins.op == "lookup":
        return lookup(fn, table_bits(ins.attr), args[0], dtypes[0], ins.dtype, width)
    if ins.op == "scale":
        return _scale(fn, ins, args, width)
    return _OTHERS[ins.op](fn, args, dtypes[0], ins.dtype, width)


def _abs(fn: Function, args: Sequence[str], _: DType, dtype: DType, width: int) -> str:
    ty = register(dtype, width)
    name = fn.module.intrinsic(f"llvm.abs.{overload(dtype, width)}", ty, [ty, "i1"])
    return fn.do(f"call {ty} @{name}({ty} {args[0]}, i1 false)")


def _shift(op: str) -> Callable[..., str]:
    def emit(fn: Function, args: Sequence[str], _: DType, dtype: DType, width: int) -> str:
        ty, one = register(dtype, width), REGISTER[dtype.name]
        bits = 8 * dtype.itemsize
        if args[1].startswith("splat (") or args[1].isdigit():
            count = int(args[1].removeprefix(f"splat ({one} ").removesuffix(")"))
            if 0 <= count < bits:
                return fn.do(f"{op} {ty} {args[0]}, {args[1]}")
        if fn.module.avx512 and width * dtype.itemsize >= 64:
            return _shift_of_registers(fn, op, args, dtype, width)
        mask = vector("i1", width)
        legal = fn.do_once(f"icmp ult {ty} {args[1]}, {splat(str(bits), one, width)}")
        if op == "ashr":
            most = splat(str(bits - 1), one, width)
            count_ = fn.do_once(f"select {mask} {legal}, {ty} {args[1]}, {ty} {most}")
            return fn.do(f"{op} {ty} {args[0]}, {count_}")
        # Of a count outside it is poison, which is not chosen.
        shifted = fn.do(f"{op} {ty} {args[0]}, {args[1]}")
        return fn.do(f"select {mask} {legal}, {ty} {shifted}, {ty} {splat('0', one, width)}")

    return emit


def _quot(fn: Function, args: Sequence[str], _: DType, dtype: DType, width: int) -> str:
    ty, one, mask = register(dtype, width), REGISTER[dtype.name], vector("i1", width)
    a, b = args
    zero = fn.do(f"icmp eq {ty} {b}, {splat('0', one, width)}")
    minus = fn.do(f"icmp eq {ty} {b}, {splat('-1', one, width)}")
    unsafe = fn.do(f"or {mask} {zero}, {minus}")
    safe = fn.do(f"select {mask} {unsafe}, {ty} {splat('1', one, width)}, {ty} {b}")
    q = fn.do(f"sdiv {ty} {a}, {safe}")
    negated = fn.do(f"sub {ty} {splat('0', one, width)}, {a}")
    q = fn.do(f"select {mask} {minus}, {ty} {negated}, {ty} {q}")
    return fn.do(f"select {mask} {zero}, {ty} {splat('0', one, width)}, {ty} {q}")


def _convert(fn: Function, args: Sequence[str], source: DType, dtype: DType, width: int) -> str:
    from_ty, to_ty = register(source, width), register(dtype, width)
    if source is dtype:
        return args[0]
    if dtype is bool_:
        zero = splat("0x0000000000000000" if source.is_float else "0", REGISTER[source.name], width)
        return fn.do(f"{'fcmp une' if source.is_float else 'icmp ne'} {from_ty} {args[0]}, {zero}")
    if source.is_float and dtype.is_int:
        return _truncated(fn, args[0], source, dtype, width)
    if source.is_float:
        op = "fpext" if dtype is f64 else "fptrunc"
    elif dtype.is_float:
        op = "uitofp" if source is bool_ else "sitofp"
    else:
        op = "zext" if source is bool_ else "sext" if dtype is i64 else "trunc"
    return fn.do(f"{op} {from_ty} {args[0]} to {to_ty}")


def _truncated(fn: Function, x: str, source: DType, dtype: DType, width: int) -> str:
    """To an integer: saturated, and 0 for NaN. (LLVM's own saturation goes lane by lane.)"""
    from_ty, to_ty, mask = register(source, width), register(dtype, width), vector("i1", width)
    one, integer, bits = REGISTER[source.name], REGISTER[dtype.name], 8 * dtype.itemsize - 1
    number = lambda v: splat(literal(s.to_bits(v, source), source), one, width)
    above = fn.do(f"fcmp oge {from_ty} {x}, {number(2.0**bits)}")
    inside = fn.do(f"fcmp oge {from_ty} {x}, {number(-(2.0**bits))}")  # false for NaN
    legal = fn.do(f"xor {mask} {above}, {inside}")
    safe = fn.do(f"select {mask} {legal}, {from_ty} {x}, {from_ty} {number(0.0)}")
    whole = fn.do(f"fptosi {from_ty} {safe} to {to_ty}")
    below = fn.do(f"fcmp olt {from_ty} {x}, {number(-(2.0**bits))}")
    least, most = splat(str(-(2**bits)), integer, width), splat(str(2**bits - 1), integer, width)
    low = fn.do(f"select {mask} {below}, {to_ty} {least}, {to_ty} {whole}")
    return fn.do(f"select {mask} {above}, {to_ty} {most}, {to_ty} {low}")


ARGUMENTS = 8  # vectors that a call passes in registers
_OTHERS: dict[str, Callable[..., str]] = {
    "abs": _abs, "shl": _shift("shl"), "lshr": _shift("lshr"), "ashr": _shift("ashr"), "quot": _quot,
    "convert": _convert,
}  # fmt: skip


def _rare(
    fn: Function, ins: Operation, args: Sequence[str], dtypes: Sequence[DType], width: int
) -> str:
    """A branch that is taken when any lane wants the gate."""
    ty, mask, bits = register(ins.dtype, width), vector("i1", width), 8 * ins.dtype.itemsize
    condition, default, *operands = args
    before, yes, after = fn.block, fn.label("rare"), fn.label("usual")
    computed = fn.computed
    marks, numbers = "", f"<{width} x i{bits}>"
    if width > 1 and not fn.module.avx512:  # so that it reaches the other block as it is
        marks = fn.do(f"sext {mask} {condition} to {numbers}")
    fn.branch(fn.any_lane(condition, width, bits), yes, after)
    fn.open_block(yes)
    # A call, so that its constants do not take the registers of those that are used all the time.
    body = _body(str(ins.attr), dtypes[2:])
    convention = fn.module.rare_convention if _fits_registers(fn.module, body, width) else ""
    value = _call(fn, f"gc.rare.{ins.attr}", body, operands, width, convention)
    if marks:
        condition = fn.do(f"icmp slt {numbers} {marks}, zeroinitializer")
    chosen = fn.do(f"select {mask} {condition}, {ty} {value}, {ty} {default}")
    end = fn.block
    fn.jump(after)
    fn.open_block(after)
    fn.computed = computed  # all of it lies before the branch
    merged, _ = fn.phi(ty, (default, before), (chosen, end))
    return merged


def _fits_registers(module: Module, body: ScalarGraph, width: int) -> bool:
    """Are all arguments in registers? LLVM refuses calls by the convention of rare gates where some
    are on the stack: it keeps no pointer to the frame."""
    size = module.register_bytes
    return sum(-(-width * d.itemsize // size) for d in body.params) <= ARGUMENTS


def emit_call(
    fn: Function, gate: str, args: Sequence[str], dtypes: Sequence[DType], dtype: DType, width: int
) -> str:
    """A gate's body: written in place in a module's first loops, where it saves a call and shares
    what bodies have in common; else a call of a function that is added to the module once."""
    graph = _body(gate, dtypes)
    if 1 < width and len(graph.code) <= fn.module.inline_left:
        fn.module.inline_left -= len(graph.code)
        return write_body(fn, graph, args, width)
    return _call(fn, f"gc.{gate}", graph, args, width)


def _body(gate: str, dtypes: Sequence[DType]) -> ScalarGraph:
    from graphc.gates.gate import registry

    return registry()[gate].body_graph(tuple(dtypes))


def _call(
    fn: Function, prefix: str, graph: ScalarGraph, args: Sequence[str], width: int, cc: str = ""
) -> str:
    """A call of the body as a function of its own, by a calling convention."""
    name = f"{prefix}.{'.'.join([d.name for d in graph.params])}.x{width}"
    if name not in fn.module.routines:
        fn.module.take(_with_body(fn.module.target, name, graph, width, cc))
    operands = ", ".join(
        f"{register(d, width)} {a}" for d, a in zip(graph.params, args, strict=True)
    )
    return fn.do(f"call {cc}{register(graph.dtype, width)} @{name}({operands})")


@lru_cache(maxsize=256)
def _with_body(target: Target, name: str, graph: ScalarGraph, width: int, cc: str) -> Module:
    """A module with the body as a function of its own."""
    module = Module(target)
    module.once(name, lambda: _add_body(module, name, graph, width, cc))
    return module


def _add_body(module: Module, name: str, graph: ScalarGraph, width: int, cc: str) -> None:
    params = [(register(d, width), f"x{i}") for i, d in enumerate(graph.params)]
    fn = Function(module, name, register(graph.dtype, width), params, linkage=f"internal {cc}")
    write = _lane_by_lane if width > 1 and not module.avx512 and _multiplies(graph) else write_body
    result = write(fn, graph, [f"%{p}" for _, p in params], width)
    fn.say(f"ret {register(graph.dtype, width)} {result}")
    fn.close()


def _multiplies(graph: ScalarGraph) -> bool:
    """Are there products of 64-bit integers, for which vectors have no instruction?"""
    return any(ins.op == "mul" and ins.dtype is i64 for ins in graph.code)


def _lane_by_lane(fn: Function, graph: ScalarGraph, args: Sequence[str], width: int) -> str:
    """The body in a loop over lanes: as fast where lanes would be taken apart anyway, and far less
    to compile."""

    def element(dtype: DType, base: str, lane: str) -> str:
        return fn.do(f"getelementptr {REGISTER[dtype.name]}, ptr {base}, i64 {lane}")

    places = [fn.alloca(REGISTER[d.name], width) for d in (*graph.params, graph.dtype)]
    for d, a, place in zip(graph.params, args, places):
        fn.say(f"store {register(d, width)} {a}, ptr {place}")

    def one(lane: str, _: object) -> list[str]:
        operands = [
            fn.do(f"load {REGISTER[d.name]}, ptr {element(d, place, lane)}")
            for d, place in zip(graph.params, places)
        ]
        value = write_body(fn, graph, operands, 1)
        fn.say(
            f"store {REGISTER[graph.dtype.name]} {value}, ptr {element(graph.dtype, places[-1], lane)}"
        )
        return []

    fn.loop("0", str(width), 1, [], one)
    return fn.do(f"load {register(graph.dtype, width)}, ptr {places[-1]}")


def write_body(fn: Function, graph: ScalarGraph, args: Sequence[str], width: int) -> str:
    """The instructions of a scalar graph."""
    values, types = list(args), list(graph.params)
    for ins in graph.code:
        operands = [values[a] for a in ins.args]
        if ins.op == "lookup" and by_rows(fn, ins.dtype, width):
            alike = [i for i in graph.code if i.op == "lookup" and i.args == ins.args]
            _look_up_together(fn, alike, operands[0], width)
        values.append(emit_instruction(fn, ins, operands, [types[a] for a in ins.args], width))
        types.append(ins.dtype)
    return values[graph.result]


def _look_up_together(fn: Function, lookups: Sequence[Instruction], index: str, width: int) -> None:
    """Tables that are asked for by one index, before the first of them is."""
    keys = [_key(i, [index], width) for i in lookups]
    tables = [table_bits(i.attr) for i in lookups]
    if len(tables) > 1 and keys[0] not in fn.computed and len(set(map(len, tables))) == 1:
        fn.computed.update(zip(keys, look_up_rows(fn, tables, index, width), strict=True))


# -- operations that AVX-512 has as one instruction ---------------------------------------------------------------


def _scale(fn: Function, ins: Operation, args: Sequence[str], width: int) -> str:
    if not fn.module.avx512:
        return write_body(fn, _plain_scale(ins.dtype, *s.promised(ins.attr)), args, width)
    return _in_registers(fn, "llvm.x86.avx512.mask.scalef", ins.dtype, args, "", width)


def _exponent(fn: Function, args: Sequence[str], _: DType, dtype: DType, width: int) -> str:
    if not fn.module.avx512:
        return write_body(fn, _plain_exponent(dtype), args, width)
    return _in_registers(fn, "llvm.x86.avx512.mask.getexp", dtype, args, "", width)


def _mantissa(fn: Function, args: Sequence[str], _: DType, dtype: DType, width: int) -> str:
    if not fn.module.avx512:
        return write_body(fn, _plain_mantissa(dtype), args, width)
    control = ", i32 8"  # from 1 on, NaN below zero
    return _in_registers(fn, "llvm.x86.avx512.mask.getmant", dtype, args, control, width)


_SHIFT = {"shl": "psllv", "lshr": "psrlv", "ashr": "psrav"}


def _shift_of_registers(
    fn: Function, op: str, args: Sequence[str], dtype: DType, width: int
) -> str:
    """Shifts whose instruction means for all counts what the language says."""
    lanes = 64 // dtype.itemsize
    ty, suffix = register(dtype, lanes), "q" if dtype is i64 else "d"
    name = fn.module.intrinsic(f"llvm.x86.avx512.{_SHIFT[op]}.{suffix}.512", ty, [ty, ty])

    def call(parts: Sequence[str]) -> str:
        return fn.do(f"call {ty} @{name}({ty} {parts[0]}, {ty} {parts[1]})")

    return by_register(fn, args, [dtype] * 2, dtype, lanes, width, call)


def _in_registers(
    fn: Function, base: str, dtype: DType, args: Sequence[str], control: str, width: int
) -> str:
    """A masked intrinsic of 512-bit registers, on operands of any width, in every lane."""
    lanes = 64 // dtype.itemsize
    ty, mask = register(dtype, lanes), f"i{lanes}"
    params = [ty] * len(args) + ["i32"] * bool(control) + [ty, mask, "i32"]
    name = fn.module.intrinsic(f"{base}.{'pd' if dtype is f64 else 'ps'}.512", ty, params)

    def call(parts: Sequence[str]) -> str:
        operands = ", ".join(f"{ty} {a}" for a in parts)
        kept = f"{ty} zeroinitializer, {mask} -1, i32 4"  # all lanes, the current rounding
        return fn.do(f"call {ty} @{name}({operands}{control}, {kept})")

    return by_register(fn, args, [dtype] * len(args), dtype, lanes, width, call)


@cache
def _plain_scale(dtype: DType, whole: bool, within: tuple[int, int] | None) -> ScalarGraph:
    """Factors of which all steps but the last are exact, as 2^n may be out of range where the
    result is not."""
    fraction, bias = _FORMAT[dtype]

    def power(n: Scalar, shift: int) -> Scalar:
        """2^(n + shift): n comes to stand in the exponent's place."""
        return s.bitcast(s.bitcast(n + (1.5 * 2.0**fraction + bias + shift)) << fraction)

    def body(a: Scalar, n: Scalar) -> Scalar:
        if within is not None:
            shift = shift_into_range(*within, bias)
            if shift is not None:
                scaled = a * power(n, shift)
                return scaled * 2.0**-shift if shift else scaled
        bits = s.bitcast((n if whole else s.floor(n)) + (1.5 * 2.0**fraction + 2 * bias))
        half = s.lshr(bits, 1)
        return a * s.bitcast(half << fraction) * s.bitcast((bits - half) << fraction)

    return trace_scalar("scale", body, (dtype, dtype))


def shift_into_range(low: int, high: int, bias: int) -> int | None:
    """c such that a * 2^(n + c) has no error for low <= n <= high and an a as SCALABLE says; 0
    where 2^n alone is a normal number: then a * 2^n may round, as nothing follows."""
    if 1 - bias <= low and high <= bias:
        return 0
    room = int(s.SCALABLE).bit_length()
    shift = 1 - bias + room - low
    return shift if low < 0 <= shift and high + shift + room <= bias else None


@cache
def _plain_exponent(dtype: DType) -> ScalarGraph:
    fraction, bias = _FORMAT[dtype]

    def body(x: Scalar) -> Scalar:
        a, normal, doublings = _normal(x)
        field = s.bitcast(s.lshr(s.bitcast(normal), fraction) | s.to_bits(2.0**fraction, dtype))
        power = field - (2.0**fraction + bias) - doublings
        return s.select(s.equal(a, 0.0), float("-inf"), s.select(a < float("inf"), power, a))

    return trace_scalar("exponent", body, (dtype,))


@cache
def _plain_mantissa(dtype: DType) -> ScalarGraph:
    fraction, _ = _FORMAT[dtype]

    def body(x: Scalar) -> Scalar:
        _, normal, _ = _normal(x)
        sign = s.bitcast(x) & -(2 ** (8 * dtype.itemsize - 1))
        m = s.bitcast((s.bitcast(normal) & (2**fraction - 1)) | (sign | s.to_bits(1.0, dtype)))
        return s.select(0.0 <= x, m, float("nan"))

    return trace_scalar("mantissa", body, (dtype,))


_FORMAT = {f64: (52, 1023), f32: (23, 127)}  # bits of the fraction, bias of the exponent


def _normal(x: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """|x|, the same made normal by doublings, and their number."""
    fraction, bias = _FORMAT[x.dtype]
    a = abs(x)
    small = a < 2.0 ** (1 - bias)
    doublings = float(fraction + 1)
    return (
        a,
        s.select(small, a * 2.0**doublings, a),
        s.select(small, doublings, s.constant(x, 0.0)),
    )


_OTHERS |= {"exponent": _exponent, "mantissa": _mantissa}

__all__ = ["emit_call", "emit_instruction", "write_body"]
