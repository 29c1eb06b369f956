"""Makes the polynomial tables of the bodies: minimax fits by the Remez exchange, in mpmath.

In:   a function, the interval, the weight that turns its error into an error of the gate, a dtype.
Out:  coefficients in that dtype, printed the way they stand in the bodies.
Invariant: on an interval from 0, coefficients are rounded one after the other, the lowest power
first, and the fit is repeated with the rounded ones held fixed, so that later ones make up for the
rounding of earlier ones.

    python -m graphc.gates.bodies.generate          # every table; a few minutes
    python -m graphc.gates.bodies.generate EXP_F64  # one of them
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from functools import cache

import mpmath as mp
import numpy as np

from graphc.gates.bodies import fits

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


def pi_words(count: int, point: int) -> list[int]:
    """2/pi in words of 64 bits, with the point behind the first `point` bits, signed as i64 is."""
    with mp.workprec(64 * count + 64):
        bits = int(mp.floor(2 / mp.pi * mp.mpf(2) ** (64 * count - point)))
    words = [(bits >> 64 * i) & (2**64 - 1) for i in reversed(range(count))]
    return [w - 2**64 if w >> 63 else w for w in words]


@cache
def tables() -> dict[str, Callable[[], tuple[list, float]]]:
    """Every table by name: what makes its values, and their largest weighted error."""
    made: dict[str, Callable[[], tuple[list, float]]] = {}
    for module in pkgutil.iter_modules(fits.__path__):
        of_family = importlib.import_module(f"{fits.__name__}.{module.name}").TABLES
        assert not made.keys() & of_family.keys(), "two tables have one name"
        made |= of_family
    return made


def text(name: str) -> str:
    """A table the way it stands in a body: shortest decimals that read back as the same bits."""
    values, error = tables()[name]()
    scalar = np.float32 if name.endswith("F32") else np.float64
    number = lambda v: f"{scalar(str(v) if scalar is np.float32 else float(v))!s}"
    lines = [line for v in values for line in row_lines(v, number)]
    bound = (
        f"  # generate.py {name}: error 2^{np.log2(error):.1f}"
        if error
        else f"  # generate.py {name}"
    )
    return "\n".join([f"{name} = ({bound}", *lines, ")"])


def row_lines(entry: mp.mpf | list, number: Callable[[mp.mpf], str]) -> list[str]:
    """An entry of a table: a number, or a row of them as a tuple."""
    if not isinstance(entry, list):
        return [f"    {number(entry)},"]
    inside = textwrap.wrap(", ".join(map(number, entry)) + ",", 100 - 8, break_on_hyphens=False)
    return ["    (", *(f"        {line}" for line in inside), "    ),"]


def main(names: Sequence[str]) -> None:
    mp.mp.prec = 200
    for name in [n for n in names if n in tables()] or ([] if names else tables()):
        print(text(name))
    if not names or "TWO_OVER_PI" in names:
        from graphc.gates.bodies.trig import POINT, WORDS

        words = pi_words(len(WORDS), POINT)
        print("TWO_OVER_PI = (", *(f"    {w}," for w in words), ")", sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
