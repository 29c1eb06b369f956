"""The error function and its kin: a polynomial for each of 16 intervals, as rows of a table.

A table's first row holds the points c about which the polynomials go, row 1 + i the coefficients
of (x - c)^i. c is chosen, near the middle of its interval, such that the function's value there is
a float but for a thousandth of an ulp (S. Gal, 1986): the constant term has no rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import mpmath as mp

from graphc.gates.bodies.generate import Function, fit, remez, rounded, split

Rows = list[list[mp.mpf]]
INTERVALS = 16


@cache
def erf(x: mp.mpf) -> mp.mpf:
    return mp.erf(x)


@cache
def erfcx(x: mp.mpf) -> mp.mpf:
    """e^(x^2) erfc(x)"""
    return mp.exp(x * x) * mp.erfc(x)


def centre(f: Function, middle: mp.mpf, step: float, dtype: str) -> mp.mpf:
    """Of multiples of a step near the middle, the one at which f is nearest to a float."""
    first = int(mp.nint(middle / step))
    near = (mp.mpf(first + i) * step for i in range(-400, 401))
    return min(near, key=lambda c: abs(f(c) / rounded(f(c), dtype) - 1))


def piece(
    f: Function, w: Function, terms: int, a: mp.mpf, b: mp.mpf, step: float, dtype: str
) -> tuple[list[mp.mpf], float]:
    """[c, coefficients of (x - c)^i] of f on an interval, and the largest weighted error."""
    c = centre(f, (a + b) / 2, step, dtype)
    found, _ = remez(lambda t: f(c + t), lambda t: w(c + t), range(terms), a - c, b - c)
    held = [rounded(v, dtype) for v in [f(c), *found[1:]]]
    grid = [a + (b - a) * mp.mpf(i) / 99 for i in range(100)]
    error = max(abs(w(x) * (f(x) - mp.polyval(held[::-1], x - c))) for x in grid)
    return [c, *held], float(error)


def rows(pieces: list[tuple[list[mp.mpf], float]]) -> tuple[Rows, float]:
    """Pieces, stood side by side."""
    return [list(row) for row in zip(*(p for p, _ in pieces))], max(e for _, e in pieces)


# -- erf -------------------------------------------------------------------------------------------
# Intervals about the multiples of ERF_STEP; the first is about 0, where erf is odd.

ERF_STEP = {"f64": 0.3828125, "f32": 0.25}


def erf_rest(z: mp.mpf) -> mp.mpf:
    """(erf(x)/x - 2/sqrt(pi)) / x^2 at x^2 = z"""
    x = mp.sqrt(z)
    slope = 2 / mp.sqrt(mp.pi)
    return (mp.erf(x) / x - slope) / z if z else -slope / 3


def erf_table(terms: int, dtype: str) -> tuple[Rows, float]:
    """erf, with the error relative to it: `terms` coefficients after the constant."""
    step = mp.mpf(ERF_STEP[dtype])
    room = step / 2 * (1 + mp.mpf(2) ** -10)
    # Even powers alone; the first has the error that it has.
    rest, error = fit(erf_rest, lambda z: z, (terms - 1) // 2, 0, room**2, dtype)
    zero = mp.mpf(0)
    first = [zero, zero, rounded(2 / mp.sqrt(mp.pi), dtype)]
    for coefficient in rest:
        first += [zero, coefficient]
    first += [zero] * (terms + 2 - len(first))
    spacing = 2.0**-24 if dtype == "f64" else 2.0**-20
    others = [
        piece(
            erf, lambda x: 1 / erf(x), terms + 1, i * step - room, i * step + room, spacing, dtype
        )
        for i in range(1, INTERVALS)
    ]
    return rows([(first, error), *others])


# -- erfcx -----------------------------------------------------------------------------------------
# u = 2 + ERFCX_STEP * x from 2 to 32, cut in four where its exponent is 1, 2, 3 and 4; in f32 in
# two, as 8 entries are one permutation of a register.

ERFCX_STEP = {"f64": 1.09375, "f32": 2.90625}
ERFCX_PIECES = {"f64": 4, "f32": 2}


def octaves(step: float, shift: float, pieces: int = 4) -> list[tuple[mp.mpf, mp.mpf]]:
    """The intervals of x in which u = shift + step x is from 2 on below 2 + 2/pieces, ... to 32."""
    made = []
    for i in range(4 * pieces):
        width = mp.mpf(2) ** (i // pieces + 1) / pieces
        a = (pieces + i % pieces) * width - shift
        made.append((a / step, (a + width) / step))
    return made


def erfcx_table(terms: int, dtype: str) -> tuple[Rows, float]:
    spacing = 2.0**-22 if dtype == "f64" else 2.0**-17
    cuts = octaves(ERFCX_STEP[dtype], 2.0, ERFCX_PIECES[dtype])
    return rows(
        [piece(erfcx, lambda x: 1 / erfcx(x), terms, a, b, spacing, dtype) for a, b in cuts]
    )


# -- erfinv ----------------------------------------------------------------------------------------
# In x^2 up to |x| = 1/2, then in w = -log(1 - |x|): u = shift + step w is from 2 to 32.

ERFINV_U = {"f64": (0.828125, 1.4296875), "f32": (1.8671875, 0.7109375)}
ERFINV_Z = 0.25


@cache
def erfinv(x: mp.mpf) -> mp.mpf:
    return mp.erfinv(x)


def erfinv_of_log(w: mp.mpf) -> mp.mpf:
    """erfinv(x) at w = -log(1 - x)"""
    return erfinv(-mp.expm1(-w))


def slope_of_log(w: mp.mpf) -> mp.mpf:
    """(1 - x) erfinv'(x) at w = -log(1 - x)"""
    return mp.sqrt(mp.pi) / 2 * mp.exp(erfinv_of_log(w) ** 2 - w)


