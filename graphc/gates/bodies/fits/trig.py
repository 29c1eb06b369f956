"""Tangent, inverse trigonometry and roots: the functions behind their tables."""

from __future__ import annotations

from collections.abc import Callable

import mpmath as mp

from graphc.gates.bodies.generate import Function, fit, rounded, split

# Each is smooth at 0, where the series speaks.


def tan_tail(z: mp.mpf) -> mp.mpf:
    """(tan(r) - r) / r^3 at r^2 = z"""
    r = mp.sqrt(z)
    return (mp.tan(r) - r) / r**3 if z else mp.mpf(1) / 3


def atan_tail(z: mp.mpf) -> mp.mpf:
    """(atan(t) - t) / t^3 at t^2 = z"""
    t = mp.sqrt(z)
    return (mp.atan(t) - t) / t**3 if z else -mp.mpf(1) / 3


def asin_tail(z: mp.mpf) -> mp.mpf:
    """(asin(s) - s) / s^3 at s^2 = z"""
    s = mp.sqrt(z)
    return (mp.asin(s) - s) / s**3 if z else mp.mpf(1) / 6


def sin_pi_tail(z: mp.mpf) -> mp.mpf:
    """(sin(pi r)/pi - r) / r^3 at r^2 = z"""
    r = mp.sqrt(z)
    return (mp.sin(mp.pi * r) / mp.pi - r) / r**3 if z else -(mp.pi**2) / 6


def cos_pi_tail(z: mp.mpf) -> mp.mpf:
    """(cos(pi r) - 1) / (pi r^2) at r^2 = z"""
    return (mp.cos(mp.pi * mp.sqrt(z)) - 1) / (mp.pi * z) if z else -mp.pi / 2


def sinc_slope(z: mp.mpf) -> mp.mpf:
    """sinc'(x) / x at x^2 = z"""
    x = mp.pi * mp.sqrt(z)
    return mp.pi**2 * (mp.cos(x) - mp.sin(x) / x) / x**2 if z else -(mp.pi**2) / 3


def root_step(order: int) -> Function:
    """((1 - e)^(-1/order) - 1) / e"""
    return lambda e: ((1 - e) ** (-mp.mpf(1) / order) - 1) / e if e else mp.mpf(1) / order


Rows = list[list[mp.mpf]]

TAN_Z = 0.00965  # (pi/32)^2, with a little room
ATAN_Z = 0.0108  # of the largest (x - c)/(1 + c x) in `arc`, with a little room
SQRT_E, CBRT_E = 0.0685, 0.1025  # largest errors 1 - x r^2 and 1 - x r^3 of the guesses in `roots`


def tan_table(terms: int, dtype: str) -> tuple[list, float]:
    return fit(tan_tail, lambda z: z, terms, 0, TAN_Z, dtype)


def tan_points(dtype: str) -> tuple[Rows, float]:
    """(s, c) with s/c = tan(k pi/16), for k up to 15: a row of each.

    Of the floats c below 1, one with s a float but for a thousandth of an ulp (S. Gal, 1986).
    """
    pairs = [(mp.mpf(0), mp.mpf(1))]
    for k in (1, 2, 3):
        ratio = mp.tan(k * mp.pi / 16)
        c = min(
            (1 - j * mp.mpf(2) ** -18 for j in range(4000)), key=lambda c: off(c * ratio, dtype)
        )
        pairs.append((rounded(c * ratio, dtype), c))
    pairs.append((mp.mpf(1), mp.mpf(1)))
    pairs += [(c, s) for s, c in reversed(pairs[:4])]
    pairs += [(s, -c) for s, c in reversed(pairs[1:8])]
    return [list(row) for row in zip(*pairs)], 0.0


def atan_table(terms: int, dtype: str) -> tuple[list, float]:
    return fit(atan_tail, lambda z: z, terms, 0, ATAN_Z, dtype)


ATAN_BOUNDS = [2.0**e * m for e in range(-4, 4) for m in (1, 1.5)][1:]


def atan_points(dtype: str) -> tuple[Rows, float]:
    """c and atan c: 0 for |x| below 3/32, one in each half octave up to 12, almost inf beyond.

    atan c is a float but for a thousandth of an ulp (S. Gal, 1986). The last c is the tangent of
    the float next to pi/2.
    """
    rows = [(mp.mpf(0), mp.mpf(0))]
    for low, high in zip(ATAN_BOUNDS, ATAN_BOUNDS[1:]):
        middle = mp.tan(middle_angle(mp.atan(low), mp.atan(high)))
        step = mp.mpf(2) ** (mp.frexp(middle)[1] - 16)
        near = ((mp.nint(middle / step) + i) * step for i in range(-300, 301))
        c = min(near, key=lambda c: off(mp.atan(c), dtype))
        rows.append((c, rounded(mp.atan(c), dtype)))
    last = rounded(mp.pi / 2, dtype)
    rows.append((rounded(mp.tan(last), dtype), last))
    return [list(row) for row in zip(*rows)], 0.0


