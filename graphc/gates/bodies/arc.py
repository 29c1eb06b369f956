"""Bodies of the inverse trigonometric functions.

atan x = atan c + atan t with t = (x - c) / (1 + c x): c comes from a table, by the leading bits of
x, and is so near that atan t is a short series. atan2 does the same with a ratio.

asin and acos have one series in z, for z = x^2 up to |x| = 1/2 and z = (1 - |x|)/2 beyond, where
acos |x| = 2 asin(sqrt z) (FreeBSD's msun, e_asin.c).
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.gates.bodies.exp import FRACTION_BITS, at_least, at_most, polynomial
from graphc.gates.bodies.hyperbolic import with_sign_of
from graphc.gates.bodies.roots import reciprocal_root
from graphc.ir.scalar import Scalar, bitcast, constant, equal, fma, lookup, lshr, select, to_bits
from graphc.ir.types import f32, f64

INF = float("inf")
ATAN = {  # of (atan t - t) / t^3 in t^2
    f64: (  # generate.py ATAN_F64: error 2^-62.5
        -0.3333333333333325, 0.1999999999984673, -0.14285714193793927, 0.11111085750475444,
        -0.09087367245802809, 0.07448190205271676,
    ),
    f32: (  # generate.py ATAN_F32: error 2^-27.1
        -0.33332625, 0.19787276,
    ),
}  # fmt: skip
# Rows of c and of atan c. An interval is half an octave, the first one begins at 0, the second at
# 3/32, the last at 12.
ATAN_POINTS = {
    f64: (  # generate.py ATAN_POINTS_F64
        (
            0.0, 0.109619140625, 0.14447021484375, 0.21890640258789062, 0.28931427001953125,
            0.43740081787109375, 0.5995330810546875, 0.8652496337890625, 1.2178955078125,
            1.647064208984375, 2.39825439453125, 3.41705322265625, 4.8092041015625, 6.831787109375,
            9.6513671875, 1.633123935319537e+16,
        ),
        (
            0.0, 0.1091832051428412, 0.14347750692117006, 0.21550695507497106, 0.28162477213479586,
            0.4123271906146777, 0.5400761067932961, 0.7132809115835707, 0.8833281611478405,
            1.0251427227737446, 1.175746821307406, 1.286096385950138, 1.3657831013837525,
            1.4254538896032218, 1.4675524697157336, 1.5707963267948966,
        ),
    ),
    f32: (  # generate.py ATAN_POINTS_F32
        (
            0.0, 0.10965347, 0.14559174, 0.21958542, 0.29117584, 0.4347992, 0.60289, 0.86402893,
            1.216095, 1.6465759, 2.4156494, 3.43573, 4.810913, 6.878662, 9.674561, -2.2877332e+07,
        ),
        (
            0.0, 0.10921713, 0.14457592, 0.21615483, 0.2833417, 0.4101413, 0.5425418, 0.7125824,
            0.88260245, 1.0250112, 1.1783074, 1.2875624, 1.3658539, 1.4264306, 1.4677982, 1.5707964,
        ),
    ),
}  # fmt: skip
# The same for ratios below 1 by their inverses: half octaves from 1 on, the last without an end.
ATAN2_POINTS = {
    f64: (  # generate.py ATAN2_POINTS_F64
        (
            0.8194841660262431, 0.602198703623189, 0.42835943793523823, 0.2802125148205525,
            0.210819077274489, 0.14051814681148733, 0.10403637386690402, 0.0,
        ),
        (
            0.6865091323852539, 0.5420346260070801, 0.4047126770019531, 0.2732057571411133,
            0.20777654647827148, 0.1396040916442871, 0.10366344451904297, 0.0,
        ),
    ),
    f32: (  # generate.py ATAN2_POINTS_F32
        (
            0.8174696, 0.6027648, 0.42877033, 0.27944228, 0.21163449, 0.1414971, 0.10459649, 0.0,
        ),
        (
            0.68530273, 0.54244995, 0.4050598, 0.27249146, 0.20855713, 0.14056396, 0.10421753, 0.0,
        ),
    ),
}  # fmt: skip
ASIN = {  # of (asin s - s) / s^3 in s^2
    f64: (  # generate.py ASIN_F64: error 2^-55.5
        0.16666666666665375, 0.07500000000344938, 0.04464285682186654, 0.030381959399349078,
        0.022371751866453, 0.017359796714220978, 0.013884331724197282, 0.012175191645560824,
        0.0065015614161595785, 0.019602962580887947, -0.016346488858594573, 0.03200019764926806,
    ),
    f32: (  # generate.py ASIN_F32: error 2^-27.6
        0.16666754, 0.0749525, 0.045476563, 0.024148593, 0.042218994,
    ),
}  # fmt: skip
# Sums of two that make pi/2. In f32 this one is short, so that pi/2 + atan c, for the c of atan2,
# is exact.
HALF_PI = {
    f64: (1.5707963267948966, 6.123233995736766e-17),  # generate.py HALF_PI_PAIR
    f32: (1.5708008, -4.454455e-06),  # generate.py HALF_PI_SHORT_F32
}
HALF_PI_PAIR = {
    f64: (1.5707963267948966, 6.123233995736766e-17),  # generate.py HALF_PI_PAIR
    f32: (1.5707964, -4.371139e-08),  # generate.py HALF_PI_PAIR_F32
}
# Below the first, atan2's operands times the second, else times the third; the last is below all
# that this makes of subnormals.
SCALING = {
    f64: (2.0**500, 2.0**500, 2.0**-4, 2.0**-600),
    f32: (2.0**40, 2.0**80, 2.0**-4, 2.0**-75),
}
LARGE = {f64: (2.0**300, 2.0**-500), f32: (2.0**40, 2.0**-60)}
HUGE = {f64: 2.0**57, f32: 2.0**28}  # from here on atan x rounds to pi/2


def atan(x: Scalar) -> Scalar:
    ty = x.dtype
    a = at_most(abs(x), HUGE[ty])
    # The interval by the exponent and one bit of the fraction.
    first = to_bits(0.0625, ty) >> (FRACTION_BITS[ty] - 1)
    half_octave = lshr(bitcast(a), FRACTION_BITS[ty] - 1)
    interval = at_most(at_least(half_octave, first), first + 15)
    c, angle = (lookup(interval, rotated(row, first)) for row in ATAN_POINTS[ty])
    t = (a - c) / fma(a, c, 1.0)
    z = t * t
    return with_sign_of(angle + fma(z * t, polynomial(z, z * z, ATAN[ty]), t), x)


def atan_partial(x: Scalar) -> Scalar:
    """1 / (1 + x^2), where x is large as 1 / (x 2^-k)^2 2^-2k, which does not overflow."""
    limit, down = LARGE[x.dtype]
    large = abs(x) > limit
    factor = select(large, down, constant(x, 1.0))
    u = x * factor
    square = fma(u, u, select(large, 0.0, constant(x, 1.0)))
    return (1.0 / square) * select(large, down * down, constant(x, 1.0))


def rotated(row: Sequence[float], first: int) -> tuple[float, ...]:
    """The row for a lookup by numbers that start with `first`."""
    start = -first % len(row)
    return (*row[start:], *row[:start])


def atan2(y: Scalar, x: Scalar) -> Scalar:
    """base +- atan(n/m) of the smaller and the larger magnitude; C99 Annex F for zeros and inf."""
    ty = x.dtype
    a, b = abs(y), abs(x)
    steep, left = b < a, bitcast(x) < 0
    m, n = select(steep, a, b), select(steep, b, a)
    # Both times a power of two, so that neither c m nor the remainder of n loses bits among
    # subnormals; 0/0 reads as 0.
    limit, up, down, least = SCALING[ty]
    factor = select(m < limit, up, constant(m, down))
    m, n = at_least(m * factor, least), n * factor
    # The difference of the patterns is log2(m/n) up to 0.0861: the interval, in half octaves.
    interval = at_most(lshr(bitcast(m) - bitcast(n), FRACTION_BITS[ty] - 1), 7)
    c, angle = (lookup(interval, row) for row in ATAN2_POINTS[ty])
    # t = (n - c m) / (m + c n), and what is left of n where c = 0; elsewhere it does not matter.
    numerator, denominator = fma(-c, m, n), fma(c, n, m)
    reciprocal = 1.0 / denominator
    t = numerator * reciprocal
    t_low = fma(-t, denominator, numerator) * reciprocal
    z = t * t
    small = t + fma(z * t, polynomial(z, z * z, ATAN[ty]), t_low)
    # For infinities t is NaN: inf/inf reads as 1, and 1/inf is 0, but stays NaN for n = NaN.
    quarter = sum(HALF_PI[ty]) / 2 - ATAN2_POINTS[ty][1][0]
    at_infinity = select(equal(n, INF), quarter, reciprocal)
    small = select(equal(m, INF), at_infinity, small)
    # Up from 0, down from pi/2 or up from it, down from pi. base +- angle is exact.
    half_pi, half_pi_low = HALF_PI[ty]
    base = select(steep, half_pi, select(left, 2 * half_pi, constant(x, 0.0)))
    sign_bit = constant(bitcast(x), -(2 ** (8 * ty.itemsize - 1)))
    down_bit = select(steep, sign_bit, 0) ^ (bitcast(x) & sign_bit)
    angle, small = (bitcast(bitcast(v) ^ down_bit) for v in (angle, small))
    return with_sign_of((base + angle) + fma(base, half_pi_low / half_pi, small), y)


def asin(x: Scalar) -> Scalar:
    """x + (asin x - x), or pi/2 - 2 asin(sqrt((1 - |x|)/2)), with the sign of x."""
    a = abs(x)
    near = a <= 0.5
    z = select(near, a * a, fma(a, -0.5, 0.5))
    m, m_low = minus_two_roots(z, reciprocal_root(z))
    base = select(near, constant(x, 0.0), HALF_PI_PAIR[x.dtype][0])
    result = arc_sum(base, select(near, a, m), select(near, 0.0, m_low), z)
    return with_sign_of(select(a <= 1.0, result, float("nan")), x)


def acos(x: Scalar) -> Scalar:
    """pi/2 - x - (asin x - x), or 2 asin(sqrt((1 - |x|)/2)), from pi down for x < 0."""
    a = abs(x)
    near = a <= 0.5
    z = select(near, a * a, fma(a, -0.5, 0.5))
    # With the sign of -x, as minus_two_roots will turn it.
    root = reciprocal_root(z)
    sign_bit = -(2 ** (8 * x.dtype.itemsize - 1))
    m, m_low = minus_two_roots(z, bitcast(bitcast(root) ^ (~bitcast(x) & sign_bit)))
    half_pi = HALF_PI_PAIR[x.dtype][0]
    far = select(x < 0.0, 2 * half_pi, constant(x, 0.0))
    base = select(near, half_pi, far)
    result = arc_sum(base, select(near, -x, m), select(near, 0.0, m_low), z)
    return select(a <= 1.0, result, float("nan"))


def minus_two_roots(z: Scalar, root: Scalar) -> tuple[Scalar, Scalar]:
    """-2 sqrt z as a sum of two, for root near 1/sqrt z; 2 sqrt z for its negative."""
    s = z * root
    return s * -2.0, fma(s, s, -z) * root


def arc_sum(base: Scalar, m: Scalar, m_low: Scalar, z: Scalar) -> Scalar:
    """base + 2^k asin((m + m_low) 2^-k) where z is the square of that argument.

    `base` is 0 or not below m in magnitude, k is 0 or 1.
    """
    half_pi, half_pi_low = HALF_PI_PAIR[base.dtype]
    total = base + m
    lost = (base - total) + m
    series = polynomial(z, z * z, ASIN[base.dtype])
    low = fma(base, half_pi_low / half_pi, m_low + lost)
    return total + fma((m + m_low) * z, series, low)
