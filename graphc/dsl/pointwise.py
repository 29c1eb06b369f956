"""Elementwise functions: the registry's gates under public names, and what is written in them.

>>> import numpy as np
>>> tanh.__doc__
'Hyperbolic tangent.'
>>> str(maximum.__signature__)
"(x: 'Any', y: 'Any') -> 'Any'"
"""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np

from graphc.dsl import power as powers
from graphc.dsl.apply import Record, apply_gate, lifted, operate, undefined
from graphc.dsl.public import public
from graphc.dsl.tensor import Tensor, inverse
from graphc.gates import elementwise as gates
from graphc.gates import (
    error,
    exponential,
    gamma,
    hyperbolic,
    pairs,
    roots,
    trigonometric,
)
from graphc.ir.types import DType, TensorType, bool_, from_numpy


def _pointwise(name: str, gate: Record) -> Any:
    """The public function of a record, with its parameters and its doc."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(p, kind, annotation="Any") for p in gate.params]
    signature = inspect.Signature(parameters, return_annotation="Any")

    count = len(parameters)

    def function(*args: Any, **kwargs: Any) -> Tensor:
        if kwargs or len(args) != count:
            args = signature.bind(*args, **kwargs).args
        return apply_gate(gate, args, {})

    function.__signature__ = signature  # type: ignore[attr-defined]
    function.__name__ = function.__qualname__ = name
    function.__doc__ = gate.doc
    return public(*gate.params)(function)


add = _pointwise("add", gates.add)
subtract = _pointwise("subtract", gates.sub)
multiply = _pointwise("multiply", gates.mul)
divide = _pointwise("divide", gates.div)
true_divide = _pointwise("true_divide", gates.div)
floor_divide = _pointwise("floor_divide", gates.floor_divide)
remainder = _pointwise("remainder", gates.remainder)
mod = _pointwise("mod", gates.remainder)
negative = _pointwise("negative", gates.neg)
sign = _pointwise("sign", gates.sign)
square = _pointwise("square", gates.square)
sqrt = _pointwise("sqrt", gates.sqrt)
maximum = _pointwise("maximum", gates.maximum)
minimum = _pointwise("minimum", gates.minimum)
relu = _pointwise("relu", gates.relu)
exp = _pointwise("exp", exponential.exp)
expm1 = _pointwise("expm1", exponential.expm1)
log = _pointwise("log", exponential.log)
log1p = _pointwise("log1p", exponential.log1p)
sin = _pointwise("sin", trigonometric.sin)
cos = _pointwise("cos", trigonometric.cos)
tanh = _pointwise("tanh", hyperbolic.tanh)
sigmoid = _pointwise("sigmoid", hyperbolic.sigmoid)
softplus = _pointwise("softplus", hyperbolic.softplus)
tan = _pointwise("tan", trigonometric.tan)
arcsin = _pointwise("arcsin", trigonometric.asin)
asin = _pointwise("asin", trigonometric.asin)
arccos = _pointwise("arccos", trigonometric.acos)
acos = _pointwise("acos", trigonometric.acos)
arctan = _pointwise("arctan", trigonometric.atan)
atan = _pointwise("atan", trigonometric.atan)
arctan2 = _pointwise("arctan2", trigonometric.atan2)
atan2 = _pointwise("atan2", trigonometric.atan2)
sinc = _pointwise("sinc", trigonometric.sinc)
sinh = _pointwise("sinh", hyperbolic.sinh)
cosh = _pointwise("cosh", hyperbolic.cosh)
arcsinh = _pointwise("arcsinh", hyperbolic.asinh)
asinh = _pointwise("asinh", hyperbolic.asinh)
arccosh = _pointwise("arccosh", hyperbolic.acosh)
acosh = _pointwise("acosh", hyperbolic.acosh)
arctanh = _pointwise("arctanh", hyperbolic.atanh)
atanh = _pointwise("atanh", hyperbolic.atanh)
exp2 = _pointwise("exp2", exponential.exp2)
log2 = _pointwise("log2", exponential.log2)
log10 = _pointwise("log10", exponential.log10)
cbrt = _pointwise("cbrt", roots.cbrt)
hypot = _pointwise("hypot", roots.hypot)
fmod = _pointwise("fmod", gates.fmod)
copysign = _pointwise("copysign", gates.copysign)
heaviside = _pointwise("heaviside", gates.heaviside)
fmax = _pointwise("fmax", gates.fmax)
fmin = _pointwise("fmin", gates.fmin)
rsqrt = _pointwise("rsqrt", roots.rsqrt)
erf = _pointwise("erf", error.erf)
erfc = _pointwise("erfc", error.erfc)
erfinv = _pointwise("erfinv", error.erfinv)
ndtr = _pointwise("ndtr", error.ndtr)
log_ndtr = _pointwise("log_ndtr", error.log_ndtr)
gelu = _pointwise("gelu", error.gelu)
lgamma = _pointwise("lgamma", gamma.lgamma)
digamma = _pointwise("digamma", gamma.digamma)
trigamma = _pointwise("trigamma", gamma.trigamma)
silu = _pointwise("silu", hyperbolic.silu)
log_sigmoid = _pointwise("log_sigmoid", hyperbolic.log_sigmoid)
logaddexp = _pointwise("logaddexp", pairs.logaddexp)
logaddexp2 = _pointwise("logaddexp2", pairs.logaddexp2)
xlogy = _pointwise("xlogy", pairs.xlogy)
xlog1py = _pointwise("xlog1py", pairs.xlog1py)
rint = _pointwise("rint", gates.round_)
less = _pointwise("less", gates.lt)
less_equal = _pointwise("less_equal", gates.le)
greater = _pointwise("greater", gates.gt)
greater_equal = _pointwise("greater_equal", gates.ge)
equal = _pointwise("equal", gates.eq)
not_equal = _pointwise("not_equal", gates.ne)
logical_and = _pointwise("logical_and", gates.logical_and)
logical_or = _pointwise("logical_or", gates.logical_or)
logical_xor = _pointwise("logical_xor", gates.logical_xor)
logical_not = _pointwise("logical_not", gates.logical_not)
isnan = _pointwise("isnan", gates.isnan)
isfinite = _pointwise("isfinite", gates.isfinite)
isinf = _pointwise("isinf", gates.isinf)


@public("x")
def absolute(x: Any) -> Any:
    """|x|, with the derivative 0 at 0."""
    x = lifted(x)
    return x if x.value.dtype.is_bool else apply_gate(gates.abs_, (x,), {})


@public("x")
def positive(x: Any) -> Any:
    """x, of numbers."""
    x = lifted(x)
    if x.value.dtype.is_bool:
        raise undefined(x.recorder, "positive", x.value.dtype, [x.value])
    return x


@public("x")
def reciprocal(x: Any) -> Any:
    """1 / x, of floats."""
    x = lifted(x)
    if not x.value.dtype.is_float:
        raise undefined(x.recorder, "reciprocal", x.value.dtype, [x.value])
    return apply_gate(gates.reciprocal, (x,), {}) if x.weak else inverse(x)


@public("x", "y")
def power(x: Any, y: Any) -> Any:
    """x to the y; a literal integer y of at most 16 is a product."""
    return powers.raised(x, y, strong=True)


def _rounding(name: str, gate: Record) -> Any:
    """floor, ceil, trunc: integers and bools are whole already."""

    def function(x: Any) -> Any:
        x = lifted(x)
        return apply_gate(gate, (x,), {}) if x.value.dtype.is_float else x

    function.__name__ = function.__qualname__ = name
    function.__doc__ = gate.doc
    return public("x")(function)


floor = _rounding("floor", gates.floor)
ceil = _rounding("ceil", gates.ceil)
trunc = fix = _rounding("trunc", gates.trunc)


@public("x")
def round_(x: Any, decimals: int = 0) -> Any:
    """To the nearest multiple of 10**-decimals, ties to even."""
    x = lifted(x)
    if not x.value.dtype.is_float:
        if decimals < 0:
            raise undefined(x.recorder, "round to tens", x.value.dtype, [x.value])
        return x
    if decimals == 0:
        return apply_gate(gates.round_, (x,), {})
    if decimals > 0:
        return operate(
            gates.div, apply_gate(gates.round_, (x * 10.0**decimals,), {}), 10.0**decimals
        )
    return operate(gates.mul, apply_gate(gates.round_, (x / 10.0**-decimals,), {}), 10.0**-decimals)


@public("condition", "x", "y")
def where(condition: Any, x: Any = None, y: Any = None) -> Any:
    """x where the condition holds, else y; the gradient of the other branch cannot spoil it."""
    if x is None or y is None:
        lifted(condition)._unknown("where(condition) without x and y", "where(condition, x, y)")
    return apply_gate(gates.where, (condition, x, y), {})


@public("x", "low", "high")
def clip(x: Any, low: Any = None, high: Any = None) -> Any:
    """min(max(x, low), high); a bound of None is none; the gradient passes on the bounds, too."""
    if low is None and high is None:
        return lifted(x)
    if high is None:
        return apply_gate(gates.maximum, (x, low), {})
    if low is None:
        return apply_gate(gates.minimum, (x, high), {})
    return apply_gate(gates.clip, (x, low, high), {})


@public("x")
def astype(x: Any, dtype: Any) -> Any:
    """x in another dtype; float to integer truncates, saturates, and makes 0 of NaN."""
    x = lifted(x)
    return Tensor(x.value.cast(as_dtype(dtype)))


def as_dtype(dtype: Any) -> DType:
    """A graphc dtype of a graphc or NumPy dtype, or of Python's bool, int, float."""
    return dtype if isinstance(dtype, DType) else from_numpy(np.dtype(dtype))