def atan2_points(dtype: str) -> tuple[Rows, float]:
    """c and atan c for ratios 1/q with 2 log2 q from k to k + 1, k up to 6, and 0 for those beyond.

    atan c is a multiple of 2^-21 (2^-15 in f32), so that k pi/2 - atan c is exact.
    """
    step = mp.mpf(2) ** {"f64": -21, "f32": -15}[dtype]
    blur = mp.mpf("0.0861")  # of the difference of patterns, as a logarithm
    rows = []
    for k in range(7):
        low, high = max(k / mp.mpf(2) - blur, 0), (k + 1) / mp.mpf(2) + blur
        middle = middle_angle(mp.atan(2**-high), mp.atan(2**-low))
        near = ((mp.nint(middle / step) + i) * step for i in range(-40, 41))
        a = min(near, key=lambda a: off(mp.tan(a), dtype))
        rows.append((rounded(mp.tan(a), dtype), a))
    rows.append((mp.mpf(0), mp.mpf(0)))
    return [list(row) for row in zip(*rows)], 0.0


def middle_angle(low: mp.mpf, high: mp.mpf) -> mp.mpf:
    """The angle in an interval from which all others are the fewest of their own ulps away."""
    octave = lambda x: mp.mpf(2) ** (mp.frexp(x)[1] - 1)
    angles = [low + (high - low) * i / 64 for i in range(65)]
    below_power = octave(high) * (1 - mp.mpf(2) ** -20)
    felt = [low, high, *([below_power] if below_power > low else [])]
    allowed = [a for a in angles if max(a - low, high - a) < 0.1025]
    return min(allowed, key=lambda a: max(abs(r - a) / octave(r) for r in felt))


def asin_table(terms: int, dtype: str) -> tuple[list, float]:
    return fit(asin_tail, lambda z: z, terms, 0, 0.2501, dtype)


def sin_pi_table(terms: int, dtype: str) -> tuple[list, float]:
    return fit(sin_pi_tail, lambda z: z, terms, 0, 0.0625, dtype)


def cos_pi_table(terms: int, dtype: str) -> tuple[list, float]:
    return fit(cos_pi_tail, lambda z: z * mp.pi, terms, 0, 0.0625, dtype)


def sinc_slope_table(terms: int, dtype: str) -> tuple[list, float]:
    return fit(sinc_slope, lambda z: 1 / abs(sinc_slope(z)), terms, 0, 0.25, dtype)


def root_table(order: int, terms: int, dtype: str) -> tuple[list, float]:
    most = SQRT_E if order == 2 else CBRT_E
    return fit(root_step(order), abs, terms, -most, most, dtype)


def off(x: mp.mpf, dtype: str) -> mp.mpf:
    """How far x is from a float of the dtype, relative to it."""
    return abs(rounded(x, dtype) / x - 1)


TABLES: dict[str, Callable[[], tuple[list, float]]] = {
    "TAN_F64": lambda: tan_table(5, "f64"),
    "TAN_F32": lambda: tan_table(2, "f32"),
    "ATAN_F64": lambda: atan_table(6, "f64"),
    "ATAN_F32": lambda: atan_table(2, "f32"),
    "ATAN_POINTS_F64": lambda: atan_points("f64"),
    "ATAN_POINTS_F32": lambda: atan_points("f32"),
    "ATAN2_POINTS_F64": lambda: atan2_points("f64"),
    "ATAN2_POINTS_F32": lambda: atan2_points("f32"),
    "ASIN_F64": lambda: asin_table(12, "f64"),
    "ASIN_F32": lambda: asin_table(5, "f32"),
    "RSQRT_F64": lambda: root_table(2, 5, "f64"),
    "SHORT_RSQRT": lambda: root_table(2, 3, "f64"),
    "RSQRT_F32": lambda: root_table(2, 2, "f32"),
    "CBRT_F64": lambda: root_table(3, 4, "f64"),
    "CBRT_F32": lambda: root_table(3, 3, "f32"),
    "SIN_PI_F64": lambda: sin_pi_table(6, "f64"),
    "SIN_PI_F32": lambda: sin_pi_table(3, "f32"),
    "COS_PI_F64": lambda: cos_pi_table(7, "f64"),
    "COS_PI_F32": lambda: cos_pi_table(4, "f32"),
    "SINC_SLOPE_F64": lambda: sinc_slope_table(9, "f64"),
    "SINC_SLOPE_F32": lambda: sinc_slope_table(5, "f32"),
    "INVERSE_PI_F64": lambda: (split(1 / mp.pi, (54,), "f64"), 0.0),
    "INVERSE_PI_F32": lambda: (split(1 / mp.pi, (25,), "f32"), 0.0),
    "TAN_POINTS_F64": lambda: tan_points("f64"),
    "TAN_POINTS_F32": lambda: tan_points("f32"),
    "HALF_PI_PAIR_F32": lambda: (split(mp.pi / 2, (23,), "f32"), 0.0),
    "HALF_PI_SHORT_F32": lambda: (split(mp.pi / 2, (15,), "f32"), 0.0),
    "PI_16_F64": lambda: (split(mp.pi / 16, (55, 86), "f64"), 0.0),
    "PI_16_F32": lambda: (split(mp.pi / 16, (26, 51), "f32"), 0.0),
}
