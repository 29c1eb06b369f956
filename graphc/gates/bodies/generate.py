"""Makes the polynomial tables of the bodies: minimax fits by the Remez exchange, in mpmath.

In:   a function, the interval, the weight that turns its error into an error of the gate, a dtype.
Out:  coefficients in that dtype, printed the way they stand in the bodies.
Invariant: on an interval from 0, coefficients are rounded one after the other, the lowest power
first, and the fit is repeated with the rounded ones held fixed, so that later ones make up for the
rounding of earlier ones.

    python -m graphc.gates.bodies.generate          # every table; about a minute
    python -m graphc.gates.bodies.generate EXP_F64  # one of them
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import mpmath as mp
import numpy as np

Function = Callable[[mp.mpf], mp.mpf]
PRECISION = {"f64": 53, "f32": 24}


def remez(
    f: Function, w: Function, powers: Sequence[int], a: float, b: float
) -> tuple[list, float]:
    """c of p = sum c_i x^powers_i with the least largest |w(x) (f(x) - p(x))|, and that error."""
    n = len(powers)
    grid = [
        a + (b - a) * (1 - mp.cos(mp.pi * (i + mp.mpf(1) / 2) / (30 * n))) / 2
        for i in range(30 * n)
    ]
    grid = [x for x in grid if w(x) != 0]
    values, weights = [f(x) for x in grid], [w(x) for x in grid]
    basis = [[x**p for p in powers] for x in grid]
    points = [round((len(grid) - 1) * (1 - float(mp.cos(mp.pi * i / n))) / 2) for i in range(n + 1)]
    for _ in range(12):
        rows = [[*basis[i], (-1) ** j / weights[i]] for j, i in enumerate(points)]
        *c, level = mp.lu_solve(mp.matrix(rows), mp.matrix([values[i] for i in points]))
        error = [e * (v - mp.fdot(c, row)) for e, v, row in zip(weights, values, basis)]
        moved = _alternation(error, n + 1)
        if moved == points or len(moved) <= n:
            break
        points = moved
    return list(c), float(max(abs(e) for e in error))


def _alternation(error: Sequence[mp.mpf], count: int) -> list[int]:
    """Where the error is largest between its changes of sign: `count` neighbours of those."""
    peaks: list[int] = []
    for i, e in enumerate(error):
        if peaks and (e > 0) == (error[peaks[-1]] > 0):
            if abs(e) > abs(error[peaks[-1]]):
                peaks[-1] = i
        else:
            peaks.append(i)
    while len(peaks) > count:
        peaks.pop(0 if abs(error[peaks[0]]) < abs(error[peaks[-1]]) else -1)
    return peaks


def rounded(x: mp.mpf, dtype: str) -> mp.mpf:
    with mp.workprec(PRECISION[dtype]):
        return +x


def fit(f: Function, w: Function, terms: int, a: float, b: float, dtype: str) -> tuple[list, float]:
    """`terms` coefficients of 1, x, x^2, ... in a dtype, and their largest weighted error."""
    fixed: list = []
    if a < 0:  # without the lowest power the rest is no Chebyshev system around 0
        fixed = [rounded(c, dtype) for c in remez(f, w, range(terms), a, b)[0]]
    for _ in range(terms - len(fixed)):
        rest = lambda x: f(x) - mp.polyval(fixed[::-1], x) if fixed else f(x)
        c, _ = remez(rest, w, range(len(fixed), terms), a, b)
        fixed.append(rounded(c[0], dtype))
    grid = [a + (b - a) * mp.mpf(i) / 999 for i in range(1000)]
    return fixed, float(max(abs(w(x) * (f(x) - mp.polyval(fixed[::-1], x))) for x in grid))


def split(x: mp.mpf, bits: Sequence[int], dtype: str) -> list:
    """x as a sum: multiples of 2^-bits for each of `bits`, then the rest rounded to the dtype."""
    parts = []
    for b in bits:
        parts.append(mp.nint(x * mp.mpf(2) ** b) / mp.mpf(2) ** b)
        x -= parts[-1]
    return [*parts, rounded(x, dtype)]


# The functions behind the tables; each is smooth at 0, where the series speaks.


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


def pi_words(count: int) -> list[int]:
    """2/pi as a binary fraction in words of 64 bits from the point on, signed as i64 is."""
    with mp.workprec(64 * count + 64):
        bits = int(mp.floor(2 / mp.pi * mp.mpf(2) ** (64 * count)))
    words = [(bits >> 64 * i) & (2**64 - 1) for i in reversed(range(count))]
    return [w - 2**64 if w >> 63 else w for w in words]


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


def text(name: str) -> str:
    """A table the way it stands in a body: shortest decimals that read back as the same bits."""
    values, error = TABLES[name]()
    scalar = np.float32 if name.endswith("F32") else np.float64
    lines = [f"    {scalar(str(v) if scalar is np.float32 else float(v))!s}," for v in values]
    bound = (
        f"  # generate.py {name}: error 2^{np.log2(error):.1f}"
        if error
        else f"  # generate.py {name}"
    )
    return "\n".join([f"{name} = ({bound}", *lines, ")"])


def main(names: Sequence[str]) -> None:
    mp.mp.prec = 200
    for name in [n for n in names if n in TABLES] or ([] if names else TABLES):
        print(text(name))
    if not names or "TWO_OVER_PI" in names:
        print("TWO_OVER_PI = (", *(f"    {w}," for w in pi_words(19)), ")", sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
