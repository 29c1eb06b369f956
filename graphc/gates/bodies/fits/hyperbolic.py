"""Hyperbolic functions and their inverses: the functions behind their tables."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import mpmath as mp

from graphc.gates.bodies.fits.elementary import HALF_LN2
from graphc.gates.bodies.generate import PRECISION, Function, fit, remez, rounded, split

# Each is smooth at 0, where the series speaks.


def sinh_tail(z: mp.mpf) -> mp.mpf:
    """(sinh(r) - r) / r^3 at r^2 = z"""
    r = mp.sqrt(z)
    return (mp.sinh(r) - r) / r**3 if z else mp.mpf(1) / 6


def cosh_tail(z: mp.mpf) -> mp.mpf:
    """(cosh(r) - 1) / r^2 at r^2 = z"""
    return (mp.cosh(mp.sqrt(z)) - 1) / z if z else mp.mpf(1) / 2


def log_tail(z: mp.mpf) -> mp.mpf:
    """(2 atanh(s) - 2 s) / s^3 at s^2 = z"""
    s = mp.sqrt(z)
    return (2 * mp.atanh(s) - 2 * s) / s**3 if z else mp.mpf(2) / 3


def atanh_tail(z: mp.mpf) -> mp.mpf:
    """(atanh(s) - s) / s^3 at s^2 = z"""
    return log_tail(z) / 2


def coth_tail(z: mp.mpf) -> mp.mpf:
    """(r coth(r) - 1) / r^2 at r^2 = z"""
    r = mp.sqrt(z)
    return (r * mp.coth(r) - 1) / z if z else mp.mpf(1) / 3


def sinh_table(terms: int, dtype: str) -> tuple[list, float]:
    return fit(sinh_tail, lambda z: z, terms, 0, HALF_LN2**2, dtype)


def cosh_table(terms: int, dtype: str) -> tuple[list, float]:
    return fit(cosh_tail, lambda z: z, terms, 0, HALF_LN2**2, dtype)


# tanh by the addition theorem, out of points X with their T = tanh X: about multiples of STEP, but
# for the first, which stands nearer to 0, where the results are small. Below its point, tanh' has a
# small denominator: so points lie BELOW the middle of what is near them.
STEP = {"f64": 1.27, "f32": 1.205}
FIRST = {"f64": 1.2, "f32": 1.1}
BELOW = {"f64": 0.04, "f32": 0.0}
POINTS = {"f64": 16, "f32": 8}
ASIDE = 0.01  # how far a point may be from where it was wanted, for the sake of 1 / cosh(X)^2
EXACT = {"f64": 2, "f32": 1}  # points from where on 1 - T^2 need not be exact


@cache
def tanh_points(dtype: str) -> list[tuple[mp.mpf, mp.mpf]]:
    """(X, T) with T = tanh X to a hundredth of a last place. The first of the T have half of the
    bits, so that 1 - T^2 is exact, too, where it matters; later on 1 / cosh(X)^2 is nearly a float.
    """
    points = [(mp.mpf(0), mp.mpf(0))]
    bits = PRECISION[dtype]
    near = mp.mpf(2) ** -(bits + 7)
    for i in range(1, POINTS[dtype]):
        wanted = FIRST[dtype] if i == 1 else i * STEP[dtype] - BELOW[dtype]
        few = i <= EXACT[dtype]
        unit = mp.mpf(2) ** -(bits // 2 if few else bits)
        middle = mp.nint(mp.tanh(wanted) / unit)
        best: tuple[mp.mpf, mp.mpf, mp.mpf] | None = None
        for j in range(1000):
            t = (middle + (j + 1) // 2 * (-1) ** j) * unit
            if t >= 1:
                continue
            at = rounded(mp.atanh(t), dtype)
            if best and (few or best[0] < 4 or abs(at - wanted) > ASIDE):
                break
            found = [
                (abs(rounded(mp.sech(x) ** 2, dtype) / mp.sech(x) ** 2 - 1) / near, x, t)
                for x in neighbours(at, 0 if few else 50, dtype)
                if abs(mp.tanh(x) - t) < near
            ]
            best = min([*found, best] if best else found, default=None)
        assert best is not None
        points.append(best[1:])
    return points


def neighbours(x: mp.mpf, count: int, dtype: str) -> list[mp.mpf]:
    """A float and those that are up to `count` places away."""
    place = mp.mpf(2) ** (mp.frexp(x)[1] - PRECISION[dtype])
    return [x + m * place for m in range(-count, count + 1)]


def tanh_table(which: Callable[[mp.mpf, mp.mpf], mp.mpf], dtype: str) -> tuple[list, float]:
    """The X, the T, or 1 / cosh(X)^2."""
    return [rounded(which(*p), dtype) for p in tanh_points(dtype)], 0.0


def coth_table(terms: int, dtype: str) -> tuple[list, float]:
    end = max(1.505 * STEP[dtype] - FIRST[dtype], 0.505 * STEP[dtype] + BELOW[dtype]) ** 2
    return fit(coth_tail, lambda z: z, terms, 0, end, dtype)


def fit_rounded(f: Function, w: Function, terms: int, end: float, dtype: str) -> tuple[list, float]:
    """As `fit` on [0, end], the coefficients rounded all at once: for many terms."""
    c = [rounded(v, dtype) for v in remez(f, w, range(terms), 0, end)[0]]
    grid = [end * mp.mpf(i) / 999 for i in range(1000)]
    return c, float(max(abs(w(x) * (f(x) - mp.polyval(c[::-1], x))) for x in grid))


def atanh_table(terms: int, dtype: str) -> tuple[list, float]:
    """Up to v = 0.275 = (m - 1)/(m + 1), m the largest quotient that atanh has there, 1.76."""
    return fit_rounded(atanh_tail, lambda z: z, terms, mp.mpf("0.275") ** 2, dtype)


def area_table(terms: int, dtype: str) -> tuple[list, float]:
    """Of 2 atanh, up to v = (3/2 - 1)/(3/2 + 1)."""
    return fit_rounded(log_tail, lambda z: z / 2, terms, mp.mpf("0.0401"), dtype)


def log1p_table(terms: int, dtype: str) -> tuple[list, float]:
    """Of 2 atanh, up to v = 1/(2 + 1)."""
    return fit_rounded(log_tail, lambda z: z / 2, terms, mp.mpf("0.11112"), dtype)


TABLES: dict[str, Callable[[], tuple[list, float]]] = {
    "SINH_F64": lambda: sinh_table(5, "f64"),
    "SINH_F32": lambda: sinh_table(3, "f32"),
    "COSH_F64": lambda: cosh_table(6, "f64"),
    "COSH_F32": lambda: cosh_table(3, "f32"),
    "TANH_X_F64": lambda: tanh_table(lambda x, t: x, "f64"),
    "TANH_X_F32": lambda: tanh_table(lambda x, t: x, "f32"),
    "TANH_T_F64": lambda: tanh_table(lambda x, t: t, "f64"),
    "TANH_T_F32": lambda: tanh_table(lambda x, t: t, "f32"),
    "TANH_S_F64": lambda: tanh_table(lambda x, t: mp.sech(x) ** 2, "f64"),
    "TANH_S_F32": lambda: tanh_table(lambda x, t: mp.sech(x) ** 2, "f32"),
    "COTH_F64": lambda: coth_table(9, "f64"),
    "COTH_F32": lambda: coth_table(4, "f32"),
    "LOG1P_F64": lambda: log1p_table(10, "f64"),
    "LOG1P_F32": lambda: log1p_table(4, "f32"),
    "ATANH_F64": lambda: atanh_table(9, "f64"),
    "ATANH_F32": lambda: atanh_table(4, "f32"),
    "AREA_F64": lambda: area_table(8, "f64"),
    "AREA_F32": lambda: area_table(3, "f32"),
    "WHOLE_LN2_F64": lambda: (split(mp.ln2, (53,), "f64"), 0.0),
    "WHOLE_LN2_F32": lambda: (split(mp.ln2, (24,), "f32"), 0.0),
}
