"""CasADi: a row as a graph of scalars, mapped over all rows, as C code compiled for this processor.

`bound` calls it on buffers fixed beforehand; `gradient` passes and gives CasADi's own matrices.
Those are column-major, so a row of ours is a column here. Graphs of scalars do not go with wide
layers: the training steps and the full mixtures are left out.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from typing import Any

import casadi as ca
import numpy as np

from bench.cases.case import Arrays, Case, leaves
from bench.cases.clusters import SHARPNESS
from bench.cases.physics import DISTANCE, FOCAL
from bench.contestants import OUT
from bench.contestants.contestant import Absent, Entry, Way, done_within

FLAGS = ("-O3", "-march=native", "-fPIC", "-shared")
CACHE = OUT / "casadi"
PATIENCE = 50  # seconds


def start(threads: int, setting: str) -> str:
    return f"CasADi {ca.__version__}"


def enter(case: Case, args: Arrays, setting: str) -> Entry:
    if "f32" in str(case.types):
        raise Absent("double precision alone")
    make = FUNCTIONS.get(case.family)
    if make is None:
        raise Absent("too wide for a graph of scalars")
    arrays = [np.ascontiguousarray(a, dtype=np.float64) for a in leaves(args)]
    f = compiled(make(case, arrays))
    results = [np.zeros(shape) for shape in shapes(case, args)]
    buffer, evaluate = f.buffer()  # neither keeps the other alive, nor the arrays
    for i, array in enumerate(arrays):
        buffer.set_arg(i, memoryview(array.reshape(-1)))
    for i, array in enumerate(results):
        buffer.set_res(i, memoryview(array.reshape(-1)))

    def run(kept=(buffer, arrays)):
        evaluate()

    held = [ca.DM(a.T.reshape(f.size_in(i))) for i, a in enumerate(arrays)]
    return Entry(
        {
            "gradient": Way(
                lambda: f.call(held),
                lambda found: [np.array(m).T.reshape(r.shape) for m, r in zip(found, results)],
            ),
            "bound": Way(run, lambda _: [r.copy() for r in results]),
        }
    )


def shapes(case: Case, args: Arrays) -> list[tuple[int, ...]]:
    wanted = leaves([args[i] for i in case.positions])
    return [(), *(np.shape(a) for a in wanted)]


def compiled(f: ca.Function) -> ca.Function:
    """The function as C code, compiled, loaded."""
    CACHE.mkdir(parents=True, exist_ok=True)
    generator = ca.CodeGenerator("f.c")
    generator.add(f)
    text = generator.dump()
    name = CACHE / hashlib.sha256(text.encode()).hexdigest()[:24]
    library = name.with_suffix(".so")
    if not library.exists():
        source, made = name.with_suffix(".c"), name.with_suffix(f".{os.getpid()}")
        source.write_text(text)
        late = name.with_suffix(".late")
        command = ["gcc", *FLAGS, str(source), "-o", str(made), "-lm"]
        if not late.exists() and not done_within(PATIENCE, command):
            late.touch()
        if late.exists():
            raise Absent(f"gcc takes longer than {PATIENCE} s for its C code")
        made.rename(library)
    return ca.external(f.name(), str(library))


# -- rows -----------------------------------------------------------------------------------------


def mapped(
    row: Callable[..., Any], n: int, widths: Sequence[int | tuple[int, int]], shared: Sequence[bool]
) -> ca.Function:
    """Sum of `row` over n rows, and its gradients by all its operands; `shared` ones are sums."""
    symbols = [ca.SX.sym(f"x{i}", *np.atleast_1d(w)) for i, w in enumerate(widths)]
    value = row(*symbols)
    one = ca.Function("row", symbols, [value, *(ca.gradient(value, s) for s in symbols)])
    if n == 1:
        return one
    return one.map(n, list(shared), [True, *shared])


def rows(
    row: Callable[..., Any], wanted: Sequence[int], scale: Callable[[int], float] = lambda n: 1.0
) -> Callable[[Case, Sequence[np.ndarray]], ca.Function]:
    """A workload that is a sum over rows: operands that have the name n in their type are rows."""

    def make(case: Case, arrays: Sequence[np.ndarray]) -> ca.Function:
        kinds = ["n" in t.partition("[")[2] for t in leaves(dict_in_order(case))]
        n = case.n
        widths = [_width(a, is_row) for a, is_row in zip(arrays, kinds)]
        inner = mapped(row, n, widths, [not k for k in kinds])
        symbols = [ca.MX.sym(f"x{i}", *inner.size_in(i)) for i in range(len(arrays))]
        value, *grads = inner.call(symbols)
        factor = scale(n)
        chosen = [value, *(grads[i] for i in wanted)]
        value, *grads = [factor * c if factor != 1.0 else c for c in chosen]
        return ca.Function("f", symbols, case.results(value, [symbols[i] for i in wanted], grads))

    return make


def dict_in_order(case: Case) -> list[Any]:
    return list(case.types.values())


def _width(a: np.ndarray, is_row: bool) -> tuple[int, int]:
    """A row's column; else the matrix, transposed."""
    shape = a.shape[1:] if is_row else a.shape
    return (shape + (1, 1))[:2] if len(shape) < 2 else (shape[1], shape[0])


