"""Functions of two arguments with a logarithm: their records."""

from __future__ import annotations

from graphc.gates.bodies import pairs as pair_bodies
from graphc.gates.elementwise import gate

logaddexp = gate(
    "logaddexp", "log(e^x + e^y) without overflow.", body=pair_bodies.logaddexp,
    sym="log(exp(x) + exp(y))", partials=lambda out, x, y: (None, None),
    domain=(-30, 30), edges=(0.0,), ulp=1.5,
)  # fmt: skip
