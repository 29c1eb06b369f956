"""Bodies of the error function, the normal distribution and their inverse.

Each is a polynomial, whose coefficients are looked up by the interval the argument is in, and where
the function decays like a Gaussian, that polynomial times the Gaussian: erfc(x) = e^(-x^2) erfcx(x)
for x >= 0. The square is taken as a sum of two floats, h + l exactly: its rounding alone would cost
x^2 ulps of the result.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.gates.bodies import error_tables as tables
from graphc.gates.bodies.exp import (
    EXP,
    FRACTION_BITS,
    LN2,
    LOG2_E,
    ROUNDER,
    at_most,
    nearest_integer,
    polynomial,
)
from graphc.gates.bodies.hyperbolic import with_sign_of
from graphc.gates.bodies.log import LN, log, log_of_parts, log_parts
from graphc.ir.scalar import (
    Scalar,
    bitcast,
    constant,
    equal,
    fma,
    lookup,
    lshr,
    scale_by_whole,
    select,
)
from graphc.ir.types import f32, f64

Rows = Sequence[Sequence[float]]

ERF: dict = {f64: tables.ERF_F64, f32: tables.ERF_F32}
ERF_STEP = {f64: 0.3828125, f32: 0.25}  # intervals are about its multiples
ERF_LAST = {f64: 5.93, f32: 3.87}  # the tables end; in f64, erf rounds to 1 here, as from then on
ERF_ONE = 3.9192057  # in f32 it rounds to 1 beyond
ERFCX: dict = {f64: tables.ERFCX_F64, f32: tables.ERFCX_F32}
ERFCX_STEP = {f64: 1.09375, f32: 2.90625}
ERFCX_BITS = {f64: 2, f32: 1}  # of a fraction, that cut an octave into intervals
GAUSS_ZERO = {f64: 27.31, f32: 10.21}  # e^(-x^2) and erfc(x) have long rounded to 0
NORMAL_ZERO = {f64: 38.6875, f32: 14.5625}  # x e^(-x^2/2), too; their squares are exact
GAUSS_LEAST = {f64: -1080, f32: -153}  # what a Gaussian's power of 2 comes to at either
SLOPE = {  # 2 / sqrt(pi)
    f64: (1.1283791670955126, 1.533545961316588e-17),  # generate.py SLOPE_F64
    f32: (1.1283792, -5.8635383e-08),  # generate.py SLOPE_F32
}
SQRT_HALF = {
    f64: (0.7071067811865476, -4.833646656726457e-17),  # generate.py SQRT_HALF_F64
    f32: (0.70710677, 1.21016175e-08),  # generate.py SQRT_HALF_F32
}
NORMAL = {  # 1 / sqrt(2 pi)
    f64: (0.3989422804014327, -2.49232720227773e-17),  # generate.py NORMAL_F64
    f32: (0.3989423, -1.133517e-08),  # generate.py NORMAL_F32
}
ROOT_2_PI = 2.5066282746310002
# From NORMAL_ZERO on, ndtr(-y) sqrt(2 pi) e^(y^2/2) = (1 - z + 3 z^2 - ...) / y at z = 1/y^2,
MILLS = {f64: (1.0, -1.0, 3.0, -15.0, 105.0, -945.0), f32: (1.0, -1.0, 3.0, -15.0)}
# and 1 over that is y + (1 - 2 z + 10 z^2 - ...) / y
INVERSE_MILLS = {f64: (1.0, -2.0, 10.0, -74.0, 706.0, -8162.0), f32: (1.0, -2.0, 10.0, -74.0)}
ERFINV_NEAR: dict = {f64: tables.ERFINV_NEAR_F64, f32: tables.ERFINV_NEAR_F32}
ERFINV_FAR: dict = {f64: tables.ERFINV_FAR_F64, f32: tables.ERFINV_FAR_F32}
INVERSE_SLOPE_NEAR: dict = {f64: tables.INVERSE_SLOPE_NEAR_F64, f32: tables.INVERSE_SLOPE_NEAR_F32}
INVERSE_SLOPE_FAR: dict = {f64: tables.INVERSE_SLOPE_FAR_F64, f32: tables.INVERSE_SLOPE_FAR_F32}
ERFINV_U = {f64: (0.828125, 1.4296875), f32: (1.8671875, 0.7109375)}
HALF_ROOT_PI = 0.886226925452758  # sqrt(pi) / 2


# -- steps that the bodies share -------------------------------------------------------------------


def looked_up(index: Scalar, rows: Rows) -> tuple[Scalar, ...]:
    return tuple(lookup(index, row) for row in rows)


def piece(x: Scalar, square: Scalar, c: Sequence[Scalar]) -> Scalar:
    """sum c_i x^i as `polynomial` has it, of coefficients that were looked up."""

    def chain(c: Sequence[Scalar]) -> Scalar:
        total = c[-1]
        for coefficient in reversed(c[:-1]):
            total = fma(square, total, coefficient)
        return total

    return fma(x, chain(c[1::2]), chain(c[0::2]))


def gaussian(y: Scalar) -> tuple[Scalar, Scalar]:
    """(s, n) with e^(-y^2) = 2^n (1 + s)."""
    h = y * y
    return exp_of_sum(-h, fma(-y, y, h))


def normal_gaussian(y: Scalar) -> tuple[Scalar, Scalar]:
    """(s, n) with e^(-y^2/2) = 2^n (1 + s)."""
    return exp_of_sum(*minus_half_square(y))


def minus_half_square(y: Scalar) -> tuple[Scalar, Scalar]:
    """-y^2/2 as a float and what its rounding lost."""
    minus_half = y * -0.5
    h = minus_half * y
    return h, fma(minus_half, y, -h)


def exp_of_sum(x: Scalar, x_low: Scalar) -> tuple[Scalar, Scalar]:
    """(s, n) with e^(x + x_low) = 2^n (1 + s): see `bodies.exp`; the parts of r are added last."""
    ty = x.dtype
    n, _ = nearest_integer(x, LOG2_E)
    high, low = LN2[ty]
    exact = fma(n, -high, x)
    step = fma(n, -low, x_low)
    r = exact + step
    rr = r * r
    return exact + fma(rr, polynomial(r, rr, EXP[ty]), step), n


def scale_gaussian(a: Scalar, n: Scalar) -> Scalar:
    """a 2^n for the n of a Gaussian."""
    return scale_by_whole(a, n, (GAUSS_LEAST[a.dtype], 0))


def erfcx_at(y: Scalar, ratio: tuple[float, float] | None = None) -> tuple[Scalar, Scalar]:
    """erfcx(y), or erfcx(ratio y), as a float and what its rounding lost; 0 <= y <= GAUSS_ZERO."""
    ty = y.dtype
    step = ERFCX_STEP[ty] * (ratio[0] if ratio else 1.0)
    # u in [2, 32), which the exponent and the bits after it cut into 16 intervals, 8 in f32.
    u = fma(y, step, 2.0)
    c, value, *rest = looked_up(lshr(bitcast(u), FRACTION_BITS[ty] - ERFCX_BITS[ty]), ERFCX[ty])
    t = fma(y, ratio[1], fma(y, ratio[0], -c)) if ratio else y - c
    rise = piece(t, t * t, rest)
    total = fma(t, rise, value)
    return total, fma(t, rise, value - total)


# -- erf and erfc ----------------------------------------------------------------------------------


def erf(x: Scalar) -> Scalar:
    ty = x.dtype
    a = abs(x)
    y = at_most(a, ERF_LAST[ty])
    # The number of the nearest multiple of ERF_STEP, in the lowest bits; t is exact.
    index = bitcast(fma(y, 1.0 / ERF_STEP[ty], ROUNDER[ty]))
    c, value, slope, *rest = looked_up(index, ERF[ty])
    t = y - c
    tt = t * t
    # Around 0, value is 0 and the slope has next to no error: the sum keeps the relative precision.
    rise = fma(t, slope, tt * piece(t, tt, rest))
    magnitude = value + rise
    if ty is f32:  # the last float before 1 is met between both
        magnitude = select(a > ERF_ONE, 1.0, magnitude)
    return with_sign_of(magnitude, x)


def erf_partial(x: Scalar) -> Scalar:
    """2/sqrt(pi) e^(-x^2)"""
    s, n = gaussian(at_most(abs(x), GAUSS_ZERO[x.dtype]))
    slope, slope_low = SLOPE[x.dtype]
    return scale_gaussian(fma(s, slope, slope_low) + slope, n)


def erfc(x: Scalar) -> Scalar:
    y = at_most(abs(x), GAUSS_ZERO[x.dtype])
    value, low = erfcx_at(y)
    s, n = gaussian(y)
    q = scale_gaussian(value + fma(s, value, low), n)
    return select(x < 0.0, 2.0 - q, q)


# -- the normal distribution -----------------------------------------------------------------------


def lower_tail(y: Scalar) -> Scalar:
    """ndtr(-y) for 0 <= y <= NORMAL_ZERO."""
    value, low = erfcx_at(y, SQRT_HALF[y.dtype])
    s, n = normal_gaussian(y)
    return scale_gaussian((value + fma(s, value, low)) * 0.5, n)


def ndtr(x: Scalar) -> Scalar:
    q = lower_tail(at_most(abs(x), NORMAL_ZERO[x.dtype]))
    return select(x > 0.0, 1.0 - q, q)


def ndtr_partial(x: Scalar) -> Scalar:
    """e^(-x^2/2) / sqrt(2 pi)"""
    s, n = normal_gaussian(at_most(abs(x), NORMAL_ZERO[x.dtype]))
    most, most_low = NORMAL[x.dtype]
    return scale_gaussian(fma(s, most, most_low) + most, n)


# -- gelu ------------------------------------------------------------------------------------------


def gelu(x: Scalar) -> Scalar:
    """x ndtr(x): -g below zero and x - g above, with g = |x| ndtr(-|x|)."""
    y = at_most(abs(x), NORMAL_ZERO[x.dtype])
    value, low = erfcx_at(y, SQRT_HALF[x.dtype])
    s, n = normal_gaussian(y)
    product = y * value
    lost = fma(y, low, fma(y, value, -product))
    g = scale_gaussian((product + fma(s, product, lost)) * 0.5, n)
    return select(x < 0.0, -g, x - g)


def gelu_partial(x: Scalar) -> Scalar:
    """ndtr(x) + x e^(-x^2/2) / sqrt(2 pi): r below zero and 1 - r above.

    r = e^(-y^2/2) (erfcx(y/sqrt 2) / 2 - y / sqrt(2 pi)) with y = |x|.
    """
    y = at_most(abs(x), NORMAL_ZERO[x.dtype])
    value, _ = erfcx_at(y, SQRT_HALF[x.dtype])
    s, n = normal_gaussian(y)
    difference = fma(y, -NORMAL[x.dtype][0], value * 0.5)
    r = scale_gaussian(fma(s, difference, difference), n)
    return select(x < 0.0, r, 1.0 - r)


# -- the logarithm of ndtr -------------------------------------------------------------------------


def log_ndtr(x: Scalar) -> Scalar:
    """log1p(-q) above zero and log(q e^(y^2/2)) - y^2/2 below, where q = ndtr(-y), y = |x|."""
    ty = x.dtype
    y = abs(x)
    near = at_most(y, NORMAL_ZERO[ty])
    value, low = erfcx_at(near, SQRT_HALF[ty])
    s, n = normal_gaussian(near)
    added = fma(s, value, low)
    p = value + added
    q = scale_gaussian(p * 0.5, n)
    q_low = ((value - p) + added) * scale_gaussian(constant(x, 0.5), n)
    # Below zero: q e^(y^2/2) is half of erfcx, or of its series where y is far.
    r = 1.0 / y
    z = r * r
    series = polynomial(z, z * z, MILLS[ty]) * (r * (1.0 / ROOT_2_PI))
    tail = select(y > NORMAL_ZERO[ty], series, value * 0.5)
    # The argument of the logarithm as a sum of two floats; that of a series need not be exact.
    above = x > 0.0
    u = select(above, 1.0 - q, tail)
    u_low = select(above, ((1.0 - u) - q) - q_low, low * 0.5)
    # u_low / u by the c near 1/u, as log1p has it.
    k, c, rest, head = log_parts(u, LN)
    share = u_low * c
    logarithm = log_of_parts(head, rest, LN, rest, scale_by_whole(fma(share, -rest, share), -k))
    # Where y is far, its square is rounded, and the loss of NORMAL_ZERO's square is none.
    _, h_low = minus_half_square(near)
    below = (logarithm + h_low) + minus_half_square(y)[0]
    return select(above, logarithm, below)


def log_ndtr_partial(x: Scalar) -> Scalar:
    """ndtr'(x) / ndtr(x): the numerator and the denominator times e^(x^2/2) below zero."""
    ty = x.dtype
    y = abs(x)
    near = at_most(y, NORMAL_ZERO[ty])
    value, low = erfcx_at(near, SQRT_HALF[ty])
    s, n = normal_gaussian(near)
    q = scale_gaussian((value + fma(s, value, low)) * 0.5, n)
    most, most_low = NORMAL[ty]
    density = scale_gaussian(fma(s, most, most_low) + most, n)
    above = x > 0.0
    far = ~above & (y > NORMAL_ZERO[ty])
    # Far below zero the quotient is 1/y.
    numerator = select(above, density, select(far, 1.0, constant(x, 2.0 / ROOT_2_PI)))
    quotient = numerator / select(above, 1.0 - q, select(far, y, value))
    z = quotient * quotient
    series = fma(quotient, polynomial(z, z * z, INVERSE_MILLS[ty]), y)
    return select(far, series, quotient)