@public("x")
def deg2rad(x: Any) -> Any:
    """x pi / 180."""
    return lifted(x) * (math.pi / 180)


@public("x")
def rad2deg(x: Any) -> Any:
    """x 180 / pi."""
    return lifted(x) * (180 / math.pi)


radians, degrees = deg2rad, rad2deg


@public("x", "y")
def divmod_(x: Any, y: Any) -> Any:
    """(x // y, x % y)."""
    return floor_divide(x, y), remainder(x, y)


@public("x")
def stop_gradient(x: Any) -> Any:
    """x, as a constant for every derivative."""
    return apply_gate(gates.stop_gradient, (x,), {})


@public("x")
def zeros_like(x: Any, dtype: Any = None) -> Any:
    """Zeros of the shape and dtype of x."""
    return full_like(x, 0, dtype)


@public("x")
def ones_like(x: Any, dtype: Any = None) -> Any:
    """Ones of the shape and dtype of x."""
    return full_like(x, 1, dtype)


@public("x")
def full_like(x: Any, value: bool | int | float, dtype: Any = None) -> Any:
    """One number in the shape and dtype of x."""
    x = lifted(x)
    ty = x.type if dtype is None else x.type.with_dtype(as_dtype(dtype))
    return Tensor(
        x.recorder.constant(
            bool(value) if ty.dtype is bool_ else value, TensorType(ty.dtype, ty.shape)
        )
    )
