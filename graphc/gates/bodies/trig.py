"""Bodies of sine, cosine, tangent and sinc.

|x| = n pi/2 + r with n the nearest integer, |r| <= pi/4: then a minimax polynomial of sin r or cos
r, by the last two bits of n. The tangent takes the nearest multiple of pi/16, for a shorter
polynomial. Up to n = 2^20 (2^16 in f32) the reduction is Cody and Waite's; for larger arguments,
Payne and Hanek's in integers, in gates of its own behind `rare`.
"""

from __future__ import annotations

import math

from graphc.gates.bodies.exp import ALMOST_X, nearest_integer, polynomial
from graphc.ir.scalar import (
    Scalar,
    bitcast,
    constant,
    convert,
    equal,
    floor,
    fma,
    lookup,
    lshr,
    rare,
    select,
)
from graphc.ir.types import f32, f64

TWO_OVER_PI = 0.6366197723675814
SIXTEEN_OVER_PI = 8 * TWO_OVER_PI
LARGEST = {f64: 1.6e6, f32: 1.0e5}  # the last argument of the fast reduction
HALF_PI = {
    f64: (1.5707963267948966, 6.12323399538461e-17, 3.5215598651832e-27),  # generate.py HALF_PI_F64
    f32: (1.5707964, -4.371139e-08, -1.7151245e-15),  # generate.py HALF_PI_F32
}
HALF_PI_PAIR = (1.5707963267948966, 6.123233995736766e-17)  # generate.py HALF_PI_PAIR
SIN = {
    f64: (  # generate.py SIN_F64: error 2^-58.0
        -0.16666666666666632,
        0.008333333333322429,
        -0.00019841269829780234,
        2.7557313673212636e-06,
        -2.5050754139069083e-08,
        1.589651763920384e-10,
    ),
    f32: (  # generate.py SIN_F32: error 2^-28.0
        -0.16666655,
        0.008332189,
        -0.000195182,
    ),
}
COS = {
    f64: (  # generate.py COS_F64: error 2^-63.0
        0.041666666666666595,
        -0.0013888888888873303,
        2.480158728894758e-05,
        -2.75573141926207e-07,
        2.0875701007568493e-09,
        -1.1358475708979088e-11,
    ),
    f32: (  # generate.py COS_F32: error 2^-33.1
        0.041666646,
        -0.0013887301,
        2.4430725e-05,
    ),
}
PI_16 = {
    f64: (  # generate.py PI_16_F64
        0.19634954084936207, 7.654042492615175e-18, 2.0557821170405322e-27,
    ),
    f32: (  # generate.py PI_16_F32
        0.19634955, -5.4639235e-09, -2.1439056e-16,
    ),
}  # fmt: skip
TAN = {
    f64: (  # generate.py TAN_F64: error 2^-59.1
        0.33333333333334086, 0.1333333333222837, 0.05396825923128157, 0.02186839509618682,
        0.00896623622256328,
    ),
    f32: (  # generate.py TAN_F32: error 2^-29.0
        0.33333117, 0.13406008,
    ),
}  # fmt: skip
# Rows of s and of c with s/c = tan(k pi/16).
TAN_POINTS = {
    f64: (  # generate.py TAN_POINTS_F64
        (
            0.0, 0.19725061626362464, 0.4138532997227156, 0.6650842742625529, 1.0,
            0.9953689575195312, 0.9991302490234375, 0.9916458129882812, 1.0, 0.9916458129882812,
            0.9991302490234375, 0.9953689575195312, 1.0, 0.6650842742625529, 0.4138532997227156,
            0.19725061626362464,
        ),
        (
            1.0, 0.9916458129882812, 0.9991302490234375, 0.9953689575195312, 1.0,
            0.6650842742625529, 0.4138532997227156, 0.19725061626362464, 0.0, -0.19725061626362464,
            -0.4138532997227156, -0.6650842742625529, -1.0, -0.9953689575195312,
            -0.9991302490234375, -0.9916458129882812,
        ),
    ),
    f32: (  # generate.py TAN_POINTS_F32
        (
            0.0, 0.19621335, 0.4141472, 0.6584852, 1.0, 0.9854927, 0.9998398, 0.9864311, 1.0,
            0.9864311, 0.9998398, 0.9854927, 1.0, 0.6584852, 0.4141472, 0.19621335,
        ),
        (
            1.0, 0.9864311, 0.9998398, 0.9854927, 1.0, 0.6584852, 0.4141472, 0.19621335, 0.0,
            -0.19621335, -0.4141472, -0.6584852, -1.0, -0.9854927, -0.9998398, -0.9864311,
        ),
    ),
}  # fmt: skip
SIN_PI = {  # of (sin(pi r)/pi - r) / r^3 in r^2
    f64: (  # generate.py SIN_PI_F64: error 2^-58.0
        -1.644934066848223, 0.8117424252823006, -0.1907518240125763, 0.026147842588882145,
        -0.002345954867193604, 0.00014693066616466375,
    ),
    f32: (  # generate.py SIN_PI_F32: error 2^-28.0
        -1.6449329, 0.8116271, -0.18759932,
    ),
}  # fmt: skip
COS_PI = {  # of (cos(pi r) - 1) / (pi r^2) in r^2
    f64: (  # generate.py COS_PI_F64: error 2^-62.3
        -1.5707963267948966, 1.2919281950124717, -0.4250273399771733, 0.07490806603647544,
        -0.008214584988125957, 0.0006141458037268745, -3.286239361703277e-05,
    ),
    f32: (  # generate.py COS_PI_F32: error 2^-30.9
        -1.5707964, 1.2919317, -0.42509395, 0.07474031,
    ),
}  # fmt: skip
SINC_SLOPE = {  # of sinc'(x) / x in x^2
    f64: (  # generate.py SINC_SLOPE_F64: error 2^-55.5
        -3.289868133696453, 3.2469697011333842, -1.1445109447300108, 0.20918278246276506,
        -0.023460809138021517, 0.0017811352445912892, -9.761404004278046e-05, 3.931703424445219e-06,
        -1.2116653252138857e-08,
    ),
    f32: (  # generate.py SINC_SLOPE_F32: error 2^-27.5
        -3.289868, 3.2469673, -1.1444571, 0.20874919, -0.022003083,
    ),
}  # fmt: skip
INVERSE_PI = {
    f64: (  # generate.py INVERSE_PI_F64
        0.3183098861837907, -1.9678676675182486e-17,
    ),
    f32: (  # generate.py INVERSE_PI_F32
        0.31830987, 1.28412765e-08,
    ),
}  # fmt: skip
SINC_ONE = {f64: 2.0**-30, f32: 2.0**-15}  # sinc rounds to 1 below
# 2/pi as a binary fraction in words of 64 bits, the first one being the 64 bits after the point.
WORDS = (  # generate.py TWO_OVER_PI
    -6703182060581546711,
    -277156292786332224,
    -2638381946312093631,
    -121206125134887583,
    -5249950069107600672,
    452944820249399836,
    -135693905287338178,
    -1692731182770600828,
    -1613291254968254911,
    4148332274289687028,
    -7168499653074671557,
    2303758334597371919,
    -1211730484530615009,
    7869616827067468215,
    5712322887342352941,
    8441921394348257659,
    4397547296490951402,
    7780917995555872008,
    6197850593633725355,
)


