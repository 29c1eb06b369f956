"""Bodies of the logarithms.

x = 2^k m with 1 <= m < 2, and c near 1/m by the leading bits of m: log x = k log 2 - log c +
log(1 + r) with r = m c - 1, a series. The c are such that -log c is a short number, so that the
first two terms add without an error (Gal, An accurate elementary mathematical library, 1986).

Where something is added under the logarithm, x = 2^k m with m between sqrt(1/2) and sqrt(2), f =
m - 1, s = f / (2 + f): log m = 2 atanh(s), an odd series in s whose terms from s^3 on are a minimax
polynomial. Since 2s = f - s f, the leading term f is exact:

    log m = f - f^2/2 + s (f^2/2 + R),   R = s^2 (2/3 + 2/5 s^2 + ...)   (FreeBSD's msun, e_log.c)
"""

from __future__ import annotations

from graphc.gates.bodies.exp import ALMOST_X, BIAS, FRACTION_BITS, LN2, polynomial
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
    constant,
    equal,
    exponent,
    fma,
    lookup,
    lshr,
    mantissa,
    scale,
    select,
    to_bits,
)
from graphc.ir.types import DType, f32, f64

# The tables of a base: c, -log c, the series, and log 2 with its ratio.
LogTables = tuple[dict[DType, tuple[float, ...]], ...]
LN: LogTables = (LN_C, LN_T, LN_P, LN_TWO)
LB: LogTables = (LB_C, LB_T, LB_P, {f64: (1.0, 0.0), f32: (1.0, 0.0)})
LG: LogTables = (LG_C, LG_T, LG_P, LG_TWO)

LOG = {
    f64: (  # generate.py LOG_F64: error 2^-59.4
        0.6666666666666735,
        0.39999999999409314,
        0.285714287437016,
        0.22222198426691003,
        0.18183572550073235,
        0.15313824110288843,
        0.14798379752484495,
    ),
    f32: (  # generate.py LOG_F32: error 2^-30.2
        0.66666776,
        0.39977562,
        0.29871732,
    ),
}
SQRT_HALF = {f64: 0x3FE6A09E667F3BCD, f32: 0x3F3504F3}  # patterns
DOUBLINGS = {f64: 54, f32: 25}  # make the least subnormal normal
SMALLEST_NORMAL = {f64: 2.0**-1022, f32: 2.0**-126}


def split(x: Scalar, doubled: Scalar | None = None) -> tuple[Scalar, Scalar, Scalar]:
    """(k, m, pattern) of a normal x = 2^k m, sqrt(1/2) <= m < sqrt(2); k + BIAS is the pattern's
    exponent field. Where `doubled` holds, k is that of x before DOUBLINGS doublings."""
    ty = x.dtype
    bits, fraction = FRACTION_BITS[ty], 2.0 ** FRACTION_BITS[ty]
    # The exponent field changes at sqrt(1/2) instead of 1 once the patterns' difference is added.
    pattern = bitcast(x) + (to_bits(1.0, ty) - SQRT_HALF[ty])
    m = bitcast((pattern & (2**bits - 1)) + SQRT_HALF[ty])
    # The field in the lowest bits of 2^52 reads as 2^52 + field: an integer to a float without a
    # conversion.
    shifted = bitcast(lshr(pattern, bits) | to_bits(fraction, ty))
    zero = constant(x, fraction + BIAS[ty])
    if doubled is not None:
        zero = select(doubled, fraction + BIAS[ty] + DOUBLINGS[ty], zero)
    return shifted - zero, m, pattern


def log_sum(k: Scalar, f: Scalar, extra: Scalar | None = None) -> Scalar:
    """k ln 2 + log(1 + f) + extra, for a small extra."""
    high, low = LN2[f.dtype]
    s = f / (f + 2.0)
    z = s * s
    half_square = (f * 0.5) * f
    tail = fma(z, polynomial(z, z * z, LOG[f.dtype]), half_square)
    small = k * low if extra is None else fma(k, low, extra)
    small = fma(s, tail, small) - half_square
    # The sum of the two large terms, with its rounding error; k * high is exact.
    large = k * high
    total = large + f
    error = f - (total - large)
    return total + (error + small)


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
    result = log_of_parts(head, r, LN, r, scale(fma(share, -r, share), -k))
    return select(abs(x) < ALMOST_X[x.dtype], x, result)
