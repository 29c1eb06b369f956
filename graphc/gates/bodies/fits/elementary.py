"""Exponentials, logarithms, sine and cosine: the functions behind their tables."""

from __future__ import annotations

from collections.abc import Callable

import mpmath as mp

from graphc.gates.bodies.generate import fit, split

# Each is smooth at 0, where the series speaks.


def exp_tail(r: mp.mpf) -> mp.mpf:
    """(e^r - 1 - r) / r^2"""
    return (mp.expm1(r) - r) / r**2 if r else mp.mpf(1) / 2


def log_tail(z: mp.mpf) -> mp.mpf:
    """(2 atanh(s) - 2 s) / s^3 at s^2 = z"""
    s = mp.sqrt(z)
    return (2 * mp.atanh(s) - 2 * s) / s**3 if z else mp.mpf(2) / 3


def log_far_tail(z: mp.mpf) -> mp.mpf:
    """((atanh(s) - s) / s^3 - 1/3) / s^2 at s^2 = z"""
    return (log_tail(z) / 2 - mp.mpf(1) / 3) / z if z else mp.mpf(1) / 5


def sin_tail(z: mp.mpf) -> mp.mpf:
    """(sin(r) - r) / r^3 at r^2 = z"""
    r = mp.sqrt(z)
    return (mp.sin(r) - r) / r**3 if z else mp.mpf(-1) / 6


def cos_tail(z: mp.mpf) -> mp.mpf:
    """(cos(r) - 1 + r^2/2) / r^4 at r^2 = z"""
    return (mp.cos(mp.sqrt(z)) - 1 + z / 2) / z**2 if z else mp.mpf(1) / 24


HALF_LN2 = 0.3470  # ln(2)/2 with a little room: n is the nearest integer only up to rounding
LOG_Z = 0.02948  # ((sqrt(2) - 1) / (sqrt(2) + 1))^2
QUARTER = 0.6190  # (pi/4)^2, with a little room


def exp_table(terms: int, dtype: str) -> tuple[list, float]:
    return fit(exp_tail, lambda r: r**2 / mp.exp(r), terms, -HALF_LN2, HALF_LN2, dtype)


def expm1_table(terms: int, dtype: str) -> tuple[list, float]:
    return fit(
        exp_tail, lambda r: r**2 / abs(mp.expm1(r)) if r else r, terms, -HALF_LN2, HALF_LN2, dtype
    )


def log_table(terms: int, dtype: str) -> tuple[list, float]:
    return fit(log_tail, lambda z: z / 2, terms, 0, LOG_Z, dtype)


def log_far_table(terms: int, dtype: str) -> tuple[list, float]:
    return fit(log_far_tail, lambda z: z * z, terms, 0, LOG_Z, dtype)


def sin_table(terms: int, dtype: str) -> tuple[list, float]:
    return fit(sin_tail, lambda z: z, terms, 0, QUARTER, dtype)


def cos_table(terms: int, dtype: str) -> tuple[list, float]:
    return fit(cos_tail, lambda z: z * z, terms, 0, QUARTER, dtype)


TABLES: dict[str, Callable[[], tuple[list, float]]] = {
    "EXP_F64": lambda: exp_table(10, "f64"),
    "EXP_F32": lambda: exp_table(5, "f32"),
    "EXPM1_F64": lambda: expm1_table(11, "f64"),
    "EXPM1_F32": lambda: expm1_table(6, "f32"),
    "EXP_SHORT_F64": lambda: exp_table(5, "f64"),  # for f32 results
    "LOG_F64": lambda: log_table(7, "f64"),
    "LOG_F32": lambda: log_table(3, "f32"),
    "LOG_SHORT_F64": lambda: log_table(4, "f64"),  # for f32 results
    "LOG_FAR_F64": lambda: log_far_table(7, "f64"),
    "SIN_F64": lambda: sin_table(6, "f64"),
    "SIN_F32": lambda: sin_table(3, "f32"),
    "COS_F64": lambda: cos_table(6, "f64"),
    "COS_F32": lambda: cos_table(3, "f32"),
    "LN2_F64": lambda: (split(mp.ln2, (42,), "f64"), 0.0),
    "LN2_F32": lambda: (split(mp.ln2, (15,), "f32"), 0.0),
    "HALF_PI_F64": lambda: (split(mp.pi / 2, (52, 86), "f64"), 0.0),
    "HALF_PI_F32": lambda: (split(mp.pi / 2, (23, 48), "f32"), 0.0),
    "HALF_PI_PAIR": lambda: (split(mp.pi / 2, (52,), "f64"), 0.0),
    "THIRD_PAIR": lambda: (split(mp.mpf(1) / 3, (54,), "f64"), 0.0),
}  # fmt: skip