def sin(x: Scalar) -> Scalar:
    from graphc.gates.trigonometric import sin_huge

    a = abs(x)
    r, r_low, quadrant = reduced(a)
    result = signed(of_quadrant(r, r_low, quadrant), quadrant, bitcast(x))
    return rare(a > LARGEST[x.dtype], sin_huge, (x,), result)


def cos(x: Scalar) -> Scalar:
    from graphc.gates.trigonometric import cos_huge

    a = abs(x)
    r, r_low, quadrant = reduced(a)
    # cos a = sin(a + pi/2); up to here it is what `sin` computes, too.
    quadrant = quadrant + 1
    result = signed(of_quadrant(r, r_low, quadrant), quadrant)
    return rare(a > LARGEST[x.dtype], cos_huge, (x,), result)


def tan(x: Scalar) -> Scalar:
    from graphc.gates.trigonometric import tan_huge

    ty = x.dtype
    r, r_low, k = reduced(x, SIXTEEN_OVER_PI, PI_16[ty])
    a = abs(x)
    result = select(a < ALMOST_X[ty], x, tangent(r, r_low, k))  # -0, too
    return rare(a > LARGEST[ty], tan_huge, (x,), result)


def tangent(r: Scalar, r_low: Scalar, k: Scalar) -> Scalar:
    """tan(k pi/16 + r + r_low) = (s + c t) / (c - s t) with t = tan(r + r_low), s/c = tan(k pi/16).

    s/c is exact to a thousandth of an ulp.
    """
    s, c = (lookup(k, row) for row in TAN_POINTS[r.dtype])
    z = r * r
    tail = fma(z * r, polynomial(z, z * z, TAN[r.dtype]), r_low)
    t = r + tail
    numerator, denominator = fma(c, t, s), fma(-s, t, c)
    reciprocal = 1.0 / denominator
    q = numerator * reciprocal
    # What is left of the numerator after this first quotient. Both have been rounded, and so was t:
    # the errors are what the exact s + c (r + tail) and c - s (r + tail) have above them.
    error = fma(c, r, s - numerator)
    of_denominator = fma(-s, r, c - denominator)
    left = fma(-q, denominator, numerator) + fma(-q, of_denominator, error)
    return fma(fma(tail, fma(q, s, c), left), reciprocal, q)


