"""Bodies of the hyperbolic functions, the logistic function and softplus."""

from __future__ import annotations

from graphc.gates.bodies.exp import (
    LN2,
    LOG2_E,
    ROUNDER,
    at_least,
    at_most,
    exp_sum,
    horner,
    nearest_integer,
    polynomial,
)
from graphc.ir.scalar import (
    Scalar,
    bitcast,
    constant,
    fma,
    lookup,
    rare,
    scale_by_whole,
    select,
)
from graphc.ir.types import f32, f64

SINH = {
    f64: (  # generate.py SINH_F64: error 2^-61.6
        0.16666666666666677, 0.008333333333321384, 0.00019841269886822436, 2.7557243462358357e-06,
        2.5109307149315063e-08,
    ),
    f32: (  # generate.py SINH_F32: error 2^-34.3
        0.16666667, 0.008333175, 0.00019974064,
    ),
}  # fmt: skip
COSH = {
    f64: (  # generate.py COSH_F64: error 2^-69.8
        0.5, 0.041666666666666685, 0.0013888888888873286, 2.4801587349189594e-05,
        2.7557251836293837e-07, 2.0921763974321173e-09,
    ),
    f32: (  # generate.py COSH_F32: error 2^-33.2
        0.5, 0.04166646, 0.0013935437,
    ),
}  # fmt: skip
SINH_MOST = {f64: 711.0, f32: 90.0}  # e^x / 2 overflows before
TANH_X = {
    f64: (  # generate.py TANH_X_F64
        0.0, 1.200001385232547, 2.499999576874134, 3.7699999999998877, 5.039999999999343,
        6.309999999999406, 7.5800000000198535, 8.84999999992138, 10.119999995013496,
        11.390000053352168, 12.660000308397017, 13.929988403247842, 15.19998741926522,
        16.470655690252443, 17.742018800591044, 18.714973875118524,
    ),
    f32: (  # generate.py TANH_X_F32
        0.0, 1.0953655, 2.4100327, 3.6150882, 4.8191643, 6.0227275, 7.2191772, 8.317766,
    ),
}  # fmt: skip
TANH_T = {
    f64: (  # generate.py TANH_T_F64
        0.0, 0.8336550295352936, 0.9866142868995667, 0.9989377692233118, 0.9999161846780741,
        0.9999933895321315, 0.999999478654611, 0.9999999588833562, 0.9999999967572782,
        0.9999999997442582, 0.9999999999798306, 0.9999999999984093, 0.9999999999998745,
        0.9999999999999901, 0.9999999999999992, 0.9999999999999999,
    ),
    f32: (  # generate.py TANH_T_F32
        0.0, 0.7988281, 0.98399657, 0.99855226, 0.99986964, 0.99998826, 0.9999989, 0.9999999,
    ),
}  # fmt: skip
TANH_S = {
    f64: (  # generate.py TANH_S_F64
        1.0, 0.3050192917305088, 0.026592248885659586, 0.0021233332191534795,
        0.00016762361884364686, 1.3220892038793964e-05, 1.0426905061404265e-06,
        8.223328582219144e-08, 6.485443505042581e-09, 5.114835221377732e-10, 4.033884337632921e-11,
        3.1814550993633804e-12, 2.509104035653092e-13, 1.976196983832802e-14, 1.554312234474667e-15,
        2.22044604925031e-16,
    ),
    f32: (  # generate.py TANH_S_F32
        1.0, 0.36187363, 0.03175075, 0.0028933787, 0.00026069366, 2.3484443e-05, 2.1456647e-06,
        2.3841854e-07,
    ),
}  # fmt: skip
COTH = {
    f64: (  # generate.py COTH_F64: error 2^-60.9
        0.33333333333333326, -0.022222222222215583, 0.0021164021162092, -0.0002116402089540536,
        2.1377778208435893e-05, -2.1643060048550505e-06, 2.189752202737265e-07,
        -2.171569028851772e-08, 1.7559580958339413e-09,
    ),
    f32: (  # generate.py COTH_F32: error 2^-29.3
        0.33333325, -0.022220615, 0.0021064857, -0.0001874318,
    ),
}  # fmt: skip
TANH_STEP = {f64: 1.27, f32: 1.205}  # of the points
TANH_MOST = {f64: 19.0616, f32: 9.011}  # tanh rounds to 1 from there on
LOG1P = {
    f64: (  # generate.py LOG1P_F64: error 2^-58.0
        0.6666666666666631, 0.40000000000157354, 0.28571428547837724, 0.22222223970809907,
        0.18181743884907178, 0.15386560811067107, 0.13300961520273857, 0.12106184614836334,
        0.08339659941999276, 0.17019414258363083,
    ),
    f32: (  # generate.py LOG1P_F32: error 2^-27.6
        0.6666641, 0.40021706, 0.27999046, 0.28024942,
    ),
}  # fmt: skip
LOGISTIC_LEAST = {f64: -760.0, f32: -110.0}  # x e^x rounds to zero from there on


