"""Exponentials, logarithms and powers: their records."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

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
    partials=lambda out, x: (reciprocal(x) * (1 / LN2),), domain=(0.01, 30), edges=(0.0, 1.0),
    ulp=1.0,
)  # fmt: skip
log10 = gate(
    "log10", "Logarithm to the base 10.", body=log_bodies.log10, sym="log(x)/log(10)",
    partials=lambda out, x: (reciprocal(x) * (1 / LN10),), domain=(0.01, 30), edges=(0.0, 1.0),
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
power_special = gate(
    "power_special", "x to the y for all x and y; `power` branches here unless 0 < x < inf.",
    body=power_bodies.power_special, sym="x**y",
    partials=lambda out, x, y: power_partials(out, x, y), domain=(0.1, 4.0), edges=(0.0, 1.0),
    ulp=2.0,
)  # fmt: skip


def power_partials(out: Value, x: Value, y: Value) -> tuple[Value, Value]:
    """Powers at 0: d/dx at y = 0 is 0; d/dy at x = 0 with y > 0 is 0, at x < 0 is NaN."""
    by_y = where(logical_and(eq(x, 0), lt(y.constant(0), y)), y.constant(0), mul0(out, log(x)))
    return _power_by_base(out, x, y), by_y


def _power_by_base(out: Value, x: Value, y: Value) -> Value:
    """y x^(y-1), as y x^y / x below y = 1/2: there y - 1 is rounded, and x^(y-1) multiplies the
    error by log x."""
    lowered = y * power(x, y - 1)
    divided = y * (out / x)
    inside = logical_and(lt(x.constant(0), abs_(x)), isfinite(x))
    if not y.is_splat():
        below = logical_and(inside, lt(y, y.constant(0.5)))
        return where(eq(y, 0), y.constant(0), where(below, divided, lowered))
    if y.splat() == 0:
        return y.constant(0)
    return where(inside, divided, lowered) if y.splat() < 0.5 else lowered
