"""The rules of `simplify`, as data. Each is proven by the tests before it may run.

`exact` rules change no bit of any result, NaNs all being equal; only they run by default. Where a
rule that looks right is missing (x + 0, x * 0, x - x, 0 - x), there is a float for which it is
wrong: -0, NaN or an infinity.

>>> print(RULES_BY_NAME["sub-zero"].doc)
x - 0 is x for every x; x + 0 is not, at -0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphc.gates.elementwise import (
    abs_,
    cast,
    ceil,
    eq,
    floor,
    ge,
    gt,
    isnan,
    le,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    lt,
    maximum,
    minimum,
    mul0,
    ne,
    neg,
    reciprocal,
    relu,
    round_,
    square,
    trunc,
    where,
)
from graphc.gates.gate import registry
from graphc.gates.movement import broadcast, expand_dims, place, reshape, slice_, squeeze, transpose
from graphc.gates.reduction import all_, any_, max_, min_, prod, sum_
from graphc.ir.graph import Value
from graphc.ir.types import DType, Size, bool_
from graphc.passes.rewrite import Pattern, Rule


def _truth(like: Value, value: bool) -> Value:
    return like.builder.constant(value, like.type.with_dtype(bool_))


def _is_constant(x: Value) -> bool:
    return x.node.op == "constant"


# -- constants stand on the right ------------------------------------------------------------------

COMMUTED = tuple(
    Rule(
        f"{op}-constant-right",
        lambda c, x, op=op: _call(op, c, x),
        lambda c, x, op=op: _call(op, x, c),
        dtype=dtype,
        where=lambda x: not _is_constant(x),
        doc=f"{op} commutes: constants stand on the right.",
    )
    for op, dtype in (
        ("add", "number"),
        ("mul", "number"),
        ("eq", "any"),
        ("ne", "any"),
        ("logical_and", "bool"),
        ("logical_or", "bool"),
        ("logical_xor", "bool"),
    )
)


def _call(op: str, *args: Value | Pattern) -> Value:
    return registry()[op](*args)


# -- arithmetic ------------------------------------------------------------------------------------


def _is_power_of_two(c: Value) -> bool:
    """c is +-2^k, and so is 1/c, both away from the ends of f32's range."""
    mantissa, exponent = math.frexp(c.splat())
    return abs(mantissa) == 0.5 and abs(exponent) < 100


ARITHMETIC = (
    Rule(
        "sub-zero",
        lambda x: x - 0,
        lambda x: x,
        dtype="number",
        doc="x - 0 is x for every x; x + 0 is not, at -0.",
    ),
    Rule("add-minus-zero", lambda x: x + -0.0, lambda x: x, dtype="float"),
    Rule("add-zero", lambda x: x + 0, lambda x: x, dtype="int"),
    Rule(
        "sub-self",
        lambda x: x - x,
        lambda x: x.constant(0),
        dtype="int",
        doc="Not for floats: NaN and infinities.",
    ),
    Rule("mul-one", lambda x: x * 1, lambda x: x, dtype="number"),
    Rule(
        "mul-zero",
        lambda x: x * 0,
        lambda x: x.constant(0),
        dtype="int",
        doc="Not for floats: NaN, inf and -x.",
    ),
    Rule("mul-minus-one", lambda x: x * -1, lambda x: -x, dtype="number"),
    Rule(
        "mul-self",
        lambda x: x * x,
        lambda x: square(x),
        dtype="number",
        doc="One form of x * x, to share it.",
    ),
    Rule("div-one", lambda x: x / 1, lambda x: x, dtype="float"),
    Rule("div-minus-one", lambda x: x / -1, lambda x: -x, dtype="float"),
    Rule(
        "div-power-of-two",
        lambda x, c: x / c,
        lambda x, c: x * (1.0 / c.splat()),
        dtype="float",
        where=_is_power_of_two,
        doc="Both round the same real number.",
    ),
    Rule(
        "one-div",
        lambda x: 1 / x,
        lambda x: reciprocal(x),
        dtype="float",
        doc="The definition of reciprocal.",
    ),
    Rule("neg-neg", lambda x: neg(-x), lambda x: x, dtype="number"),
    Rule("sub-neg", lambda x, y: x - (-y), lambda x, y: x + y, dtype="number"),
    Rule("add-neg", lambda x, y: x + (-y), lambda x, y: x - y, dtype="number"),
    Rule("neg-add", lambda x, y: (-x) + y, lambda x, y: y - x, dtype="number"),
    Rule("mul-neg-neg", lambda x, y: (-x) * (-y), lambda x, y: x * y, dtype="number"),
    Rule("div-neg-neg", lambda x, y: (-x) / (-y), lambda x, y: x / y, dtype="float"),
    Rule("abs-neg", lambda x: abs_(-x), lambda x: abs_(x), dtype="number"),
    Rule("abs-abs", lambda x: abs_(abs_(x)), lambda x: abs_(x), dtype="number"),
    Rule("square-neg", lambda x: square(-x), lambda x: square(x), dtype="number"),
    Rule("square-abs", lambda x: square(abs_(x)), lambda x: square(x), dtype="number"),
    Rule("relu-relu", lambda x: relu(relu(x)), lambda x: relu(x), dtype="number"),
    Rule("floor-floor", lambda x: floor(floor(x)), lambda x: floor(x), dtype="float"),
    Rule("ceil-ceil", lambda x: ceil(ceil(x)), lambda x: ceil(x), dtype="float"),
    Rule("round-round", lambda x: round_(round_(x)), lambda x: round_(x), dtype="float"),
    Rule("trunc-trunc", lambda x: trunc(trunc(x)), lambda x: trunc(x), dtype="float"),
    Rule("maximum-self", lambda x: maximum(x, x), lambda x: x, dtype="number"),
    Rule("minimum-self", lambda x: minimum(x, x), lambda x: x, dtype="number"),
)

