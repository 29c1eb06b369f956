"""Elementwise gates: the Jacobian is diagonal, and `partials` is its diagonal.

A record's `body` is its meaning and its code; `partials` are by hand, in gates, in the stable forms
of docs/numerics.md; `sym` is an independent model, for sympy, that tests hold both against.

`partials` gives for each operand a value, the number 1 or -1, or None where the derivative is zero
by structure. A gate that is linear declares `transposed` instead: its tangent is the gate itself.

>>> from graphc.ir.types import f64
>>> print(relu.body_graph((f64,)))
scalar relu.f64(%0: f64)
  %1 = const 0.0 : f64
  %2 = le %0, %1 : bool
  %3 = select %2, %1, %0 : f64
return %3
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from graphc.errors import DTypeError, GateError
from graphc.gates.bodies import order as order_bodies
from graphc.gates.bodies import remainder as remainder_bodies
from graphc.gates.gate import Attrs, Gate, caller, check_one_shape, parameters_of, register
from graphc.ir import scalar as s
from graphc.ir.scalar import Scalar, ScalarGraph, trace_scalar
from graphc.ir.types import DType, TensorType, bool_

if TYPE_CHECKING:
    from graphc.ir.graph import Node, Value

_ACCEPTS = {
    "float": lambda d: d.is_float,
    "int": lambda d: d.is_int,
    "number": lambda d: not d.is_bool,
    "bits": lambda d: not d.is_float,
    "bool": lambda d: d.is_bool,
    "any": lambda d: True,
}


@dataclass(frozen=True, eq=False)
class Elementwise(Gate):
    """A gate whose result at an index depends on its operands at that index alone."""

    body: Callable[..., Scalar] | None = None
    partials: Callable[..., tuple[Any, ...]] | None = None  # (out, *operands) -> diagonals
    # (ct, *operands) -> cotangents, for linear gates
    transposed: Callable[..., tuple[Any, ...]] | None = None
    sym: str | None = None
    accepts: str = "float"
    result: str = "same"  # "same", "bool", or "attr" (the attribute dtype)
    choice: bool = False  # the first operand is a bool that chooses among the others
    domain: tuple[float, float] = (-4.0, 4.0)
    edges: tuple[float, ...] = ()
    ulp: float | None = 0.5  # None: not a function of floats alone
    no_sym: str = ""  # the reason, where `sym` is absent
    _graphs: dict = field(default_factory=dict, repr=False)
    # dtypes of which operands of one type are known to give this type
    _plain: set[DType] = field(default_factory=set, repr=False)

    kind: ClassVar[str] = "elementwise"

    @property
    def structure(self) -> str:  # type: ignore[override]
        return "zero" if self.partials is None and self.transposed is None else "diagonal"

    def result_dtype(self, dtypes: tuple[DType, ...]) -> DType:
        operands = dtypes[1:] if self.choice else dtypes
        for d in operands:
            if not _ACCEPTS[self.accepts](d):
                raise DTypeError(f"{self.name} is not defined on {d}")
        if self.choice and not dtypes[0].is_bool:
            raise DTypeError(f"{self.name}: the condition is {dtypes[0]}, not bool")
        if any(d is not operands[0] for d in operands):
            raise DTypeError(f"{self.name}: operands have the dtypes {', '.join(map(str, dtypes))}")
        return bool_ if self.result == "bool" else operands[0]

    def infer(self, types: Sequence[TensorType], attrs: Attrs) -> TensorType:
        if len(types) == len(self.params) and types[0].dtype in self._plain:
            first = types[0]
            if all([t is first for t in types]):
                return first
        return self._inferred(types, attrs)

    def _inferred(self, types: Sequence[TensorType], attrs: Attrs) -> TensorType:
        if len(types) != len(self.params):
            raise GateError(f"{self.name} takes {len(self.params)} operands, got {len(types)}")
        shape = check_one_shape(self.name, types)
        dtype = self.result_dtype(tuple(t.dtype for t in types))
        dtype = attrs["dtype"] if self.result == "attr" else dtype
        if self.result == "same" and not self.choice and types[0].dtype is dtype:
            self._plain.add(dtype)
        return types[-1] if dtype is types[-1].dtype else TensorType(dtype, shape)

    def body_graph(self, dtypes: tuple[DType, ...], to: DType | None = None) -> ScalarGraph:
        """The body for operands of these dtypes (and, for a cast, the dtype it casts to)."""
        key = (dtypes, to)
        found = self._graphs.get(key)
        if found is None:
            assert self.body is not None
            suffix = "_".join(map(str, (*dtypes, to) if to else dtypes))
            body = self.body if to is None else partial(_with_attribute, self.body, to)
            found = self._graphs[key] = trace_scalar(f"{self.name}.{suffix}", body, dtypes)
        return found

    def node_body(self, node: Node) -> ScalarGraph:
        to = dict(node.attrs).get("dtype") if node.attrs else None
        return self.body_graph(tuple([a.type.dtype for a in node.args]), to)

    def reference(
        self, node: Node, args: Sequence[np.ndarray], sizes: Mapping[str, int]
    ) -> np.ndarray:
        from graphc.ir.reference import run_scalar

        return run_scalar(self.node_body(node), *args)

    def tangent(
        self, node: Node, values: Sequence[Value], out: Value, tangents: Sequence[Value | None]
    ) -> Value | None:
        if not out.type.dtype.is_float:
            return None
        if self.transposed is not None and self.partials is None:
            return self._same_gate(node, values, tangents)
        assert self.partials is not None, self.name
        total: Value | None = None
        for t, p in zip(tangents, self.partials(out, *values), strict=True):
            if t is None or p is None:
                continue
            term = _times(t, p)
            total = term if total is None else total + term
        return total

    def _same_gate(
        self, node: Node, values: Sequence[Value], tangents: Sequence[Value | None]
    ) -> Value | None:
        if all(t is None for t in tangents):
            return None
        operands = [
            v if self.choice and i == 0 else v.zeros_like() if t is None else t
            for i, (v, t) in enumerate(zip(values, tangents, strict=True))
        ]
        if self.name in ("add", "sub") and None in tangents:  # spare the explicit zero
            first, second = tangents
            return first if second is None else second if self.name == "add" else -second
        return out_of(self, operands, dict(node.attrs))

    def transpose(
        self, node: Node, values: Sequence[Value], ct: Value, linear: Sequence[bool]
    ) -> Sequence[Value | None]:
        if self.transposed is None:
            return super().transpose(node, values, ct, linear)
        return [
            c if wanted else None
            for c, wanted in zip(self.transposed(ct, *values), linear, strict=True)
        ]


def _with_attribute(body: Callable[..., Scalar], attribute: Any, *operands: Scalar) -> Scalar:
    return body(*operands, attribute)


def out_of(g: Gate, operands: Sequence[Value], attrs: Attrs) -> Value:
    return operands[0].apply_gate(g, tuple(operands), dict(attrs))


def _times(t: Value, p: Any) -> Value:
    """Tangent times partial: a number scales, a value goes through the strong zero."""
    if isinstance(p, (int, float)):
        return t if p == 1 else -t if p == -1 else t * p
    if p.is_splat() and np.isfinite(p.splat()):
        return t * p  # no zero to be strong about
    return mul0(t, p)


def gate(
    name: str, doc: str, *, body: Callable[..., Scalar], attrs: tuple[str, ...] = (), **fields: Any
) -> Elementwise:
    """Enter an elementwise gate; an incomplete record is an error at import."""
    source = caller()
    params = parameters_of(body)
    params = params[: len(params) - len(attrs)]
    if (
        fields.get("sym") is None
        and not fields.get("no_sym")
        and fields.get("ulp", 0.5) is not None
    ):
        raise GateError(f"{source}: gate {name!r} needs a sym model, or the reason why it has none")
    record = Elementwise(
        name=name, doc=doc, params=params, attrs=attrs, source=source, body=body, **fields
    )
    register(record)
    return record


# -- arithmetic ------------------------------------------------------------------------------------

add = gate(
    "add", "x + y.", body=lambda x, y: x + y, accepts="number", sym="x + y",
    transposed=lambda ct, x, y: (ct, ct),
)  # fmt: skip
sub = gate(
    "sub", "x - y.", body=lambda x, y: x - y, accepts="number", sym="x - y",
    transposed=lambda ct, x, y: (ct, -ct),
)  # fmt: skip
mul = gate(
    "mul", "x * y.", body=lambda x, y: x * y, accepts="number", sym="x*y",
    partials=lambda out, x, y: (y, x), transposed=lambda ct, x, y: (ct * y, ct * x),
)  # fmt: skip
mul0: Elementwise = gate(
    "mul0", "ct * p, and 0 where ct is 0 whatever p is: the product of a cotangent and a partial.",
    body=lambda ct, p: s.select(s.convert(ct, bool_), ct * p, 0.0), sym="ct*p",
    partials=lambda out, ct, p: (p, ct), transposed=lambda ct, t, p: (mul0(ct, p), None),
)  # fmt: skip
div = gate(
    "div", "x / y, of floats.", body=lambda x, y: x / y, sym="x/y",
    partials=lambda out, x, y: (reciprocal(y), -(out / y)),
    transposed=lambda ct, x, y: (ct / y, None), edges=(0.0,),
)  # fmt: skip
neg = gate(
    "neg", "-x.", body=lambda x: -x, accepts="number", sym="-x", transposed=lambda ct, x: (-ct,),
)  # fmt: skip
abs_ = gate(
    "abs", "|x|, with the derivative 0 at 0.", body=lambda x: abs(x), accepts="number",
    sym="Abs(x)", partials=lambda out, x: (sign(x),), edges=(0.0,),
)  # fmt: skip
sign: Elementwise = gate(
    "sign", "-1, 0 or 1; NaN for NaN; 0 for both zeros.", body=order_bodies.sign, accepts="number",
    sym="sign(x)", partials=lambda out, x: (None,), edges=(0.0,),
)  # fmt: skip
square = gate(
    "square", "x * x.", body=lambda x: x * x, accepts="number", sym="x**2",
    partials=lambda out, x: (x * 2,),
)  # fmt: skip
sqrt = gate(
    "sqrt", "Square root, correctly rounded.", body=s.sqrt, sym="sqrt(x)",
    partials=lambda out, x: (0.5 * reciprocal(out),), domain=(0.0, 9.0), edges=(0.0,),
)  # fmt: skip
reciprocal: Elementwise = gate(
    "reciprocal", "1 / x.", body=lambda x: 1.0 / x, sym="1/x",
    partials=lambda out, x: (-(out * out),), edges=(0.0,),
)  # fmt: skip
floor_divide: Elementwise = gate(
    "floor_divide", "The quotient rounded to minus infinity; of integers 0 for a zero divisor.",
    body=remainder_bodies.floor_divide, accepts="number", sym="floor(x/y)",
    partials=lambda out, x, y: (None, None), edges=(0.0,),
)  # fmt: skip
quotient = gate(
    "quotient", "The quotient of integers without its fraction, 0 for a zero divisor; integer "
    "division of large ones branches here.", body=s.quot, accepts="int", ulp=None,
)  # fmt: skip
floor_divide_huge = gate(
    "floor_divide_huge", "NumPy's rounding of a large quotient; `floor_divide` branches here.",
    body=remainder_bodies.floor_divide_huge, sym="floor(x/y)",
    partials=lambda out, x, y: (None, None),
)  # fmt: skip
remainder = gate(
    "remainder", "What division leaves, with the divisor's sign; of integers 0 for a zero divisor.",
    body=remainder_bodies.remainder, accepts="number", sym="x - y*floor(x/y)",
    partials=lambda out, x, y: (1, -floor_divide(x, y)), edges=(0.0,),
)  # fmt: skip
fmod = gate(
    "fmod", "What division leaves, with the sign of x; of integers 0 for a zero divisor.",
    body=remainder_bodies.fmod, accepts="number", sym="x - y*sign(x*y)*floor(Abs(x/y))",
    partials=lambda out, x, y: (1, round_((out - x) / y)), edges=(0.0,),
)  # fmt: skip
fmod_huge: Elementwise = gate(
    "fmod_huge", "fmod of any two floats, by long division; `fmod` and its kin branch here.",
    body=remainder_bodies.fmod_huge, sym="x - y*sign(x*y)*floor(Abs(x/y))",
    partials=lambda out, x, y: (1, round_((out - x) / y)),
)  # fmt: skip
copysign: Elementwise = gate(
    "copysign", "The magnitude of x with the sign of y, be it of a zero; + of a NaN.",
    body=order_bodies.copysign, sym="Abs(x)*sign(y)",
    partials=lambda out, x, y: (sign(x) * copysign(x.constant(1), y), None), edges=(0.0,),
)  # fmt: skip

# -- order and choice ------------------------------------------------------------------------------


def _ties(x: Value, y: Value, first: Value) -> tuple[Value, Value]:
    """Diagonals of a two-way selection: 1 for the chosen operand, 1/2 and 1/2 where they tie."""
    half = where(eq(x, y), x.constant(0.5), where(first, x.constant(1), x.constant(0)))
    return half, 1 - half


maximum = gate(
    "maximum", "The larger; NaN if either is; -0 < +0; ties share the gradient.",
    body=order_bodies.maximum, accepts="number", sym="Max(x, y)",
    partials=lambda out, x, y: _ties(x, y, lt(y, x)), edges=(0.0,),
)  # fmt: skip
minimum = gate(
    "minimum", "The smaller; NaN if either is; -0 < +0; ties share the gradient.",
    body=order_bodies.minimum, accepts="number", sym="Min(x, y)",
    partials=lambda out, x, y: _ties(x, y, lt(x, y)), edges=(0.0,),
)  # fmt: skip
fmax = gate(
    "fmax", "The larger; of a number and NaN the number; -0 < +0; ties share the gradient.",
    body=order_bodies.fmax, accepts="number", sym="Max(x, y)",
    partials=lambda out, x, y: _ties(x, y, logical_or(lt(y, x), isnan(y))), edges=(0.0,),
)  # fmt: skip
fmin = gate(
    "fmin", "The smaller; of a number and NaN the number; -0 < +0; ties share the gradient.",
    body=order_bodies.fmin, accepts="number", sym="Min(x, y)",
    partials=lambda out, x, y: _ties(x, y, logical_or(lt(x, y), isnan(y))), edges=(0.0,),
)  # fmt: skip
heaviside = gate(
    "heaviside", "0 below and 1 above 0, and `middle` at 0.", body=order_bodies.heaviside,
    sym="(1 + sign(x))/2 + (middle - 1/2)*(1 - Abs(sign(x)))", edges=(0.0,),
    partials=lambda out, x, middle: (None, where(eq(x, 0), x.constant(1), x.constant(0))),
)  # fmt: skip
clip = gate(
    "clip", "min(max(x, low), high); the gradient passes on the bounds, too.",
    body=order_bodies.clip, accepts="number", sym="Min(Max(x, low), high)",
    partials=lambda out, x, low, high: _clip_partials(x, low, high),
)  # fmt: skip


def _clip_partials(x: Value, low: Value, high: Value) -> tuple[Value, Value, Value]:
    one, zero = x.constant(1), x.constant(0)
    above = lt(high, maximum(x, low))
    below = logical_and(lt(x, low), logical_not(above))
    inside = logical_not(logical_or(above, below))
    return where(inside, one, zero), where(below, one, zero), where(above, one, zero)


relu = gate(
    "relu", "max(x, 0), with the derivative 0 at 0.", body=order_bodies.relu, accepts="number",
    sym="Max(x, 0)", edges=(0.0,),
    partials=lambda out, x: (where(lt(x.constant(0), x), x.constant(1), x.constant(0)),),
)  # fmt: skip
where: Elementwise = gate(
    "where", "x where the condition holds, else y; the cotangent is selected, never multiplied.",
    body=order_bodies.where, accepts="any", choice=True, ulp=None,
    transposed=lambda ct, c, *_: (None, where(c, ct, ct.constant(0)), where(c, ct.constant(0), ct)),
)  # fmt: skip
lt: Elementwise = gate(
    "lt", "x < y.", body=lambda x, y: order_bodies.less(x, y),
    accepts="any", result="bool", ulp=None,
)  # fmt: skip
le = gate(
    "le", "x <= y.", body=lambda x, y: order_bodies.less_equal(x, y),
    accepts="any", result="bool", ulp=None,
)  # fmt: skip
eq: Elementwise = gate(
    "eq", "x == y.", body=lambda x, y: order_bodies.equal(x, y),
    accepts="any", result="bool", ulp=None,
)  # fmt: skip
ne = gate(
    "ne", "x != y.", body=lambda x, y: ~order_bodies.equal(x, y),
    accepts="any", result="bool", ulp=None,
)  # fmt: skip
gt = gate(
    "gt", "x > y.", body=lambda x, y: order_bodies.less(y, x),
    accepts="any", result="bool", ulp=None,
)  # fmt: skip
ge = gate(
    "ge", "x >= y.", body=lambda x, y: order_bodies.less_equal(y, x),
    accepts="any", result="bool", ulp=None,
)  # fmt: skip
logical_and: Elementwise = gate(
    "logical_and", "Both.", body=lambda x, y: x & y, accepts="bool", ulp=None
)
logical_or: Elementwise = gate(
    "logical_or", "Either.", body=lambda x, y: x | y, accepts="bool", ulp=None
)
logical_xor = gate("logical_xor", "Exactly one.", body=lambda x, y: x ^ y, accepts="bool", ulp=None)
logical_not: Elementwise = gate("logical_not", "Not.", body=lambda x: ~x, accepts="bool", ulp=None)
isnan: Elementwise = gate("isnan", "x is NaN.", body=s.is_nan, result="bool", ulp=None)
isfinite = gate(
    "isfinite", "x is neither NaN nor infinite.", body=lambda x: abs(x) < float("inf"),
    result="bool", ulp=None,
)  # fmt: skip
isinf = gate(
    "isinf", "x is infinite.", body=lambda x: s.equal(abs(x), float("inf")),
    result="bool", ulp=None,
)  # fmt: skip

# -- rounding and casts ----------------------------------------------------------------------------

floor = gate(
    "floor", "Largest integer not above x.", body=s.floor, sym="floor(x)",
    partials=lambda out, x: (None,),
)  # fmt: skip
ceil = gate(
    "ceil", "Smallest integer not below x.", body=lambda x: -s.floor(-x), sym="ceiling(x)",
    partials=lambda out, x: (None,),
)  # fmt: skip
round_: Elementwise = gate(
    "round", "Nearest integer, ties to even.", body=s.rint, partials=lambda out, x: (None,),
    no_sym="sympy has no ties-to-even rounding of reals",
)  # fmt: skip
trunc = gate(
    "trunc", "The integer part.", body=order_bodies.trunc, sym="sign(x)*floor(Abs(x))",
    partials=lambda out, x: (None,),
)  # fmt: skip
cast: Elementwise = gate(
    "cast", "To another dtype; float to integer truncates, saturates, and makes 0 of NaN.",
    body=lambda x, dtype: s.convert(x, dtype) if dtype is not x.dtype else x,
    attrs=("dtype",), accepts="any", result="attr", ulp=None,
    transposed=lambda ct, x: (cast(ct, dtype=x.type.dtype) if x.type.dtype.is_float else None,),
)  # fmt: skip
stop_gradient = gate(
    "stop_gradient", "x, as a constant for every derivative.", body=lambda x: x,
    accepts="any", ulp=None, partials=lambda out, x: (None,),
)  # fmt: skip
