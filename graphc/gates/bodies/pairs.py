"""Bodies of logaddexp and logaddexp2, and of products with a logarithm.

log(e^x + e^y) = M + log(1 + e) with M the larger, m the smaller and e = e^(m - M), at most 1.

log(1 + e) = T + log(1 + g), where C, the reciprocal of one of 16 (f32: 32) points near 1 + e, makes
1 + g = (1 + e) C near 1, and T = -log C. The first point is 1, hence g = e for a small e.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.gates.bodies.exp import LOG2_E, ROUNDER, polynomial
from graphc.gates.bodies.log import log, log1p
from graphc.gates.bodies.pair_tables import (
    LOG1P_C,
    LOG1P_T,
    LOG1P_TAIL,
    LOG2_E_PAIR,
    LOG2P_C,
    LOG2P_T,
    LOG2P_TAIL,
    STEP_EXP,
    STEP_EXP2,
    STEP_LN2,
    STEP_LOST,
    STEP_ROOTS,
)
from graphc.ir.scalar import Scalar, bitcast, constant, equal, fma, lookup, scale, select
from graphc.ir.types import f32, f64

Terms = Callable[[Scalar, Scalar], tuple[Scalar, Scalar]]
# As ROUNDER, but to multiples of 1/16 (f32: 1/32), whose numerators the lowest bits are.
STEPS = {f64: 1.5 * 2.0**48, f32: 1.5 * 2.0**18}
NEAR = {f64: -1100.0, f32: -160.0}  # 2^d, let alone e^d, is nothing from there on
INF = float("inf")


def ordered(x: Scalar, y: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """(M, d, d_low): the larger, and m - M = d + d_low exactly; 0 for equal infinities."""
    larger, smaller = select(x < y, y, x), select(x < y, x, y)
    d = smaller - larger
    # What rounding lost (Knuth).
    back = d + larger
    lost = (smaller - back) - (larger - (back - d))
    same = equal(x, y)
    return larger, select(same, 0.0, d), select(same, 0.0, lost)


def exp_terms(d: Scalar, d_low: Scalar) -> tuple[Scalar, Scalar]:
    """(w, v) with e^(d + d_low) = w + v for d <= 0: w free of rounding, v small beside it.

    0 and 0 where d is so far below that neither they nor d_low mean anything.
    """
    ty = d.dtype
    # n is d / ln 2 to a 16th, e^r = 1 + s, and 2^n comes from a table, and what that lost.
    shifted = fma(d, LOG2_E, STEPS[ty])
    n, index = shifted - STEPS[ty], bitcast(shifted)
    high, low = STEP_LN2[ty]
    r = fma(n, -high, d) + fma(n, -low, d_low)
    rr = r * r
    s = fma(rr, polynomial(r, rr, STEP_EXP[ty]), r) + lookup(index, STEP_LOST[ty])
    w = scale(lookup(index, STEP_ROOTS[ty]), n)
    far = d < NEAR[ty]
    return select(far, 0.0, w), select(far, 0.0, w * s)


def exp2_terms(d: Scalar, d_low: Scalar) -> tuple[Scalar, Scalar]:
    """The same of 2^(d + d_low), but w is rounded and v what that lost: subnormal numbers are to
    be multiplied yet, so they must not be rounded twice before."""
    ty = d.dtype
    shifted = d + STEPS[ty]
    n, index = shifted - STEPS[ty], bitcast(shifted)
    r = (d - n) + d_low
    s = fma(r, polynomial(r, r * r, STEP_EXP2[ty]), lookup(index, STEP_LOST[ty]))
    root = lookup(index, STEP_ROOTS[ty])
    total = fma(root, s, root)
    lost = fma(root, s, root - total)
    far = d < NEAR[ty]
    w, v = scale(total, n), lost * scale(constant(d, 1.0), n)
    return select(far, 0.0, w), select(far, 0.0, v)


def near_1(w: Scalar, v: Scalar, c_table: Sequence[float]) -> tuple[Scalar, Scalar, Scalar]:
    """(index, g, g_low) with (1 + w + v) C = 1 + g + g_low, g_low small beside C."""
    # To find the point, w alone is near enough.
    index = bitcast(fma(w, float(len(c_table) - 1), ROUNDER[w.dtype]))
    c = lookup(index, c_table)
    return index, fma(w, c, c - 1.0), v * c


def logaddexp(x: Scalar, y: Scalar) -> Scalar:
    ty = x.dtype
    larger, d, d_low = ordered(x, y)
    index, g, g_low = near_1(*exp_terms(d, d_low), LOG1P_C[ty])
    f = g + g_low
    ff = f * f
    tail = fma(ff, polynomial(f, ff, LOG1P_TAIL[ty]), g_low)
    return larger + (lookup(index, LOG1P_T[ty]) + (g + tail))


def logaddexp2(x: Scalar, y: Scalar) -> Scalar:
    ty = x.dtype
    larger, d, d_low = ordered(x, y)
    index, g, g_low = near_1(*exp2_terms(d, d_low), LOG2P_C[ty])
    f = g + g_low
    ff = f * f
    # Times 1/ln 2, which takes two floats.
    high, low = LOG2_E_PAIR[ty]
    tail = fma(ff, polynomial(f, ff, LOG2P_TAIL[ty]), fma(g, low, g_low * high))
    return larger + (lookup(index, LOG2P_T[ty]) + fma(g, high, tail))


def shares(x: Scalar, y: Scalar, terms: Terms) -> tuple[Scalar, Scalar, Scalar]:
    """(1 / (1 + e), e / (1 + e), whether x has the first), 0 and 0 of two minus infinities."""
    larger, d, d_low = ordered(x, y)
    w, v = terms(d, d_low)
    e = w + v
    r = select(equal(larger, -INF), 0.0, 1.0 / (e + 1.0))
    return r, e * r, x > y


def logaddexp_first(x: Scalar, y: Scalar) -> Scalar:
    more, less, first = shares(x, y, exp_terms)
    return select(first, more, less)


def logaddexp_second(x: Scalar, y: Scalar) -> Scalar:
    more, less, first = shares(x, y, exp_terms)
    return select(first, less, more)


def logaddexp2_first(x: Scalar, y: Scalar) -> Scalar:
    more, less, first = shares(x, y, exp2_terms)
    return select(first, more, less)


def logaddexp2_second(x: Scalar, y: Scalar) -> Scalar:
    more, less, first = shares(x, y, exp2_terms)
    return select(first, less, more)


# -- products with a logarithm ---------------------------------------------------------------------


def xlogy(x: Scalar, y: Scalar) -> Scalar:
    return zero_times(x, y, log(y))


def xlog1py(x: Scalar, y: Scalar) -> Scalar:
    return zero_times(x, y, log1p(y))


def zero_times(x: Scalar, y: Scalar, factor: Scalar) -> Scalar:
    """x * factor, and 0 for x = 0 unless y is NaN."""
    return select(equal(x, 0.0) & equal(y, y), 0.0, x * factor)
