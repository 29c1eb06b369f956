"""Exponentials, logarithms, sine and cosine: the functions behind their tables."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import mpmath as mp

from graphc.gates.bodies.generate import PRECISION, fit, rounded, split

# Each is smooth at 0, where the series speaks.


def exp_tail(r: mp.mpf) -> mp.mpf:
    """(e^r - 1 - r) / r^2"""
    return (mp.expm1(r) - r) / r**2 if r else mp.mpf(1) / 2


def sin_tail(z: mp.mpf) -> mp.mpf:
    """(sin(r) - r) / r^3 at r^2 = z"""
    r = mp.sqrt(z)
    return (mp.sin(r) - r) / r**3 if z else mp.mpf(-1) / 6


def cos_tail(z: mp.mpf) -> mp.mpf:
    """(cos(r) - 1 + r^2/2) / r^4 at r^2 = z"""
    return (mp.cos(mp.sqrt(z)) - 1 + z / 2) / z**2 if z else mp.mpf(1) / 24


HALF_LN2 = 0.3470  # ln(2)/2 with a little room: n is the nearest integer only up to rounding
QUARTER = 0.6190  # (pi/4)^2, with a little room


def exp_table(terms: int, dtype: str) -> tuple[list, float]:
    return fit(exp_tail, lambda r: r**2 / mp.exp(r), terms, -HALF_LN2, HALF_LN2, dtype)


def expm1_table(terms: int, dtype: str) -> tuple[list, float]:
    return fit(
        exp_tail, lambda r: r**2 / abs(mp.expm1(r)) if r else r, terms, -HALF_LN2, HALF_LN2, dtype
    )


def sin_table(terms: int, dtype: str) -> tuple[list, float]:
    return fit(sin_tail, lambda z: z, terms, 0, QUARTER, dtype)


def cos_table(terms: int, dtype: str) -> tuple[list, float]:
    return fit(cos_tail, lambda z: z * z, terms, 0, QUARTER, dtype)


# Tables by the leading bits of a fraction. The logarithm's reciprocals c are chosen (Gal 1986) so
# that -log c is a short number T to many more bits than c has: no low part of T is needed.
LOW_BITS = {"f64": 42, "f32": 15}  # k ln 2 + T, with multiples of 2^-these, is exact for every k
ENTRIES = 16
ROOM = {"f64": mp.mpf("0.0015"), "f32": mp.mpf("0.006")}  # for T, around the middle


def roots_of_two(dtype: str, low: bool) -> list:
    """2^(i/16) rounded, or what rounding lost."""
    values = [mp.mpf(2) ** (mp.mpf(i) / ENTRIES) for i in range(ENTRIES)]
    return [rounded(v - rounded(v, dtype), dtype) if low else rounded(v, dtype) for v in values]


def lost_by_reciprocals(base: str, dtype: str) -> list:
    """-log c - T (1 + ratio)"""
    c, t = reciprocals(base, dtype)
    _, ratio = log_of_two(base, dtype)
    scale = mp.log(BASES[base])
    return [rounded(-mp.log(a) / scale - b * (1 + ratio), dtype) for a, b in zip(c, t)]


@cache
def reciprocals(base: str, dtype: str) -> tuple[list, list]:
    """(c, T) for m in [1 + i/16, 1 + (i+1)/16): c near 1/m, -log c = T (1 + ratio) in the base.

    `ratio` makes the rounded logarithm of 2 whole: T carries it with k. Entries next to 1 and 2 are
    exact, c = 1 and c = 1/2, so that logarithms near 0 keep their digits.
    """
    unit = mp.mpf(2) ** -LOW_BITS[dtype]
    of_two, ratio = log_of_two(base, dtype)
    scale = mp.log(BASES[base])
    c, t = [mp.mpf(1)], [mp.mpf(0)]
    for i in range(1, ENTRIES - 1):
        left, right = 1 + mp.mpf(i) / ENTRIES, 1 + mp.mpf(i + 1) / ENTRIES
        middle = int(mp.nint(mp.log((left + right) / 2) / scale / unit))
        best, room = None, int(ROOM[dtype] / unit)
        for j in range(min(2 * room, 1_000_000)):
            d = (j + 1) // 2 if room < 10_000 else j * 1_000_003 % room
            short = (middle + (d if j % 2 else -d)) * unit
            exact = mp.exp(-short * (1 + ratio) * scale)
            error = abs(rounded(exact, dtype) / exact - 1)
            if best is None or error < best[0]:
                best = error, rounded(exact, dtype), short
            if error < mp.mpf(2) ** (-PRECISION[dtype] - 17):
                break
        assert best is not None
        c.append(best[1])
        t.append(best[2])
    return [*c, mp.mpf(1) / 2], [*t, of_two]


BASES = {"e": mp.e, "2": mp.mpf(2), "10": mp.mpf(10)}


def log_of_two(base: str, dtype: str) -> tuple[mp.mpf, mp.mpf]:
    """log 2 as a short number, and how much longer it is, relatively."""
    exact = mp.log(2) / mp.log(BASES[base])
    short = mp.nint(exact * mp.mpf(2) ** LOW_BITS[dtype]) / mp.mpf(2) ** LOW_BITS[dtype]
    return short, exact / short - 1


def log_table_near_1(base: str, terms: int, dtype: str) -> tuple[list, float]:
    """(log(1+r) - r) / r^2 in the base, for r of the table's m c - 1."""
    scale = mp.log(BASES[base])
    tail = lambda r: ((mp.log1p(r) - r) / r**2 if r else mp.mpf(-1) / 2) / scale
    return fit(tail, lambda r: abs(r) * scale, terms, -1 / 32, 1 / 16, dtype)


