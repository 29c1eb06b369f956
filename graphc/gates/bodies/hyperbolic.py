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
    scale,
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
        0.0, 1.200001385232547, 2.539998566823025, 3.810000000000021, 5.0800000000001475,
        6.349999999998137, 7.620000000008954, 8.890000000075402, 10.160000003787276,
        11.430000099650949, 12.699998956744395, 13.970003941000853, 15.240045647618109,
        16.511614251486396, 17.819094140504497, 18.714973875118524,
    ),
    f32: (  # generate.py TANH_X_F32
        0.0, 0.4858642, 1.2010821, 1.7999983, 2.4000008, 3.0000088, 3.5999916, 4.1999736, 4.800098,
        5.4003506, 6.0003986, 6.6007714, 7.19212, 7.76846, 8.317766, 8.66434,
    ),
}  # fmt: skip
TANH_T = {
    f64: (  # generate.py TANH_T_F64
        0.0, 0.8336550295352936, 0.9876370429992676, 0.9990193973643866, 0.9999226284569604,
        0.9999938977675026, 0.9999995187375397, 0.999999962044554, 0.9999999970065906,
        0.9999999997639206, 0.9999999999813812, 0.9999999999985316, 0.9999999999998842,
        0.9999999999999909, 0.9999999999999993, 0.9999999999999999,
    ),
    f32: (  # generate.py TANH_T_F32
        0.0, 0.45092773, 0.8339844, 0.94680583, 0.9836749, 0.99505484, 0.9985079, 0.99955034,
        0.9998646, 0.99995923, 0.9999877, 0.9999963, 0.99999887, 0.99999964, 0.9999999, 0.99999994,
    ),
}  # fmt: skip
COTH = {
    f64: (  # generate.py COTH_F64: error 2^-56.2
        0.33333333333333326, -0.022222222222214445, 0.0021164021161885894, -0.00021164020876383456,
        2.1377777204446754e-05, -2.1643028468285047e-06, 2.1896936836501484e-07,
        -2.1709797802850063e-08, 1.7534728402547993e-09,
    ),
    f32: (  # generate.py COTH_F32: error 2^-28.9
        0.33333334, -0.022222148, 0.0021151167, -0.00020279523,
    ),
}  # fmt: skip
TANH_STEP = {f64: 1.27, f32: 0.6}  # of the points
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
    return with_sign_of(scale(less + tail, -1.0 - m), x)


def cosh(x: Scalar) -> Scalar:
    """2 cosh x = 2^n ((1 + w)(1 + c) + (1 - w) s)."""
    m, w, exact, rest, c = halves(abs(x))
    less, more = 1.0 - w, 1.0 + w
    lost = (1.0 - less) - w
    tail = fma(exact, less, fma(rest, less, fma(more, c, fma(exact, lost, w))))
    return scale(tail + 1.0, -1.0 - m)


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
    root = scale(constant(a, 1.0), m)
    return m, root * root, exact, rest, c


def with_sign_of(magnitude: Scalar, x: Scalar) -> Scalar:
    """Sets the sign bit of x on a value that has none."""
    sign_bit = -(2 ** (8 * x.dtype.itemsize - 1))
    return bitcast(bitcast(magnitude) | (bitcast(x) & sign_bit))


def tanh(x: Scalar) -> Scalar:
    """tanh(X + d) = T + (1 - T^2) tanh(d) / (1 + T tanh(d)), T = tanh X; 16 points X.

    tanh d = d / (1 + k), k = d coth(d) - 1, so the fraction is d - d (k + T d) / (1 + k + T d): its
    leading term has no error, and that of the rest is small beside T, and for T = 0 beside d.
    """
    ty = x.dtype
    a = at_most(abs(x), TANH_MOST[ty])
    index = bitcast(fma(a, 1.0 / TANH_STEP[ty], ROUNDER[ty]))
    t = lookup(index, TANH_T[ty])
    d = a - lookup(index, TANH_X[ty])  # exact
    z = d * d
    q = fma(t, d, z * polynomial(z, z * z, COTH[ty]))
    fraction = fma(-(d * q), 1.0 / (q + 1.0), d)
    return with_sign_of(fma(fma(-t, t, 1.0), fraction, t), x)


# -- out of e = exp(-|x|) --------------------------------------------------------------------------


def small_exp(y: Scalar) -> tuple[Scalar, Scalar, Scalar, Scalar]:
    """(e, p, p_low, n) with e^y = (p + p_low) 2^floor(n), y <= 0, and e = p 2^floor(n)."""
    t, u, n = exp_sum(at_least(y, LOGISTIC_LEAST[y.dtype]))
    p = t + u
    return scale(p, n), p, (t - p) + u, n


def logistic(x: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """(q, q_low, n) with 1/(1 + e^-x) = (q + q_low) 2^floor(n)."""
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
    return scale(q + q_low, n)


def sigmoid_partial(x: Scalar) -> Scalar:
    """e / (1 + e)^2; the square as 1 + e (2 + e), which rounds less."""
    e, p, _, n = small_exp(-abs(x))
    return scale(p / fma(e, e + 2.0, 1.0), n)


def tanh_partial(x: Scalar) -> Scalar:
    """4 e / (1 + e)^2 with e = exp(-2|x|), four times the above of 2x."""
    e, p, _, n = small_exp(abs(x) * -2.0)
    return scale(p / fma(e, e + 2.0, 1.0), n + 2.0)


def silu(x: Scalar) -> Scalar:
    """x times the logistic function, before that is scaled: subnormal results round once."""
    q, q_low, n = logistic(x)
    least = LOGISTIC_LEAST[x.dtype]
    factor = at_least(x, least)
    return scale(fma(factor, q, at_most(factor, -least) * q_low), n)


def silu_partial(x: Scalar) -> Scalar:
    """s (1 + x (1 - s)), s the logistic function: (1 + e + x e) / (1 + e)^2 above 0, and
    e (1 + e + x) / (1 + e)^2 below."""
    least = LOGISTIC_LEAST[x.dtype]
    e, p, _, n = small_exp(-abs(x))
    factor = at_most(at_least(x, least), -least)
    d = e + 1.0
    below = x < 0.0
    top = select(below, p * (d + factor), fma(factor, e, d))
    return scale(top / fma(e, e + 2.0, 1.0), select(below, n, 0.0))


def softplus(x: Scalar) -> Scalar:
    """max(x, 0) + log(1 + e), log(1 + e) = 2 atanh v = e - e v + ... with v = e / (2 + e)."""
    e, _, p_low, n = small_exp(-abs(x))
    d = e + 2.0
    v = e / d
    z = v * v
    # What remains of the division counts about -v; what the rounding of e lost, 1/(1 + e), which is
    # about 1 - 3/2 v.
    e_low = scale(p_low, n)
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
