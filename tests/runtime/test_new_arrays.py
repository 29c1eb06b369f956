"""Small results are array objects that native code makes: nobody can tell them from NumPy's own."""

import ctypes
import gc
import sys
import tracemalloc
import warnings
import weakref

import numpy as np
import pytest

import graphc
from graphc.codegen import arrays, layout, native
from graphc.runtime import entries, kernel, objects, pool
from graphc.runtime.jit import Jit
from tests.guard_pages import allocating

pytestmark = pytest.mark.native

SHAPES = [
    (1,), (7,), (0,), (3, 4), (1, 4), (4, 1), (1, 1), (0, 3), (2, 1, 3), (1, 5, 1), (2, 3, 4, 1, 2),
]  # fmt: skip
DTYPES = {"f8": graphc.f64, "f4": graphc.f32, "i8": graphc.i64, "i4": graphc.i32}


@pytest.fixture(params=[True, False], ids=["made here", "made by NumPy"])
def made_here(request, monkeypatch):
    """Both ways of making arrays; the second is for a NumPy that nobody has looked at."""
    if not request.param:
        link(monkeypatch, lambda: 0)
    return request.param


def link(monkeypatch, holds):
    monkeypatch.setitem(objects._NUMBERS, "NUMPY_LAYOUT", holds)
    routines = objects.Native()
    for module in (kernel, pool, entries):
        monkeypatch.setattr(module, "native", lambda: routines)


def doubled(dtype, shape):
    @graphc.graph
    def double(x: DTYPES[dtype][shape]):
        return x + x

    k, x = graphc.compile(double), np.ones(shape, dtype)
    for _ in range(3):
        k(x)
    slow = k.slow_calls
    y = k(x)
    assert k.is_native and k.slow_calls == slow and np.array_equal(y, x + x)
    return k, x


def parts(a):
    """The words of an array object, addresses of its own apart; the first counts references."""
    words = list((ctypes.c_int64 * (layout.ARRAY_BYTES // 8)).from_address(id(a)))
    for own in ("DATA", "DIMS", "STRIDES"):
        words[layout.ARRAY[own] // 8] = 0
    return words, a.shape, a.strides, a.flags.num, a.base, a.nbytes


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_results_are_as_numpy_makes_them(made_here, dtype, shape):
    k, x = doubled(dtype, shape)
    made, expected = k(x), np.empty(shape, dtype)
    assert parts(made) == parts(expected)


def test_they_can_be_used_as_any_others(made_here):
    k, x = doubled("f8", (2, 3))
    y = k(x)
    y.resize(50)
    seen, view = weakref.ref(y), memoryview(y)
    with pytest.raises(ValueError, match="resize"):
        y.resize(60)
    assert y[:6].tolist() == [2.0] * 6 and not y[6:].any()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # since NumPy 2.5
        y.shape = 5, 10
    y.setflags(write=False)
    assert y.T.base is y and view.nbytes == 400
    del y, view
    assert seen() is None


def test_nothing_of_them_is_left(made_here):
    k, x = doubled("f8", (2, 3))
    handler = objects._numpy_function("PyDataMem_GetHandler", ctypes.py_object)()
    held = [k(x) for _ in range(100)]

    def counts():
        return sys.getrefcount(handler), sys.getrefcount(x.dtype), sys.getrefcount(np.ndarray)

    gc.collect()
    before = counts()
    held += [k(x) for _ in range(1000)]
    assert counts()[0] == before[0] + 1000
    del held[100:]
    gc.collect()
    assert counts() == before
    tracemalloc.start()
    try:
        kept = [k(x)]
        of_numpy = tracemalloc.DomainFilter(True, arrays.TRACE_DOMAIN)
        traces = tracemalloc.take_snapshot().filter_traces([of_numpy]).traces
        assert [t.size for t in traces] == [48]
        first = tracemalloc.get_traced_memory()[0]
        for _ in range(1000):
            k(x)
        assert tracemalloc.get_traced_memory()[0] < first + 2000
        del kept
        assert not tracemalloc.take_snapshot().filter_traces([of_numpy]).traces
    finally:
        tracemalloc.stop()


# Native, as handlers are: they are called while an exception is set, too.
COUNTING = """
def give(counts, bytes):
    if load(counts) == 0:
        return 0
    store(counts, load(counts) - 1)
    store(counts + 8, load(counts + 8) + 1)
    store(counts + 24, bytes)
    return C_PyMem_RawMalloc(bytes)

def take(counts, data, bytes):
    store(counts + 16, load(counts + 16) + 1)
    C_PyMem_RawFree(data)
"""


_kept: list[object] = []  # of handlers whose arrays may live on


@pytest.fixture
def counts():
    """Arrays get their data from a handler that counts: what it may still give, what it gave and
    took back, the bytes of the last."""
    functions = {"PyMem_RawMalloc": "i64", "PyMem_RawFree": "void"}
    exports = ("give", "take")
    text = native.module(COUNTING, exports, native.Surroundings(functions=functions))
    library = Jit.link(text, (*exports, native.TABLE))
    table = ctypes.cast(library.address(native.TABLE), ctypes.POINTER(ctypes.c_int64))
    for i, name in enumerate(functions):
        table[i] = objects._address(name)
    counts = (ctypes.c_int64 * 4)(10**6, 0, 0, 0)
    _kept.append((library, counts))
    give, take = map(library.address, exports)
    with allocating(ctypes.addressof(counts), give, 0, 0, take):
        yield counts
    gc.collect()
    assert counts[1] == counts[2], "all that it gave came back"


def test_data_come_from_the_handler_of_the_moment(made_here, counts):
    k, x = doubled("f8", (2, 3))
    given = counts[1]
    y = k(x)
    assert counts[1] == given + 1 and counts[3] == 48 and np.array_equal(y, x + x)


def test_no_memory_for_a_result(made_here, counts):
    f = graphc.value_and_grad(lambda p: sum((v * v).sum() for v in p.values()))
    p = {name: np.ones(3) for name in "abc"}
    for _ in range(3):
        f(p)
    slow, before = f.slow_calls, sys.getrefcount(p["a"])
    for left in range(3):
        counts[0] = left
        with pytest.raises(MemoryError):
            f(p)
        assert counts[0] == 0
    counts[0] = 10**6
    assert f(p)[1]["c"].tolist() == [2.0] * 3
    after = sys.getrefcount(p["a"])
    assert f.is_native and f.slow_calls == slow and after == before


def test_numpys_that_nobody_has_looked_at_make_their_arrays(monkeypatch):
    assert objects.new_arrays_hold()
    for version in ("1.26.4", "2.6.0", "3.0.0.dev0"):
        with monkeypatch.context() as patched:
            patched.setattr(np, "__version__", version)
            assert not objects.new_arrays_hold()
    for name, place in layout.ARRAY_REST.items():
        with monkeypatch.context() as patched:
            patched.setitem(layout.ARRAY_REST, name, layout.ARRAY["DATA"])
            assert not objects.new_arrays_hold(), place
    monkeypatch.setattr(layout, "ARRAY_BYTES", 104)
    assert not objects.new_arrays_hold()
