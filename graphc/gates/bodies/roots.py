"""Bodies of reciprocal square roots, cube roots and the hypotenuse.

A first guess r of x^(-1/k) is a linear function of x's pattern, which is nearly a logarithm: it is
right to 3.5%. The error e = 1 - x r^k then gives x^(-1/k) = r (1 - e)^(-1/k), a short series in e.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.gates.bodies.exp import FRACTION_BITS, at_least, at_most, horner
from graphc.gates.bodies.hyperbolic import with_sign_of
from graphc.ir.scalar import Scalar, bitcast, constant, equal, fma, lshr, rare, select, to_bits
from graphc.ir.types import f32, f64

INF = float("inf")
SQRT_GUESS = {f64: 0x5FE6E8EB46349800, f32: 0x5F37475A}  # pattern of the guess for the pattern 0
RSQRT = {  # of ((1 - e)^(-1/2) - 1) / e
    f64: (  # generate.py RSQRT_F64: error 2^-30.0
        0.5000000031341059, 0.37499784761729055, 0.3124950177852026, 0.27491792349646244,
        0.24800017414061426,
    ),
    f32: (  # generate.py RSQRT_F32: error 2^-15.2
        0.50109196, 0.37628713,
    ),
}  # fmt: skip
SHORT_RSQRT = (  # generate.py SHORT_RSQRT: error 2^-19.9
    0.49999773937870906, 0.37606625865675314, 0.31414093456364306,
)  # fmt: skip
MOST_SLOPE = 0.5275  # of this series, where the guess is right to 3.5%: 0.5272
HALF_OF_A_FLOAT = -(2**29)  # a mask that leaves 24 bits of an f64, whose square is exact
CBRT_GUESS = {f64: 0x553EE961, f32: 0x54A1F5}  # the same in units of 2^32, in f32 of 2^8
CBRT = {  # of ((1 - e)^(-1/3) - 1) / e
    f64: (  # generate.py CBRT_F64: error 2^-23.4
        0.33332910486290335, 0.22221414434457182, 0.1744788833027586, 0.1459777250817854,
    ),
    f32: (  # generate.py CBRT_F32: error 2^-18.5
        0.33332756, 0.2234845, 0.17471242,
    ),
}  # fmt: skip
SCALED = {f64: (2.0**-1000, 2.0**1000), f32: (2.0**-100, 2.0**100)}  # what `ordered` brings to 1
LEAST_SQUARE = {f64: 2.0**-900, f32: 2.0**-120}  # below all squares but 0
SMALLEST_NORMAL = {f64: 2.0**-1022, f32: 2.0**-126}


def reciprocal_root(x: Scalar) -> Scalar:
    """1/sqrt x to 2^-30 (2^-15 in f32), for normal x above 0; some finite number for 0."""
    return _stepped(x, RSQRT[x.dtype])[0]


def _stepped(x: Scalar, series: Sequence[float]) -> tuple[Scalar, Scalar]:
    """The guess and a step, and the series' slope, which tells by how much the guess was wrong."""
    r = bitcast(SQRT_GUESS[x.dtype] - lshr(bitcast(x), 1))
    e = fma(-(x * r), r, 1.0)
    slope = horner(e, series)
    return fma(r * e, slope, r), slope


def refined(x: Scalar, r: Scalar) -> Scalar:
    """r (1 + e/2) with e = 1 - x r^2, for r near 1/sqrt x; e has what rounding x r lost."""
    product = x * r
    product_low = fma(x, r, -product)
    e = fma(-product_low, r, fma(-product, r, 1.0))
    return fma(r * e, 0.5, r)


def rsqrt(x: Scalar) -> Scalar:
    from graphc.gates.roots import rsqrt_special

    ty = x.dtype
    if ty is f64:
        # To 2^-19, with an exact square; so e is right, and the next term is 5/16 e^3.
        r, slope = _stepped(x, SHORT_RSQRT)
        r = bitcast(bitcast(r) & HALF_OF_A_FLOAT)
        e = fma(-x, r * r, 1.0)
        result = fma(r * e, fma(e, 0.375, 0.5), r)
        # Where x is not a normal number above 0 the guess is off, up to those subnormal numbers for
        # which it is as good. Of even degree, the series is large at infinities, too.
        special = ~(slope < MOST_SLOPE)
    else:
        result = refined(x, reciprocal_root(x))
        # Patterns of normal numbers above 0, moved to where the least integers are.
        first, least = to_bits(SMALLEST_NORMAL[ty], ty), -(2 ** (8 * ty.itemsize - 1))
        special = bitcast(x) - (first + least) >= to_bits(INF, ty) - first + least
    return rare(special, rsqrt_special, (x,), result)