# -- products of a cotangent and a partial ---------------------------------------------------------

COTANGENTS = (
    Rule("mul0-one", lambda x: mul0(1, x), lambda x: x, dtype="float"),
    Rule(
        "mul0-zero",
        lambda c, x: mul0(c, x),
        lambda x: x.constant(0),
        dtype="float",
        where=lambda c: c.splat() == 0,
    ),
    Rule(
        "mul0-constant",
        lambda c, x: mul0(c, x),
        lambda c, x: x * c,
        dtype="float",
        where=lambda c: c.splat() != 0,
        doc="A cotangent that is not 0 needs no strong zero.",
    ),
)

# -- order, logic and choice -----------------------------------------------------------------------

LOGIC = (
    Rule(
        "gt-to-lt",
        lambda x, y: gt(x, y),
        lambda x, y: lt(y, x),
        doc="One form of each comparison, to share it.",
    ),
    Rule("ge-to-le", lambda x, y: ge(x, y), lambda x, y: le(y, x)),
    Rule("lt-self", lambda x: lt(x, x), lambda x: _truth(x, False)),
    Rule(
        "le-self",
        lambda x: le(x, x),
        lambda x: _truth(x, True),
        dtype="exact",
        doc="Not for floats: NaN.",
    ),
    Rule(
        "eq-self",
        lambda x: eq(x, x),
        lambda x: _truth(x, True),
        dtype="exact",
        doc="Not for floats: NaN.",
    ),
    Rule(
        "ne-self",
        lambda x: ne(x, x),
        lambda x: _truth(x, False),
        dtype="exact",
        doc="Not for floats: NaN.",
    ),
    Rule("ne-self-nan", lambda x: ne(x, x), lambda x: isnan(x), dtype="float"),
    Rule(
        "not-lt",
        lambda x, y: logical_not(lt(x, y)),
        lambda x, y: le(y, x),
        dtype="exact",
        doc="Not for floats: both are false on NaN.",
    ),
    Rule("not-le", lambda x, y: logical_not(le(x, y)), lambda x, y: lt(y, x), dtype="exact"),
    Rule("not-eq", lambda x, y: logical_not(eq(x, y)), lambda x, y: ne(x, y)),
    Rule("not-ne", lambda x, y: logical_not(ne(x, y)), lambda x, y: eq(x, y)),
    Rule("not-not", lambda p: logical_not(logical_not(p)), lambda p: p),
    Rule("and-true", lambda p: logical_and(p, True), lambda p: p),
    Rule("and-false", lambda p: logical_and(p, False), lambda p: p.constant(False)),
    Rule("and-self", lambda p: logical_and(p, p), lambda p: p),
    Rule("or-false", lambda p: logical_or(p, False), lambda p: p),
    Rule("or-true", lambda p: logical_or(p, True), lambda p: p.constant(True)),
    Rule("or-self", lambda p: logical_or(p, p), lambda p: p),
    Rule("xor-false", lambda p: logical_xor(p, False), lambda p: p),
    Rule("xor-true", lambda p: logical_xor(p, True), lambda p: logical_not(p)),
    Rule("xor-self", lambda p: logical_xor(p, p), lambda p: p.constant(False)),
    Rule("where-same", lambda p, x: where(p, x, x), lambda x: x),
    Rule("where-true", lambda x, y: where(True, x, y), lambda x: x),
    Rule("where-false", lambda x, y: where(False, x, y), lambda y: y),
    Rule("where-not", lambda p, x, y: where(logical_not(p), x, y), lambda p, x, y: where(p, y, x)),
    Rule(
        "where-where-left",
        lambda p, x, y, z: where(p, where(p, x, y), z),
        lambda p, x, z: where(p, x, z),
    ),
    Rule(
        "where-where-right",
        lambda p, x, y, z: where(p, x, where(p, y, z)),
        lambda p, x, z: where(p, x, z),
    ),
)