def softplus(z):
    return ca.fmax(z, 0.0) + ca.log1p(ca.exp(-ca.fabs(z)))


def logsumexp(each):
    top = ca.mmax(each)
    return top + ca.log(ca.sum1(ca.exp(each - top)))


def wave(x, w, b):
    return ca.tanh(x * w + b) * ca.exp(-x * x)


def black_scholes(spot, strike, sigma, years, rate):
    spread = sigma * ca.sqrt(years)
    d1 = (ca.log(spot / strike) + rate * years) / spread + 0.5 * spread
    n1, n2 = (0.5 * (1.0 + ca.erf(d * np.sqrt(0.5))) for d in (d1, d1 - spread))
    return spot * n1 - strike * ca.exp(-rate * years) * n2


def logistic(x, y, w, b):
    z = ca.dot(x, w) + b
    return softplus(z) - y * z


def kmeans(x, centres):
    apart = centres - ca.repmat(x, 1, centres.shape[1])
    return -logsumexp(-SHARPNESS * ca.sum1(apart * apart).T)


def cross_entropy(z, label):
    classes = np.arange(z.shape[0], dtype=float)
    return logsumexp(z) - ca.sum1(ca.if_else(label == classes, z, 0.0))


def layer_norm(x, gain, bias, target):
    d = x.shape[0]
    apart = x - ca.sum1(x) / d
    scale = 1.0 / ca.sqrt(ca.sumsqr(apart) / d + 1e-5)
    return 0.5 * ca.sumsqr(apart * scale * gain + bias - target)


def toy(x, y, b1, b2, b3, w1, w2, w3):
    h = ca.tanh(w2 @ ca.tanh(w1 @ x + b1) + b2)
    z = ca.dot(w3, h) + b3
    return softplus(z) - y * z


def cameras(p, r, seen):
    angle = ca.norm_2(r)
    c, s = ca.cos(angle), ca.sin(angle) / angle
    q = c * p + s * ca.cross(r, p) + (1.0 - c) / angle**2 * ca.dot(r, p) * r
    return ca.sumsqr(FOCAL * q[:2] / (q[2] + DISTANCE) - seen)


# -- those that are no such sum -------------------------------------------------------------------


def schools(case: Case, arrays: Sequence[np.ndarray]) -> ca.Function:
    effect, error, theta, mu, log_tau = (
        ca.SX.sym(name, n) for name, n in zip(case.types, (8, 8, 8, 1, 1))
    )
    tau = ca.exp(log_tau)
    apart = (effect - mu - tau * theta) / error
    prior = ca.sumsqr(theta) + (mu / 5.0) ** 2
    value = 0.5 * (ca.sumsqr(apart) + prior) + ca.log1p((tau / 5.0) ** 2) - log_tau
    wanted = (theta, mu, log_tau)
    symbols = [effect, error, *wanted]
    return ca.Function("f", symbols, [value, *(ca.gradient(value, w) for w in wanted)])