def erfinv_rest(z: mp.mpf) -> mp.mpf:
    """(erfinv(x)/x - sqrt(pi)/2) / x^2 at x^2 = z"""
    x, slope = mp.sqrt(z), mp.sqrt(mp.pi) / 2
    return (erfinv(x) / x - slope) / z if z else slope * mp.pi / 12


def slope_rest(z: mp.mpf) -> mp.mpf:
    """(erfinv'(x) - sqrt(pi)/2) / x^2 at x^2 = z"""
    slope = mp.sqrt(mp.pi) / 2
    return slope * mp.expm1(erfinv(mp.sqrt(z)) ** 2) / z if z else slope * mp.pi / 4


def near_table(f: Function, terms: int, dtype: str) -> tuple[list, float]:
    found, _ = remez(f, lambda z: z, range(terms), 0, ERFINV_Z)
    held = [rounded(v, dtype) for v in found]
    grid = [ERFINV_Z * mp.mpf(i) / 199 for i in range(200)]
    return held, float(max(abs(z * (f(z) - mp.polyval(held[::-1], z))) for z in grid))


def far_table(f: Function, terms: int, dtype: str) -> tuple[Rows, float]:
    spacing = 2.0**-20 if dtype == "f64" else 2.0**-16
    cuts = octaves(*ERFINV_U[dtype])
    return rows([piece(f, lambda w: 1 / f(w), terms, a, b, spacing, dtype) for a, b in cuts])


TABLES: dict[str, Callable[[], tuple[list, float]]] = {
    "ERF_F64": lambda: erf_table(13, "f64"),
    "ERF_F32": lambda: erf_table(6, "f32"),
    "ERFCX_F64": lambda: erfcx_table(15, "f64"),
    "ERFCX_F32": lambda: erfcx_table(9, "f32"),
    "ERFINV_NEAR_F64": lambda: near_table(erfinv_rest, 13, "f64"),
    "ERFINV_NEAR_F32": lambda: near_table(erfinv_rest, 5, "f32"),
    "ERFINV_FAR_F64": lambda: far_table(erfinv_of_log, 15, "f64"),
    "ERFINV_FAR_F32": lambda: far_table(erfinv_of_log, 6, "f32"),
    "INVERSE_SLOPE_NEAR_F64": lambda: near_table(slope_rest, 14, "f64"),
    "INVERSE_SLOPE_NEAR_F32": lambda: near_table(slope_rest, 6, "f32"),
    "INVERSE_SLOPE_FAR_F64": lambda: far_table(slope_of_log, 16, "f64"),
    "INVERSE_SLOPE_FAR_F32": lambda: far_table(slope_of_log, 7, "f32"),
    "SLOPE_F64": lambda: (split(2 / mp.sqrt(mp.pi), (52,), "f64"), 0.0),
    "SLOPE_F32": lambda: (split(2 / mp.sqrt(mp.pi), (23,), "f32"), 0.0),
    "SQRT_HALF_F64": lambda: (split(mp.sqrt(0.5), (53,), "f64"), 0.0),
    "SQRT_HALF_F32": lambda: (split(mp.sqrt(0.5), (24,), "f32"), 0.0),
    "NORMAL_F64": lambda: (split(1 / mp.sqrt(2 * mp.pi), (54,), "f64"), 0.0),
    "NORMAL_F32": lambda: (split(1 / mp.sqrt(2 * mp.pi), (25,), "f32"), 0.0),
}
