"""Calls of any size: one record for all of them, few compilations, a bound on variants."""

from __future__ import annotations

import gc
import itertools
import threading
import weakref

import numpy as np
import pytest

import graphc
from graphc.dsl import specialise
from graphc.errors import GraphcError, ShapeError
from graphc.runtime import kernel as kernels

RNG = np.random.default_rng(6)
BATCHES = (32, 32, 1, 0, 32, 7, 1, 2, 0, 100, 32, 33, 0, 5000, 32)


def python(call):
    return next(c.__dict__["__call__"] for c in type(call).__mro__ if "__call__" in c.__dict__)


def outcome(call, *args, **kwargs):
    try:
        leaves, _, tree = graphc.dsl.tree.flatten(call(*args, **kwargs))
    except GraphcError as error:
        return type(error), str(error)
    return tree, [(type(x), x.dtype, x.shape, x.tobytes()) for x in leaves]


def agree(call, *args, **kwargs):
    """What a call gives, natively as in Python."""
    expected = outcome(lambda *a, **k: python(call)(call, *a, **k), *args, **kwargs)
    assert outcome(call, *args, **kwargs) == expected
    return expected


@graphc.graph
def sized(
    x: graphc.f64["n", "m"],
    y: graphc.f64["n+1"],
    z: graphc.f64["2*m", 3],
    w: graphc.f64["k"] = (1,),
):
    """Sizes that are computed, and arrays of many sizes as results."""
    rows = (x[1:] * y[2:, None]).sum(axis=1)
    return {"a": rows, "b": [x[::2, ::-1], z.T @ z], "c": w * w, "d": np.concatenate([w, rows])}


def arrays(n, m, k, rng=RNG):
    shapes = ((n, m), (n + 1,), (2 * m, 3), (k,))
    return [rng.normal(size=s) for s in shapes]


@pytest.mark.native
def test_all_sizes_have_one_record():
    k = graphc.compile(sized)
    for _ in range(2):
        k(*arrays(3, 2, 4))
    before = k.slow_calls
    for n, m, j in itertools.product((0, 1, 2, 3, 9), (0, 1, 2, 17), (0, 1, 5)):
        k(*arrays(n, m, j))
    assert k.slow_calls == before and len(k._records) == 1
    for n, m, j in itertools.product((0, 1, 2, 3, 9), (0, 1, 2, 17), (0, 1, 5)):
        assert isinstance(agree(k, *arrays(n, m, j))[1], list)


def test_sizes_that_do_not_fit():
    k, rng = graphc.compile(sized), np.random.default_rng(8)
    agree(k, *arrays(3, 2, 4))
    refused = 0
    for _ in range(300):
        n, m, j = rng.integers(0, 5, 3)
        given = arrays(n, m, j)
        at = rng.integers(len(given))
        shape = list(given[at].shape)
        shape[rng.integers(len(shape))] += rng.integers(-1, 2)
        if min(shape) >= 0:
            given[at] = rng.normal(size=shape)
        refused += not isinstance(agree(k, *given)[1], list)
    assert refused > 50


@pytest.mark.native
def test_arrays_that_are_copied():
    k = graphc.compile(sized)
    strided = [lambda a: np.repeat(a, 2, axis=0)[::2], np.asfortranarray, lambda a: a]
    for _ in range(2):
        k(*map(np.asfortranarray, arrays(3, 2, 4)[:3]), RNG.normal(size=8)[::2])
    for makes in itertools.product(strided, repeat=4):
        for n, m, j in ((3, 2, 4), (9, 5, 0), (0, 0, 3), (1, 1, 1), (300, 40, 7)):
            agree(k, *(make(a) for make, a in zip(makes, arrays(n, m, j))))
    given = [np.asfortranarray(a) for a in arrays(40, 20, 3)]
    k(*given)
    before = k.slow_calls
    for n, m, j in ((40, 20, 3), (4, 60, 2), (0, 3, 1), (80, 90, 3)):
        k(*map(np.asfortranarray, arrays(n, m, j)))
    assert k.slow_calls == before
    k(*map(np.asfortranarray, arrays(200, 100, 3)))  # more than is copied in native code
    assert k.slow_calls == before + 1


def test_nothing_to_choose_from():
    f = graphc.compile(largest)
    for n, m in ((3, 2), (3, 2), (1, 4), (5, 0)):
        assert isinstance(agree(f, RNG.normal(size=(n, m)))[1], list)
    for m in (1, 3):
        assert agree(f, np.empty((0, m)))[0] is ShapeError
    assert isinstance(agree(f, np.empty((0, 0)))[1], list)


@graphc.graph
def largest(x: graphc.f64["n", "m"]):
    return x.max(axis=0)


@pytest.mark.native
def test_long_calls_are_seen():
    """Sizes decide whether other threads may run meanwhile, and whether Ctrl-C is looked for."""
    k = graphc.compile(pairs)
    for n in (10, 20, 30):
        k(np.ones(n))
    before = k.slow_calls
    k(np.ones(1000))
    assert k.slow_calls == before and k.kernel.layout(((1000,),)).is_long
    n = 2000
    while not k.kernel.layout(((n,),)).is_very_long:
        n += 1000
    k(np.ones(n))
    assert k.slow_calls == before + 1


@graphc.graph
def pairs(x: graphc.f64["n"]):
    return abs(x[:, None] - x[None, :]).sum()


