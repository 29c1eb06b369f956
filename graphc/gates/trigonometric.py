"""Sine, cosine and their kin: their records."""

from __future__ import annotations

from graphc.gates.bodies import trig as trig_bodies
from graphc.gates.elementwise import Elementwise, gate

sin = gate(
    "sin", "Sine.", body=trig_bodies.sin, sym="sin(x)", partials=lambda out, x: (cos(x),),
    domain=(-10, 10), edges=(0.0,), ulp=1.0,
)  # fmt: skip
cos: Elementwise = gate(
    "cos", "Cosine.", body=trig_bodies.cos, sym="cos(x)", partials=lambda out, x: (-sin(x),),
    domain=(-10, 10), edges=(0.0,), ulp=1.0,
)  # fmt: skip
sin_huge = gate(
    "sin_huge", "Sine of a large argument, with all the bits of pi it takes; `sin` branches here.",
    body=trig_bodies.sin_huge, sym="sin(x)", partials=lambda out, x: (cos_huge(x),),
    domain=(2e6, 3e6), ulp=1.0,
)  # fmt: skip
cos_huge: Elementwise = gate(
    "cos_huge", "Cosine of a large argument; `cos` branches here.",
    body=trig_bodies.cos_huge, sym="cos(x)", partials=lambda out, x: (-sin_huge(x),),
    domain=(2e6, 3e6), ulp=1.0,
)  # fmt: skip
