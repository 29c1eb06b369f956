"""Bodies of logaddexp and logaddexp2, and of products with a logarithm.

log(e^x + e^y) = M + log(1 + e) with M the larger, m the smaller and e = e^(m - M), at most 1.

log(1 + e) = T + log(1 + g), where C, the reciprocal of one of 16 (f32: 32) points near 1 + e, makes
1 + g = (1 + e) C near 1, and T = -log C. The first point is 1, hence g = e for a small e.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.gates.bodies import exp as exp_tables
from graphc.gates.bodies.exp import LOG2_E, ROUNDER, SIXTEENTHS, polynomial
from graphc.gates.bodies.log import log, log1p
from graphc.ir.scalar import Scalar, bitcast, equal, fma, lookup, scale, select
from graphc.ir.types import f32, f64

Factors = Callable[[Scalar, Scalar], tuple[Scalar, Scalar]]
LOG1P_C = {
    f64: (  # generate.py LOG1P_C_F64
        1.0,
        0.9375000000068979,
        0.8823529408258924,
        0.8333333359269621,
        0.7894736849273322,
        0.750000003490914,
        0.7142857113646629,
        0.6818181811128352,
        0.6521739121048774,
        0.625000000850747,
        0.599999999027003,
        0.5769230753991609,
        0.5555555577154822,
        0.5357142863425903,
        0.5172413811584242,
        0.5000000066190878,
    ),
    f32: (  # generate.py LOG1P_C_F32
        1.0,
        0.9687401,
        0.9394276,
        0.9118101,
        0.88569856,
        0.8610991,
        0.83782524,
        0.8158069,
        0.79485327,
        0.77502674,
        0.7560795,
        0.7380955,
        0.72094816,
        0.7045608,
        0.68891746,
        0.6739272,
        0.6595187,
        0.64583206,
        0.6326703,
        0.6199616,
        0.60782087,
        0.5961873,
        0.58495325,
        0.57406336,
        0.56366634,
        0.55354476,
        0.5438467,
        0.5344616,
        0.52540207,
        0.5166763,
        0.5082151,
        0.5000299,
    ),
}
LOG1P_T = {
    f64: (  # generate.py LOG1P_T_F64
        0.0,
        0.06453852113021338,
        0.12516314335132792,
        0.18232155368160008,
        0.23638877715627632,
        0.28768206779722894,
        0.3364722407106849,
        0.38299225329061415,
        0.4274440162661276,
        0.4700036278845403,
        0.5108256253876524,
        0.5500463395607265,
        0.5877866610142511,
        0.6241543079001586,
        0.6592456253113105,
        0.6931471673217697,
    ),
    f32: (  # generate.py LOG1P_T_F32
        0.0,
        0.031758912,
        0.06248451,
        0.092323534,
        0.121378615,
        0.14954565,
        0.17694575,
        0.20357756,
        0.22959775,
        0.25485775,
        0.27960876,
        0.30368203,
        0.32718804,
        0.35018063,
        0.3726338,
        0.3946332,
        0.41624492,
        0.43721578,
        0.45780587,
        0.4780977,
        0.49787506,
        0.5172004,
        0.53622335,
        0.5550155,
        0.5732928,
        0.59141266,
        0.6090878,
        0.62649536,
        0.64359146,
        0.6603387,
        0.67685044,
        0.69308734,
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
        0.9374999999931021,
        0.8823529412439893,
        0.833333332861207,
        0.7894736843882756,
        0.7499999999801339,
        0.7142857142888677,
        0.6818181818864089,
        0.6521739130597934,
        0.6249999999512545,
        0.6000000002595837,
        0.5769230770623094,
        0.5555555555841692,
        0.5357142857994261,
        0.5172413793476414,
        0.5,
    ),
    f32: (  # generate.py LOG2P_C_F32
        1.0,
        0.9687485,
        0.9393863,
        0.9117332,
        0.8857642,
        0.86117154,
        0.83782315,
        0.81577563,
        0.794869,
        0.7750024,
        0.7560909,
        0.73809654,
        0.7209418,
        0.7045335,
        0.6888974,
        0.67394346,
        0.6595789,
        0.6458255,
        0.6326538,
        0.62000084,
        0.6078511,
        0.59618515,
        0.5850046,
        0.57403976,
        0.5636415,
        0.5535582,
        0.54386866,
        0.5344877,
        0.52541584,
        0.516684,
        0.5081918,
        0.5,
    ),
}
LOG2P_T = {
    f64: (  # generate.py LOG2P_T_F64
        0.0,
        0.09310940440209652,
        0.18057224553142406,
        0.26303440665115496,
        0.3410369175102455,
        0.41503749931705813,
        0.48542682716387264,
        0.5525410228844135,
        0.616671360412403,
        0.6780719052251574,
        0.7369655935420394,
        0.793549122184399,
        0.8479969064806445,
        0.9004643262197998,
        0.9510903994150257,
        1.0,
    ),
    f32: (  # generate.py LOG2P_T_F32
        0.0,
        0.04580591,
        0.09020953,
        0.13331637,
        0.17500544,
        0.21562745,
        0.25528234,
        0.29375568,
        0.33121097,
        0.36772728,
        0.40336844,
        0.43811858,
        0.47204533,
        0.50525975,
        0.537639,
        0.56930053,
        0.6003828,
        0.6307837,
        0.6605119,
        0.6896579,
        0.71821016,
        0.74616766,
        0.77348006,
        0.80077744,
        0.8271503,
        0.85319316,
        0.8786698,
        0.9037713,
        0.9284684,
        0.9526459,
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
# Steps of the exponent: 1/16, as in exp (f32: 1/32).
STEPS = {f64: SIXTEENTHS, f32: 1.5 * 2.0**18}
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
LN2_SHORT = {
    f64: exp_tables.LN2_SHORT,
    f32: (  # generate.py LN2_SHORT_F32
        0.6933594,
        -0.00021219444,
    ),
}
ROOTS = {
    f64: exp_tables.ROOTS,
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
EXP_NEAR = {
    f64: exp_tables.EXP_NEAR,
    f32: (  # generate.py EXP_NEAR_F32: error 2^-33.1
        0.5000042,
        0.16666767,
    ),
}
EXP2_NEAR = {
    f64: exp_tables.EXP2_NEAR,
    f32: (  # generate.py EXP2_NEAR_F32: error 2^-32.8
        0.6931472,
        0.24022849,
        0.055504587,
    ),
}
NEAR = {f64: -1100.0, f32: -160.0}  # 2^d, let alone e^d, is nothing from there on
INF = float("inf")


def ordered(x: Scalar, y: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """(M, d, d_low): the larger, and m - M = d + d_low exactly; 0 for equal infinities."""
    larger, smaller = select(x < y, y, x), select(x < y, x, y)
    d = smaller - larger
    # What rounding lost (Knuth).
    back = d + larger
    lost = (smaller - back) - (larger - (back - d))
    same = equal(x, y)
    return larger, select(same, 0.0, d), select(same, 0.0, lost)


def exp_factors(d: Scalar, d_low: Scalar) -> tuple[Scalar, Scalar]:
    """(w, v) with e^(d + d_low) = w + v for d <= 0, w free of rounding and v small beside it."""
    ty = d.dtype
    # n is d / ln 2 to a 16th, e^r = 1 + s, and 2^n comes from a table, and what that lost.
    shifted = fma(d, LOG2_E, STEPS[ty])
    n, index = shifted - STEPS[ty], bitcast(shifted)
    high, low = LN2_SHORT[ty]
    r = fma(n, -high, d) + fma(n, -low, d_low)
    rr = r * r
    s = fma(rr, polynomial(r, rr, EXP_NEAR[ty]), r) + lookup(index, ROOTS_LOST[ty])
    return near(d, scale(lookup(index, ROOTS[ty]), n), s)


def exp2_factors(d: Scalar, d_low: Scalar) -> tuple[Scalar, Scalar]:
    """The same of 2^(d + d_low)."""
    ty = d.dtype
    shifted = d + STEPS[ty]
    n, index = shifted - STEPS[ty], bitcast(shifted)
    r = (d - n) + d_low
    s = fma(r, polynomial(r, r * r, EXP2_NEAR[ty]), lookup(index, ROOTS_LOST[ty]))
    return near(d, scale(lookup(index, ROOTS[ty]), n), s)


def near(d: Scalar, w: Scalar, s: Scalar) -> tuple[Scalar, Scalar]:
    """w and w s; 0 where d is so far below that neither they nor d_low mean anything."""
    far = d < NEAR[d.dtype]
    return select(far, 0.0, w), select(far, 0.0, w * s)


def near_1(w: Scalar, v: Scalar, c_table: Sequence[float]) -> tuple[Scalar, Scalar, Scalar]:
    """(index, g, g_low) with (1 + w + v) C = 1 + g + g_low, g_low small beside C."""
    # w alone is near enough to find the point.
    index = bitcast(fma(w, float(len(c_table) - 1), ROUNDER[w.dtype]))
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