# -- erfinv ----------------------------------------------------------------------------------------


def erfinv(x: Scalar) -> Scalar:
    ty = x.dtype
    a = abs(x)
    # a (sqrt(pi)/2 + a^2 (...)) up to 1/2.
    z = a * a
    rest = polynomial(z, z * z, ERFINV_NEAR[ty])
    near = fma(a, HALF_ROOT_PI, (a * z) * rest)
    index, w = far_interval(a)
    c, value, *rest_far = looked_up(index, ERFINV_FAR[ty])
    t = w - c
    far = fma(t, piece(t, t * t, rest_far), value)
    far = select(a < 1.0, far, select(equal(a, 1.0), float("inf"), constant(x, float("nan"))))
    return with_sign_of(select(a < 0.5, near, far), x)


def far_interval(a: Scalar) -> tuple[Scalar, Scalar]:
    """The interval of w = -log(1 - a), and w; from a = 1/2 on, 1 - a is exact."""
    w = -log(1.0 - a)
    step, shift = ERFINV_U[a.dtype]
    return lshr(bitcast(fma(w, step, shift)), FRACTION_BITS[a.dtype] - 2), w


def erfinv_partial(x: Scalar) -> Scalar:
    """sqrt(pi)/2 e^(erfinv(x)^2), in which an error of erfinv would grow with its square.

    A polynomial in x^2 up to 1/2; beyond, 1 / (1 - |x|) times a function that varies little.
    """
    ty = x.dtype
    a = abs(x)
    z = a * a
    near = fma(z, polynomial(z, z * z, INVERSE_SLOPE_NEAR[ty]), HALF_ROOT_PI)
    index, w = far_interval(a)
    c, value, *rest = looked_up(index, INVERSE_SLOPE_FAR[ty])
    t = w - c
    far = fma(t, piece(t, t * t, rest), value) / (1.0 - a)
    far = select(a < 1.0, far, select(equal(a, 1.0), float("inf"), constant(x, float("nan"))))
    return select(a < 0.5, near, far)
