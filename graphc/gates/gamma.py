"""The logarithm of the gamma function and its derivatives: their records."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from graphc.errors import DifferentiationError
from graphc.gates.bodies import gamma as gamma_bodies
from graphc.gates.elementwise import Elementwise, gate

if TYPE_CHECKING:
    from graphc.ir.graph import Value

lgamma = gate(
    "lgamma", "log |gamma(x)|; +inf at the poles 0, -1, -2, ...", body=gamma_bodies.lgamma,
    sym="loggamma(x)", partials=lambda out, x: (digamma(x),), domain=(0.2, 20),
    edges=(0.0, 1.0, 2.0, 3.0), ulp=2.0,
)  # fmt: skip
digamma: Elementwise = gate(
    "digamma", "The derivative of lgamma; NaN at negative integers.", body=gamma_bodies.digamma,
    sym="digamma(x)", partials=lambda out, x: (trigamma(x),), domain=(0.2, 20),
    edges=(0.0, 1.0, 1.4616321449683623, 2.0), ulp=2.0,
)  # fmt: skip
trigamma: Elementwise = gate(
    "trigamma", "The derivative of digamma; +inf at the poles 0, -1, -2, ...",
    body=gamma_bodies.trigamma, sym="trigamma(x)", partials=lambda out, x: (tetragamma(x),),
    domain=(0.2, 20), edges=(0.0, 1.0, 2.0), ulp=4.0,
)  # fmt: skip
tetragamma: Elementwise = gate(
    "tetragamma", "The derivative of trigamma; NaN at negative integers.",
    body=gamma_bodies.tetragamma, sym="polygamma(2, x)",
    partials=lambda out, x: no_more(out), domain=(0.2, 20), edges=(0.0, 1.0, 2.0), ulp=4.0,
)  # fmt: skip


def no_more(out: Value) -> NoReturn:
    raise DifferentiationError(
        "tetragamma has no derivative here: graphc differentiates lgamma three times, "
        "digamma twice and trigamma once"
    )


# Below zero, by reflection. `lgamma` and the others branch to these.

lgamma_negative = gate(
    "lgamma_negative", "lgamma below zero.", body=gamma_bodies.lgamma_negative,
    sym="log(acos(-1)/Abs(sin(acos(-1)*x))) - loggamma(1 - x)",
    partials=lambda out, x: (digamma(x),), domain=(-3.9, -3.1), ulp=4.0,
)  # fmt: skip
digamma_negative = gate(
    "digamma_negative", "digamma below zero.", body=gamma_bodies.digamma_negative,
    sym="digamma(x)", partials=lambda out, x: (trigamma(x),), domain=(-3.9, -3.1), ulp=4.0,
)  # fmt: skip
trigamma_negative = gate(
    "trigamma_negative", "trigamma below zero.", body=gamma_bodies.trigamma_negative,
    sym="trigamma(x)", partials=lambda out, x: (tetragamma(x),), domain=(-3.9, -3.1), ulp=4.0,
)  # fmt: skip
tetragamma_negative = gate(
    "tetragamma_negative", "tetragamma below zero.", body=gamma_bodies.tetragamma_negative,
    sym="polygamma(2, x)", partials=lambda out, x: no_more(out), domain=(-3.9, -3.1), ulp=4.0,
)  # fmt: skip