def hierarchical(case: Case, arrays: Sequence[np.ndarray]) -> ca.Function:
    """Rows on an intercept each, gathered before; their gradients are added up by group."""
    n, d, groups = case.n, arrays[0].shape[1], arrays[3].size
    inner = mapped(
        lambda x, y, intercept, beta: logistic(x, y, beta, intercept),
        n, [d, 1, 1, d], [False, False, False, True],
    )  # fmt: skip
    X, y, group = ca.MX.sym("X", d, n), ca.MX.sym("y", 1, n), ca.MX.sym("group", 1, n)
    alpha, beta = ca.MX.sym("alpha", groups), ca.MX.sym("beta", d)
    mu, log_sigma = ca.MX.sym("mu"), ca.MX.sym("log_sigma")
    value, _, _, dz, dbeta = inner.call([X, y, alpha[group], beta])
    apart = (alpha - mu) * ca.exp(-log_sigma)
    square = ca.sumsqr(apart)
    value = value + 0.5 * square + float(groups) * log_sigma
    dapart = apart * ca.exp(-log_sigma)
    dalpha = ca.jtimes(alpha[group].T, alpha, dz.T, True) + dapart
    grads = [dalpha, dbeta, -ca.sum1(dapart), groups - square]
    return ca.Function("f", [X, y, group, alpha, beta, mu, log_sigma], [value, *grads])


def mixture(case: Case, arrays: Sequence[np.ndarray]) -> ca.Function:
    """What is the same for all rows is computed once: offsets and scales of the clusters."""
    n, (k, d) = case.n, arrays[2].shape

    def row(x, offset, mean, scale):
        apart = (ca.repmat(x, 1, k) - mean) * scale
        return -logsumexp(offset - 0.5 * ca.sum1(apart * apart).T)

    inner = mapped(row, n, [d, k, (d, k), (d, k)], [False, True, True, True])
    x, weight = ca.MX.sym("x", d, n), ca.MX.sym("weight", k)
    mean, log_scale = ca.MX.sym("mean", d, k), ca.MX.sym("log_scale", d, k)
    offset = weight - logsumexp(weight) - ca.sum1(log_scale).T
    scale = ca.exp(-log_scale)
    value, _, doffset, dmean, dscale = inner.call([x, offset, mean, scale])
    dweight = ca.jtimes(offset, weight, doffset, True)
    dlog_scale = -dscale * scale - ca.repmat(doffset.T, d, 1)
    results = [r / n for r in (value, dweight, dmean, dlog_scale)]
    return ca.Function("f", [x, weight, mean, log_scale], results)


def pairwise(case: Case, arrays: Sequence[np.ndarray]) -> ca.Function:
    """Of each row against all others, for all rows."""
    a, b = ca.SX.sym("a", 3), ca.SX.sym("b", 3)
    near = 1.0 / ca.sqrt(ca.sumsqr(a - b) + 0.01)
    pair = ca.Function("pair", [a, b], [0.5 * near, ca.gradient(near, a)])
    inner = pair.map(case.n, [True, False], [True, True])
    outer = inner.map(case.n, [False, True], [True, False])
    x = ca.MX.sym("x", 3, case.n)
    return ca.Function("f", [x], outer.call([x, x]))


def rosenbrock(case: Case, arrays: Sequence[np.ndarray]) -> ca.Function:
    inner = mapped(
        lambda a, b: 100.0 * (b - a * a) ** 2 + (1.0 - a) ** 2, case.n - 1, [1, 1], [False, False]
    )
    x = ca.MX.sym("x", 1, case.n)
    value, da, db = inner.call([x[:-1], x[1:]])
    zero = ca.MX(1, 1)
    gradient = ca.densify(ca.horzcat(da, zero)) + ca.densify(ca.horzcat(zero, db))
    return ca.Function("f", [x], [value, gradient])


def by_rows(n: int) -> float:
    return 1.0 / n


FUNCTIONS: dict[str, Callable[[Case, Sequence[np.ndarray]], ca.Function]] = {
    "wave": rows(wave, (0, 1, 2)),
    "black_scholes": rows(black_scholes, range(5)),
    "logistic": rows(logistic, (2, 3), by_rows),
    "schools": schools,
    "hierarchical": hierarchical,
    "mixture": mixture,
    "kmeans": rows(kmeans, (1,), by_rows),
    "cross_entropy": rows(cross_entropy, (0,), by_rows),
    "layer_norm": lambda case, arrays: rows(
        layer_norm, (0, 1, 2), lambda n: 1.0 / (n * arrays[1].size)
    )(case, arrays),
    "toy": rows(toy, range(2, 8), by_rows),
    "pairwise": pairwise,
    "rosenbrock": rosenbrock,
    "cameras": rows(cameras, (0, 1)),
}