def sinh(x: Scalar) -> Scalar:
    """2 sinh x = 2^n ((1 - w)(1 + c) + (1 + w) s): nothing cancels at n = 0, where w is 1."""
    m, w, exact, rest, c = halves(abs(x))
    less, more = 1.0 - w, 1.0 + w
    lost = (1.0 - less) - w
    # 1 + w as less + 2w, since rounding it, too, would be felt.
    tail = fma(exact, less, fma(exact, w + w, fma(rest, more, fma(less, c, lost))))
    return with_sign_of(scale_by_whole(less + tail, -1.0 - m), x)


def cosh(x: Scalar) -> Scalar:
    """2 cosh x = 2^n ((1 + w)(1 + c) + (1 - w) s)."""
    m, w, exact, rest, c = halves(abs(x))
    less, more = 1.0 - w, 1.0 + w
    lost = (1.0 - less) - w
    tail = fma(exact, less, fma(rest, less, fma(more, c, fma(exact, lost, w))))
    return scale_by_whole(tail + 1.0, -1.0 - m)


def halves(a: Scalar) -> tuple[Scalar, Scalar, Scalar, Scalar, Scalar]:
    """(-n, w, exact, rest, c) with a = n ln 2 + r, |r| <= ln(2)/2, w = 4^-n, sinh r = exact + rest
    and cosh r = 1 + c.

    e^a = 2^n (cosh r + sinh r) and e^-a = 2^-n (cosh r - sinh r), without a division.
    """
    ty = a.dtype
    y = at_most(a, SINH_MOST[ty])
    m, _ = nearest_integer(y, -LOG2_E)
    high, low = LN2[ty]
    # As in exp: `exact` is, and the small part of r is added to the polynomial, not to it.
    exact = fma(m, high, y)
    step = m * low
    r = exact + step
    z = r * r
    rest = fma(z * r, horner(z, SINH[ty]), step)
    c = z * horner(z, COSH[ty])
    root = scale_by_whole(constant(a, 1.0), m, (round(-SINH_MOST[ty] * LOG2_E), 0))
    return m, root * root, exact, rest, c


def with_sign_of(magnitude: Scalar, x: Scalar) -> Scalar:
    """Sets the sign bit of x on a value that has none."""
    sign_bit = -(2 ** (8 * x.dtype.itemsize - 1))
    return bitcast(bitcast(magnitude) | (bitcast(x) & sign_bit))


def tanh(x: Scalar) -> Scalar:
    """tanh(X + d) = T + S tanh(d) / (1 + T tanh(d)), T = tanh X and S = 1 - T^2; few points X.

    tanh d = d / (1 + k), k = d coth(d) - 1, so the fraction is d - d (k + T d) / (1 + k + T d): its
    leading term has no error, and that of the rest is small beside T, and for T = 0 beside d.
    """
    t, slope, d, _, q = near_point(abs(x))
    fraction = fma(-(d * q), 1.0 / (q + 1.0), d)
    return with_sign_of(fma(slope, fraction, t), x)


def near_point(a: Scalar) -> tuple[Scalar, Scalar, Scalar, Scalar, Scalar]:
    """(T, S, d, k, k + T d) of a = X + d; NaN of NaN, and of TANH_MOST beyond it."""
    ty = a.dtype
    a = at_most(a, TANH_MOST[ty])
    index = bitcast(fma(a, 1.0 / TANH_STEP[ty], ROUNDER[ty]))
    t = lookup(index, TANH_T[ty])
    d = a - lookup(index, TANH_X[ty])  # exact
    z = d * d
    k = z * polynomial(z, z * z, COTH[ty])
    return t, lookup(index, TANH_S[ty]), d, k, fma(t, d, k)


