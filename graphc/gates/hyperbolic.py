"""Hyperbolic functions and what neural networks make of them: their records."""

from __future__ import annotations

from graphc.gates.bodies import area as area_bodies
from graphc.gates.bodies import hyperbolic as hyperbolic_bodies
from graphc.gates.elementwise import Elementwise, gate, sign

sinh: Elementwise = gate(
    "sinh", "Hyperbolic sine.", body=hyperbolic_bodies.sinh, sym="sinh(x)",
    partials=lambda out, x: (cosh(x),), domain=(-10, 10), edges=(-710.4, 0.0, 710.4), ulp=1.0,
)  # fmt: skip
cosh: Elementwise = gate(
    "cosh", "Hyperbolic cosine.", body=hyperbolic_bodies.cosh, sym="cosh(x)",
    partials=lambda out, x: (sinh(x),), domain=(-10, 10), edges=(-710.4, 0.0, 710.4), ulp=1.0,
)  # fmt: skip
tanh = gate(
    "tanh", "Hyperbolic tangent.", body=hyperbolic_bodies.tanh, sym="tanh(x)",
    partials=lambda out, x: (tanh_partial(x),), domain=(-10, 10), edges=(0.0, 19.1), ulp=1.0,
)  # fmt: skip
tanh_partial: Elementwise = gate(
    "tanh_partial", "tanh'(x) = 1 / cosh(x)^2, out of what tanh is made of.",
    body=hyperbolic_bodies.tanh_partial, sym="1/cosh(x)**2",
    partials=lambda out, x: (-2 * tanh(x) * out,), domain=(-10, 10), edges=(0.0,), ulp=4.0,
)  # fmt: skip
tanh_partial_far: Elementwise = gate(
    "tanh_partial_far", "4 e^-2|x|: `tanh_partial` branches here where tanh is 1.",
    body=hyperbolic_bodies.tanh_partial_far, sym="4*exp(-2*Abs(x))",
    partials=lambda out, x: (-2 * sign(x) * out,), domain=(20, 300), edges=(), ulp=4.0,
)  # fmt: skip
asinh = gate(
    "asinh", "Inverse hyperbolic sine.", body=area_bodies.asinh, sym="asinh(x)",
    partials=lambda out, x: (asinh_partial(x),), domain=(-10, 10), edges=(0.0,), ulp=1.5,
)  # fmt: skip
asinh_partial: Elementwise = gate(
    "asinh_partial", "asinh'(x) = 1 / sqrt(1 + x^2), without overflow.",
    body=area_bodies.asinh_partial, sym="1/sqrt(1 + x**2)",
    partials=lambda out, x: (-(x * out) * (out * out),), domain=(-10, 10), ulp=4.0,
)  # fmt: skip
acosh = gate(
    "acosh", "Inverse hyperbolic cosine; NaN below 1.", body=area_bodies.acosh, sym="acosh(x)",
    partials=lambda out, x: (acosh_partial(x),), domain=(1.1, 10), edges=(1.0,), ulp=1.5,
)  # fmt: skip
acosh_partial: Elementwise = gate(
    "acosh_partial", "acosh'(x) = 1 / sqrt(x^2 - 1), without overflow.",
    body=area_bodies.acosh_partial, sym="1/(sqrt(x - 1)*sqrt(x + 1))",
    partials=lambda out, x: (-(x * out) * (out * out),), domain=(1.1, 10), edges=(1.0,), ulp=4.0,
)  # fmt: skip
atanh = gate(
    "atanh", "Inverse hyperbolic tangent; NaN beyond 1.", body=area_bodies.atanh, sym="atanh(x)",
    partials=lambda out, x: (1 / ((1 - x) * (1 + x)),), domain=(-0.95, 0.95),
    edges=(-1.0, 0.0, 1.0), ulp=1.5,
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
silu = gate(
    "silu", "x / (1 + e^-x).", body=hyperbolic_bodies.silu, sym="x/(1 + exp(-x))",
    partials=lambda out, x: (silu_partial(x),), domain=(-30, 30), edges=(-745.0, 0.0), ulp=1.5,
)  # fmt: skip
silu_partial: Elementwise = gate(
    "silu_partial", "silu'(x) = s (1 + x (1 - s)) with s = sigmoid(x).",
    body=hyperbolic_bodies.silu_partial, sym="(1 + exp(-x)*(1 + x))/(1 + exp(-x))**2",
    partials=lambda out, x: (sigmoid_partial(x) * (2 - x * tanh(0.5 * x)),),
    domain=(-30, 30), edges=(-745.0, 0.0), ulp=4.0,
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
log_sigmoid = gate(
    "log_sigmoid", "log(1 / (1 + e^-x)), without cancellation or overflow.",
    body=hyperbolic_bodies.log_sigmoid, sym="-log(1 + exp(-x))",
    partials=lambda out, x: (softplus_partial(-x),), domain=(-30, 30),
    edges=(-800.0, 0.0, 800.0), ulp=1.5,
)  # fmt: skip