def reduced(
    a: Scalar,
    inverse: float = TWO_OVER_PI,
    parts: tuple[float, float, float] | None = None,
) -> tuple[Scalar, Scalar, Scalar]:
    """(r, r_low, a pattern whose lowest bits are n) with a = n p + r + r_low.

    p is pi/2, or the sum of `parts`; n is the integer nearest to a/p.
    """
    n, bits = nearest_integer(a, inverse)
    p1, p2, p3 = parts or HALF_PI[a.dtype]
    first = fma(
        n, -p1, a
    )  # exact: both are multiples of the last bit of p1, and they nearly cancel
    if a.dtype is f64:
        # n p2 is exact, by the few bits of p2. So is what is subtracted from `first`, and what
        # rounding lost.
        r = fma(n, -p2, first)
        return r, fma(n, -p3, fma(n, -p2, first - r)), bits
    # f32 has too few bits for that: the product is rounded, and its error taken along.
    product = n * p2
    r = first - product
    lost = (first - r) - product
    return r, fma(n, -p3, lost - fma(n, p2, -product)), bits


def of_quadrant(r: Scalar, r_low: Scalar, quadrant: Scalar) -> Scalar:
    """sin(r + r_low) in even quadrants, cos(r + r_low) in odd ones."""
    z = r * r
    zz = z * z
    sine = r + fma(z * r, polynomial(z, zz, SIN[r.dtype]), r_low)
    # cos = 1 - z/2 + z^2 C(z) - r r_low; `lost` is what rounding 1 - z/2 lost.
    upper = fma(z, -0.5, 1.0)
    lost = fma(z, -0.5, 1.0 - upper)
    cosine = upper + fma(zz, polynomial(z, zz, COS[r.dtype]), fma(r, -r_low, lost))
    return select(equal(quadrant & 1, 0), sine, cosine)


def signed(magnitude: Scalar, quadrant: Scalar, flip: Scalar | None = None) -> Scalar:
    """Minus in the quadrants 2 and 3, times the sign of the pattern `flip`."""
    width = 8 * magnitude.dtype.itemsize
    sign = quadrant << (width - 2)
    if flip is not None:
        sign = sign ^ flip
    return bitcast(bitcast(magnitude) ^ (sign & -(2 ** (width - 1))))


# -- sin(pi x) / (pi x) ---------------------------------------------------------------------


