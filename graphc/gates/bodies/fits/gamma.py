"""The logarithm of the gamma function and its derivatives: the functions behind their tables."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import mpmath as mp

from graphc.gates.bodies.generate import Function, remez, rounded, split


def central(
    f: Function, w: Function, terms: int, a: float, b: float, pair: bool = True
) -> tuple[list, float]:
    """A fit around 0; the table starts with its constant term as a sum of two floats, or as one."""
    c, _ = remez(f, w, range(terms), a, b)
    held = [sum(split(c[0], (54,), "f64")) if pair else c[0], *c[1:]]
    held = [held[0] if pair else rounded(held[0], "f64"), *(rounded(v, "f64") for v in held[1:])]
    grid = [a + (b - a) * mp.mpf(i) / 999 for i in range(1000)]
    error = max(abs(w(x) * (f(x) - mp.polyval(held[::-1], x))) for x in grid)
    return (split(held[0], (54,), "f64") if pair else held[:1]) + held[1:], float(error)


def series(term: Callable[[int], mp.mpf], u: mp.mpf) -> mp.mpf:
    """sum of term(k) u^(k-1): the asymptotic series, for u small enough that 30 terms are exact."""
    return mp.fsum(term(k) * u ** (k - 1) for k in range(1, 30))


FAR = mp.mpf(200) ** -2  # up to here u = 1/x^2 is small enough

# -- the logarithm, for f32 ------------------------------------------------------------------------


def log1p_tail(r: mp.mpf) -> mp.mpf:
    """(log(1 + r) - r) / r^2"""
    return (mp.log1p(r) - r) / r**2 if r else mp.mpf(-1) / 2


def log1p_table(terms: int) -> tuple[list, float]:
    w = lambda r: abs(r**2 / mp.log1p(r)) if r else mp.mpf(0)
    return central(log1p_tail, w, terms, -1 / 32, 1 / 16, pair=False)


# -- log gamma -------------------------------------------------------------------------------------


def lgamma_near(t: mp.mpf) -> mp.mpf:
    """log gamma(y) / ((y - 1) (y - 2)) at y = 3/2 + t"""
    if abs(abs(t) - mp.mpf(1) / 2) < mp.mpf(2) ** -90:
        return mp.euler if t < 0 else 1 - mp.euler
    return mp.loggamma(t + mp.mpf(3) / 2) / ((t - mp.mpf(1) / 2) * (t + mp.mpf(1) / 2))


def lgamma_far(u: mp.mpf) -> mp.mpf:
    """x (log gamma(x) - (x - 1/2) log x + x - log(2 pi)/2) at x = u^-1/2"""
    if u < FAR:
        return series(lambda k: mp.bernoulli(2 * k) / (2 * k * (2 * k - 1)), u)
    x = 1 / mp.sqrt(u)
    return x * (mp.loggamma(x) - (x - mp.mpf(1) / 2) * mp.log(x) + x - mp.log(2 * mp.pi) / 2)


def lgamma_near_table(terms: int, pair: bool = True) -> tuple[list, float]:
    return central(lgamma_near, lambda t: 1 / lgamma_near(t), terms, -0.5, 0.5, pair)


def lgamma_far_table(terms: int) -> tuple[list, float]:
    w = lambda u: mp.sqrt(u) / mp.loggamma(1 / mp.sqrt(u)) if u else mp.mpf(0)
    return central(lgamma_far, w, terms, 0, 1 / 9, pair=False)


# -- digamma ---------------------------------------------------------------------------------------


@cache
def digamma_zero() -> mp.mpf:
    return mp.findroot(mp.digamma, mp.mpf("1.4616321449683623"))


def digamma_near(t: mp.mpf) -> mp.mpf:
    """digamma(zero + t) / t, around its positive zero"""
    zero = digamma_zero()
    return mp.digamma(zero + t) / t if abs(t) > mp.mpf(2) ** -90 else mp.psi(1, zero)


def digamma_far(u: mp.mpf) -> mp.mpf:
    """x^2 (log x - 1/(2x) - digamma(x)) at x = u^-1/2"""
    if u < FAR:
        return series(lambda k: mp.bernoulli(2 * k) / (2 * k), u)
    x = 1 / mp.sqrt(u)
    return (mp.log(x) - 1 / (2 * x) - mp.digamma(x)) * x**2


def digamma_near_table(terms: int, pair: bool = True) -> tuple[list, float]:
    zero = digamma_zero()
    return central(digamma_near, lambda t: 1 / digamma_near(t), terms, 1 - zero, 2 - zero, pair)


def digamma_far_table(terms: int) -> tuple[list, float]:
    w = lambda u: u / mp.digamma(1 / mp.sqrt(u)) if u else mp.mpf(0)
    return central(digamma_far, w, terms, 0, 1 / 4, pair=False)


# -- trigamma and tetragamma -----------------------------------------------------------------------


def trigamma_far(u: mp.mpf) -> mp.mpf:
    """x^3 (trigamma(x) - 1/x - 1/(2 x^2)) at x = u^-1/2"""
    if u < FAR:
        return series(lambda k: mp.bernoulli(2 * k), u)
    x = 1 / mp.sqrt(u)
    return (mp.psi(1, x) - 1 / x - u / 2) * x**3


def tetragamma_far(u: mp.mpf) -> mp.mpf:
    """x^4 (-tetragamma(x) - 1/x^2 - 1/x^3) at x = u^-1/2"""
    if u < FAR:
        return series(lambda k: (2 * k + 1) * mp.bernoulli(2 * k), u)
    x = 1 / mp.sqrt(u)
    return (-mp.psi(2, x) - u - u / x) * x**4


def polygamma_near_table(order: int, terms: int) -> tuple[list, float]:
    """polygamma(order, 15/8 + t), without its sign: the terms cancel less than around 3/2."""
    f = lambda t: abs(mp.psi(order, t + mp.mpf(15) / 8))
    return central(f, lambda t: 1 / f(t), terms, -0.875, 0.125, pair=False)


def trigamma_far_table(terms: int) -> tuple[list, float]:
    w = lambda u: mp.sqrt(u) ** 3 / mp.psi(1, 1 / mp.sqrt(u)) if u else mp.mpf(0)
    return central(trigamma_far, w, terms, 0, 1 / 4, pair=False)


def tetragamma_far_table(terms: int) -> tuple[list, float]:
    w = lambda u: u**2 / mp.psi(2, 1 / mp.sqrt(u)) if u else mp.mpf(0)
    return central(tetragamma_far, w, terms, 0, 1 / 4, pair=False)


# -- reflection ------------------------------------------------------------------------------------


def sine_of_pi(z: mp.mpf) -> mp.mpf:
    """sin(pi v) / (pi v) at v^2 = z"""
    v = mp.sqrt(z)
    return mp.sin(mp.pi * v) / (mp.pi * v) if z else mp.mpf(1)


def sine_tail(z: mp.mpf) -> mp.mpf:
    """(sin(pi v) / (pi v) - 1) / v^2 at v^2 = z"""
    return (sine_of_pi(z) - 1) / z if z else -(mp.pi**2) / 6


def sine_table(terms: int) -> tuple[list, float]:
    w = lambda z: z / sine_of_pi(z)
    return central(sine_tail, w, terms, 0, 1 / 4)


TABLES: dict[str, Callable[[], tuple[list, float]]] = {
    "LOG1P_SHORT": lambda: log1p_table(5),
    "LGAMMA_NEAR": lambda: lgamma_near_table(22),
    "LGAMMA_NEAR_SHORT": lambda: lgamma_near_table(12, pair=False),
    "LGAMMA_FAR": lambda: lgamma_far_table(10),
    "LGAMMA_FAR_SHORT": lambda: lgamma_far_table(4),
    "LGAMMA_CONSTANT": lambda: (split(mp.log(2 * mp.pi) / 2 - mp.mpf(1) / 2, (54,), "f64"), 0.0),
    "DIGAMMA_ZERO": lambda: (split(digamma_zero() - 1, (52,), "f64"), 0.0),
    "DIGAMMA_NEAR": lambda: digamma_near_table(23),
    "DIGAMMA_NEAR_SHORT": lambda: digamma_near_table(12, pair=False),
    "DIGAMMA_FAR": lambda: digamma_far_table(16),
    "DIGAMMA_FAR_SHORT": lambda: digamma_far_table(5),
    "TRIGAMMA_NEAR": lambda: polygamma_near_table(1, 25),
    "TRIGAMMA_NEAR_SHORT": lambda: polygamma_near_table(1, 14),
    "TRIGAMMA_FAR": lambda: trigamma_far_table(17),
    "TRIGAMMA_FAR_SHORT": lambda: trigamma_far_table(6),
    "TETRAGAMMA_NEAR": lambda: polygamma_near_table(2, 26),
    "TETRAGAMMA_NEAR_SHORT": lambda: polygamma_near_table(2, 15),
    "TETRAGAMMA_FAR": lambda: tetragamma_far_table(18),
    "TETRAGAMMA_FAR_SHORT": lambda: tetragamma_far_table(7),
    "PI_PAIR": lambda: (split(mp.pi, (51,), "f64"), 0.0),
    "SINE_OF_PI": lambda: sine_table(9),
}  # fmt: skip