def tanh_partial(x: Scalar) -> Scalar:
    """tanh'(X + d) = S (1 - tanh(d)^2) / (1 + T tanh(d))^2, out of what tanh itself is made of.

    That is S ((1 + k)^2 - d^2) / (1 + k + T d)^2. For d < 0 the denominator is small: its square is
    taken with what rounding the sum lost.
    """
    from graphc.gates.hyperbolic import tanh_partial_far

    a = abs(x)
    _, slope, d, k, q = near_point(a)
    top = fma(slope, fma(k, k + 2.0, -(d * d)), slope)
    bottom = q + 1.0
    cross = bottom * (q - (bottom - 1.0))
    near = top / fma(bottom, bottom, cross + cross)
    return rare(a > TANH_MOST[x.dtype], tanh_partial_far, (x,), near)


# -- out of e = exp(-|x|) --------------------------------------------------------------------------


def small_exp(y: Scalar) -> tuple[Scalar, Scalar, Scalar, Scalar]:
    """(e, p, p_low, n) with e^y = (p + p_low) 2^n, y <= 0, and e = p 2^n."""
    t, u, n = exp_sum(at_least(y, LOGISTIC_LEAST[y.dtype]))
    p = t + u
    return scale_down(p, n), p, (t - p) + u, n


def scale_down(a: Scalar, n: Scalar) -> Scalar:
    """a 2^n for the n of `small_exp`."""
    return scale_by_whole(a, n, (round(LOGISTIC_LEAST[n.dtype] * LOG2_E), 0))


def logistic(x: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """(q, q_low, n) with 1/(1 + e^-x) = (q + q_low) 2^n."""
    e, p, p_low, n = small_exp(-abs(x))
    # 1/(1 + e) above 0, e/(1 + e) below.
    below = x < 0.0
    top, top_low = select(below, p, 1.0), select(below, p_low, 0.0)
    d = e + 1.0
    d_low = e - (d - 1.0)
    # A first quotient, then what is left of the numerator, divided, too.
    r = 1.0 / d
    q = top * r
    rest = fma(-q, d_low, fma(-q, d, top)) + top_low
    return q, rest * r, select(below, n, 0.0)


def sigmoid(x: Scalar) -> Scalar:
    q, q_low, n = logistic(x)
    return scale_down(q + q_low, n)


def sigmoid_partial(x: Scalar) -> Scalar:
    """e / (1 + e)^2; the square as 1 + e (2 + e), which rounds less."""
    e, p, _, n = small_exp(-abs(x))
    return scale_down(p / fma(e, e + 2.0, 1.0), n)


def tanh_partial_far(x: Scalar) -> Scalar:
    """4 e^-2|x|: where tanh is 1, the rest of the series is nothing."""
    _, p, _, n = small_exp(abs(x) * -2.0)
    return scale_down(p * 4.0, n)


def silu(x: Scalar) -> Scalar:
    """x times the logistic function, before that is scaled: subnormal results round once."""
    q, q_low, n = logistic(x)
    least = LOGISTIC_LEAST[x.dtype]
    factor = at_least(x, least)
    return scale_by_whole(fma(factor, q, at_most(factor, -least) * q_low), n)


def silu_partial(x: Scalar) -> Scalar:
    """s (1 + x (1 - s)), s the logistic function: (1 + e + x e) / (1 + e)^2 above 0, and
    e (1 + e + x) / (1 + e)^2 below."""
    least = LOGISTIC_LEAST[x.dtype]
    e, p, _, n = small_exp(-abs(x))
    factor = at_most(at_least(x, least), -least)
    d = e + 1.0
    below = x < 0.0
    top = select(below, p * (d + factor), fma(factor, e, d))
    return scale_by_whole(top / fma(e, e + 2.0, 1.0), select(below, n, 0.0))


def softplus(x: Scalar) -> Scalar:
    """max(x, 0) + log(1 + e), log(1 + e) = 2 atanh v = e - e v + ... with v = e / (2 + e)."""
    e, _, p_low, n = small_exp(-abs(x))
    d = e + 2.0
    v = e / d
    z = v * v
    # What remains of the division counts about -v; what the rounding of e lost, 1/(1 + e), which is
    # about 1 - 3/2 v.
    e_low = p_low * scale_down(constant(x, 1.0), n)
    rest = fma(-v, d, e)
    low = fma(-v, fma(e_low, 1.5, rest), e_low)
    tail = fma(-v, e, fma(v * z, horner(z, LOG1P[x.dtype]), low))
    return e + (tail + select(x > 0.0, x, 0.0))


def softplus_partial(x: Scalar) -> Scalar:
    """1 / (1 + e) above 0 and e / (1 + e) below."""
    e, _, _, _ = small_exp(-abs(x))
    return select(x > 0.0, constant(x, 1.0), e) / (e + 1.0)


def log_sigmoid(x: Scalar) -> Scalar:
    return -softplus(-x)