def sinc(x: Scalar) -> Scalar:
    """1 at 0, NaN at infinities, and exact to the last bits next to its zeros."""
    a = abs(x)
    sine, cosine, quadrant = sine_and_cosine_of_pi(a)
    even = equal(quadrant & 1, 0)
    h, h_low = (select(even, s, c) for s, c in zip(sine, cosine, strict=True))
    total = h + h_low
    total_low = h_low - (total - h)
    # A first quotient q, then what is left of the numerator, divided, too.
    reciprocal = 1.0 / a
    q = total * reciprocal
    left = fma(-q, a, total) + total_low
    result = signed(fma(left, reciprocal, q), quadrant)
    return select(a < SINC_ONE[x.dtype], 1.0, result)


def sinc_partial(x: Scalar) -> Scalar:
    """cos(pi x)/x - sin(pi x)/(pi x^2); a series up to 1/2, where these two cancel."""
    a = abs(x)
    sine, cosine, quadrant = sine_and_cosine_of_pi(a)
    even = equal(quadrant & 1, 0)
    # sin(pi x)/pi and cos(pi x)/pi, but for a sign.
    h, h_low = (select(even, s, c) for s, c in zip(sine, cosine, strict=True))
    g, g_low = (select(even, c, -s) for s, c in zip(sine, cosine, strict=True))
    reciprocal = 1.0 / a
    far = fma(g, math.pi, fma(g_low, math.pi, (h + h_low) * -reciprocal)) * reciprocal
    z = x * x
    near = x * polynomial(z, z * z, SINC_SLOPE[x.dtype])
    return select(a < 0.5, near, signed(far, quadrant, bitcast(x)))


def sine_and_cosine_of_pi(
    a: Scalar,
) -> tuple[tuple[Scalar, Scalar], tuple[Scalar, Scalar], Scalar]:
    """sin(pi r)/pi and cos(pi r)/pi as sums of two, and a pattern with n, for a = n/2 + r >= 0.

    The reduction is exact for every a; n is right modulo 4.
    """
    within_two = fma(floor(a * 0.5), -2.0, a)
    n, quadrant = nearest_integer(within_two, 2.0)
    r = fma(n, -0.5, within_two)
    z = r * r
    zz = z * z
    sine = r, (z * r) * polynomial(z, zz, SIN_PI[a.dtype])
    # 1/pi - pi/2 z, what rounding that and z lost, and the rest of the series.
    one, one_low = INVERSE_PI[a.dtype]
    slope, *rest = COS_PI[a.dtype]
    upper = fma(z, slope, one)
    lost = fma(fma(r, r, -z), slope, fma(z, slope, one - upper) + one_low)
    return sine, (upper, fma(zz, polynomial(z, zz, rest), lost)), quadrant


# -- arguments of any size ------------------------------------------------------------------


def sin_huge(x: Scalar) -> Scalar:
    return _huge(x, 0)


def cos_huge(x: Scalar) -> Scalar:
    return _huge(x, 1)


def tan_huge(x: Scalar) -> Scalar:
    a = abs(convert(x, f64))
    half_r, half_low, n = reduced_exactly(a)
    r, r_low, k = reduced(half_r, SIXTEEN_OVER_PI, PI_16[f64])
    result = signed(tangent(r, r_low + half_low, k + (n << 3)), n & 0, bitcast(convert(x, f64)))
    return convert(select(a < float("inf"), result, float("nan")), x.dtype)


def _huge(x: Scalar, extra: int) -> Scalar:
    """The sine of x + extra pi/2, in f64 for both dtypes; NaN for infinities."""
    a = abs(convert(x, f64))
    r, r_low, n = reduced_exactly(a)
    quadrant = n + extra
    flip = None if extra else bitcast(convert(x, f64))
    result = signed(of_quadrant(r, r_low, quadrant), quadrant, flip)
    return convert(select(a < float("inf"), result, float("nan")), x.dtype)