# -- casts -----------------------------------------------------------------------------------------

_HOLDS = {
    "bool": ("bool", "i32", "i64", "f32", "f64"),
    "i32": ("i32", "i64", "f64"),
    "f32": ("f32", "f64"),
}


def _is_lossless(x: DType, through: DType) -> bool:
    """Whether each value of the one dtype is a value of the other."""
    return through is x or through.name in _HOLDS.get(x.name, ())


CASTS = (
    Rule("cast-same", lambda x, d: cast(x, dtype=d), lambda x: x, where=lambda x, d: x.dtype is d),
    Rule(
        "cast-cast",
        lambda x, d, e: cast(cast(x, dtype=d), dtype=e),
        lambda x, e: x.cast(e),
        where=lambda x, d: _is_lossless(x.dtype, d),
        doc="Where the first cast keeps every value.",
    ),
)

# -- movement --------------------------------------------------------------------------------------


def _splat_moved(out: Value, args: Sequence[Value]) -> Value | None:
    """A constant that is one number everywhere stays so, whatever moves it."""
    x = args[0]
    if not x.is_splat():
        return None
    return out.builder.constant(x.splat(), out.type)


def _scalar_moved(out: Value, args: Sequence[Value]) -> Value | None:
    """Moving a scalar's copies is to make copies."""
    source = args[0].node
    if source.op != "broadcast" or source.args[0].type.shape:
        return None
    return Value(out.builder, source.args[0]).broadcast(out.shape)


def _broadcasts_last(out: Value, args: Sequence[Value]) -> Value | None:
    """A gate over broadcasts works on the smallest shape that holds the operands, and broadcasts
    its result.
    """
    sources = []
    for a in args:
        if a.node.op == "broadcast":
            sources.append(Value(out.builder, a.node.args[0]))
        elif not a.is_splat():
            return None
    shape = _joint([s.shape for s in sources], out.shape)
    if shape == out.shape:
        return None
    rest = iter(sources)
    operands = [
        next(rest).broadcast(shape) if a.node.op == "broadcast"
        else out.builder.constant(a.splat(), a.type.with_shape(shape))
        for a in args
    ]  # fmt: skip
    return out.builder.apply(out.node.op, *operands, **dict(out.node.attrs)).broadcast(out.shape)


def _joint(shapes: Sequence[tuple[Size, ...]], whole: tuple[Size, ...]) -> tuple[Size, ...]:
    """The smallest shape that the shapes broadcast to, on their way to `whole`."""
    rank = max(map(len, shapes))
    return tuple(
        size if any(len(s) >= i and s[-i] != 1 for s in shapes) else 1
        for i, size in zip(range(rank, 0, -1), whole[len(whole) - rank :], strict=True)
    )


def _sliced_twice(x: Value, a: tuple, s: tuple, b: tuple, t: tuple, out: Value) -> Value:
    """Element i of the outer is element b + t i of the inner, which is element a + s (b + t i)."""
    starts = tuple(first + step * then for first, step, then in zip(a, s, b, strict=True))
    steps = tuple(step * then for step, then in zip(s, t, strict=True))
    return out.builder.apply("slice", x, starts=starts, steps=steps, shape=out.shape)


def _inserted_twice(x: Value, a: tuple[int, ...], b: tuple[int, ...]) -> Value:
    kept = [i for i in range(x.type.rank + len(a) + len(b)) if i not in b]
    axes = tuple(sorted([*b, *(kept[i] for i in a)]))
    return x.builder.apply("expand_dims", x, axes=axes)


def _removed_twice(x: Value, a: tuple[int, ...], b: tuple[int, ...]) -> Value:
    kept = [i for i in range(x.type.rank) if i not in a]
    axes = tuple(sorted([*a, *(kept[i] for i in b)]))
    return x.builder.apply("squeeze", x, axes=axes)


MOVES = ("broadcast", "expand_dims", "reshape", "slice", "squeeze", "transpose")

