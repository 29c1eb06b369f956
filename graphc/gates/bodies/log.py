"""Bodies of the logarithms.

x = 2^k m with 1 <= m < 2, and c near 1/m by the leading bits of m: log x = k log 2 - log c +
log(1 + r) with r = m c - 1, a series. The c are such that -log c is a short number, so that the
first two terms add without an error (Gal, An accurate elementary mathematical library, 1986).
"""

from __future__ import annotations

from collections.abc import Mapping

from graphc.gates.bodies.exp import ALMOST_X, FRACTION_BITS, polynomial
from graphc.gates.bodies.log_tables import (
    LB_C,
    LB_E,
    LB_P,
    LB_T,
    LG_C,
    LG_E,
    LG_P,
    LG_T,
    LG_TWO,
    LN_C,
    LN_P,
    LN_T,
    LN_TWO,
)
from graphc.ir.scalar import (
    Scalar,
    bitcast,
    exponent,
    fma,
    lookup,
    lshr,
    mantissa,
    scale_by_whole,
    select,
)
from graphc.ir.types import DType, f32, f64

# The tables of a base: c, -log c, the series, and log 2 with its ratio.
LogTables = tuple[Mapping[DType, tuple[float, ...]], ...]
LN: LogTables = (LN_C, LN_T, LN_P, LN_TWO)
LB: LogTables = (LB_C, LB_T, LB_P, {f64: (1.0, 0.0), f32: (1.0, 0.0)})
LG: LogTables = (LG_C, LG_T, LG_P, LG_TWO)


def log_parts(x: Scalar, base: LogTables) -> tuple[Scalar, Scalar, Scalar, Scalar]:
    """(k, c, r, head) of x = 2^k m, c near 1/m: log x = head (1 + ratio) + log(1 + r), r = m c - 1.

    head is exact. It is -inf at 0 and inf at inf; r is NaN below 0. Next to x = 1 it is 0.
    """
    c_table, t_table, _, (log_of_two, _) = (table[x.dtype] for table in base)
    k, m = exponent(x), mantissa(x)
    index = lshr(bitcast(m), FRACTION_BITS[x.dtype] - 4)
    c = lookup(index, c_table)
    return k, c, fma(m, c, -1.0), fma(k, log_of_two, lookup(index, t_table))


def log_of_parts(
    head: Scalar, r: Scalar, base: LogTables, first: Scalar, extra: Scalar | None = None
) -> Scalar:
    """head (1 + ratio) + first + r^2 p(r) + extra, for a `first` that is log(1 + r) up to r^2."""
    _, _, series, two = base
    _, ratio = two[r.dtype]
    rr = r * r
    # head + first as a sum of two floats, the second one as part of what is small.
    large = head + first
    lost = (head - large) + first
    if extra is not None:
        lost = lost + extra
    small = fma(head, ratio, lost) if ratio else lost
    small = fma(rr, polynomial(r, rr, series[r.dtype]), small)
    # Where head is infinite, what is small came out as NaN: any number will do.
    return large + select(small > -1.0, small, -1.0)


def log(x: Scalar) -> Scalar:
    _, _, r, head = log_parts(x, LN)
    return log_of_parts(head, r, LN, r)


def log2(x: Scalar) -> Scalar:
    return _log_to_base(x, LB, LB_E)


def log10(x: Scalar) -> Scalar:
    return _log_to_base(x, LG, LG_E)


def _log_to_base(x: Scalar, base: LogTables, log_e: dict[DType, tuple[float, float]]) -> Scalar:
    _, _, r, head = log_parts(x, base)
    # r log e as a sum of two floats
    high, low = log_e[x.dtype]
    first = r * high
    return log_of_parts(head, r, base, first, fma(r, low, fma(r, high, -first)))


def log1p(x: Scalar) -> Scalar:
    # u + error = 1 + x exactly (Knuth), so log1p(x) = log(u) + error/u up to the square of error/u.
    u = x + 1.0
    back = u - 1.0
    error = (x - back) + (1.0 - (u - back))
    k, c, r, head = log_parts(u, LN)
    # 1/u = c 2^-k / (1 + r), and 1 - r is near enough to 1/(1 + r).
    share = error * c
    result = log_of_parts(head, r, LN, r, scale_by_whole(fma(share, -r, share), -k))
    return select(abs(x) < ALMOST_X[x.dtype], x, result)
