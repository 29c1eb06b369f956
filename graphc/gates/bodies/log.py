"""Bodies of the logarithms.

x = 2^k m with m between sqrt(1/2) and sqrt(2), f = m - 1, s = f / (2 + f): log m = 2 atanh(s), an
odd series in s whose terms from s^3 on are a minimax polynomial. Since 2s = f - s f, the leading
term f is exact:

    log m = f - f^2/2 + s (f^2/2 + R),   R = s^2 (2/3 + 2/5 s^2 + ...)   (FreeBSD's msun, e_log.c)
"""

from __future__ import annotations

from graphc.gates.bodies.exp import ALMOST_X, BIAS, FRACTION_BITS, LN2, polynomial
from graphc.ir.scalar import Scalar, bitcast, constant, equal, fma, lshr, select, to_bits
from graphc.ir.types import f32, f64

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


def specials(x: Scalar, result: Scalar) -> Scalar:
    """-inf at zeros, NaN below, and inf and NaN themselves."""
    inside = select(x < float("inf"), result, x)
    outside = select(equal(x, 0.0), float("-inf"), constant(x, float("nan")))
    return select(x <= 0.0, outside, inside)


def log(x: Scalar) -> Scalar:
    small = x < SMALLEST_NORMAL[x.dtype]
    k, m, _ = split(select(small, x * 2.0 ** DOUBLINGS[x.dtype], x), small)
    return specials(x, log_sum(k, m - 1.0))


def log1p(x: Scalar) -> Scalar:
    ty = x.dtype
    # u + error = 1 + x exactly (Knuth), so log1p(x) = log(u) + error/u up to the square of error/u.
    u = x + 1.0
    back = u - 1.0
    error = (x - back) + (1.0 - (u - back))
    k, m, pattern = split(u)
    f = m - 1.0
    # error/u = (error 2^-k) / (1 + f). 2^(1-k) has no overflow; 1 - 0.85 f is near enough to 1/(1 +
    # f).
    field = pattern & (-(1 << FRACTION_BITS[ty]))
    scale = bitcast((2 * BIAS[ty] + 1 << FRACTION_BITS[ty]) - field)
    extra = (error * 0.5) * scale * fma(f, -0.85, 1.0)
    result = specials(u, log_sum(k, f, extra))
    return select(abs(x) < ALMOST_X[ty], x, result)
