"""Bodies of log |gamma(x)| and its derivatives digamma, trigamma and tetragamma.

On [1, 2] each is a minimax polynomial, times the factors that vanish with it. The recurrence
gamma(x + 1) = x gamma(x) leads there from [0, 1] and, for log gamma, from [2, 3]. Above stands the
asymptotic series (Abramowitz and Stegun 6.1.41, 6.3.18, 6.4.12), with a minimax polynomial in 1/x^2
for its sum. Below zero the reflection formulas hold (6.1.17, 6.3.7, 6.4.7), in gates of their own
behind `rare`.

f32 is computed in f64, with the tables that end in SHORT and without care for the last bits.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.gates.bodies.exp import polynomial
from graphc.gates.bodies.gamma_tables import (
    DIGAMMA_FAR,
    DIGAMMA_FAR_SHORT,
    DIGAMMA_NEAR,
    DIGAMMA_NEAR_SHORT,
    DIGAMMA_ZERO,
    LGAMMA_CONSTANT,
    LGAMMA_FAR,
    LGAMMA_FAR_SHORT,
    LGAMMA_NEAR,
    LGAMMA_NEAR_SHORT,
    LOG1P_SHORT,
    PI_PAIR,
    SINE_OF_PI,
    TETRAGAMMA_FAR,
    TETRAGAMMA_FAR_SHORT,
    TETRAGAMMA_NEAR,
    TETRAGAMMA_NEAR_SHORT,
    TRIGAMMA_FAR,
    TRIGAMMA_FAR_SHORT,
    TRIGAMMA_NEAR,
    TRIGAMMA_NEAR_SHORT,
)
from graphc.gates.bodies.log import LN, log_parts
from graphc.gates.bodies.log_tables import LN_P, LN_TWO
from graphc.ir.scalar import (
    Scalar,
    constant,
    convert,
    equal,
    fma,
    rare,
    rint,
    select,
)
from graphc.ir.types import f32, f64

INF = float("inf")


def two_sum(a: Scalar, b: Scalar) -> tuple[Scalar, Scalar]:
    """a + b and what its rounding lost (Knuth)."""
    total = a + b
    back = total - a
    return total, (a - (total - back)) + (b - back)


def with_low(total: Scalar, low: Scalar) -> Scalar:
    """total + low; where total is infinite, low is of no meaning."""
    return select(abs(total) < INF, total + low, total)


def log_pair(x: Scalar) -> tuple[Scalar, Scalar]:
    """log x as a sum of two floats, for x >= 0: what `log` adds up."""
    _, _, r, head = log_parts(x, LN)
    rr = r * r
    total = head + r
    low = fma(head, LN_TWO[f64][1], (head - total) + r)
    return total, fma(rr, polynomial(r, rr, LN_P[f64]), low)


def log_short(x: Scalar) -> Scalar:
    """log x to 32 bits, for x >= 0."""
    _, _, r, head = log_parts(x, LN)
    rr = r * r
    return fma(rr, polynomial(r, rr, LOG1P_SHORT), r) + head


def polynomial_from(t: Scalar, c: tuple[float, ...]) -> Scalar:
    """sum c_i t^i with the constant term added last: its chains may cancel."""
    return fma(t, polynomial(t, t * t, c[1:]), c[0])


def by_dtype(
    x: Scalar, long: Callable[[Scalar], Scalar], short: Callable[[Scalar], Scalar]
) -> Scalar:
    """The body for f64, or the shorter one in f64 for f32."""
    return convert(short(convert(x, f64)), f32) if x.dtype is f32 else long(x)


# -- log gamma -------------------------------------------------------------------------------------


def lgamma(x: Scalar) -> Scalar:
    from graphc.gates.gamma import lgamma_negative

    result = by_dtype(x, lambda v: with_low(*half_lgamma(v)) * 2.0, lgamma_short)
    return rare(x < 0.0, lgamma_negative, (x,), result)


def lgamma_places(x: Scalar) -> tuple[Scalar, Scalar, Scalar, Scalar, Scalar]:
    """(x is below 1, x is below 3, z, z - 1, p): for x below 3, 1 + z is x plus an integer, in
    [1, 2), and log gamma(x) = log gamma(1 + z) + (-1 if x is below 1 else 1) log p.
    """
    below, near = x < 1.0, x < 3.0
    less = x - 1.0
    within = x < 2.0
    z = select(below, x, select(within, less, x - 2.0))
    p = select(within, select(below, x, 1.0), select(near, less, x))
    return below, near, z, z - 1.0, p


def half_lgamma(x: Scalar, shifted: bool = False) -> tuple[Scalar, Scalar]:
    """log gamma(x) / 2, or where `shifted` and x < 1 log gamma(x + 1) / 2, as a sum of two floats.

    The half, so that what comes before the last rounding does not overflow.
    """
    below, near, z, z_less, p = lgamma_places(x)
    half = constant(x, 0.5)
    if shifted:
        p = select(below, 1.0, p)
    else:
        half = select(below, -0.5, half)
    # Near: z (z - 1) (c + t q(t)), which vanishes at both ends; both factors are exact.
    t = z - 0.5
    c, c_low, *rest = (v / 2 for v in LGAMMA_NEAR)
    q = polynomial(t, t * t, rest)
    factor = fma(t, q, c)
    factor_low = fma(t, q, c - factor) + c_low
    zz = z * z_less
    zz_low = fma(z, z_less, -zz)
    # Far: (x - 1/2) (log x - 1) + (log(2 pi) - 1)/2 + w(1/x^2)/x.
    r = 1.0 / x
    rr = r * r
    series = polynomial(rr, rr * rr, [v / 2 for v in LGAMMA_FAR])
    # Either is a product of a number and a logarithm, and what comes to it, a product, too.
    first, second = select(near, zz, r), select(near, factor, series)
    extra = fma(first, second, select(near, 0.0, constant(x, LGAMMA_CONSTANT[0] / 2)))
    lost = fma(zz, factor, -extra) + fma(zz, factor_low, zz_low * factor)
    extra_low = select(near, lost, LGAMMA_CONSTANT[1] / 2)
    log_p, log_low = log_pair(p)
    log_p = log_p - select(near, 0.0, constant(x, 1.0))  # exact
    multiple = select(near, half, fma(x, 0.5, -0.25))
    main = multiple * log_p
    main_low = fma(multiple, log_low, fma(multiple, log_p, -main))
    # |main| is 0 or not much below `extra`.
    total = main + extra
    return total, (extra - (total - main)) + (main_low + extra_low)


def lgamma_short(x: Scalar) -> Scalar:
    """The same without the lower parts."""
    below, near, z, z_less, p = lgamma_places(x)
    t = z - 0.5
    factor = polynomial(t, t * t, LGAMMA_NEAR_SHORT)
    r = 1.0 / x
    rr = r * r
    series = polynomial(rr, rr * rr, LGAMMA_FAR_SHORT)
    first, second = select(near, z * z_less, r), select(near, factor, series)
    extra = fma(first, second, select(near, 0.0, constant(x, LGAMMA_CONSTANT[0])))
    multiple = select(near, select(below, -1.0, constant(x, 1.0)), x - 0.5)
    return fma(multiple, log_short(p) - select(near, 0.0, constant(x, 1.0)), extra)


def lgamma_negative(x: Scalar) -> Scalar:
    """-log gamma(1 + a) - log(|sin(pi a)| / pi) at a = -x; +inf at the poles.

    For a >= 1 it is -log gamma(a) - log(a |sin(pi a)| / pi), for 1 + a may be rounded.
    """
    a = -convert(x, f64)
    sine, sine_low, _ = sine_of_pi(a)
    p = select(a < 1.0, 1.0, a)
    s = p * sine
    s_low = fma(p, sine, -s) + p * sine_low
    log_s, log_low = log_pair(s)
    half, half_low = half_lgamma(a, shifted=True)
    total, lost = two_sum(log_s, half * 2.0)
    result = -with_low(total, lost + (fma(half_low, 2.0, log_low) + s_low / s))
    return convert(select(equal(rint(a), a), INF, result), x.dtype)


def sine_of_pi(a: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """|sin(pi a)| / pi as a sum of two floats, and r, the signed distance to the next integer."""
    r = a - rint(a)
    return *sine_of_fraction(abs(r)), r


def sine_of_fraction(v: Scalar) -> tuple[Scalar, Scalar]:
    """sin(pi v) / pi for 0 <= v <= 1/2: v + v^3 (c + v^2 p(v^2)), where v^3 may be large beside v,
    so that it and its factor are sums of two floats, too.
    """
    c, c_low, *rest = SINE_OF_PI
    z = v * v
    cube = v * z
    cube_low = fma(v, z, -cube) + v * fma(v, v, -z)
    p = z * polynomial(z, z * z, rest)
    factor = p + c
    factor_low = p - (factor - c) + c_low
    tail = cube * factor
    tail_low = fma(cube, factor, -tail) + fma(cube, factor_low, cube_low * factor)
    s = v + tail
    return s, tail - (s - v) + tail_low


def cotangent_of_pi(a: Scalar) -> tuple[Scalar, Scalar]:
    """pi cot(pi a) as a sum of two floats; NaN at integers."""
    s, s_low, r = sine_of_pi(a)
    # cos(pi v) = sin(pi (1/2 - v))
    c, c_low = sine_of_fraction(0.5 - abs(r))
    pi, pi_low = PI_PAIR
    n = c * pi
    n_low = fma(c, pi, -n) + fma(c, pi_low, c_low * pi)
    q = n / s
    q_low = (fma(-q, s, n) + fma(-q, s_low, n_low)) / s
    sign = select(r < 0.0, -1.0, constant(a, 1.0))
    q = select(equal(r, 0.0), float("nan"), q * sign)
    return q, q_low * sign


def cosecant_squared(a: Scalar) -> tuple[Scalar, Scalar]:
    """(pi / sin(pi a))^2 as a sum of two floats; inf at integers."""
    s, s_low, _ = sine_of_pi(a)
    inverse = 1.0 / s
    inverse_low = (fma(-inverse, s, 1.0) - inverse * s_low) * inverse
    square = inverse * inverse
    return square, fma(inverse, inverse, -square) + 2.0 * (inverse * inverse_low)


# -- digamma ---------------------------------------------------------------------------------------


def digamma(x: Scalar) -> Scalar:
    from graphc.gates.gamma import digamma_negative

    result = by_dtype(x, lambda v: with_low(*digamma_pair(v)), digamma_short)
    return rare(x < 0.0, digamma_negative, (x,), result)


def digamma_places(x: Scalar) -> tuple[Scalar, Scalar, Scalar, Scalar]:
    """(x is below 1, x is below 2, t, n): digamma(x) or digamma(x + 1) is near its zero as t is
    near 0, and 1/x is to be added n times.
    """
    below, near = x < 1.0, x < 2.0
    t = select(below, x, x - 1.0) - DIGAMMA_ZERO[0]
    n = select(near, select(below, -1.0, constant(x, 0.0)), -0.5)
    return below, near, t, n


def digamma_pair(x: Scalar, shifted: bool = False) -> tuple[Scalar, Scalar]:
    """digamma(x), or digamma(x + 1) where `shifted`, as a sum of two floats."""
    below, near, t, n = digamma_places(x)
    if shifted:
        n, x = n + 1.0, select(below, 1.0, x)
    # Near: (t - t_low) (c + t q(t)), with the zero as a sum of two floats; t is exact for x >= 1.
    c, c_low = DIGAMMA_NEAR[:2]
    q = polynomial(t, t * t, DIGAMMA_NEAR[2:])
    factor = fma(t, q, c)
    factor_low = fma(t, q, c - factor) + c_low
    product = t * factor
    product_low = fma(t, factor, -product) + fma(t, factor_low, factor * -DIGAMMA_ZERO[1])
    # Far: log x - 1/(2x) - w(1/x^2)/x^2.
    r = 1.0 / x
    r_low = fma(-r, x, 1.0) * r
    rr = r * r
    log_x, log_low = log_pair(x)
    log_low = fma(-rr, polynomial(rr, rr * rr, DIGAMMA_FAR), log_low)
    main = select(near, product, log_x)
    main_low = select(near, product_low, log_low)
    total, lost = two_sum(main, n * r)
    return total, lost + fma(n, r_low, main_low)


def digamma_short(x: Scalar) -> Scalar:
    """The same without the lower parts, but that of the zero."""
    _, near, t, n = digamma_places(x)
    factor = polynomial(t, t * t, DIGAMMA_NEAR_SHORT)
    r = 1.0 / x
    rr = r * r
    far = fma(-rr, polynomial(rr, rr * rr, DIGAMMA_FAR_SHORT), log_short(x))
    return fma(n, r, select(near, (t - DIGAMMA_ZERO[1]) * factor, far))


def digamma_negative(x: Scalar) -> Scalar:
    """digamma(1 + a) + pi cot(pi a) at a = -x; NaN at the poles."""
    a = -convert(x, f64)
    cotangent, cotangent_low = cotangent_of_pi(a)
    positive, positive_low = digamma_pair(a, shifted=True)
    total, lost = two_sum(positive, cotangent)
    return convert(with_low(total, lost + (positive_low + cotangent_low)), x.dtype)


# -- trigamma --------------------------------------------------------------------------------------


def trigamma(x: Scalar) -> Scalar:
    from graphc.gates.gamma import trigamma_negative

    result = by_dtype(
        x,
        lambda v: trigamma_positive(v, TRIGAMMA_NEAR, TRIGAMMA_FAR),
        lambda v: trigamma_positive(v, TRIGAMMA_NEAR_SHORT, TRIGAMMA_FAR_SHORT),
    )
    return rare(x < 0.0, trigamma_negative, (x,), result)


def trigamma_positive(
    x: Scalar, near_table: tuple[float, ...], far_table: tuple[float, ...]
) -> Scalar:
    """Near, a polynomial and, below 1, 1/x^2."""
    below, near = x < 1.0, x < 2.0
    t = x - select(below, 0.875, constant(x, 1.875))
    r = 1.0 / x
    rr = r * r
    # Far: 1/x + 1/(2 x^2) + w(1/x^2)/x^3.
    far = fma(r, polynomial(rr, rr * rr, far_table), 0.5)
    n = select(near, select(below, 1.0, constant(x, 0.0)), far)
    return fma(rr, n, select(near, polynomial_from(t, near_table), r))


def trigamma_negative(x: Scalar) -> Scalar:
    """(pi / sin(pi a))^2 - trigamma(1 + a) at a = -x; +inf at the poles."""
    a = -convert(x, f64)
    positive = trigamma_positive(a + 1.0, TRIGAMMA_NEAR, TRIGAMMA_FAR)
    square, square_low = cosecant_squared(a)
    return convert(with_low(square, square_low - positive), x.dtype)


# -- tetragamma ------------------------------------------------------------------------------------


def tetragamma(x: Scalar) -> Scalar:
    from graphc.gates.gamma import tetragamma_negative

    result = by_dtype(
        x,
        lambda v: -tetragamma_positive(v, TETRAGAMMA_NEAR, TETRAGAMMA_FAR),
        lambda v: -tetragamma_positive(v, TETRAGAMMA_NEAR_SHORT, TETRAGAMMA_FAR_SHORT),
    )
    return rare(x < 0.0, tetragamma_negative, (x,), result)


def tetragamma_positive(
    x: Scalar, near_table: tuple[float, ...], far_table: tuple[float, ...]
) -> Scalar:
    """-tetragamma(x): near, a polynomial and, below 1, 2/x^3."""
    below, near = x < 1.0, x < 2.0
    t = x - select(below, 0.875, constant(x, 1.875))
    r = 1.0 / x
    rr = r * r
    # Far: 1/x^2 + 1/x^3 + w(1/x^2)/x^4, where the square is to make up for the rounding of r, too.
    far = fma(r, polynomial(rr, rr * rr, far_table), 1.0)
    twice_lost = select(near | (x > 2.0**60), 0.0, fma(r * -2.0, x, 2.0))
    n = select(near, select(below, 2.0, constant(x, 0.0)), far)
    return fma(rr, fma(r, n, twice_lost), select(near, polynomial_from(t, near_table), rr))


def tetragamma_negative(x: Scalar) -> Scalar:
    """tetragamma(1 + a) + 2 pi cot(pi a) (pi / sin(pi a))^2 at a = -x; NaN at the poles."""
    a = -convert(x, f64)
    y = a + 1.0
    positive = tetragamma_positive(y, TETRAGAMMA_NEAR, TETRAGAMMA_FAR)
    # What rounding y lost, times the derivative, which is the value by about -2/(y - 0.3).
    positive = fma(positive * -2.0, (a - (y - 1.0)) / (y - 0.3), positive)
    square, square_low = cosecant_squared(a)
    cotangent, cotangent_low = cotangent_of_pi(a)
    main = cotangent * square
    low = fma(cotangent, square, -main) + fma(cotangent, square_low, cotangent_low * square)
    return convert(with_low(main * 2.0, low * 2.0 - positive), x.dtype)
