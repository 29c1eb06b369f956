"""What every elementwise gate is, mathematically: the judge's table, by the gate's name.

In:   a gate's name.
Out:  its `Exact`: value, partial derivatives and scales as functions of `(m, x, ...)` with m one of
      the arithmetics of `arithmetic`, where code may change course, and the special values.
Invariant: nothing here comes from bodies, partials or code generation.

A derivative is judged in units of the last place of itself, or, where it crosses zero by
cancellation, of its `scale`: the largest addend of the formula that is written here.

>>> import numpy as np
>>> from graphc.selftest.arithmetic import Bulk
>>> EXACT["tanh"].partials[0](Bulk(np.float64), np.array([0.0]))
array([1.])
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

Function = Callable[..., Any]  # of an arithmetic and the arguments
LN2 = math.log(2.0)
INF = math.inf


@dataclass(frozen=True)
class Exact:
    """One gate's mathematics."""

    value: Function
    partials: tuple[Function | None, ...] = ()  # None: zero, or not defined
    scale: Function | None = None  # of the value; None: the value itself
    scales: tuple[Function | None, ...] = ()  # of the partials
    breaks: tuple[float, ...] = ()  # where code may change course
    live: tuple[float, float] = (-10.0, 10.0)  # where the function is neither constant nor huge
    where: Function | None = None  # of NumPy arrays: arguments that the gate takes
    at: str = ""  # values at 0, -0, inf, -inf, nan; ~0 is a zero of either sign
    pairs: str = ""  # the recipe for further pairs, in `points`
    slow: bool = False  # judge and mpmath are slow: fewer points
    # arguments whose derivatives are not judged, and why
    spare: Function | None = None
    why: str = ""
    higher: bool = False  # the partials are second derivatives: reported, held to no contract
    library: str = ""  # the C function that knows the special pairs
    equals: str = ""  # the NumPy function that defines the value to the last bit


def _one(m: Any, *x: Any) -> Any:
    return 0 * x[0] + 1


def _largest(m: Any, *addends: Any) -> Any:
    found = abs(addends[0])
    for a in addends[1:]:
        found = m.maximum(found, abs(a))
    return found


EXACT: dict[str, Exact] = {}


def _enter(name: str, value: Any, *partials: Function | None, **fields: Any) -> None:
    EXACT[name] = Exact(value, partials, **fields)


def _least(x: Any) -> float:
    """The smallest normal number of an array's dtype: 2^-126 or 2^-1022."""
    return 2.0**-126 if x.dtype.itemsize == 4 else 2.0**-1022


def _leaves_range(x: Any) -> Any:
    """Of an array, where it is infinite, subnormal or 0."""
    return (abs(x) < _least(x)) | (abs(x) == INF)


def _epsilon(x: Any) -> float:
    return 2.0**-24 if x.dtype.itemsize == 4 else 2.0**-53


# -- arithmetic, rounded once ----------------------------------------------------------------------

_enter("add", lambda m, x, y: x + y, _one, _one)
_enter("sub", lambda m, x, y: x - y, _one, lambda m, x, y: 0 * x - 1)
_enter("mul", lambda m, x, y: x * y, lambda m, x, y: y, lambda m, x, y: x)
_enter("mul0", lambda m, x, y: x * y, lambda m, x, y: y, lambda m, x, y: x)
_enter("div", lambda m, x, y: x / y, lambda m, x, y: 1 / y, lambda m, x, y: -x / y / y,
       spare=lambda x, y: abs(x / y) < _least(x),
       why="the derivative by y is made of x / y, here subnormal")  # fmt: skip
_enter("neg", lambda m, x: -x, lambda m, x: 0 * x - 1, at="-0 0 -inf inf nan")
_enter("abs", lambda m, x: abs(x), lambda m, x: m.sign(x), at="0 0 inf inf nan")
_enter("sign", lambda m, x: m.sign(x), at="0 0 1 -1 nan")
_enter("square", lambda m, x: x * x, lambda m, x: 2 * x, at="0 0 inf inf nan")
_enter("sqrt", lambda m, x: m.sqrt(x), lambda m, x: 0.5 / m.sqrt(x), at="0 -0 inf nan nan")
_enter("reciprocal", lambda m, x: 1 / x, lambda m, x: -1 / x / x, at="inf -inf 0 -0 nan")
_enter("floor", lambda m, x: m.floor(x), breaks=(-1.0, 1.0, 2.0**52), at="0 -0 inf -inf nan")
_enter("ceil", lambda m, x: m.ceil(x), breaks=(-1.0, 1.0, 2.0**52), at="0 -0 inf -inf nan")
_enter("round", lambda m, x: m.rint(x), breaks=(-1.5, -0.5, 0.5, 1.5, 2.5, 2.0**52),
       at="0 -0 inf -inf nan")  # fmt: skip
