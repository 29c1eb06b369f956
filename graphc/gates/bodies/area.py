"""Bodies of the inverse hyperbolic functions, and of what their derivatives share with them.

All are logarithms of quotients, log((1 + v)/(1 - v)) = 2 atanh v, an odd series in v. For large
arguments a power of two is taken out of the quotient first; for small ones it is not, and the
quotient has no rounding before v.
"""

from __future__ import annotations

from graphc.gates.bodies.exp import at_most, horner
from graphc.gates.bodies.hyperbolic import with_sign_of
from graphc.ir.scalar import (
    Scalar,
    bitcast,
    constant,
    equal,
    exponent,
    fma,
    scale,
    select,
    sqrt,
    to_bits,
)
from graphc.ir.types import f32, f64

INF = float("inf")
LN2 = {  # rounded, and what rounding lost
    f64: (  # generate.py WHOLE_LN2_F64
        0.6931471805599453, 2.3190468138462996e-17,
    ),
    f32: (  # generate.py WHOLE_LN2_F32
        0.6931472, -1.9046542e-09,
    ),
}  # fmt: skip
ATANH = {
    f64: (  # generate.py ATANH_F64: error 2^-58.3
        0.3333333333333348, 0.1999999999992339, 0.14285714299598032, 0.11111109879126624,
        0.09090970799053398, 0.07690447722679897, 0.06700980303871155, 0.0550586512973279,
        0.07471484327650857,
    ),
    f32: (  # generate.py ATANH_F32: error 2^-29.5
        0.33333308, 0.20003152, 0.14162411, 0.1298084,
    ),
}  # fmt: skip
AREA = {
    f64: (  # generate.py AREA_F64: error 2^-62.0
        0.666666666666666, 0.40000000000056946, 0.28571428555768663, 0.22222224302801755,
        0.1818166551347999, 0.1539112336771595, 0.13173412537064808, 0.138442760888581,
    ),
    f32: (  # generate.py AREA_F32: error 2^-28.3
        0.6666695, 0.3995762, 0.30365047,
    ),
}  # fmt: skip
FAR = 2.0**30  # from there on x^2 + 1 and x^2 - 1 round to x^2, in both dtypes


def atanh(x: Scalar) -> Scalar:
    """log((1 + a)/(1 - a)) / 2 = k ln(2)/2 + atanh v, v = (a + w)/(a + 2 - w) with a = |x| and
    w = 1 - 2^k (1 - a)."""
    a = abs(x)
    b = 1.0 - a
    b_low = (1.0 - b) - a
    # b (5 + 4b)/6 is 5/3 of b/(2 - b) at b = 3/4 and near b = 0, between them a little more: k = 0
    # up to a = 1/4, and (1 + a)/(1 - a) is at most 1.76 2^k.
    minus_k = exponent(b * fma(b, 0.6666667, 0.8333333))
    factor = scale(constant(x, -1.0), -minus_k)
    # For k = 0, w is a without a rounding, and so is v.
    w = fma(factor, b_low, fma(factor, b, 1.0))
    v = (a + w) / (a + (2.0 - w))
    z = v * v
    high, low = LN2[x.dtype]
    tail = fma(v * z, horner(z, ATANH[x.dtype]), minus_k * (-0.5 * low))
    result = fma(minus_k, -0.5 * high, v + tail)
    outside = select(equal(a, 1.0), INF, constant(x, float("nan")))
    return with_sign_of(select(a < 1.0, result, outside), x)


def asinh(x: Scalar) -> Scalar:
    a = abs(x)
    h, p, root, c = half_root(a, 0.25)
    # root + rest/(2 root) is free of the roundings of p and of the root.
    rest = fma(-root, root, p) + fma(h, h, 0.25 - p)
    result = log_of_sum(a, a * 0.5, c, rest=rest)
    return with_sign_of(select(a < INF, result, a), x)


def asinh_partial(x: Scalar) -> Scalar:
    """1 / sqrt(1 + x^2)"""
    return 0.5 / half_root(abs(x), 0.25)[3]


def acosh(x: Scalar) -> Scalar:
    _, p, root, s = half_root(x, -0.25)
    # root + rest/(2 root) is free of the rounding of the root. The difference of the patterns is
    # that of 1/(2 root) up to an eighth (Blinn, Floating-point tricks, 1997), which is enough.
    rest = fma(-root, root, p)
    inverse = bitcast((to_bits(1.0, x.dtype) + to_bits(0.5, x.dtype)) - bitcast(root))
    result = log_of_sum(s + s, s, x * 0.5, s_low=rest * inverse)
    return select(x < 1.0, float("nan"), select(x < INF, result, x))


def acosh_partial(x: Scalar) -> Scalar:
    """1 / sqrt(x^2 - 1)"""
    return select(x < 1.0, float("nan"), 0.5 / half_root(x, -0.25)[3])


def half_root(a: Scalar, quarter: float) -> tuple[Scalar, Scalar, Scalar, Scalar]:
    """(h, p, root, half of sqrt(a^2 + 4 quarter)) with h = a/2 up to FAR, p = h^2 + quarter and its
    root: without overflow."""
    half = a * 0.5
    h = at_most(half, FAR)
    p = fma(h, h, quarter)
    root = sqrt(p)
    return h, p, root, select(half > FAR, half, root)


def log_of_sum(
    sinh: Scalar, s: Scalar, c: Scalar, s_low: Scalar | None = None, rest: Scalar | None = None
) -> Scalar:
    """log(2s + 2c) for s and c half of the hyperbolic sine and cosine of the result, where s lacks
    s_low, or c rest/(2c)."""
    ty = s.dtype
    # 2y = 2^k m with 3/4 <= m < 3/2, y what is left of the sum, and y_low what its rounding lost.
    y = c + s
    y_low = s - (y - c)
    minus_k = -2.0 - exponent(y * 0.6666667)
    unit = scale(constant(s, 2.0), minus_k)
    m = y * unit
    f = m - 1.0
    # k = 0: v = sinh / (1 + cosh), 2v = sinh - sinh v^2. Else v = f / (2 + f), 2v = f - f v.
    near = equal(minus_k, 0.0)
    lead = select(near, sinh, f)
    v = lead / select(near, fma(c, 2.0, 1.0), m + 1.0)
    z = v * v
    tail = v * fma(z, horner(z, AREA[ty]), -(lead * select(near, v, 1.0)))
    # What is lacking, over y, nearly enough: 1/m is about 1.11 - 0.89 f, 1/(2c) about 0.92 unit.
    if s_low is not None:
        lacking = select(near, s_low, y_low + s_low)
    else:
        assert rest is not None
        lacking = select(near, 0.0, fma(rest * unit, 0.92, y_low))
    tail = fma(lacking * unit, fma(f, -0.89, 1.11), tail)
    high, low = LN2[ty]
    return fma(minus_k, -high, lead + fma(minus_k, -low, tail))
