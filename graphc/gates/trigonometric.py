"""Sine, cosine and their kin: their records."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from graphc.gates.bodies import arc as arc_bodies
from graphc.gates.bodies import roots as root_bodies
from graphc.gates.bodies import trig as trig_bodies
from graphc.gates.elementwise import Elementwise, eq, gate, where
from graphc.gates.roots import hypot, rsqrt

if TYPE_CHECKING:
    from graphc.ir.graph import Value

sin = gate(
    "sin", "Sine.", body=trig_bodies.sin, sym="sin(x)", partials=lambda out, x: (cos(x),),
    domain=(-10, 10), edges=(0.0,), ulp=1.0,
)  # fmt: skip
cos: Elementwise = gate(
    "cos", "Cosine.", body=trig_bodies.cos, sym="cos(x)", partials=lambda out, x: (-sin(x),),
    domain=(-10, 10), edges=(0.0,), ulp=1.0,
)  # fmt: skip
tan = gate(
    "tan", "Tangent.", body=trig_bodies.tan, sym="tan(x)", partials=lambda out, x: (1 + out * out,),
    domain=(-10, 10), edges=(0.0,), ulp=1.0,
)  # fmt: skip
sin_huge: Elementwise = gate(
    "sin_huge", "sin(x + n pi/2) of a large x, with all the bits of pi it takes, n the integer "
    "nearest to `quarters`; `sin` and `cos` branch here.",
    body=trig_bodies.sin_huge, sym="sin(x + floor(quarters + 1/2)*pi/2)",
    partials=lambda out, x, quarters: (sin_huge(x, quarters + 1), None),
    domain=(2e6, 3e6), ulp=1.0,
)  # fmt: skip
tan_huge = gate(
    "tan_huge", "Tangent of a large argument; `tan` branches here.",
    body=trig_bodies.tan_huge, sym="tan(x)", partials=lambda out, x: (1 + out * out,),
    domain=(2e6, 3e6), ulp=1.0,
)  # fmt: skip
atan = gate(
    "atan", "Arc tangent.", body=arc_bodies.atan, sym="atan(x)",
    partials=lambda out, x: (atan_partial(x),), domain=(-4, 4), edges=(0.0,), ulp=1.0,
)  # fmt: skip
atan_partial: Elementwise = gate(
    "atan_partial", "atan'(x) = 1/(1+x^2), without overflow.",
    body=arc_bodies.atan_partial, sym="1/(1 + x**2)",
    partials=lambda out, x: (-2 * (x * out) * out,), domain=(-4, 4), edges=(0.0,), ulp=4.0,
)  # fmt: skip
atan2 = gate(
    "atan2", "The angle of (x, y), from -pi to pi.", body=arc_bodies.atan2, sym="atan2(y, x)",
    partials=lambda out, y, x: (atan2_partial(y, x), -atan2_partial(x, y)), domain=(-4, 4),
    edges=(0.0,), ulp=1.0,
)  # fmt: skip
atan2_partial: Elementwise = gate(
    "atan2_partial", "x/(x^2+y^2), the derivative of atan2(y, x) by y; 0 at (0, 0).",
    body=root_bodies.atan2_partial, sym="x/(x**2 + y**2)",
    partials=lambda out, y, x: _atan2_second(out, y, x), domain=(-4, 4),
    edges=(0.0,), ulp=4.0,
)  # fmt: skip


def _atan2_second(p: Value, y: Value, x: Value) -> tuple[Value, Value]:
    """Of p = x/h^2 by y and by x, h^2 = x^2 + y^2: -2 x y/h^4 and (y^2 - x^2)/h^4."""
    h = hypot(x, y)
    return -2 * p * atan2_partial(x, y), ((y - x) / h) * ((y + x) / h) / h / h


asin = gate(
    "asin", "Arc sine.", body=arc_bodies.asin, sym="asin(x)",
    partials=lambda out, x: (rsqrt((1 - x) * (1 + x)),), domain=(-1, 1), edges=(-1.0, 0.0, 1.0),
    ulp=1.0,
)  # fmt: skip
acos = gate(
    "acos", "Arc cosine.", body=arc_bodies.acos, sym="acos(x)",
    partials=lambda out, x: (-rsqrt((1 - x) * (1 + x)),), domain=(-1, 1), edges=(-1.0, 0.0, 1.0),
    ulp=1.0,
)  # fmt: skip
sinc = gate(
    "sinc", "sin(pi x) / (pi x), and 1 at 0.", body=trig_bodies.sinc, sym="sin(pi*x)/(pi*x)",
    partials=lambda out, x: (sinc_partial(x),), domain=(-4, 4), edges=(0.0, 1.0, 2.0), ulp=1.0,
)  # fmt: skip
sinc_partial: Elementwise = gate(
    "sinc_partial", "sinc'(x) = (cos(pi x) - sinc(x))/x, by a series near 0.",
    body=trig_bodies.sinc_partial, sym="cos(pi*x)/x - sin(pi*x)/(pi*x**2)",
    partials=lambda out, x: (_sinc_second(out, x),), domain=(-4, 4), edges=(0.0,), ulp=4.0,
)  # fmt: skip


def _sinc_second(slope: Value, x: Value) -> Value:
    """sinc'' = -pi^2 sinc - 2 sinc'/x; its limit at 0."""
    at_0 = x.constant(-(math.pi**2) / 3)
    return where(eq(x, x.constant(0)), at_0, -(math.pi**2) * sinc(x) - 2 * slope / x)