def test_sizes_of_ten_thousand():
    """One artefact, and nothing that grows."""
    k = graphc.compile(sized)
    for _ in range(2):
        k(*arrays(3, 2, 4))
    before = k.slow_calls
    given = arrays(100, 100, 1)
    x, y, z, w = given
    for n, m in itertools.product(range(100), repeat=2):
        k(np.ascontiguousarray(x[:n, :m]), y[: n + 1], z[: 2 * m], w)
    assert k.slow_calls == before
    for n, m in itertools.product(range(30), repeat=2):
        python(k)(k, x[:n, :m], y[: n + 1], z[: 2 * m], w)
    assert len(k.kernel._layouts) <= kernels.LAYOUTS and len(k._checked) <= kernels.LAYOUTS


# -- functions without annotations -----------------------------------------------------------------


def loss(w, x, y):
    z = x @ w
    return (np.log1p(np.exp(z)) - y * z).sum()


def mean_of_rows(x):
    return (x / np.sqrt((x * x).sum(axis=1) + 1.0)[:, None]).sum(axis=0)


@pytest.mark.native
@pytest.mark.parametrize("order", range(3))
def test_batches_compile_twice(order):
    rng = np.random.default_rng(order)
    batches = list(BATCHES)
    if order:
        rng.shuffle(batches)
    f, g = graphc.value_and_grad(loss), graphc.jit(mean_of_rows)
    w = rng.normal(size=3)
    for n in batches:
        x, y = rng.normal(size=(n, 3)), rng.random(n)
        for made, args in ((f, (w, x, y)), (g, (x,))):
            agree(made, *args)
            assert len(made.variants) <= 2
        if n in (1, 7):
            static = graphc.value_and_grad(lambda *args: loss(*args))
            assert outcome(f, w, x, y) == outcome(static, w, x, y)
        if n > 1:
            with pytest.raises(GraphcError):
                f(w, x, rng.random(n + 2))
    x, y = rng.normal(size=(100, 3)), rng.random(100)
    before = f.slow_calls
    for n in range(100):
        f(w, x[:n], y[:n])
    assert f.slow_calls == before and len(f._records) <= 2 and len(f.variants) == 2


def test_symbols_that_met_are_guarded():
    """x and y met in an addition: one may be of size 1 later, which is another function."""
    f = graphc.jit(lambda x, y: x + y)
    a = np.arange(6.0)
    for n, m in ((3, 3), (4, 4), (5, 5), (5, 1), (1, 5), (1, 1), (6, 1), (0, 0), (0, 1), (4, 4)):
        assert np.array_equal(f(a[:n], a[:m]), a[:n] + a[:m])
        agree(f, a[:n], a[:m])
    with pytest.raises(GraphcError):
        f(a[:3], a[:4])
    assert np.array_equal(f(a[:3], a[:3]), 2 * a[:3])


def test_what_was_compiled_can_be_seen_and_cleared():
    f = graphc.jit(lambda x, y: x * y)
    x = np.ones(3)
    for _ in range(3):
        f(x, 2.0)
    f(np.ones(4), 2.0)
    assert f.variants == ("function(x: f64[3], y: f64[])", "function(x: f64[x_0], y: f64[])")
    assert "2 variants" in repr(f)
    libraries = [weakref.ref(v.run.kernel.library) for v in f._variants.all()]
    f.clear()
    gc.collect()
    assert f.variants == () and f._records == () and [r() for r in libraries] == [None, None]
    assert np.array_equal(f(x, 2.0), 2 * x) and len(f.variants) == 1


def repeated(x):
    """Needs its size as a number."""
    total = x[0]
    for i in range(1, len(x)):
        total = total * 0.5 + x[i]
    return total


def test_variants_are_bounded(monkeypatch):
    monkeypatch.setattr(specialise, "MOST_VARIANTS", 4)
    f = graphc.jit(repeated)
    expected = {n: f(np.arange(float(n))) for n in range(1, 12)}
    assert f.variants == tuple(f"repeated(x: f64[{n}])" for n in range(8, 12))
    libraries = [weakref.ref(v.run.kernel.library) for v in f._variants.all()]
    f(np.arange(8.0))  # the one not used for longest goes
    assert f(np.arange(12.0)) == f(np.arange(11.0)) * 0.5 + 11.0
    assert f.variants[0] == "repeated(x: f64[10])" and "repeated(x: f64[8])" in f.variants
    f._forget_records()
    gc.collect()
    assert [r() is None for r in libraries] == [False, True, False, False]
    for n, value in expected.items():
        assert f(np.arange(float(n))) == value and len(f.variants) == 4
    trees = [{str(i): np.ones(2)} for i in range(10)]
    g = graphc.jit(lambda p: sum(p.values()))
    assert all(np.array_equal(g(p), np.ones(2)) for p in trees)
    assert len(g.variants) == len(g._variants._families) == 4


def test_variants_live_while_they_run():
    """A thread in the native code of a variant that is forgotten meanwhile."""
    x = np.linspace(0.0, 1.0, 3000)
    started, results = threading.Event(), []

    def energy(x):
        return np.exp(-np.abs(np.sin(x[:, None] - x[None, :]))).sum()

    expected = graphc.jit(energy)(x)
    f = graphc.jit(energy)
    for _ in range(3):
        f(x)

    def work():
        for _ in range(3):
            started.set()
            results.append(f(x))

    worker = threading.Thread(target=work)
    worker.start()
    started.wait()
    while worker.is_alive():
        f.clear()
        gc.collect()
        worker.join(1e-3)
    assert results == [expected] * 3


@pytest.mark.long
def test_ten_thousand_shapes_that_need_numbers():
    """Minutes: each is compiled. What is kept does not grow."""
    f = graphc.jit(lambda x: x[0, 0] * float(range(len(x), len(x) + x.shape[1])[0]))
    for n, m in itertools.product(range(1, 101), repeat=2):
        assert f(np.full((n, m), 2.0)) == 2.0 * n
        assert len(f.variants) <= specialise.MOST_VARIANTS