def log_after_square(r: mp.mpf) -> mp.mpf:
    """(log(1+r) - r + r^2/2) / r^3"""
    return (mp.log1p(r) - r + r * r / 2) / r**3 if r else mp.mpf(1) / 3


def log_tables(base: str, dtype: str) -> dict[str, Callable[[], tuple[list, float]]]:
    prefix, end = {"e": "LN", "2": "LB", "10": "LG"}[base], dtype.upper()
    made: dict[str, Callable[[], tuple[list, float]]] = {
        f"{prefix}_C_{end}": lambda: (reciprocals(base, dtype)[0], 0.0),
        f"{prefix}_T_{end}": lambda: (reciprocals(base, dtype)[1], 0.0),
        f"{prefix}_P_{end}": lambda: log_table_near_1(base, 9 if dtype == "f64" else 4, dtype),
    }
    if base != "2":
        made[f"{prefix}_TWO_{end}"] = lambda: (
            [log_of_two(base, dtype)[0], rounded(log_of_two(base, dtype)[1], dtype)], 0.0,
        )  # fmt: skip
    if base != "e":
        made[f"{prefix}_E_{end}"] = lambda: (pair(1 / mp.log(BASES[base]), dtype), 0.0)
    return made


def pair(x: mp.mpf, dtype: str) -> list:
    """x as the sum of two numbers of the dtype."""
    high = rounded(x, dtype)
    return [high, rounded(x - high, dtype)]


def exp2_tail(r: mp.mpf) -> mp.mpf:
    """(2^r - 1) / r"""
    return mp.expm1(r * mp.ln2) / r if r else mp.ln2


TABLES: dict[str, Callable[[], tuple[list, float]]] = {
    "EXP_F64": lambda: exp_table(10, "f64"),
    "EXP_NEAR_F64": lambda: fit(exp_tail, lambda r: r**2, 5, -0.0219, 0.0219, "f64"),
    "EXP2_NEAR_F64": lambda: fit(exp2_tail, abs, 6, -0.0315, 0.0315, "f64"),
    "LOG_CUBE_F64": lambda: fit(log_after_square, lambda r: r**2, 10, -1 / 32, 1 / 16, "f64"),
    "LOG_CUBE_F32": lambda: fit(log_after_square, lambda r: r**2, 4, -1 / 32, 1 / 16, "f32"),
    "EXP_NEAR_16_F32": lambda: fit(exp_tail, lambda r: r**2, 2, -0.0219, 0.0219, "f32"),
    "LN2_SHORT_16_F32": lambda: (split(mp.ln2, (12,), "f32"), 0.0),
    "ROOTS_F32": lambda: (roots_of_two("f32", low=False), 0.0),
    "ROOTS_LOW_F32": lambda: (roots_of_two("f32", low=True), 0.0),
    "LN_LOW_F32": lambda: (lost_by_reciprocals("e", "f32"), 0.0),
    "EXP2_F32": lambda: fit(exp2_tail, abs, 7, -0.501, 0.501, "f32"),
    "LN2_SHORT_F64": lambda: (split(mp.ln2, (38,), "f64"), 0.0),
    "ROOTS_F64": lambda: (roots_of_two("f64", low=False), 0.0),
    "ROOTS_LOW_F64": lambda: (roots_of_two("f64", low=True), 0.0),
    "EXP_F32": lambda: exp_table(5, "f32"),
    "EXPM1_F64": lambda: expm1_table(11, "f64"),
    "EXPM1_F32": lambda: expm1_table(6, "f32"),
    "SIN_F64": lambda: sin_table(6, "f64"),
    "SIN_F32": lambda: sin_table(3, "f32"),
    "COS_F64": lambda: cos_table(6, "f64"),
    "COS_F32": lambda: cos_table(3, "f32"),
    "LN2_F64": lambda: (split(mp.ln2, (42,), "f64"), 0.0),
    "LN2_F32": lambda: (split(mp.ln2, (15,), "f32"), 0.0),
    "HALF_PI_F64": lambda: (split(mp.pi / 2, (52, 86), "f64"), 0.0),
    "HALF_PI_F32": lambda: (split(mp.pi / 2, (23, 48), "f32"), 0.0),
    "HALF_PI_PAIR": lambda: (split(mp.pi / 2, (52,), "f64"), 0.0),
}  # fmt: skip
for _base in BASES:
    for _dtype in LOW_BITS:
        TABLES |= log_tables(_base, _dtype)
