"""Tables of logaddexp and logaddexp2: e^y and 2^y for y <= 0, log(1 + e) for 0 <= e <= 1."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import mpmath as mp

from graphc.gates.bodies.fits.elementary import exp2_tail, exp_tail
from graphc.gates.bodies.generate import PRECISION, fit, rounded, split

ENTRIES = {"f64": 16, "f32": 32}  # what one lookup takes
SHORT = {"f64": (38,), "f32": (11,)}  # ln 2 to this bit, times any multiple of 1/ENTRIES, is exact
STEP = {"f64": 1.618 * 2.0**-40, "f32": 1.618 * 2.0**-23}  # between candidates for C


@cache
def points(name: str, dtype: str) -> tuple[list, list]:
    """(C, T): C near 1/(1 + e) for e at equal distances from 0 to 1, T = -log C.

    Chosen (Gal 1986) so that T is a float to 2^-9 of its last place: no low part is needed.
    """
    last = ENTRIES[dtype] - 1
    c, t = [mp.mpf(1)], [mp.mpf(0)]
    for i in range(1, last + 1):
        for j in range(100_000):
            shift = (j + 1) // 2 * (-1) ** j * mp.mpf(STEP[dtype])
            middle = rounded((1 + shift) / (1 + mp.mpf(i) / last), dtype)
            exact = -mp.log(middle) / unit(name)
            near = rounded(exact, dtype)
            short = middle >= 0.5  # so that C - 1 is exact
            last_place = mp.mpf(2) ** (mp.frexp(near)[1] - PRECISION[dtype])
            if short and abs(near - exact) < last_place / 512:
                break
        c.append(middle)
        t.append(near)
    return c, t


def unit(name: str) -> mp.mpf:
    """The logarithm of the base."""
    return mp.ln2 if name == "LOG2P" else mp.mpf(1)


def tail(name: str, terms: int, dtype: str) -> tuple[list, float]:
    """(log(1 + g) - g) / g^2 for e C = 1 + g, in the base."""
    most = mp.mpf(1) / (2 * (ENTRIES[dtype] - 1)) * mp.mpf("1.01")
    f = lambda g: ((mp.log1p(g) - g) / g**2 if g else mp.mpf(-1) / 2) / unit(name)
    return fit(f, lambda g: abs(g) * unit(name), terms, -most, most, dtype)


def root(i: int, dtype: str) -> mp.mpf:
    return mp.mpf(2) ** (mp.mpf(i) / ENTRIES[dtype])


def roots(dtype: str) -> list:
    """2^(i/16) (f32: 2^(i/32)), rounded."""
    return [rounded(root(i, dtype), dtype) for i in range(ENTRIES[dtype])]


def lost(dtype: str) -> list:
    """What rounding lost, relatively."""
    exact = [root(i, dtype) for i in range(ENTRIES[dtype])]
    return [rounded(e / rounded(e, dtype) - 1, dtype) for e in exact]


def step_exp(terms: int, dtype: str) -> tuple[list, float]:
    most = mp.ln2 / (2 * ENTRIES[dtype]) * mp.mpf("1.01")
    return fit(exp_tail, lambda r: r**2, terms, -most, most, dtype)


def step_exp2(terms: int, dtype: str) -> tuple[list, float]:
    most = mp.mpf("1.01") / (2 * ENTRIES[dtype])
    return fit(exp2_tail, abs, terms, -most, most, dtype)


def scale_pair(dtype: str) -> list:
    """1 / ln 2 as the sum of two numbers of the dtype."""
    high = rounded(1 / mp.ln2, dtype)
    return [high, rounded(1 / mp.ln2 - high, dtype)]


def log_tables(name: str, terms: int, dtype: str) -> dict[str, Callable[[], tuple[list, float]]]:
    end = dtype.upper()
    return {
        f"{name}_C_{end}": lambda: (points(name, dtype)[0], 0.0),
        f"{name}_T_{end}": lambda: (points(name, dtype)[1], 0.0),
        f"{name}_TAIL_{end}": lambda: tail(name, terms, dtype),
    }


def step_tables(terms: int, terms2: int, dtype: str) -> dict[str, Callable[[], tuple[list, float]]]:
    end = dtype.upper()
    return {
        f"STEP_ROOTS_{end}": lambda: (roots(dtype), 0.0),
        f"STEP_LOST_{end}": lambda: (lost(dtype), 0.0),
        f"STEP_LN2_{end}": lambda: (split(mp.ln2, SHORT[dtype], dtype), 0.0),
        f"STEP_EXP_{end}": lambda: step_exp(terms, dtype),
        f"STEP_EXP2_{end}": lambda: step_exp2(terms2, dtype),
        f"LOG2_E_PAIR_{end}": lambda: (scale_pair(dtype), 0.0),
    }


TABLES: dict[str, Callable[[], tuple[list, float]]] = {
    **log_tables("LOG1P", 8, "f64"),
    **log_tables("LOG1P", 3, "f32"),
    **log_tables("LOG2P", 8, "f64"),
    **log_tables("LOG2P", 3, "f32"),
    **step_tables(5, 6, "f64"),
    **step_tables(2, 3, "f32"),
}
