"""Bodies of logaddexp and logaddexp2, and of products with a logarithm.

log(e^x + e^y) = M + log(1 + e) with M the larger, m the smaller and e = e^(m - M), at most 1.

log(1 + e) = T + log(1 + g), where C, the reciprocal of one of 16 (f32: 32) points near 1 + e, makes
1 + g = (1 + e) C near 1, and T = -log C. The first point is 1, hence g = e for a small e.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.gates.bodies.exp import (
    LOG2_E,
    ROUNDER,
    at_least,
    polynomial,
)
from graphc.gates.bodies.log import log, log1p
from graphc.ir.scalar import Scalar, bitcast, equal, fma, lookup, scale, select
from graphc.ir.types import f32, f64

Factors = Callable[[Scalar, Scalar], tuple[Scalar, Scalar]]
LOG1P_C = {
    f64: (  # generate.py LOG1P_C_F64
        1.0,
        0.9374999966344788,
        0.8823529408383192,
        0.8333333359255827,
        0.7894736834938505,
        0.7499999957367436,
        0.7142857113658303,
        0.6818181838013712,
        0.6521739121089725,
        0.6249999964472863,
        0.5999999990300922,
        0.5769230754087682,
        0.5555555533958214,
        0.5357142827332341,
        0.5172413774619145,
        0.49999999715782906,
    ),
    f32: (  # generate.py LOG1P_C_F32
        1.0,
        0.96882427,
        0.93941075,
        0.9117111,
        0.88569856,
        0.8610991,
        0.83782524,
        0.8158364,
        0.79482573,
        0.77504265,
        0.75607765,
        0.7380955,
        0.7209463,
        0.70453125,
        0.68891746,
        0.6739272,
        0.65954995,
        0.6458056,
        0.632637,
        0.6200374,
        0.6078652,
        0.5961208,
        0.584859,
        0.57411116,
        0.56366634,
        0.55354476,
        0.5438467,
        0.5344616,
        0.5254039,
        0.5166578,
        0.5082151,
        0.49997008,
    ),
}
LOG1P_T = {
    f64: (  # generate.py LOG1P_T_F64
        0.0,
        0.06453852472746045,
        0.1251631433372443,
        0.18232155368325542,
        0.23638877897201976,
        0.28768207813612284,
        0.3364722407090505,
        0.3829922493474281,
        0.4274440162598485,
        0.47000363493007746,
        0.5108256253825038,
        0.5500463395440738,
        0.5877866687896405,
        0.6241543146376236,
        0.659245632457896,
        0.6931471862442872,
    ),
    f32: (  # generate.py LOG1P_T_F32
        0.0,
        0.03167204,
        0.062502466,
        0.09243212,
        0.121378615,
        0.14954565,
        0.17694575,
        0.2035414,
        0.22963239,
        0.25483721,
        0.2796112,
        0.30368203,
        0.3271906,
        0.3502226,
        0.3726338,
        0.3946332,
        0.41619757,
        0.43725675,
        0.45785844,
        0.47797552,
        0.4978021,
        0.517312,
        0.53638446,
        0.55493224,
        0.5732928,
        0.59141266,
        0.6090878,
        0.62649536,
        0.64358795,
        0.66037446,
        0.67685044,
        0.693207,
    ),
}
LOG1P = {
    f64: (  # generate.py LOG1P_F64: error 2^-55.3
        -0.4999999999999943,
        0.33333333333331405,
        -0.25000000006797873,
        0.2000000001339946,
        -0.16666645009144446,
        0.14285683869136004,
        -0.1252551046679305,
        0.11139155497328215,
    ),
    f32: (  # generate.py LOG1P_F32: error 2^-28.6
        -0.5,
        0.3333773,
        -0.2500628,
    ),
}
LOG2P_C = {
    f64: (  # generate.py LOG2P_C_F64
        1.0,
        0.937499999997975,
        0.8823529411647341,
        0.8333333333202594,
        0.7894736842168988,
        0.7499999999976126,
        0.7142857143212821,
        0.681818181841281,
        0.6521739130435524,
        0.6250000000043343,
        0.6000000000240107,
        0.576923076926881,
        0.5555555555587135,
        0.5357142857113014,
        0.5172413793136378,
        0.5,
    ),
    f32: (  # generate.py LOG2P_C_F32
        1.0,
        0.9687485,
        0.9393863,
        0.91177285,
        0.88573074,
        0.86112845,
        0.83783484,
        0.81579095,
        0.7948885,
        0.77499855,
        0.756099,
        0.73809654,
        0.72094184,
        0.7045335,
        0.6888974,
        0.6739032,
        0.6595563,
        0.6458255,
        0.63266015,
        0.62000084,
        0.6078511,
        0.59617436,
        0.5849135,
        0.5741127,
        0.563635,
        0.5535736,
        0.54386866,
        0.5344877,
        0.52541584,
        0.51665616,
        0.5081918,
        0.5,
    ),
}
LOG2P_T = {
    f64: (  # generate.py LOG2P_T_F64
        0.0,
        0.09310940439459776,
        0.18057224566101074,
        0.2630344058564279,
        0.3410369178234218,
        0.41503749928343625,
        0.4854268270984029,
        0.552541022979902,
        0.6166713604483303,
        0.6780719051026327,
        0.7369655941084727,
        0.7935491225230608,
        0.8479969065467493,
        0.9004643264571224,
        0.9510903995098688,
        1.0,
    ),
    f32: (  # generate.py LOG2P_T_F32
        0.0,
        0.04580591,
        0.09020953,
        0.13325365,
        0.1750599,
        0.21569964,
        0.25526223,
        0.2937286,
        0.3311756,
        0.3677345,
        0.40335298,
        0.43811858,
        0.4720452,
        0.50525975,
        0.537639,
        0.56938666,
        0.6004322,
        0.6307837,
        0.66049737,
        0.6896579,
        0.71821016,
        0.74619377,
        0.7737048,
        0.8005941,
        0.8271669,
        0.85315293,
        0.8786698,
        0.9037713,
        0.9284684,
        0.9527236,
        0.97655493,
        1.0,
    ),
}
LOG2P = {
    f64: (  # generate.py LOG2P_F64: error 2^-55.3
        -0.7213475204444735,
        0.48089834696295997,
        -0.36067376032031345,
        0.288539008371106,
        -0.24044886102949484,
        0.2060988527370997,
        -0.18070491835045138,
        0.16070404395686452,
    ),
    f32: (  # generate.py LOG2P_F32: error 2^-28.6
        -0.7213475,
        0.48096177,
        -0.36076432,
    ),
}
LOG2_E_PAIR = {
    f64: (  # generate.py LOG2_E_PAIR_F64
        1.4426950408889634,
        2.0355273740931033e-17,
    ),
    f32: (  # generate.py LOG2_E_PAIR_F32
        1.442695,
        1.925963e-08,
    ),
}
# As ROUNDER, to multiples of 1/16 (f32: 1/32), whose numerator stands in the lowest bits.
STEPS = {f64: 1.5 * 2.0**48, f32: 1.5 * 2.0**18}
LN2_SHORT = {
    f64: (  # generate.py LN2_SHORT_F64
        0.6931471805582987,
        1.6465949582897082e-12,
    ),
    f32: (  # generate.py LN2_SHORT_F32
        0.6933594,
        -0.00021219444,
    ),
}
ROOTS = {
    f64: (  # generate.py ROOTS_F64
        1.0,
        1.0442737824274138,
        1.0905077326652577,
        1.1387886347566916,
        1.189207115002721,
        1.241857812073484,
        1.2968395546510096,
        1.3542555469368927,
        1.4142135623730951,
        1.4768261459394993,
        1.5422108254079407,
        1.6104903319492543,
        1.681792830507429,
        1.7562521603732995,
        1.8340080864093424,
        1.9152065613971474,
    ),
    f32: (  # generate.py ROOTS_F32
        1.0,
        1.0218972,
        1.0442737,
        1.0671405,
        1.0905077,
        1.1143868,
        1.1387886,
        1.1637249,
        1.1892071,
        1.2152474,
        1.2418578,
        1.269051,
        1.2968396,
        1.3252367,
        1.3542556,
        1.38391,
        1.4142135,
        1.4451808,
        1.4768262,
        1.5091645,
        1.5422108,
        1.5759809,
        1.6104903,
        1.6457555,
        1.6817929,
        1.7186193,
        1.7562522,
        1.7947091,
        1.8340081,
        1.8741677,
        1.9152066,
        1.9571441,
    ),
}
ROOTS_LOST = {
    f64: (  # generate.py ROOTS_LOST_F64
        0.0,
        8.189317638195515e-17,
        -2.7939114859515733e-17,
        7.826573258636076e-17,
        3.3484623336251524e-17,
        3.750854201303127e-17,
        1.9572585293112036e-17,
        5.68648095791174e-17,
        -6.835808657661922e-17,
        -2.3591094770850053e-17,
        5.1548301170786783e-17,
        1.5341410053603723e-17,
        4.875160526227062e-17,
        1.685487290628973e-17,
        1.790126907604513e-17,
        -5.545065618639427e-17,
    ),
    f32: (  # generate.py ROOTS_LOST_F32
        0.0,
        -4.7084576e-08,
        4.628547e-08,
        -5.5604225e-08,
        -1.19921575e-08,
        -4.8776062e-08,
        4.7297824e-08,
        -3.4814427e-08,
        3.193418e-08,
        -2.6886665e-08,
        3.6210572e-08,
        1.118421e-09,
        -3.099072e-08,
        -2.638301e-08,
        -7.475213e-09,
        -4.2456357e-08,
        1.7114271e-08,
        2.3001967e-08,
        -3.0476834e-08,
        -1.6538538e-08,
        5.233334e-09,
        -3.5920646e-08,
        6.1075918e-09,
        -3.1140544e-08,
        -1.4719605e-08,
        -2.8218102e-08,
        -5.258795e-09,
        -6.3603873e-09,
        -6.1282597e-09,
        -2.4880409e-08,
        5.1406093e-09,
        -8.697267e-09,
    ),
}
EXP_NEAR = {
    f64: (  # generate.py EXP_NEAR_F64: error 2^-56.1
        0.5000000000000006,
        0.16666666664317326,
        0.0416666666594216,
        0.008333474987680407,
        0.001388913324783435,
    ),
    f32: (  # generate.py EXP_NEAR_F32: error 2^-33.1
        0.5000042,
        0.16666767,
    ),
}
EXP2_NEAR = {
    f64: (  # generate.py EXP2_NEAR_F64: error 2^-56.8
        0.693147180559947,
        0.2402265069591011,
        0.055504108651687034,
        0.009618129105653588,
        0.0013333822956456008,
        0.00015403819159655655,
    ),
    f32: (  # generate.py EXP2_NEAR_F32: error 2^-32.8
        0.6931472,
        0.24022849,
        0.055504587,
    ),
}
LOWEST = {f64: -750.0, f32: -106.0}  # e^y is 0 from there on
LOWEST2 = {f64: -1080.0, f32: -152.0}  # 2^y is
NEAR = 2000.0  # farther from the larger, the smaller is nothing, whatever rounding d lost
INF = float("inf")


def ordered(x: Scalar, y: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """(M, d, d_low): the larger, and m - M = d + d_low exactly; 0 for equal infinities."""
    larger, smaller = select(x < y, y, x), select(x < y, x, y)
    d = select(equal(x, y), 0.0, smaller - larger)
    # What rounding lost (Knuth); NaN where one is infinite.
    back = d + larger
    lost = (smaller - back) - (larger - (back - d))
    return larger, d, select(d > -NEAR, lost, 0.0)


def exp_factors(d: Scalar, d_low: Scalar) -> tuple[Scalar, Scalar]:
    """(w, v) with e^(d + d_low) = w + v for d <= 0, w free of rounding and v small beside it."""
    ty = d.dtype
    y = at_least(d, LOWEST[ty])
    shifted = fma(y, LOG2_E, STEPS[ty])
    n, index = shifted - STEPS[ty], bitcast(shifted)
    high, low = LN2_SHORT[ty]
    r = fma(n, -high, y) + fma(n, -low, d_low)
    rr = r * r
    s = fma(rr, polynomial(r, rr, EXP_NEAR[ty]), r) + lookup(index, ROOTS_LOST[ty])
    w = scale(lookup(index, ROOTS[ty]), n)
    return w, w * s


def exp2_factors(d: Scalar, d_low: Scalar) -> tuple[Scalar, Scalar]:
    """The same of 2^(d + d_low)."""
    ty = d.dtype
    y = at_least(d, LOWEST2[ty])
    shifted = y + STEPS[ty]
    n, index = shifted - STEPS[ty], bitcast(shifted)
    r = (y - n) + d_low
    s = fma(r, polynomial(r, r * r, EXP2_NEAR[ty]), lookup(index, ROOTS_LOST[ty]))
    w = scale(lookup(index, ROOTS[ty]), n)
    return w, w * s


def near_1(w: Scalar, v: Scalar, c_table: Sequence[float]) -> tuple[Scalar, Scalar, Scalar]:
    """(index, g, g_low) with (1 + w + v) C = 1 + g + g_low; g_low is small beside g."""
    index = bitcast(fma(w + v, float(len(c_table) - 1), ROUNDER[w.dtype]))
    c = lookup(index, c_table)
    return index, fma(w, c, c - 1.0), v * c


def logaddexp(x: Scalar, y: Scalar) -> Scalar:
    ty = x.dtype
    larger, d, d_low = ordered(x, y)
    index, g, g_low = near_1(*exp_factors(d, d_low), LOG1P_C[ty])
    f = g + g_low
    ff = f * f
    tail = fma(ff, polynomial(f, ff, LOG1P[ty]), g_low)
    return larger + (lookup(index, LOG1P_T[ty]) + (g + tail))


def logaddexp2(x: Scalar, y: Scalar) -> Scalar:
    ty = x.dtype
    larger, d, d_low = ordered(x, y)
    index, g, g_low = near_1(*exp2_factors(d, d_low), LOG2P_C[ty])
    f = g + g_low
    ff = f * f
    # Times 1/ln 2, which takes two floats.
    high, low = LOG2_E_PAIR[ty]
    tail = fma(ff, polynomial(f, ff, LOG2P[ty]), fma(g, low, g_low * high))
    return larger + (lookup(index, LOG2P_T[ty]) + fma(g, high, tail))


def shares(x: Scalar, y: Scalar, factors: Factors) -> tuple[Scalar, Scalar, Scalar]:
    """(1 / (1 + e), e / (1 + e), whether x has the first), 0 and 0 of two minus infinities."""
    larger, d, d_low = ordered(x, y)
    w, v = factors(d, d_low)
    e = w + v
    r = select(equal(larger, -INF), 0.0, 1.0 / (e + 1.0))
    return r, e * r, x > y


def logaddexp_first(x: Scalar, y: Scalar) -> Scalar:
    more, less, first = shares(x, y, exp_factors)
    return select(first, more, less)


def logaddexp_second(x: Scalar, y: Scalar) -> Scalar:
    more, less, first = shares(x, y, exp_factors)
    return select(first, less, more)


def logaddexp2_first(x: Scalar, y: Scalar) -> Scalar:
    more, less, first = shares(x, y, exp2_factors)
    return select(first, more, less)


def logaddexp2_second(x: Scalar, y: Scalar) -> Scalar:
    more, less, first = shares(x, y, exp2_factors)
    return select(first, less, more)


# -- products with a logarithm ---------------------------------------------------------------------


def xlogy(x: Scalar, y: Scalar) -> Scalar:
    return zero_times(x, y, log(y))


def xlog1py(x: Scalar, y: Scalar) -> Scalar:
    return zero_times(x, y, log1p(y))


def zero_times(x: Scalar, y: Scalar, factor: Scalar) -> Scalar:
    """x * factor, and 0 for x = 0 unless y is NaN."""
    return select(equal(x, 0.0) & equal(y, y), 0.0, x * factor)
