"""Bodies of tanh, the logistic function and softplus, all out of e = exp(-|x|) or exp(2|x|)."""

from __future__ import annotations

from graphc.gates.bodies.exp import (
    EXP_RANGE,
    at_least,
    at_most,
    exp_factors,
    exp_parts,
    scaled_exp,
)
from graphc.gates.bodies.log import log_sum
from graphc.ir.scalar import Scalar, bitcast, constant, fma, select
from graphc.ir.types import f32, f64

# tanh(y/2) rounds to 1 from ONE on. From MOST on it rounds to the float before 1, as at MOST, which
# is the last y whose e^y + 1 is free of a rounding that could be felt.
TANH_MOST = {f64: 37.42, f32: 17.32}
TANH_ONE = {f64: 38.123095, f32: 18.021827}
SIGMOID_MOST = {f64: 40.0, f32: 20.0}  # the logistic function rounds to 1 from x = 37.5 (17.4) on


def tanh(x: Scalar) -> Scalar:
    ty = x.dtype
    # tanh|x| = N/D with N = e^y - 1, D = e^y + 1, y = 2|x|; the sign of x comes last.
    doubled = abs(x) * 2.0
    y = at_most(doubled, TANH_MOST[ty])
    # e^y = t (1 + s + s_low), t a power of two, so N = t s + (t - 1). For small x, t = 1 and N = s:
    # nothing cancels.
    s, s_low, t = exp_parts(y, 0)
    less = t - 1.0
    # Each as a rounded value and the error of its rounding.
    n = fma(t, s, less)
    n_low = fma(t, s_low, fma(t, s, less - n))
    d = n + 2.0
    d_low = n - (d - 2.0) + n_low
    # One division for a first quotient q, then what is left of the numerator, divided once more.
    r = 1.0 / d
    q = n * r
    rest = fma(-q, d, n) + fma(-q, d_low, n_low)
    magnitude = select(doubled > TANH_ONE[ty], 1.0, fma(rest, r, q))
    return with_sign_of(magnitude, x)


def with_sign_of(magnitude: Scalar, x: Scalar) -> Scalar:
    """Sets the sign bit of x on a value that has none."""
    sign_bit = -(2 ** (8 * x.dtype.itemsize - 1))
    return bitcast(bitcast(magnitude) | (bitcast(x) & sign_bit))


def exp_of_minus(magnitude: Scalar, doublings: int = 0) -> Scalar:
    """2^doublings e^-magnitude."""
    return scaled_exp(at_least(-magnitude, EXP_RANGE[magnitude.dtype][0]), doublings)


def tanh_partial(x: Scalar) -> Scalar:
    """4e / (1 + e)^2 with e = exp(-2|x|): no cancellation, and no early underflow of e."""
    y = abs(x)
    e4 = exp_of_minus(y + y, 2)
    return e4 / fma(e4, fma(e4, 0.0625, 0.5), 1.0)


def sigmoid_partial(x: Scalar) -> Scalar:
    """e / (1 + e)^2 with e = exp(-|x|); the square as 1 + e (2 + e), which rounds less."""
    e = exp_of_minus(abs(x))
    return e / fma(e, e + 2.0, 1.0)


def exp_pair(x: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """(p, p_low, second) with e^x = (p + p_low) second; p_low is what rounding p lost."""
    s, first, second = exp_factors(x)
    p = fma(s, first, first)
    return p, fma(s, first, first - p), second


def sigmoid(x: Scalar) -> Scalar:
    """e / (1 + e) with e = e^x, times `second` at the end: subnormal results round once."""
    low, _ = EXP_RANGE[x.dtype]
    p, p_low, second = exp_pair(at_most(at_least(x, low), SIGMOID_MOST[x.dtype]))
    e = p * second
    d = e + 1.0
    d_low = fma(p_low, second, e - (d - 1.0))
    # A first quotient q, then what is left of the numerator, divided, too.
    r = 1.0 / d
    q = p * r
    rest = fma(-q, d, p) + fma(-q, d_low, p_low)
    return fma(rest, r, q) * second


def softplus(x: Scalar) -> Scalar:
    """max(x, 0) + log(1 + e) with e = exp(-|x|)."""
    low, _ = EXP_RANGE[x.dtype]
    p, p_low, second = exp_pair(at_least(-abs(x), low))
    e, e_low = p * second, p_low * second
    # 1 + e = 2^k (1 + f + f_low), k = 1 from e = sqrt(2) - 1 on. f_low is not 0 only below e = 1/2.
    doubled = e > 0.41421356
    scale = select(doubled, 0.5, constant(x, 1.0))
    shift = select(doubled, -0.5, constant(x, 0.0))
    f = fma(e, scale, shift)
    f_low = fma(e, scale, shift - f)
    # (f_low + e_low) / (1 + f), nearly enough for terms of this size.
    extra = fma(e_low, fma(e, -0.5, 1.0), f_low * 1.38)
    return log_sum(shift * -2.0, f, extra) + select(x > 0.0, x, 0.0)


def softplus_partial(x: Scalar) -> Scalar:
    """1 / (1 + e) above 0 and e / (1 + e) below, with the e = exp(-|x|) that softplus has, too."""
    low, _ = EXP_RANGE[x.dtype]
    p, _, second = exp_pair(at_least(-abs(x), low))
    e = p * second
    return select(x > 0.0, constant(x, 1.0), e) / (e + 1.0)
