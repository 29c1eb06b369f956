"""Every public array function, under NumPy's name where NumPy has one.

In:   traced values, arrays, numbers.
Out:  a traced value inside of a trace; outside, the function compiles itself and gives arrays.
Invariant: shapes, dtypes and errors are NumPy's.

>>> import numpy as np
>>> sorted(np.asarray(EXPORTS)[:3].tolist())
['abs', 'absolute', 'add']
"""

from graphc.dsl.creation import arange, empty, eye, full, identity, linspace, ones, zeros
from graphc.dsl.pointwise import (
    absolute,
    absolute as abs,
    absolute as fabs,
    add,
    astype,
    ceil,
    clip,
    cos,
    divide,
    equal,
    exp,
    expm1,
    fix,
    floor,
    floor_divide,
    full_like,
    greater,
    greater_equal,
    isfinite,
    isinf,
    isnan,
    less,
    less_equal,
    log,
    log1p,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    maximum,
    minimum,
    mod,
    multiply,
    negative,
    not_equal,
    ones_like,
    positive,
    power,
    reciprocal,
    relu,
    remainder,
    rint,
    round_ as round,
    sigmoid,
    sign,
    sin,
    softplus,
    sqrt,
    square,
    stop_gradient,
    subtract,
    tanh,
    true_divide,
    trunc,
    where,
    zeros_like,
)
from graphc.dsl.products import dot, einsum, inner, matmul, outer, tensordot, vdot
from graphc.dsl.reductions import (
    all_ as all,
    any_ as any,
    argmax,
    argmin,
    count_nonzero,
    log_softmax,
    logsumexp,
    max_ as max,
    max_ as amax,
    mean,
    min_ as min,
    min_ as amin,
    prod,
    softmax,
    sum_ as sum,
    var,
)
from graphc.dsl.shapes import (
    broadcast_to,
    concatenate,
    diff,
    expand_dims,
    flatten,
    flip,
    hstack,
    moveaxis,
    pad,
    ravel,
    repeat,
    reshape,
    roll,
    squeeze,
    stack,
    swapaxes,
    take,
    tile,
    transpose,
    vstack,
)

EXPORTS = tuple(sorted(name for name in globals() if not name.startswith("_") and name != "EXPORTS"))
__all__ = list(EXPORTS)  # noqa: PLE0605