_enter("trunc", lambda m, x: m.trunc(x), breaks=(-1.0, 1.0, 2.0**52), at="0 -0 inf -inf nan")
_enter("relu", lambda m, x: m.maximum(x, 0 * x), lambda m, x: m.maximum(m.sign(x), 0 * x))


def _chosen(m: Any, x: Any, y: Any) -> Any:
    """1 where x > y, 1/2 at a tie."""
    return (1 + m.sign(m.where(x == y, 0 * x, x - y))) / 2


_enter("maximum", lambda m, x, y: m.maximum(x, y), _chosen, lambda m, x, y: _chosen(m, y, x),
       pairs="close")  # fmt: skip
_enter("minimum", lambda m, x, y: m.minimum(x, y), lambda m, x, y: _chosen(m, y, x), _chosen,
       pairs="close")  # fmt: skip
_enter("clip", lambda m, x, low, high: m.minimum(m.maximum(x, low), high))
_enter("fmax", lambda m, x, y: m.maximum(x, y), _chosen, lambda m, x, y: _chosen(m, y, x),
       pairs="close", library="fmax")  # fmt: skip
_enter("fmin", lambda m, x, y: m.minimum(x, y), lambda m, x, y: _chosen(m, y, x), _chosen,
       pairs="close", library="fmin")  # fmt: skip
_enter("copysign", lambda m, x, y: m.copysign(x, y),
       lambda m, x, y: m.sign(x) * m.copysign(_one(m, x), y), None,
       library="copysign")  # fmt: skip
_enter("heaviside", lambda m, x, y: m.where(x < 0, 0 * x, m.where(x == 0, y, _one(m, x))))


def _remainder(m: Any, x: Any, y: Any) -> Any:
    r = m.fmod(x, y)
    return m.where((r != 0) & ((r < 0) != (y < 0)), r + y, r)


def _quotient(m: Any, x: Any, y: Any) -> Any:
    return m.rint((x - m.fmod(x, y)) / y)


def _floored(m: Any, x: Any, y: Any) -> Any:
    return m.rint((x - _remainder(m, x, y)) / y)


# The whole quotient, of which derivatives are made, may be off by a unit of its last place.
_enter("fmod", lambda m, x, y: m.fmod(x, y), _one, lambda m, x, y: -_quotient(m, x, y),
       pairs="quotient", library="fmod")  # fmt: skip
_enter("remainder", _remainder, _one, lambda m, x, y: -_floored(m, x, y), pairs="quotient")
_enter("floor_divide", _floored, None, None, pairs="quotient", equals="floor_divide")
_enter("fmod_huge", EXACT["fmod"].value, *EXACT["fmod"].partials, pairs="quotient", library="fmod")
_enter("floor_divide_huge", _floored, None, None, pairs="quotient", equals="floor_divide",
       where=lambda x, y: abs(x) > abs(y) * 2.0**52)  # fmt: skip

# -- exponentials, logarithms, powers --------------------------------------------------------------

_halves = tuple(k * LN2 / 2 for k in range(-9, 10))

_enter("exp", lambda m, x: m.exp(x), lambda m, x: m.exp(x),
       breaks=(*_halves, -745.2, -708.4, 709.78, -103.97, -87.34, 88.72),
       live=(-750, 720), at="1 1 inf 0 nan")  # fmt: skip
_enter("expm1", lambda m, x: m.expm1(x), lambda m, x: m.exp(x),
       breaks=(*_halves, -40.0, 37.0, 709.78, 88.72, -17.3), live=(-50, 720),
       at="0 -0 inf -1 nan")  # fmt: skip
