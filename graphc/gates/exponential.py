"""Exponentials, logarithms and powers: their records."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from graphc.gates.bodies import exp as exp_bodies
from graphc.gates.bodies import log as log_bodies
from graphc.gates.bodies import power as power_bodies
from graphc.gates.elementwise import (
    Elementwise,
    abs_,
    eq,
    gate,
    isfinite,
    logical_and,
    logical_or,
    lt,
    mul0,
    reciprocal,
    where,
)

if TYPE_CHECKING:
    from graphc.ir.graph import Value

LN2, LN10 = math.log(2), math.log(10)

exp = gate(
    "exp", "e^x.", body=exp_bodies.exp, sym="exp(x)", partials=lambda out, x: (out,),
    domain=(-30, 30), edges=(-745.2, 0.0, 709.8), ulp=1.0,
)  # fmt: skip
exp2: Elementwise = gate(
    "exp2", "2^x.", body=exp_bodies.exp2, sym="2**x", partials=lambda out, x: (out * LN2,),
    domain=(-40, 40), edges=(-1074.5, 0.0, 1024.0), ulp=1.0,
)  # fmt: skip
expm1 = gate(
    "expm1", "e^x - 1 without cancellation.", body=exp_bodies.expm1, sym="exp(x) - 1",
    partials=lambda out, x: (exp(x),), domain=(-30, 30), edges=(0.0, 709.8), ulp=1.0,
)  # fmt: skip
log = gate(
    "log", "Natural logarithm.", body=log_bodies.log, sym="log(x)",
    partials=lambda out, x: (reciprocal(x),), domain=(0.01, 30), edges=(0.0, 1.0), ulp=1.0,
)  # fmt: skip
log2 = gate(
    "log2", "Logarithm to the base 2.", body=log_bodies.log2, sym="log(x)/log(2)",
    partials=lambda out, x: (x.constant(1 / LN2) / x,), domain=(0.01, 30), edges=(0.0, 1.0),
    ulp=1.0,
)  # fmt: skip
log10 = gate(
    "log10", "Logarithm to the base 10.", body=log_bodies.log10, sym="log(x)/log(10)",
    partials=lambda out, x: (x.constant(1 / LN10) / x,), domain=(0.01, 30), edges=(0.0, 1.0),
    ulp=1.0,
)  # fmt: skip
log1p = gate(
    "log1p", "log(1 + x) without cancellation.", body=log_bodies.log1p, sym="log(1 + x)",
    partials=lambda out, x: (reciprocal(1 + x),), domain=(-0.9, 30), edges=(-1.0, 0.0), ulp=1.0,
)  # fmt: skip
power = gate(
    "power", "x to the y: C99 Annex F on floats, wrapping on integers.", body=power_bodies.power,
    accepts="number", sym="x**y", partials=lambda out, x, y: power_partials(out, x, y),
    domain=(0.1, 4.0), edges=(0.0, 1.0), ulp=2.0,
)  # fmt: skip
power_special: Elementwise = gate(
    "power_special", "x to the y where `magnitude`, |x|^y of usual numbers, is not all of it; "
    "`power` branches here unless 0 < x < inf.", body=power_bodies.power_special, ulp=None,
    partials=lambda out, x, y, magnitude: (None, None, power_special(x, y, x.constant(1))),
)  # fmt: skip


def power_partials(out: Value, x: Value, y: Value) -> tuple[Value, Value]:
    """Powers at 0: d/dx at y = 0 is 0; d/dy at x = 0 with y > 0 is 0, at x < 0 is NaN."""
    by_y = where(logical_and(eq(x, 0), lt(y.constant(0), y)), y.constant(0), mul0(out, log(x)))
    return _power_by_base(out, x, y), by_y


def _power_by_base(out: Value, x: Value, y: Value) -> Value:
    """y x^(y-1), as y x^y / x where y - 1 is rounded: x^(y-1) multiplies that error by log x."""
    lowered = y * power(x, y - 1)
    divided = y * (out / x)
    inside = logical_and(lt(x.constant(0), abs_(x)), isfinite(x))
    exact = 0.5, 2.0 ** np.finfo(y.dtype.numpy).nmant  # y - 1 has no error in between
    if not y.is_splat():
        rounded = logical_or(lt(y, y.constant(exact[0])), lt(y.constant(exact[1]), y))
        by_base = where(logical_and(inside, rounded), divided, lowered)
        return where(eq(y, 0), y.constant(0), by_base)
    if y.splat() == 0:
        return y.constant(0)
    return lowered if exact[0] <= y.splat() <= exact[1] else where(inside, divided, lowered)
