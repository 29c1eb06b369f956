"""The bodies of power: x^y = exp(y log x), with the logarithm to 11 bits more than the dtype has.

An error in y log x is one of the result's magnitude times it, and y log x has up to 10 bits before
the point: hence sums of two floats, written `a` and `a_low` (|a_low| is at most about half an ulp
of a).
"""

from __future__ import annotations

from graphc.gates.bodies.exp import (
    EXP_RANGE,
    FRACTION_BITS,
    at_least,
    at_most,
    exp_by_roots,
    polynomial,
)
from graphc.gates.bodies.log_tables import LN_C, LN_T, LN_TWO
from graphc.ir.scalar import (
    Scalar,
    bitcast,
    constant,
    equal,
    exponent,
    floor,
    fma,
    lookup,
    lshr,
    mantissa,
    rare,
    scale,
    select,
)
from graphc.ir.types import f32, f64

INF = float("inf")
LOG_CUBE = {
    f64: (  # generate.py LOG_CUBE_F64: error 2^-63.1
        0.3333333333333333,
        -0.2500000000000041,
        0.20000000000042786,
        -0.16666666665122642,
        0.14285714155758927,
        -0.12500000954797263,
        0.1111126614525483,
        -0.10001411313485502,
        0.09034791331514073,
        -0.07091254119027533,
    ),
    f32: (  # generate.py LOG_CUBE_F32: error 2^-32.8
        0.3333334,
        -0.25001115,
        0.19997287,
        -0.15533367,
    ),
}
LN_LOW = (  # generate.py LN_LOW_F32  what -log c has beyond LN_T
    0.0, 1.1985968e-10, -3.34707e-11, -1.7186512e-12, -5.1641566e-11, 6.8792194e-11,
    3.980658e-12, 6.979149e-11, 3.3353788e-12, 9.927854e-11, 4.51491e-11, -1.4508168e-10,
    1.1719692e-10, 1.15756564e-10, -2.3636257e-10, 0.0,
)  # fmt: skip


def power(x: Scalar, y: Scalar) -> Scalar:
    from graphc.gates.exponential import power_special

    if x.dtype.is_int:
        return integer_power(x, y)
    finite = equal(fma(x, 0.0, y * 0.0), 0.0)  # both are, as 0 times inf is NaN
    usual = (0.0 < x) & finite
    magnitude = of_magnitude(abs(x), y)
    return rare(~usual, power_special, (x, y, magnitude), magnitude)


def power_special(x: Scalar, y: Scalar, magnitude: Scalar) -> Scalar:
    """C99 Annex F. 1 to any power, NaN too, is 1, and so is anything to the power 0; below zero,
    odd integers keep the sign and numbers that are no integers give NaN, but for -0 and -inf."""
    a = abs(x)
    magnitude = select(equal(a, 1.0), 1.0, magnitude)
    above = equal(a, INF) ^ (y < 0.0)
    limit = select(equal(y, y), select(above, INF, constant(y, 0.0)), y)
    magnitude = select(equal(a, 0.0) | equal(a, INF), limit, magnitude)
    half = y * 0.5
    whole = equal(floor(y), y)
    odd = whole & ~equal(floor(half), half)
    sign_bit = -(2 ** (8 * x.dtype.itemsize - 1))
    result = bitcast(bitcast(magnitude) ^ select(odd, bitcast(x) & sign_bit, 0))
    undefined = (x < 0.0) & ~whole & (~equal(a, INF) | ~equal(y, y)) | ~equal(x, x)
    result = select(undefined, float("nan"), result)
    return select(equal(y, 0.0), 1.0, result)


def of_magnitude(a: Scalar, y: Scalar) -> Scalar:
    """a^y for 0 < a < inf or NaN; anything for a = 1 with y infinite or NaN."""
    ty = a.dtype
    log_a, log_low = log_pair(a)
    # v + v_low = y log a. Where v is out of the range of exp, v_low is left out: it may be NaN.
    v = y * log_a
    v_low = fma(y, log_low, fma(y, log_a, -v))
    low, high = EXP_RANGE[ty]
    v_low = select(abs(v) < -low, v_low, 0.0)
    t, u, n = exp_by_roots(at_most(at_least(v, low), high), v_low)
    return scale(t + u, n)


def log_pair(a: Scalar) -> tuple[Scalar, Scalar]:
    """log a as a sum of two floats, for 0 < a < inf or NaN."""
    # log a = head (1 + ratio) + log(1 + r + r_low), as in `log`, with r = m c - 1 to all its bits.
    ty = a.dtype
    log_of_two, ratio = LN_TWO[ty]
    m = mantissa(a)
    index = lshr(bitcast(m), FRACTION_BITS[ty] - 4)
    c = lookup(index, LN_C[ty])
    head = fma(exponent(a), log_of_two, lookup(index, LN_T[ty]))
    product = m * c
    r_low = fma(m, c, -product)
    r = product - 1.0  # exact
    # log(1 + r) = r - r^2/2 + r^3 (1/3 - ...): the first two terms with what rounding lost.
    square = r * r
    square_low = fma(r, r, -square)
    first = head + r
    second = fma(square, -0.5, first)
    lost = ((head - first) + r) + fma(square, -0.5, first - second)
    if ty is f32:  # too few c to choose from, for -log c to be as short as in f64
        lost = lost + lookup(index, LN_LOW)
    lost = fma(head, ratio, lost) + fma(square - r, r_low, r_low)  # r_low / (1 + r)
    lost = fma(square_low, -0.5, lost)
    lost = fma(r * square, polynomial(r, square, LOG_CUBE[ty]), lost)
    log_a = second + lost
    return log_a, (second - log_a) + lost


def integer_power(x: Scalar, y: Scalar) -> Scalar:
    """Square and multiply over the bits of y, modulo 2^width; for y < 0, 1 / x^-y truncated."""
    result = constant(x, 1)
    square = x
    for bit in range(8 * x.dtype.itemsize - 1):
        result = select(equal(y & (1 << bit), 0), result, result * square)
        square = square * square
    # 1 and -1 have their inverses; every other base gives 0.
    unit = equal(x, 1) | equal(x, -1)
    inverse = select(unit, select(equal(y & 1, 0), 1, x), 0)
    return select(y < 0, inverse, result)