def rsqrt_special(x: Scalar) -> Scalar:
    """Of any x."""
    ty = x.dtype
    # Subnormal x are lifted by an even power of two.
    doublings = FRACTION_BITS[ty] + FRACTION_BITS[ty] % 2 + 2
    small = x < SMALLEST_NORMAL[ty]
    lifted = select(small, x * 2.0**doublings, x)
    back = select(small, 2.0 ** (doublings // 2), constant(x, 1.0))
    result = refined(lifted, reciprocal_root(lifted)) * back
    # 1/x is inf with its sign at zeros, and 0 at inf.
    inside = (x > 0.0) & (x < INF)
    outside = select(x < 0.0, float("nan"), 1.0 / x)
    return select(inside, result, outside)


# -- lengths ---------------------------------------------------------------------------------------


def hypot(x: Scalar, y: Scalar) -> Scalar:
    """sqrt(x^2 + y^2); inf if either is, whatever the other."""
    m, n, scale = ordered(x, y)
    square, square_low, root = length(m * scale, n * scale)
    h = square * root
    left = fma(-h, h, square) + square_low
    h = fma(left * root, 0.5, h)
    return select(equal(m, INF) | equal(n, INF), INF, h * inverse_of(scale))


def hypot_partial(x: Scalar, y: Scalar) -> Scalar:
    """x / hypot(x, y), and 0 at (0, 0)."""
    m, n, scale = ordered(x, y)
    square, _, root = length(m * scale, n * scale)
    root = select(equal(square, INF), 0.0, refined(square, root))
    return (x * scale) * root


def atan2_partial(y: Scalar, x: Scalar) -> Scalar:
    """x / (x^2 + y^2), and 0 at (0, 0) and for infinities."""
    _, _, scale = ordered(x, y)
    u, v = x * scale, y * scale
    square = at_least(u * u + v * v, LEAST_SQUARE[x.dtype])
    return select(equal(square, INF), 0.0, u * scale / square)


def length(m: Scalar, n: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """m^2 + n^2 for m >= n, what rounding n^2 lost of that, and near 1 over the root."""
    n_square = n * n
    square = fma(m, m, n_square)
    return square, fma(n, n, -n_square), reciprocal_root(square)


def ordered(x: Scalar, y: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """max(|x|, |y|), min(|x|, |y|), and a power of two by which the squares of both are in range.

    By their patterns, as integers: NaN is above inf. Exchanging x and y changes no instruction, so
    that both partials share them.
    """
    ty = x.dtype
    a, b = bitcast(abs(x)), bitcast(abs(y))
    above, below = select(a < b, b, a), select(a < b, a, b)
    least, most = SCALED[ty]
    inside = at_most(at_least(above, to_bits(least, ty)), to_bits(most, ty))
    exponent = inside & to_bits(INF, ty)
    return bitcast(above), bitcast(below), bitcast(2 * to_bits(1.0, ty) - exponent)


def inverse_of(power: Scalar) -> Scalar:
    """1/power for a power of two, in integers."""
    return bitcast(2 * to_bits(1.0, power.dtype) - bitcast(power))


# -- cube roots ------------------------------------------------------------------------------------


def cbrt(x: Scalar) -> Scalar:
    ty = x.dtype
    a = abs(x)
    # Subnormal x are lifted by a power of eight.
    doublings = 3 * (FRACTION_BITS[ty] // 3 + 1)
    small = a < SMALLEST_NORMAL[ty]
    a = select(small, a * 2.0**doublings, a)
    back = select(small, 2.0 ** (-doublings // 3), constant(x, 1.0))
    r = cube_root_guess(a)
    e = fma(-(a * r), r * r, 1.0)
    r = fma(r * e, horner(e, CBRT[ty]), r)
    # cbrt x = c (1 - e)^(-2/3) for c = x r^2, e = 1 - c r: two thirds of the roundings of c are
    # undone by that.
    c = (a * r) * r
    e = fma(-c, r, 1.0)
    slope = fma(e, 5 / 9, 2 / 3) if ty is f64 else constant(x, 2 / 3)
    c = fma(c * e, slope, c) * back
    return with_sign_of(select(a < INF, c, a), x)


def cube_root_guess(a: Scalar) -> Scalar:
    """The guess of a^(-1/3) for normal a: a third of the pattern's upper bits, as a float.

    As the lowest bits of 2^FRACTION_BITS, an integer becomes a float, and a float an integer.
    """
    ty = a.dtype
    dropped = 32 if ty is f64 else 8
    one = 2.0 ** FRACTION_BITS[ty]
    upper = bitcast(lshr(bitcast(a), dropped) | to_bits(one, ty))
    third = fma(upper, -1 / 3, one + CBRT_GUESS[ty] + one / 3)
    return bitcast(bitcast(third) << dropped)
