"""Sums of exponentials under a logarithm, and products with one: their records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphc.gates.bodies import pairs as pair_bodies
from graphc.gates.elementwise import Elementwise, eq, gate, le, logical_and, where
from graphc.gates.exponential import log, log1p

if TYPE_CHECKING:
    from graphc.ir.graph import Value

LN2 = 0.6931471805599453

logaddexp = gate(
    "logaddexp", "log(e^x + e^y) without overflow.", body=pair_bodies.logaddexp,
    sym="log(exp(x) + exp(y))",
    partials=lambda out, x, y: (logaddexp_first(x, y), logaddexp_second(x, y)),
    domain=(-30, 30), edges=(0.0,), ulp=1.5,
)  # fmt: skip
logaddexp_first: Elementwise = gate(
    "logaddexp_first", "The derivative of logaddexp by x, e^x / (e^x + e^y); 0 for -inf and -inf.",
    body=pair_bodies.logaddexp_first, sym="1/(1 + exp(y - x))",
    partials=lambda out, x, y: _curvature(out * logaddexp_second(x, y)),
    domain=(-30, 30), edges=(0.0,), ulp=4.0,
)  # fmt: skip
logaddexp_second: Elementwise = gate(
    "logaddexp_second", "The derivative of logaddexp by y, e^y / (e^x + e^y); 0 for -inf and -inf.",
    body=pair_bodies.logaddexp_second, sym="1/(1 + exp(x - y))",
    partials=lambda out, x, y: _curvature(-(out * logaddexp_first(x, y))),
    domain=(-30, 30), edges=(0.0,), ulp=4.0,
)  # fmt: skip
logaddexp2 = gate(
    "logaddexp2", "log2(2^x + 2^y) without overflow.", body=pair_bodies.logaddexp2,
    sym="log(exp(x*log(2)) + exp(y*log(2)))/log(2)",
    partials=lambda out, x, y: (logaddexp2_first(x, y), logaddexp2_second(x, y)),
    domain=(-30, 30), edges=(0.0,), ulp=1.5,
)  # fmt: skip
logaddexp2_first: Elementwise = gate(
    "logaddexp2_first", "The derivative of logaddexp2 by x, 2^x / (2^x + 2^y).",
    body=pair_bodies.logaddexp2_first, sym="1/(1 + exp((y - x)*log(2)))",
    partials=lambda out, x, y: _curvature(out * logaddexp2_second(x, y) * LN2),
    domain=(-30, 30), edges=(0.0,), ulp=4.0,
)  # fmt: skip
logaddexp2_second: Elementwise = gate(
    "logaddexp2_second", "The derivative of logaddexp2 by y, 2^y / (2^x + 2^y).",
    body=pair_bodies.logaddexp2_second, sym="1/(1 + exp((x - y)*log(2)))",
    partials=lambda out, x, y: _curvature(-(out * logaddexp2_first(x, y) * LN2)),
    domain=(-30, 30), edges=(0.0,), ulp=4.0,
)  # fmt: skip


def _curvature(by_x: Value) -> tuple[Value, Value]:
    """The partials of a function of x - y."""
    return by_x, -by_x


xlogy = gate(
    "xlogy", "x log(y), and 0 for x = 0 whatever y is, but for NaN.", body=pair_bodies.xlogy,
    sym="x*log(y)", partials=lambda out, x, y: _log_partials(x, y, y, log(y)),
    domain=(0.01, 30), edges=(0.0, 1.0), ulp=2.0,
)  # fmt: skip
xlog1py = gate(
    "xlog1py", "x log(1 + y), and 0 for x = 0 whatever y is, but for NaN.",
    body=pair_bodies.xlog1py, sym="x*log(1 + y)",
    partials=lambda out, x, y: _log_partials(x, y, 1 + y, log1p(y)),
    domain=(-0.9, 30), edges=(-1.0, 0.0), ulp=2.0,
)  # fmt: skip


def _log_partials(x: Value, y: Value, inner: Value, factor: Value) -> tuple[Value, Value]:
    """The logarithm and x / inner, but 0 for x = 0 where there is no logarithm."""
    nothing = logical_and(eq(x, 0), le(inner, 0))
    zero = x.constant(0)
    return where(nothing, zero, factor), where(nothing, zero, x / inner)