_enter("exp2", lambda m, x: m.exp2(x), lambda m, x: m.ln2 * m.exp2(x),
       breaks=(0.5, 1.0, -1.0, -0.5, -1074.0, -1075.0, -1022.0, 1024.0, -149.0, -126.0, 128.0),
       live=(-1080, 1030), at="1 1 inf 0 nan",
       spare=lambda x: x >= (128 if x.itemsize == 4 else 1024), why="2^x overflows")  # fmt: skip
_enter("log", lambda m, x: m.log(x), lambda m, x: 1 / x,
       breaks=(0.5**0.5, 0.75, 1.0, 1.5, 2**0.5, 2.0**-1022, 2.0**-126), live=(0, 100),
       at="-inf -inf inf nan nan")  # fmt: skip
_enter("log2", lambda m, x: m.log2(x), lambda m, x: 1 / (x * m.ln2),
       breaks=(0.5**0.5, 0.75, 1.0, 1.5, 2**0.5, 2.0**-1022, 2.0**-126), live=(0, 100),
       at="-inf -inf inf nan nan")  # fmt: skip
_enter("log10", lambda m, x: m.log10(x), lambda m, x: 1 / (x * m.log(m.number(10))),
       breaks=(0.5**0.5, 0.75, 1.0, 1.5, 2**0.5, 10.0, 100.0, 2.0**-1022, 2.0**-126), live=(0, 100),
       at="-inf -inf inf nan nan")  # fmt: skip
_enter("log1p", lambda m, x: m.log1p(x), lambda m, x: 1 / (1 + x),
       breaks=(0.5**0.5 - 1, -0.25, 0.5, 1e-18, 2**0.5 - 1, 2.0**53, 2.0**24, -1.0), live=(-1, 10),
       at="0 -0 inf nan nan")  # fmt: skip


def _power_by_x(m: Any, x: Any, y: Any) -> Any:
    """y x^(y-1) as y x^y / x, which needs no rounded y - 1."""
    at_zero = m.where(y == 1, _one(m, y), m.where((0 < y) & (y < 1), INF, m.where(
        y < 0, -INF, 0 * y)))  # fmt: skip
    return m.where(x == 0, at_zero, y * m.pow(x, y) / m.where(x == 0, _one(m, x), x))


def _power_by_y(m: Any, x: Any, y: Any) -> Any:
    return m.where((x == 0) & (y > 0), 0 * x, m.pow(x, y) * m.log(x))


_enter("power", lambda m, x, y: m.pow(x, y), _power_by_x, _power_by_y, live=(0, 20), pairs="power",
       library="pow", spare=lambda x, y: (x < 0) & (abs(y) * _epsilon(y) >= 1)
       | (x != 0) & (_leaves_range(x**y) | _leaves_range(x ** (y - 1))) | (x == 0) & (1 / x < 0),
       why="x^y or x^(y-1) leaves the normal numbers, x is -0, or x < 0 and y is too large to be "
       "odd")  # fmt: skip
_enter("cbrt", lambda m, x: m.cbrt(x), lambda m, x: 1 / (3 * m.cbrt(x) ** 2),
       breaks=(1.0, 2.0, 4.0, 8.0), at="0 -0 inf -inf nan")  # fmt: skip
_enter("rsqrt", lambda m, x: 1 / m.sqrt(x), lambda m, x: -0.5 / (x * m.sqrt(x)), live=(0, 10),
       breaks=(1.0, 2.0, 4.0), at="inf -inf 0 nan nan", spare=lambda x: (x == 0) & (1 / x < 0),
       why="x is -0")  # fmt: skip
_enter("rsqrt_special", EXACT["rsqrt"].value, *EXACT["rsqrt"].partials, live=(0, 10),
       breaks=(1.0, 2.0, 4.0), at="inf -inf 0 nan nan", spare=lambda x: (x == 0) & (1 / x < 0),
       why="x is -0")  # fmt: skip
_enter("hypot", lambda m, x, y: m.hypot(x, y),
       lambda m, x, y: x / m.where((x == 0) & (y == 0), _one(m, x), m.hypot(x, y)),
       lambda m, x, y: y / m.where((x == 0) & (y == 0), _one(m, x), m.hypot(x, y)),
       pairs="close", library="hypot")  # fmt: skip