MOVEMENT = (
    Rule(
        "splat-moved",
        roots=MOVES,
        among="constant",
        rewrite=_splat_moved,
        doc=_splat_moved.__doc__ or "",
    ),
    Rule(
        "scalar-moved",
        roots=MOVES[1:],
        among="broadcast",
        rewrite=_scalar_moved,
        doc=_scalar_moved.__doc__ or "",
    ),
    Rule(
        "broadcast-same",
        lambda x, s: broadcast(x, shape=s),
        lambda x: x,
        where=lambda x, s: x.shape == tuple(s),
    ),
    Rule(
        "broadcast-broadcast",
        lambda x, s, t: broadcast(broadcast(x, shape=s), shape=t),
        lambda x, t: x.broadcast(t),
    ),
    Rule(
        "broadcast-expand",
        lambda x, a, s: broadcast(expand_dims(x, axes=a), shape=s),
        lambda x, s: x.broadcast(s),
        where=lambda a: tuple(a) == tuple(range(len(a))),
        doc="Leading axes come by broadcasting alone.",
    ),
    Rule(
        "transpose-same",
        lambda x, a: transpose(x, perm=a),
        lambda x: x,
        where=lambda a: list(a) == sorted(a),
    ),
    Rule(
        "transpose-transpose",
        lambda x, a, b: transpose(transpose(x, perm=a), perm=b),
        lambda x, a, b: x.transposed([a[i] for i in b]),
    ),
    Rule(
        "reshape-same",
        lambda x, s: reshape(x, shape=s),
        lambda x: x,
        where=lambda x, s: x.shape == tuple(s),
    ),
    Rule(
        "reshape-reshape",
        lambda x, s, t: reshape(reshape(x, shape=s), shape=t),
        lambda x, t: x.reshape(t),
    ),
    Rule(
        "reshape-expand",
        lambda x, a, s: reshape(expand_dims(x, axes=a), shape=s),
        lambda x, s: x.reshape(s),
    ),
    Rule(
        "reshape-squeeze",
        lambda x, a, s: reshape(squeeze(x, axes=a), shape=s),
        lambda x, s: x.reshape(s),
    ),
    Rule("expand-nothing", lambda x: expand_dims(x, axes=()), lambda x: x),
    Rule("squeeze-nothing", lambda x: squeeze(x, axes=()), lambda x: x),
    Rule("squeeze-expand", lambda x, a: squeeze(expand_dims(x, axes=a), axes=a), lambda x: x),
    Rule("expand-squeeze", lambda x, a: expand_dims(squeeze(x, axes=a), axes=a), lambda x: x),
    Rule(
        "expand-expand",
        lambda x, a, b: expand_dims(expand_dims(x, axes=a), axes=b),
        _inserted_twice,
    ),
    Rule("squeeze-squeeze", lambda x, a, b: squeeze(squeeze(x, axes=a), axes=b), _removed_twice),
    Rule(
        "slice-whole",
        lambda x, a, s: slice_(x, starts=a, steps=s),
        lambda x: x,
        where=lambda x, a, s, out: (
            x.shape == out.shape and all(i == 0 for i in a) and all(i == 1 for i in s)
        ),
    ),
    Rule(
        "slice-slice",
        lambda x, a, s, b, t: slice_(slice_(x, starts=a, steps=s), starts=b, steps=t),
        _sliced_twice,
    ),
    Rule(
        "slice-place",
        lambda x, a, s: slice_(place(x, starts=a, steps=s), starts=a, steps=s),
        lambda x: x,
        where=lambda x, out: x.shape == out.shape,
        doc="What was put in is taken out.",
    ),
    Rule(
        "broadcasts-last",
        roots=tuple(n for n, g in registry().items() if g.kind == "elementwise"),
        among="broadcast",
        rewrite=_broadcasts_last,
        doc=_broadcasts_last.__doc__ or "",
    ),
)

# -- reductions ------------------------------------------------------------------------------------


def _zeros_summed(out: Value, args: Sequence[Value]) -> Value | None:
    """The sum of zeros is +0, however many; not of -0, whose empty sum is +0."""
    x = args[0]
    return out.zeros_like() if x.is_splat() and not any(x.node["data"]) else None


REDUCTIONS = (
    *(
        Rule(
            f"{gate.name}-of-one",
            lambda x, a, gate=gate: gate(x, axis=a),
            lambda x, a: x.builder.apply("squeeze", x, axes=(a,)),
            where=lambda x, a: x.shape[a] == 1,
            doc="One element, folded with the identity, is that element.",
        )
        for gate in (sum_, prod, max_, min_, any_, all_)
    ),
    Rule(
        "sum-of-zeros",
        roots=("sum",),
        among="constant",
        rewrite=_zeros_summed,
        doc=_zeros_summed.__doc__ or "",
    ),
)

RULES: tuple[Rule, ...] = (
    *COMMUTED,
    *ARITHMETIC,
    *COTANGENTS,
    *LOGIC,
    *CASTS,
    *MOVEMENT,
    *REDUCTIONS,
)
RULES_BY_NAME = {rule.name: rule for rule in RULES}