def reduced_exactly(a: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """(r, r_low, n) with a = n pi/2 + r + r_low up to multiples of 2 pi, for finite f64 a >= 2^10.

    a = m 2^e with an integer m of 53 bits. Bits of 2/pi that m 2^e lifts to multiples of 4 do not
    matter, bits far below do not either: 192 bits in between make 126 fraction bits of n + fraction
    = a 2/pi, and no double is nearer than about 2^-62 to a multiple of pi/2.
    """
    bits = bitcast(a)
    m = (bits & (2**52 - 1)) | 2**52
    # Bit i after the point of 2/pi weighs 2^(e-i) in the product with m: start at i = e - 1, with
    # the weight 2; what is above is a multiple of 4. `position` counts from 0 and is brought above
    # 0 for small a.
    start = lshr(bits, 52) - (1023 + 52) - 2
    negative = start < 0
    position = select(negative, 0, start)
    high, middle, low = window(position)
    # For small a the window starts late: its bits move down instead.
    late = select(negative, -start, 0)
    low = shifted_right(middle, low, late)
    middle = shifted_right(high, middle, late)
    high = lshr(high, late)
    # The product with m, modulo 2^192, without its lowest word.
    fraction_low = upper_product(m, low) + m * middle
    carry = below_unsigned(fraction_low, m * middle)
    fraction = upper_product(m, middle) + m * high + carry
    # Two bits of n stand on top; n is rounded to nearest, so that the rest is a signed fraction.
    n = lshr(fraction + 2**61, 62)
    fraction = (fraction << 2) | lshr(fraction_low, 62)
    fraction_low = fraction_low << 2
    # (fraction + fraction_low 2^-64) 2^-64 as a sum of two floats.
    half_word = 2**32 - 1
    parts = [fraction >> 32, fraction & half_word, lshr(fraction_low, 32), fraction_low & half_word]
    f1, f2, f3, f4 = (convert(p, f64) * 2.0 ** (-32 * (i + 1)) for i, p in enumerate(parts))
    upper, upper_low = two_sum(f1, f2)
    lower = f3 + f4
    h, h_low = two_sum(upper, upper_low + lower)
    # Times pi/2.
    p1, p2 = HALF_PI_PAIR
    product = h * p1
    r, r_low = two_sum(product, fma(h, p1, -product) + fma(h, p2, h_low * p1))
    return r, r_low, n


def window(position: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """192 bits of 2/pi from a position on: words chosen by halving, then a shift within words."""
    words: list[Scalar] = [constant(position, w) for w in WORDS]
    word = lshr(position, 6)
    for step in (8, 4, 2, 1):
        taken = ~equal(word & step, 0)
        # Four words in the end, and those which the smaller steps may still skip.
        words = [select(taken, words[i + step], words[i]) for i in range(step + 3)]
    shift = position & 63
    high, middle, low = (
        (upper << shift) | lshr(lower, 64 - shift) for upper, lower in zip(words, words[1:])
    )
    return high, middle, low


def shifted_right(upper: Scalar, word: Scalar, count: Scalar) -> Scalar:
    """The lower word of (upper, word) >> count, for 0 <= count < 64."""
    return lshr(word, count) | (upper << (64 - count))


def upper_product(m: Scalar, w: Scalar) -> Scalar:
    """The upper 64 bits of the unsigned product of m, of 53 bits, and w."""
    half_word = 2**32 - 1
    m_high, m_low = lshr(m, 32), m & half_word
    w_high, w_low = lshr(w, 32), w & half_word
    cross, other = m_low * w_high, m_high * w_low
    middle = lshr(m_low * w_low, 32) + (cross & half_word) + (other & half_word)
    return m_high * w_high + lshr(cross, 32) + lshr(other, 32) + lshr(middle, 32)


def below_unsigned(a: Scalar, b: Scalar) -> Scalar:
    """1 where a < b as unsigned integers, else 0."""
    top = -(2**63)
    return select((a ^ top) < (b ^ top), 1, constant(a, 0))


def two_sum(a: Scalar, b: Scalar) -> tuple[Scalar, Scalar]:
    """a + b and what its rounding lost, for a that is 0 or not below b in magnitude (Dekker)."""
    total = a + b
    return total, b - (total - a)
