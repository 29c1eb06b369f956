"""PyTensor: in Numba mode where Numba is beside it, else in C; inputs trusted and borrowed."""

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.tensor.special import log_softmax

from bench.cases.case import Arrays, Case, dtype_and_shape, each, leaves
from bench.contestants.contestant import Entry, Way

MODE = "NUMBA" if find_spec("numba") else "CVM"
DTYPES = {"f32": "float32", "f64": "float64", "i64": "int64"}


class Dialect:
    softplus = staticmethod(pt.softplus)
    logsumexp = staticmethod(pt.logsumexp)
    log_softmax = staticmethod(log_softmax)

    def __getattr__(self, name: str) -> Any:
        return getattr(pt, name)

    @staticmethod
    def relu(z):
        return pt.maximum(z, 0.0)

    @staticmethod
    def ndtr(x):
        return 0.5 * pt.erfc(-x * np.sqrt(0.5).astype(x.dtype))

    @staticmethod
    def einsum(spec, *operands):
        return pt.einsum(spec, *operands)

    @staticmethod
    def cross_entropy(z, labels):
        return -log_softmax(z, axis=1)[pt.arange(z.shape[0]), labels].mean()

    @staticmethod
    def layer_norm(x, gain, bias):
        apart = x - x.mean(axis=1, keepdims=True)
        return apart / pt.sqrt((apart**2).mean(axis=1, keepdims=True) + 1e-5) * gain + bias

    @staticmethod
    def square_distances(x, centres):
        squares = (x * x).sum(axis=1)[:, None] + (centres * centres).sum(axis=1)
        return squares - 2.0 * (x @ centres.T)


def start(threads: int, setting: str) -> str:
    pytensor.config.floatX = "float64"
    return f"PyTensor {pytensor.__version__} ({MODE})"


def symbol(text: str) -> Any:
    dtype, shape = dtype_and_shape(text)
    return pt.tensor(
        dtype=DTYPES[dtype], shape=tuple(s if isinstance(s, int) else None for s in shape)
    )


def enter(case: Case, args: Arrays, setting: str) -> Entry:
    symbols = [each(symbol, ty) for ty in case.types.values()]
    value = case.model(Dialect(), *symbols)
    wanted = case.wanted(symbols)
    results = case.results(value, wanted, pt.grad(value, wanted))
    f = pytensor.function(
        [pytensor.In(s, borrow=True) for s in leaves(symbols)],
        [pytensor.Out(o, borrow=True) for o in results],
        mode=MODE,
    )
    f.trust_input = True
    arrays = [np.asarray(a) for a in leaves(list(args))]
    f(*arrays)
    return Entry(
        {"gradient": Way(lambda: f(*arrays), lambda found: [np.asarray(a) for a in found])}
    )