def _logadd(m: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """The larger of two, and log(1 + e^-d), d their distance."""
    same = x == y
    return m.maximum(x, y), m.log1p(m.exp(-abs(m.where(same, 0 * m.minimum(abs(x), 1), x - y))))


def _share(m: Any, x: Any, y: Any, base: str = "exp") -> Any:
    """1 / (1 + base^(y - x)); what rounding y - x lost is put back."""
    d = y - x
    back = d + x
    lost = (y - back) + (back - d - x)
    e = getattr(m, base)(-abs(d))
    rest = m.where(abs(lost) < abs(d), lost, 0 * lost) * (1 if base == "exp" else m.ln2)
    near, far = 1 / (1 + e), e / (1 + e)
    return m.where(d > 0, far * (1 - rest * near), near * (1 - rest * far))


_enter("logaddexp", lambda m, x, y: sum(_logadd(m, x, y)),
       lambda m, x, y: _share(m, x, y), lambda m, x, y: _share(m, y, x),
       scale=lambda m, x, y: _largest(m, *_logadd(m, x, y)), pairs="close",
       live=(-50, 50))  # fmt: skip
_enter("logaddexp2",
       lambda m, x, y: m.maximum(x, y) + m.log1p(m.exp2(-abs(x - y))) / m.ln2,
       lambda m, x, y: _share(m, x, y, "exp2"), lambda m, x, y: _share(m, y, x, "exp2"),
       scale=lambda m, x, y: _largest(m, x, y, m.log1p(m.exp2(-abs(x - y))) / m.ln2),
       pairs="close", live=(-50, 50))  # fmt: skip


def _times_log(log: str, m: Any, x: Any, y: Any) -> Any:
    skip = x == 0
    f = m.log if log == "log" else m.log1p
    return m.where(skip, 0 * x, x * f(m.where(skip, _one(m, y), y)))


_enter("xlogy", lambda m, x, y: _times_log("log", m, x, y), lambda m, x, y: m.log(y),
       lambda m, x, y: m.where(x == 0, 0 * x, x / y), live=(0, 20), pairs="positive",
       spare=lambda x, y: (x == 0) & (y == 0), why="x and y are 0")  # fmt: skip
_enter("xlog1py", lambda m, x, y: _times_log("log1p", m, x, y), lambda m, x, y: m.log1p(y),
       lambda m, x, y: x / (1 + y), live=(-1, 20), pairs="positive",
       spare=lambda x, y: (x == 0) & (y == -1), why="x is 0 and y is -1")  # fmt: skip

# -- trigonometric ---------------------------------------------------------------------------------

_quarters = tuple(k * math.pi / 4 for k in range(-9, 10))
_turns = (*_quarters, 1.6e6, 1.0e5, 2.0**20 * math.pi / 2, 1e22, 5.319372648326541e255)

_enter("sin", lambda m, x: m.sin(x), lambda m, x: m.cos(x), breaks=_turns, at="0 -0 nan nan nan")
_enter("cos", lambda m, x: m.cos(x), lambda m, x: -m.sin(x), breaks=_turns, at="1 1 nan nan nan")
_enter("tan", lambda m, x: m.tan(x), lambda m, x: 1 / m.cos(x) ** 2, breaks=_turns,
       at="0 -0 nan nan nan")  # fmt: skip
_enter("sinc", lambda m, x: m.where(x == 0, _one(m, x), m.sinpi(x) / (m.pi * m.where(
       x == 0, _one(m, x), x))), lambda m, x: m.sinc_slope(x),
       scales=(lambda m, x: m.where(abs(x) < 0.5, 0 * x, 1 / m.maximum(abs(x), 0.5)),),
       breaks=(0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 2.0**51, 2.0**52, 2.0**53),
       at="1 1 nan nan nan")  # fmt: skip
_enter("asin", lambda m, x: m.asin(x), lambda m, x: 1 / m.sqrt((1 - x) * (1 + x)),
       breaks=(0.5, 0.5**0.5, 0.75, 1.0, -0.5, -1.0), live=(-1, 1),
       at="0 -0 nan nan nan")  # fmt: skip
_enter("acos", lambda m, x: m.acos(x), lambda m, x: -1 / m.sqrt((1 - x) * (1 + x)),
       breaks=(0.5, 0.5**0.5, 0.75, 1.0, -0.5, -1.0), live=(-1, 1),
       at="1.5707963267948966 1.5707963267948966 nan nan nan")  # fmt: skip
_enter("atan", lambda m, x: m.atan(x), lambda m, x: 1 / (1 + x * x),
       breaks=(0.4375, 0.5, 2**0.5 - 1, 0.6875, 1.0, 1.1875, 2.0, 2.4375, 2**0.5 + 1),
       at="0 -0 1.5707963267948966 -1.5707963267948966 nan")  # fmt: skip


def _over_square(m: Any, a: Any, x: Any, y: Any) -> Any:
    """a / (x^2 + y^2), 0 at the origin."""
    h = m.hypot(x, y)
    return m.where(h == 0, 0 * a, a / m.where(h == 0, _one(m, h), h) / m.where(h == 0, 1, h))


_enter("atan2", lambda m, y, x: m.atan2(y, x), lambda m, y, x: _over_square(m, x, x, y),
       lambda m, y, x: _over_square(m, -y, x, y), pairs="close", library="atan2")  # fmt: skip

# -- hyperbolic and what neural networks make of them ----------------------------------------------

_enter("sinh", lambda m, x: m.sinh(x), lambda m, x: m.cosh(x),
       breaks=(0.3, 0.5, 1.0, 9.0, 18.0, 22.0, 40.0, 88.7, 89.4, 709.78, 710.47), live=(-30, 30),
       at="0 -0 inf -inf nan")  # fmt: skip
_enter("cosh", lambda m, x: m.cosh(x), lambda m, x: m.sinh(x),
       breaks=(0.3, 0.5, 1.0, 9.0, 18.0, 22.0, 40.0, 88.7, 89.4, 709.78, 710.47), live=(-30, 30),
       at="1 1 inf inf nan")  # fmt: skip
# Where tanh goes from one point of its table to the next.
_between = tuple((k + 0.5) * step for step, n in ((1.27, 15), (1.205, 7)) for k in range(n))
_enter("tanh", lambda m, x: m.tanh(x), lambda m, x: 1 / m.cosh(x) ** 2,
       breaks=(*_halves, *_between, 0.17, 9.011, 18.2, 18.7, 19.0616, 22.5, 372.5, 44.0),
       live=(-20, 20), at="0 -0 1 -1 nan")  # fmt: skip
_enter("tanh_partial", lambda m, x: 1 / m.cosh(x) ** 2,
       lambda m, x: -2 * m.tanh(x) / m.cosh(x) ** 2,
       breaks=(*_halves, *_between, 9.011, 19.0616, 372.5, 44.0), live=(-30, 30), higher=True,
       at="1 1 0 0 nan")  # fmt: skip
_enter("tanh_partial_far", lambda m, x: 4 * m.exp(-2 * abs(x)),
       lambda m, x: -8 * m.sign(x) * m.exp(-2 * abs(x)), breaks=(9.011, 19.1, 372.5, 52.0),
       live=(-30, 30), at="4 4 0 0 nan")  # fmt: skip
_enter("asinh", lambda m, x: m.asinh(x), lambda m, x: 1 / m.sqrt(1 + x * x),
       breaks=(0.35, 0.5, 0.75, 1.0, 2.0, 2.0**27, 2.0**28, 2.0**13, 1e154, 1e19),
       at="0 -0 inf -inf nan")  # fmt: skip
_enter("asinh_partial", EXACT["asinh"].partials[0],
       lambda m, x: -x / m.sqrt(1 + x * x) / (1 + x * x), breaks=EXACT["asinh"].breaks,
       higher=True)  # fmt: skip
_enter("acosh", lambda m, x: m.acosh(x), lambda m, x: 1 / m.sqrt((x - 1) * (x + 1)),
       breaks=(1.0, 1.25, 1.5, 2.0, 2.0**27, 2.0**28, 2.0**13, 1e154, 1e19), live=(1, 20),
       at="nan nan inf nan nan")  # fmt: skip
_enter("acosh_partial", EXACT["acosh"].partials[0],
       lambda m, x: -x / m.sqrt((x - 1) * (x + 1)) / ((x - 1) * (x + 1)),
       breaks=EXACT["acosh"].breaks, live=(1, 20), where=lambda x: x >= 1, higher=True)  # fmt: skip
_enter("atanh", lambda m, x: m.atanh(x), lambda m, x: 1 / ((1 - x) * (1 + x)),
       breaks=(0.1, 0.25, 1 / 3, 0.5, 1.0, -0.5, -1.0), live=(-1, 1),
       at="0 -0 nan nan nan")  # fmt: skip


def _sigmoid(m: Any, x: Any) -> Any:
    return 1 / (1 + m.exp(-x))


def _sigmoid_slope(m: Any, x: Any) -> Any:
    e = m.exp(-abs(x))
    return e / (1 + e) ** 2


def _softplus(m: Any, x: Any) -> Any:
    return m.maximum(x, 0 * x) + m.log1p(m.exp(-abs(x)))


_far = (*_halves, -LN2, 16.6, 17.4, 36.7, 37.4, 40.0, -36.7, -708.4, -745.1, 708.4, -87.3, -103.9)
_enter("sigmoid", _sigmoid, _sigmoid_slope, breaks=_far, live=(-50, 50), at="0.5 0.5 1 0 nan")
_enter("sigmoid_partial", _sigmoid_slope, lambda m, x: -_sigmoid_slope(m, x) * m.tanh(x / 2),
       breaks=_far, live=(-50, 50), higher=True, at="0.25 0.25 0 0 nan")  # fmt: skip
_enter("softplus", _softplus, _sigmoid, breaks=_far, live=(-50, 50),
       at="0.6931471805599453 0.6931471805599453 inf 0 nan")  # fmt: skip
_enter("softplus_partial", _sigmoid, _sigmoid_slope, breaks=_far, live=(-50, 50),
       at="0.5 0.5 1 0 nan")  # fmt: skip
_enter("log_sigmoid", lambda m, x: -_softplus(m, -x), lambda m, x: _sigmoid(m, -x),
       breaks=_far, live=(-50, 50),
       at="-0.6931471805599453 -0.6931471805599453 ~0 -inf nan")  # fmt: skip


def _silu_addends(m: Any, x: Any) -> tuple[Any, Any]:
    return _sigmoid(m, x), x * _sigmoid_slope(m, x)


def _silu_bend(m: Any, x: Any) -> tuple[Any, Any]:
    s = _sigmoid_slope(m, x)
    return 2 * s, -x * s * m.tanh(x / 2)


_enter("silu", lambda m, x: x * _sigmoid(m, x), lambda m, x: sum(_silu_addends(m, x)),
       scales=(lambda m, x: _largest(m, *_silu_addends(m, x)),),
       breaks=(*_far, -1.2784645427610738), live=(-50, 50), at="0 -0 inf ~0 nan")  # fmt: skip
_enter("silu_partial", lambda m, x: sum(_silu_addends(m, x)), lambda m, x: sum(_silu_bend(m, x)),
       scale=lambda m, x: _largest(m, *_silu_addends(m, x)), higher=True,
       scales=(lambda m, x: _largest(m, *_silu_bend(m, x)),), breaks=(*_far, -1.2784645427610738),
       live=(-50, 50))  # fmt: skip

# -- the error function and its kin ----------------------------------------------------------------

_erf_breaks = (0.25, 0.46875, 0.5, 0.84375, 0.921875, 1.0, 1.25, 1.5, 2.0, 2.5, 2.857, 3.0, 3.2,
               3.5, 3.92, 4.0, 5.0, 5.92, 6.0, 8.0, 9.19, 9.3, 10.05, 26.54, 26.64, 27.2,
               27.23)  # fmt: skip
_tails = (*_erf_breaks, *(-b for b in _erf_breaks))
_normal = (*_tails, *(b * 2**0.5 for b in _tails))


def _erf_slope(m: Any, x: Any) -> Any:
    return 2 / m.sqrt(m.pi) * m.bell(x)


def _density(m: Any, x: Any) -> Any:
    return m.bell(x, 2) / m.sqrt(2 * m.pi)


def _erfinv_slope(m: Any, x: Any) -> Any:
    y = m.erfinv(x)
    return m.sqrt(m.pi) / 2 * m.exp(y * y)


_enter("erf", lambda m, x: m.erf(x), _erf_slope, breaks=_tails, live=(-6.5, 6.5),
       at="0 -0 1 -1 nan")  # fmt: skip
_enter("erf_partial", _erf_slope, lambda m, x: -2 * x * _erf_slope(m, x), breaks=_tails,
       live=(-28, 28), higher=True)  # fmt: skip
_enter("erfc", lambda m, x: m.erfc(x), lambda m, x: -_erf_slope(m, x), breaks=_tails,
       live=(-7, 28), at="1 1 0 2 nan")  # fmt: skip
_enter("erfinv", lambda m, x: m.erfinv(x), _erfinv_slope,
       breaks=(0.25, 0.5, 0.7, 0.75, 0.85, 0.9375, 0.97, 0.9966, 0.999, 0.99999, 1.0, -1.0),
       live=(-1, 1), slow=True, at="0 -0 nan nan nan")  # fmt: skip
_enter("erfinv_partial", _erfinv_slope,
       lambda m, x: 2 * m.erfinv(x) * _erfinv_slope(m, x) ** 2,
       breaks=(0.25, 0.5, 0.7, 0.75, 0.85, 0.9375, 0.97, 0.9966, 0.999, 0.99999, 1.0, -1.0),
       live=(-1, 1), slow=True, higher=True)  # fmt: skip
_enter("ndtr", lambda m, x: m.ndtr(x), _density, breaks=_normal, live=(-39, 9),
       at="0.5 0.5 1 0 nan")  # fmt: skip
_enter("ndtr_partial", _density, lambda m, x: -x * _density(m, x), breaks=_normal,
       live=(-39, 39), higher=True)  # fmt: skip
_enter("log_ndtr", lambda m, x: m.log_ndtr(x), lambda m, x: m.mills(x),
       breaks=(*_normal, -20.0, -50.0, -1e4), live=(-50, 10),
       at="-0.6931471805599453 -0.6931471805599453 ~0 -inf nan")  # fmt: skip


_enter("log_ndtr_partial", lambda m, x: m.mills(x), lambda m, x: -m.mills(x) * (x + m.mills(x)),
       scales=(lambda m, x: m.mills(x) * _largest(m, x, m.mills(x)),), breaks=_normal,
       live=(-50, 10), higher=True, slow=True)  # fmt: skip


def _gelu_addends(m: Any, x: Any) -> tuple[Any, Any]:
    return m.ndtr(x), x * _density(m, x)


def _gelu_bend(m: Any, x: Any) -> tuple[Any, Any]:
    d = _density(m, x)
    return 2 * d, -x * x * d


_enter("gelu", lambda m, x: x * m.ndtr(x), lambda m, x: sum(_gelu_addends(m, x)),
       scales=(lambda m, x: _largest(m, *_gelu_addends(m, x)),),
       breaks=(*_normal, -0.7517915246935645), live=(-39, 9), at="0 -0 inf ~0 nan")  # fmt: skip
_enter("gelu_partial", lambda m, x: sum(_gelu_addends(m, x)), lambda m, x: sum(_gelu_bend(m, x)),
       scale=lambda m, x: _largest(m, *_gelu_addends(m, x)), higher=True,
       scales=(lambda m, x: _largest(m, *_gelu_bend(m, x)),),
       breaks=(*_normal, -0.7517915246935645), live=(-39, 9))  # fmt: skip

# -- the gamma function's kin ----------------------------------------------------------------------

_gamma_breaks = (0.25, 0.5, 0.7, 0.75, 1.0, 1.25, 1.4616321449683622, 1.5, 1.73, 2.0, 2.5, 3.0, 4.0,
                 6.0, 7.0, 8.0, 10.0, 12.0, 13.0, 16.0, 20.0, 40.0, 2.0**58, 2.5e305, 4.0e36, -0.5,
                 -1.0, -1.5, -2.0, -2.4570247382208006, -2.747682646727413, -3.0, -3.5, -10.5,
                 -20.5, -0.5040830082644554, -1.5734984731623904)  # fmt: skip


def _lgamma_scale(m: Any, x: Any) -> Any:
    """For x < 0 the reflection's addends, log |pi / sin(pi x)| and lgamma(1 - x); else none."""
    left = m.where(x < 0, x, 0 * x - 0.5)
    sine = m.sinpi(left)
    sine = m.where(sine == 0, _one(m, x), sine)
    return m.where(x < 0, m.maximum(abs(m.log(m.pi / abs(sine))), abs(m.lgamma(1 - left))),
                   0 * x)  # fmt: skip


def _digamma_scale(m: Any, x: Any) -> Any:
    """The largest of the addends log, 1/x, and the reflection's cotangent."""
    right = m.where(x > 0, x, 1 - x)
    left = m.where((x < 0) & (m.rint(x) != x), x, 0 * x + 0.5)
    tangent = m.pi * m.cospi(left) / m.sinpi(left)
    return _largest(m, m.log(right), 1 / right, m.where(x < 0, tangent, 0 * x))


def _tetragamma_scale(m: Any, x: Any) -> Any:
    left = m.where((x < 0) & (m.rint(x) != x), x, 0 * x + 0.5)
    term = 2 * (m.pi / m.sinpi(left)) ** 3 * m.cospi(left)
    return m.where(x < 0, _largest(m, term, m.tetragamma(1 - left)), 0 * x)


_not_pole = lambda x: (x > 0) | ((x < 0) & (x != x.round()))

_enter("lgamma", lambda m, x: m.lgamma(x), lambda m, x: m.digamma(x), scale=_lgamma_scale,
       scales=(_digamma_scale,), breaks=_gamma_breaks, live=(-20, 20), where=_not_pole, slow=True,
       at="inf inf inf inf nan")  # fmt: skip
_enter("digamma", lambda m, x: m.digamma(x), lambda m, x: m.trigamma(x), scale=_digamma_scale,
       breaks=_gamma_breaks, live=(-20, 20), where=_not_pole, slow=True,
       at="-inf inf inf nan nan")  # fmt: skip
_enter("trigamma", lambda m, x: m.trigamma(x), lambda m, x: m.tetragamma(x),
       scales=(_tetragamma_scale,), breaks=_gamma_breaks, live=(-20, 20), where=_not_pole,
       slow=True, at="inf inf 0 nan nan")  # fmt: skip
_enter("tetragamma", lambda m, x: m.tetragamma(x), lambda m, x: m.pentagamma(x),
       scale=_tetragamma_scale, breaks=_gamma_breaks, live=(-20, 20), where=_not_pole, slow=True,
       higher=True)  # fmt: skip


def _turned(m: Any, x: Any, quarters: Any) -> Any:
    """sin(x + n pi/2), n the integer nearest to `quarters`."""
    n = m.rint(quarters)
    turn = n - 4 * m.floor(n / 4)
    even, odd = m.sin(x), m.cos(x)
    return m.where(turn == 0, even, m.where(turn == 1, odd, m.where(turn == 2, -even, -odd)))


_enter("sin_huge", _turned, lambda m, x, quarters: _turned(m, x, quarters + 1), None,
       live=(1.7e6, 1e9), breaks=(2e6, 1e22, 5.319372648326541e255),
       where=lambda x, quarters: (abs(x) > 1.7e6) & (abs(quarters) < 2.0**20))  # fmt: skip

DERIVATIVES = {"_partial": 0, "_first": 0, "_second": 1}  # which of a gate's, by its name's end


def exact_of(name: str) -> Exact | None:
    """A gate's entry; of NAME_partial, NAME_first or NAME_second without one, NAME's derivative."""
    if name in EXACT:
        return EXACT[name]
    base, end = next(((name.removesuffix(e), e) for e in DERIVATIVES if name.endswith(e)), ("", ""))
    if base not in EXACT:
        return None
    of, i = EXACT[base], DERIVATIVES[end]
    slope = of.partials[i] if i < len(of.partials) else None
    if slope is None:
        return None
    nothing, scale = (None,) * len(of.partials), of.scales[i] if i < len(of.scales) else None
    return replace(
        of, value=slope, partials=nothing, scale=scale, scales=(), at="", library="", equals=""
    )
