"""Roots and lengths: their records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphc.gates.bodies import roots as root_bodies
from graphc.gates.elementwise import (
    Elementwise,
    abs_,
    gate,
    isfinite,
    logical_and,
    lt,
    reciprocal,
    where,
)

if TYPE_CHECKING:
    from graphc.ir.graph import Value

rsqrt = gate(
    "rsqrt", "1 / sqrt(x).", body=root_bodies.rsqrt, sym="1/sqrt(x)",
    partials=lambda out, x: ((-0.5 * out) * (out * out),), domain=(0.1, 9.0), edges=(0.0,), ulp=1.0,
)  # fmt: skip
rsqrt_special = gate(
    "rsqrt_special", "1 / sqrt(x) of numbers that are not normal, too; `rsqrt` branches here.",
    body=root_bodies.rsqrt_special, sym="1/sqrt(x)",
    partials=lambda out, x: ((-0.5 * out) * (out * out),), domain=(0.1, 9.0), edges=(0.0,), ulp=1.0,
)  # fmt: skip


def _cbrt_slope(out: Value, x: Value) -> Value:
    """x^(1/3) / (3 x), which is nearer than 1 / (3 x^(2/3)); that at 0 and infinity."""
    usual = logical_and(lt(x.constant(0), abs_(x)), isfinite(x))
    return where(usual, out / x / 3, reciprocal(out * out))


cbrt = gate(
    "cbrt", "Cube root.", body=root_bodies.cbrt, sym="sign(x)*Abs(x)**(1/3)",
    partials=lambda out, x: (_cbrt_slope(out, x),), domain=(-9.0, 9.0), edges=(0.0,), ulp=1.0,
)  # fmt: skip
hypot = gate(
    "hypot", "sqrt(x^2 + y^2) without overflow; the gradient is 0 at (0, 0).",
    body=root_bodies.hypot, sym="sqrt(x**2 + y**2)",
    partials=lambda out, x, y: (hypot_partial(x, y), hypot_partial(y, x)), domain=(-4, 4),
    edges=(0.0,), ulp=1.0,
)  # fmt: skip
hypot_partial: Elementwise = gate(
    "hypot_partial", "x / hypot(x, y), and 0 at (0, 0).", body=root_bodies.hypot_partial,
    sym="x/sqrt(x**2 + y**2)", partials=lambda out, x, y: _hypot_second(x, y, out),
    domain=(-4, 4), edges=(0.0,), ulp=4.0,
)  # fmt: skip


def _hypot_second(x: Value, y: Value, u: Value) -> tuple[Value, Value]:
    """Of u = x/h by x and by y: v^2/h and -u v/h with v = y/h."""
    v, h = hypot_partial(y, x), hypot(x, y)
    return v * v / h, -u * v / h
