"""The error function, its kin and its inverse: their records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphc.gates.bodies import error as error_bodies
from graphc.gates.elementwise import Elementwise, gate, lt, mul0, reciprocal, square, where

if TYPE_CHECKING:
    from graphc.ir.graph import Value

erf = gate(
    "erf", "Error function.", body=error_bodies.erf, sym="erf(x)",
    partials=lambda out, x: (erf_partial(x),), domain=(-4, 4), edges=(0.0, 5.92), ulp=1.5,
)  # fmt: skip
erf_partial: Elementwise = gate(
    "erf_partial", "erf'(x) = 2/sqrt(pi) e^(-x^2).", body=error_bodies.erf_partial,
    sym="2/sqrt(pi)*exp(-x**2)", partials=lambda out, x: (mul0(out, -2 * x),), domain=(-4, 4),
    edges=(-27.3, 0.0, 27.3), ulp=4.0,
)  # fmt: skip
erfc = gate(
    "erfc", "1 - erf(x), without cancellation.", body=error_bodies.erfc, sym="erfc(x)",
    partials=lambda out, x: (-erf_partial(x),), domain=(-4, 10), edges=(-5.9, 0.0, 27.2), ulp=2.0,
)  # fmt: skip
ndtr = gate(
    "ndtr", "Cumulative distribution of the standard normal.", body=error_bodies.ndtr,
    sym="erfc(-x/sqrt(2))/2", partials=lambda out, x: (ndtr_partial(x),), domain=(-10, 5),
    edges=(-38.4, 0.0, 8.3), ulp=2.0,
)  # fmt: skip
ndtr_partial: Elementwise = gate(
    "ndtr_partial", "Density of the standard normal, e^(-x^2/2) / sqrt(2 pi).",
    body=error_bodies.ndtr_partial, sym="exp(-x**2/2)/sqrt(2*pi)",
    partials=lambda out, x: (mul0(out, -x),), domain=(-5, 5), edges=(-38.6, 0.0, 38.6), ulp=4.0,
)  # fmt: skip
gelu = gate(
    "gelu", "x ndtr(x), the Gaussian error linear unit.", body=error_bodies.gelu,
    sym="x*erfc(-x/sqrt(2))/2", partials=lambda out, x: (gelu_partial(x),), domain=(-10, 10),
    edges=(-38.6, 0.0, 8.3), ulp=2.0,
)  # fmt: skip
gelu_partial: Elementwise = gate(
    "gelu_partial", "gelu'(x) = ndtr(x) + x ndtr'(x), to ulps of the larger of the two.",
    body=error_bodies.gelu_partial, sym="erfc(-x/sqrt(2))/2 + x*exp(-x**2/2)/sqrt(2*pi)",
    partials=lambda out, x: (gelu_curvature(ndtr_partial(x), x),), domain=(-10, 10),
    edges=(-38.6, -0.7518, 0.0, 8.3), ulp=4.0,
)  # fmt: skip
log_ndtr = gate(
    "log_ndtr", "log(ndtr(x)), where ndtr(x) is near 0 or 1, too.", body=error_bodies.log_ndtr,
    sym="log(erfc(-x/sqrt(2))/2)", partials=lambda out, x: (log_ndtr_partial(x),),
    domain=(-30, 8), edges=(-38.7, 0.0, 38.5), ulp=2.0,
)  # fmt: skip
log_ndtr_partial: Elementwise = gate(
    "log_ndtr_partial", "ndtr'(x) / ndtr(x), the inverse Mills ratio.",
    body=error_bodies.log_ndtr_partial,
    sym="sqrt(2/pi)*exp(-x**2/2)/erfc(-x/sqrt(2))",
    partials=lambda out, x: (log_ndtr_curvature(out, x),), domain=(-30, 8),
    edges=(-38.7, 0.0, 38.7), ulp=4.0,
)  # fmt: skip
erfinv = gate(
    "erfinv", "The inverse of erf: infinite at -1 and 1, NaN beyond.", body=error_bodies.erfinv,
    sym="erfinv(x)", partials=lambda out, x: (erfinv_partial(x),), domain=(-0.99, 0.99),
    edges=(-1.0, -0.5, 0.0, 0.5, 1.0), ulp=2.0,
)  # fmt: skip
erfinv_partial: Elementwise = gate(
    "erfinv_partial", "erfinv'(x) = sqrt(pi)/2 e^(erfinv(x)^2).",
    body=error_bodies.erfinv_partial, sym="sqrt(pi)/2*exp(erfinv(x)**2)",
    partials=lambda out, x: (2 * erfinv(x) * (out * out),), domain=(-0.99, 0.99),
    edges=(-1.0, -0.5, 0.0, 0.5, 1.0), ulp=4.0,
)  # fmt: skip


def gelu_curvature(density: Value, x: Value) -> Value:
    """ndtr'(x) (2 - x^2), with no square that overflows."""
    return 2 * density - mul0(mul0(density, x), x)


def log_ndtr_curvature(ratio: Value, x: Value) -> Value:
    """-p (x + p) of p = ndtr'(x) / ndtr(x); far below zero, where x + p cancels, its series.

    p + x = 1/|x| - 2/|x|^3 + ..., so an ulp of p costs x^2 ulps: up to 2e-13 at x = -30, where the
    first term that the series in z = 1/x^2 leaves out comes to as much.
    """
    double = x.type.dtype.name == "f64"
    z = reciprocal(square(x))
    series = z.constant(6354.0 if double else 0.0)
    for c in (-518.0, 50.0, -6.0, 1.0):
        series = c + z * series
    product = mul0(ratio, -(x + ratio))
    return where(lt(x, x.constant(-30.0 if double else -8.0)), z * series - 1, product)
