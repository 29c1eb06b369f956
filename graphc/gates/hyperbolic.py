"""Hyperbolic functions and what neural networks make of them: their records."""

from __future__ import annotations

from graphc.gates.bodies import hyperbolic as hyperbolic_bodies
from graphc.gates.elementwise import Elementwise, gate

tanh = gate(
    "tanh", "Hyperbolic tangent.", body=hyperbolic_bodies.tanh, sym="tanh(x)",
    partials=lambda out, x: (tanh_partial(x),), domain=(-10, 10), edges=(0.0, 19.1), ulp=1.0,
)  # fmt: skip
tanh_partial: Elementwise = gate(
    "tanh_partial", "tanh'(x) = 4e/(1+e)^2 with e = exp(-2|x|).",
    body=hyperbolic_bodies.tanh_partial, sym="1/cosh(x)**2",
    partials=lambda out, x: (-2 * tanh(x) * out,), domain=(-10, 10), edges=(0.0,), ulp=4.0,
)  # fmt: skip
sigmoid = gate(
    "sigmoid", "1 / (1 + e^-x).", body=hyperbolic_bodies.sigmoid, sym="1/(1 + exp(-x))",
    partials=lambda out, x: (sigmoid_partial(x),), domain=(-30, 30), edges=(-745.0, 0.0), ulp=1.5,
)  # fmt: skip
sigmoid_partial: Elementwise = gate(
    "sigmoid_partial", "sigmoid'(x) = e/(1+e)^2 with e = exp(-|x|).",
    body=hyperbolic_bodies.sigmoid_partial, sym="exp(-x)/(1 + exp(-x))**2",
    partials=lambda out, x: (-out * tanh(0.5 * x),), domain=(-30, 30), edges=(0.0,), ulp=4.0,
)  # fmt: skip
softplus = gate(
    "softplus", "log(1 + e^x) without overflow.", body=hyperbolic_bodies.softplus,
    sym="log(1 + exp(x))", partials=lambda out, x: (softplus_partial(x),), domain=(-30, 30),
    edges=(-800.0, 0.0, 800.0), ulp=1.5,
)  # fmt: skip
softplus_partial: Elementwise = gate(
    "softplus_partial", "softplus'(x) = 1/(1+e) or e/(1+e), with the e = exp(-|x|) of softplus.",
    body=hyperbolic_bodies.softplus_partial, sym="1/(1 + exp(-x))",
    partials=lambda out, x: (sigmoid_partial(x),), domain=(-30, 30),
    edges=(-745.0, 0.0), ulp=4.0,
)  # fmt: skip
