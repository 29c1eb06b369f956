"""Native calls: that they are taken and equal Python's, that nothing leaks, and that all works
without them."""

from __future__ import annotations

import faulthandler
import gc
import inspect
import os
import sys
import threading
from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.codegen import entry, layout
from graphc.errors import IndexOutOfBounds, SignatureError
from graphc.runtime import entries, kernel, objects, pool
from graphc.runtime.entries import MOST_RECORDS, Entry
from graphc.runtime.function import Function

RNG = np.random.default_rng(4)
Pair = namedtuple("Pair", "a b")


@dataclass
class Params:
    w: Any
    b: Any


@graphc.graph
def energy(x: graphc.f64["n"], y: graphc.f64["n"], k: graphc.f64 = 2.0):
    """The energy."""
    return (k * x * y + np.tanh(x)).sum()


def same(a, b):
    x, y = (graphc.dsl.tree.flatten(t) for t in (a, b))
    return x[2] == y[2] and all(
        type(p) is type(q) and p.dtype == q.dtype and p.tobytes() == q.tobytes()
        for p, q in zip(x[0], y[0], strict=True)
    )


def warm(call, *args, **kwargs):
    """Call until native code serves."""
    for _ in range(3):
        result = call(*args, **kwargs)
    return result


@pytest.mark.native
def test_what_is_served():
    k = graphc.compile(energy, wrt=("x", "y"))
    x, y = RNG.normal(size=(2, 10))
    calls = [
        ((x, y), {}), ((x, y, 3.0), {}), ((x, y, np.float64(3)), {}), ((x, y, 3), {}), ((x, y,
        np.array(3.0)), {}),
        ((x,), {"y": y}), ((), {"k": 1.0, "x": x, "y": y}), ((x[::-1], y), {}), ((x,
        np.asfortranarray(y)), {}),
        ((RNG.normal(size=20)[::2], y), {}), ((x[:5], y[:5]), {}),
    ]  # fmt: skip
    for f in (k, k.value_and_grad):
        for args, kwargs in calls:
            warm(f, *args, **kwargs)
        before = f.slow_calls
        for args, kwargs in calls:
            assert same(f(*args, **kwargs), Function.__call__(f, *args, **kwargs))
        assert f.is_native and f.slow_calls == before


def test_names_docs_and_signatures():
    k = graphc.compile(energy, wrt="x")
    for f in (k, k.value_and_grad):
        assert f.__name__ == "energy" and f.__doc__ == "The energy."
        assert list(inspect.signature(f).parameters) == ["x", "y", "k"]
        assert callable(f) and "energy" in repr(f)


TREES = {
    "dict": ({"w": graphc.f64["n"], "b": graphc.f64}, lambda w, b: {"w": w, "b": b}),
    "tuple": ((graphc.f64["n"], graphc.f64), lambda w, b: (w, b)),
    "list": ([graphc.f64["n"], graphc.f64], lambda w, b: [w, b]),
    "named": (None, lambda w, b: Pair(w, b)),
    "dataclass": (None, lambda w, b: Params(w, b)),
    "nested": ({"l": [(graphc.f64["n"],), {"m": (graphc.f64,)}]}, lambda w, b: {"l": [(w,),
    {"m": (b,)}]}),
}  # fmt: skip


@pytest.mark.parametrize("name", TREES)
def test_trees(name):
    annotation, make = TREES[name]

    def loss(p, x):
        w, b = graphc.dsl.tree.flatten(p)[0]
        return ((x * w + b) ** 2).sum()

    loss.__annotations__ = {"p": annotation, "x": graphc.f64["n"]}
    x = RNG.normal(size=6)
    functions = [graphc.value_and_grad(loss, argnums=(0, 1))]
    if annotation is not None:
        functions.append(graphc.compile(loss, wrt=("p", "x")).value_and_grad)
    for f in functions:
        warm(f, make(x, 0.5), x)
        before = f.slow_calls
        for b in (0.5, 1.5, -2.0):
            w = RNG.normal(size=6)
            assert same(f(make(w, b), x), _python(f)(f, make(w, b), x))
        assert f.slow_calls == before
        kind = type(f(make(x, 0.5), x)[1][0])
        assert kind is type(make(x, 0.5))


def test_keys_in_another_order():
    g = graphc.grad(lambda p: (p["a"] * 2.0 + p["b"] * 3.0).sum())
    a = np.ones(2)
    for _ in range(4):
        assert list(g({"a": a, "b": a})) == ["a", "b"]
        assert list(g({"b": a, "a": a})) == ["b", "a"]


def test_unannotated_functions():
    f = graphc.jit(
        lambda x, y=2.0, *rest, z=1.0, **more: x * y + z + sum(rest) + sum(more.values())
    )
    x = np.arange(3.0)
    calls = [
        ((x,), {}, x * 2 + 1), ((x, 3.0), {}, x * 3 + 1), ((x,), {"z": x}, 3 * x), ((), {"y": x,
        "x": x}, x * x + 1),
        ((x, x, 4.0), {}, x * x + 5), ((x,), {"q": 4.0}, x * 2 + 5), ((x, 2), {}, x * 2 + 1),
        ((x.astype(np.float32),), {}, x * 2 + 1), ((x, np.float64(2)), {}, x * 2 + 1),
    ]  # fmt: skip
    for args, kwargs, _ in calls:
        warm(f, *args, **kwargs)
    before = f.slow_calls
    for args, kwargs, expected in calls:
        assert np.array_equal(f(*args, **kwargs), expected)
    assert f.slow_calls == before
    with pytest.raises(SignatureError):
        f()


@pytest.mark.native
def test_sizes_of_unannotated_functions():
    f = graphc.jit(lambda x: x * 2.0)
    for n in (3, 4, 3, 5):
        assert np.array_equal(f(np.arange(float(n))), 2.0 * np.arange(n))
    before = f.slow_calls
    for n in (3, 4, 5, *range(1000)):
        assert np.array_equal(f(np.arange(float(n))), 2.0 * np.arange(n))
    assert f.slow_calls == before and len(f._records) == 2


@pytest.mark.native
def test_the_number_of_records_is_bounded():
    f = graphc.jit(lambda p: sum(p.values()))
    x = np.ones(3)
    for _ in range(3):
        for n in range(3 * MOST_RECORDS):
            assert np.array_equal(warm(f, {str(n): x, "x": x}), 2 * x)
    assert len(f._records) == MOST_RECORDS


def test_captured_arrays_and_statics():
    table = np.arange(100.0)
    f = graphc.jit(lambda x, mode: (x + table) if mode == "sum" else x * table)
    x = np.ones(100)
    for mode, expected in (("sum", x + table), ("mul", x * table)) * 3:
        assert np.array_equal(f(x, mode), expected)
    before = f.slow_calls
    assert np.array_equal(f(x, "sum"), x + table) and np.array_equal(f(x, "mul"), x * table)
    assert f.slow_calls == before


def test_inside_of_a_trace():
    inner = graphc.jit(lambda x: x * 3.0)
    x = np.arange(3.0)
    warm(inner, x)
    assert np.array_equal(graphc.jit(lambda x: inner(x) + 1.0)(x), 3 * x + 1)
    assert np.array_equal(graphc.grad(lambda x: inner(x).sum())(x), np.full(3, 3.0))


@pytest.mark.native
def test_methods():
    class Model:
        @graphc.jit
        def twice(self, x):
            return x * 2.0

    m, x = Model(), np.ones(2)
    assert np.array_equal(warm(m.twice, x), 2 * x) and m.twice.is_native and m.twice.slow_calls == 0


def test_calls_of_all_kinds():
    """Through C, through Python, with unpacked arguments."""
    k, x = graphc.compile(energy), np.ones(3)
    expected = warm(k, x, x)
    args, kwargs = [x, x], {"k": 2.0}
    assert k(*args) == k(*args, **kwargs) == k.__call__(x, x) == expected
    assert list(map(k, [x, x], [x, x])) == [expected] * 2
    assert max([x], key=lambda y: k(y, y)) is x


# -- hazards ---------------------------------------------------------------------------------------


def test_nothing_is_leaked():
    k = graphc.compile(energy, wrt=("x", "y")).value_and_grad
    p, x = {"a": np.ones(4), "b": 2.0}, np.ones(4)
    g = graphc.value_and_grad(lambda p, x: (p["a"] * x).sum() * p["b"])
    calls = [lambda: k(x, x), lambda: k(x, y=x, k=3), lambda: k(x[::-1], x), lambda: g(p, x)]
    bad = [
        lambda: k(x, x[:2]),
        lambda: k(x),
        lambda: k(x, x, None),
        lambda: g(p),
        lambda: k(x, x, 10**400),
    ]
    for call in calls:
        warm(call)

    def refused(call):
        with pytest.raises(TypeError if call is not bad[0] else ValueError):
            call()

    def run(count):
        for _ in range(count):
            for call in calls:
                call()
        for _ in range(count // 100):
            for call in bad:
                refused(call)

    run(500)
    gc.collect()
    watched = [x, p, p["a"], x.dtype, np.float64, None, True, k._records, Pair]
    counts, blocks = [sys.getrefcount(o) for o in watched], sys.getallocatedblocks()
    run(5000)
    gc.collect()
    after = [sys.getrefcount(o) for o in watched]
    assert all(abs(a - b) <= 5 for a, b in zip(after, counts)), (counts, after)
    assert abs(sys.getallocatedblocks() - blocks) < 300


def resident():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


LEAKS = {
    "served": (200_000, lambda k, x: k.value_and_grad(x, x)),
    "copied": (100_000, lambda k, x: k.value_and_grad(x[::-1], x)),
    "sizes": (100_000, lambda k, x: (k(x[:3], x[:3]), k(x[:7], x[:7]))),
    "slow path": (10_000, lambda k, x: k.value_and_grad(x.astype(np.float32), x)),
    "errors": (10_000, lambda k, x: refused(k, x, x[:2])),
    "wrong counts": (10_000, lambda k, x: refused(k, x)),
    "out": (10_000, lambda k, x: k.value_and_grad(x, x, out=(None, (None, x.copy())))),
    "large": (3_000, lambda k, x: k.value_and_grad(LARGE, LARGE)),
    "large out": (3_000, lambda k, x: k.value_and_grad(LARGE, LARGE, out=(None, (None, None)))),
    "bind": (3_000, lambda k, x: k.bind(x, x)()),
    "pointer": (3_000, lambda k, x: int(k.pointer())),
    "donated": (10_000, lambda k, x: DESCEND(x.copy(), x)),
    "bad index": (5_000, lambda k, x: refused(PICK, x, np.array([99]))),
}
LARGE = np.ones(20_000)


def refused(call, *args):
    with pytest.raises((TypeError, ValueError, IndexError)):
        call(*args)


@graphc.graph
def _descend(w: graphc.f64["n"], g: graphc.f64["n"]):
    return w - 0.5 * g


@graphc.graph
def _pick(x: graphc.f64["n"], i: graphc.i64["m"]):
    return x[i]


DESCEND, PICK = graphc.compile(_descend, donate="w"), graphc.compile(_pick)


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
@pytest.mark.parametrize("name", LEAKS)
@pytest.mark.parametrize("times", [0.05, pytest.param(3, marks=pytest.mark.long)])
def test_no_way_of_calling_leaks(name, times):
    """Neither objects nor memory, by more than a fraction of a byte a call."""
    count, call = LEAKS[name]
    k, x = graphc.compile(energy, wrt=("x", "y")), np.ones(10)
    calls = max(int(count * times), 2000)
    for _ in range(max(calls // 5, 100)):
        call(k, x)
    gc.collect()
    watched = [x, LARGE, x.dtype, k, k.value_and_grad, None, True]
    before, blocks = [sys.getrefcount(o) for o in watched], sys.getallocatedblocks()
    bytes_ = resident()
    for _ in range(calls):
        call(k, x)
    gc.collect()
    after = [sys.getrefcount(o) for o in watched]
    few = 10 + calls // 100  # what else goes on counts a little, too
    assert all(abs(a - b) < few for a, b in zip(after, before)), (before, after)
    assert sys.getallocatedblocks() - blocks < 500 + calls // 100
    assert resident() - bytes_ < max(2 << 20, 0.1 * calls)


@pytest.mark.long
def test_nothing_is_leaked_in_ten_million_calls():
    k = graphc.compile(energy, wrt=("x", "y")).value_and_grad
    x = np.ones(10)
    warm(k, x, x)
    blocks, before = sys.getallocatedblocks(), k.slow_calls
    for _ in range(10_000_000):
        k(x, x)
    assert abs(sys.getallocatedblocks() - blocks) < 100 and k.slow_calls == before


def test_machine_code_dies_with_its_owner():
    import weakref

    k, x = graphc.compile(energy, wrt="x"), np.ones(3)
    warm(k, x, x)
    warm(k.value_and_grad, x, x)
    libraries = [weakref.ref(f.library) for f in (k.value_kernel, k.gradient_kernel)]
    del k
    gc.collect()
    assert [r() for r in libraries] == [None, None]


def test_properties_that_do_evil_things():
    """A dataclass whose attribute runs any code, also on the callable that reads it."""

    x, actions = np.ones(3), []

    class Evil(Params):
        @property
        def w(self):
            for action in actions:
                action()
            return self.__dict__["w"]

        @w.setter
        def w(self, value):
            self.__dict__["w"] = value

    evil = Evil(x, 2.0)
    f = graphc.jit(lambda p: p.w * p.b)
    warm(f, evil)
    before = f.slow_calls
    f(evil)
    assert f.slow_calls == before

    def many_records():
        for n in range(40):
            warm(f, Params(np.ones(n), 1.0))

    for evils in (
        [many_records],
        [f._forget_records],
        [gc.collect, f._forget_records, many_records],
    ):
        actions[:] = evils
        for _ in range(3):
            assert np.array_equal(f(evil), 2 * x)
    actions[:] = [lambda: 1 / 0]
    with pytest.raises(ZeroDivisionError):
        f(evil)


def test_containers_that_change_in_another_thread():
    n = 30_000
    f = graphc.jit(lambda p: np.exp(p["a"]).sum())
    p = {"a": np.zeros(n)}
    warm(f, p)
    stop = threading.Event()

    def change():
        while not stop.is_set():
            p["a"] = np.zeros(n)

    worker = threading.Thread(target=change)
    worker.start()
    try:
        assert all(f(p) == n for _ in range(500))
    finally:
        stop.set()
        worker.join()


def test_many_threads():
    k = graphc.compile(energy, wrt=("x", "y")).value_and_grad
    inputs = [RNG.normal(size=(2, n)) for n in (5, 100, 20_000)]
    expected = [Function.__call__(k, *xy) for xy in inputs]
    wrong = []

    def work():
        for _ in range(60):
            wrong.extend(1 for xy, e in zip(inputs, expected) if not same(k(*xy), e))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_long_calls_let_others_run():
    k = graphc.compile(energy)
    x = np.linspace(0.0, 1.0, 2_000_000)
    warm(k, x, x)
    assert k.kernel.layout(((len(x),), (len(x),), ())).is_long
    assert not k.kernel.layout(((10,), (10,), ())).is_long


def test_indices_out_of_bounds():
    f = graphc.jit(lambda x, i: x[i])
    x, good, bad = np.arange(4.0), np.array([0, 3]), np.array([0, 4])
    warm(f, x, good)
    before = f.slow_calls
    for _ in range(1000):
        with pytest.raises(
            IndexOutOfBounds, match="index 4 is out of bounds for an axis of size 4"
        ):
            f(x, bad)
        assert f(x, good).tolist() == [0, 3]
    assert f.slow_calls == before


@pytest.mark.native
def test_threads_change_what_records_say():
    k, x = graphc.compile(energy), np.ones(100)
    warm(k, x, x)
    entries.forget_records()
    assert k._records == () and warm(k, x, x) == Function.__call__(k, x, x) and len(k._records) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_goes_on():
    k, x = graphc.compile(energy, wrt="x"), np.arange(100.0)
    expected = warm(k.value_and_grad, x, x)
    step = k.bind(x, x)
    step()
    child = os.fork()
    if not child:
        faulthandler.disable()
        fine = all(same(warm(k.value_and_grad, x, x), expected) for _ in range(3))
        fine &= step()[0] == expected[0] and same(warm(graphc.compile(energy), x, x), expected[0])
        os._exit(0 if fine else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert same(warm(k.value_and_grad, x, x), expected)


# -- without native code ---------------------------------------------------------------------------


@pytest.fixture
def portable(monkeypatch):
    """As where objects have another layout."""
    for module in (kernel, pool, entries):
        monkeypatch.setattr(module, "native", lambda: None)


def test_the_portable_way(portable):
    k = graphc.compile(energy, wrt=("x", "y"))
    x, y = RNG.normal(size=(2, 10))
    expected = [Function.__call__(f, x, y) for f in (k, k.value_and_grad)]
    for _ in range(5):
        assert same(k(x, y=y), expected[0]) and same(k.value_and_grad(x, y), expected[1])
    assert not k.is_native and k._records == () and k.slow_calls == 0
    f = graphc.grad(lambda x: (x**3).sum())
    for _ in range(5):
        assert np.allclose(f(x), 3 * x**2)
    big = np.ones(100_000)
    assert warm(k, big, big) == Function.__call__(k, big, big)


@pytest.mark.native
def test_other_layouts_are_noticed(monkeypatch):
    assert objects.layout_holds()
    for name, place in layout.ARRAY.items():
        monkeypatch.setitem(layout.ARRAY, name, place + 8)
        assert not objects.layout_holds()
        monkeypatch.setitem(layout.ARRAY, name, place)
    with monkeypatch.context() as patched:
        patched.setitem(objects._NUMBERS, "TUPLE_ITEMS", lambda: tuple.__basicsize__ + 8)
        assert not objects.layout_holds()
    assert objects._is_plain(np.float64) and not objects._is_plain(np.complex128)
    assert not objects._is_plain(slice) and not objects._is_plain(str)
    monkeypatch.setattr(layout, "SCALAR_VALUE", 24)
    assert not objects.layout_holds()


def test_a_class_without_native_words(monkeypatch):
    monkeypatch.setattr(entries, "layout_holds", lambda: False)
    assert entries._native_base() is object


def test_entries_are_ordinary_objects():
    class Twice(Entry):
        def __call__(self, x):
            return 2 * x

    twice = Twice()
    assert twice(3) == 6 and not twice.is_native and twice.slow_calls == 0
    twice.note = 1
    assert twice.__dict__ == {"note": 1}


# -- tests of the tests ----------------------------------------------------------------------------

FAULTS = [
    ("load(x + DESCR) != load(node + DTYPE) or ", ""),
    ("        if size != known:\n            return 0\n", ""),
    ("            total += bytes\n", ""),
    ("value(frame, load(place)) != value(frame, load(place + 8))", "n < 0"),
    ("(load32(x + FLAGS) & wanted) == wanted", "1"),
    ("wanted = CONTIGUOUS_ALIGNED + WRITEABLE", "wanted = CONTIGUOUS_ALIGNED"),
    ("if start < high and low < start + value(frame, load(other + 8)):", "if other < 0:"),
    ("high = low + value(frame, load(target + 8))", "high = low"),
    ("        target += 16\n        other = target", "        target += 16\n        other = end"),
    ("rank == 0 and load(output + O_GIVEN) == 0", "rank == 0"),
    ("            array = load(frame + given)\n            C_Py_IncRef(array)",
    "            array = load(frame + given)"),
    ("return load32(scratch) == value", "return 1"),
    ("            data += step\n            n = n - 1",
    "            data += 8\n            n = n - 1"),
    ("            if default == ABSENT:\n                return 0", "            n = n + 0"),
]  # fmt: skip


def problem():
    """The first call whose outcome is not the same natively as in Python."""
    k, narrow = graphc.compile(energy), graphc.compile(_int32)
    f, longer = graphc.jit(lambda x, y=1.0: x * y), graphc.compile(_differences)
    x, j = np.arange(4.0), np.ones(4, np.int32)
    calls = [
        (k, (x, x)), (k, (x[::-1], x)), (k, (x, x[::-1])), (f, (x, 2.0)), (f, (x,)), (f, (x, j)),
        (f, (x.view(np.int64),)), (f, (np.arange(5.0),)), (f, (x[::-1], 3.0)), (f, (x[::-1], j)),
        (k, (np.arange(8.0)[::2], x)), (k, (x[::-1], 2 * x[::-1])), (k, (x[:3], x)),
        (longer, (x, x[:3])), (longer, (x, x)), (narrow, (5,)), (narrow, (2**40 + 5,)),
    ]  # fmt: skip
    for _ in range(3):
        for call, args in calls:
            expected = _outcome(lambda *a, call=call: _python(call)(call, *a), args)
            for _ in range(3):
                if _outcome(call, args) != expected:
                    return f"{call}{args}"
    return _problem_with_out()


def _problem_with_out():
    """The first of such calls that fills or keeps something else."""
    k = graphc.compile(_turned_sum)
    places = (
        (0, 30, 60, 90), (0, 30, 10, 90), (0, 30, 60, 70), (0, 30, 60, 20), (30, 0, 90, 80),
        (90, 90, 0, 30), (20, 60, 0, 95),
    )  # fmt: skip

    def filled(call, at, read_only):
        memory = np.arange(120.0)
        memory.flags.writeable = not read_only
        x, y, turned = (memory[i : i + 30] for i in at[:3])
        memory.flags.writeable = True
        total = memory[at[3] : at[3] + 1].reshape(())
        before = [sys.getrefcount(a) for a in (turned, total)]
        out = (turned, total)
        try:
            whole = call(x, y, out=out) is out
        except graphc.GraphcError as error:
            whole = type(error)
        del out
        after = [sys.getrefcount(a) for a in (turned, total)]
        return whole, memory.tobytes(), read_only or before == after

    for _ in range(3):
        for at in places:
            for read_only in (False, True):
                expected = filled(lambda *a, **o: _python(k)(k, *a, **o), at, read_only)
                if any(filled(k, at, read_only) != expected for _ in range(3)):
                    return f"{at} {read_only}"
    return ""


def _outcome(call, args):
    try:
        result = call(*args)
    except graphc.GraphcError as error:
        return type(error)
    return type(result), result.dtype, result.shape, result.tobytes()


def _python(call):
    return next(c.__dict__["__call__"] for c in type(call).__mro__ if "__call__" in c.__dict__)


@pytest.mark.native
@pytest.mark.skipif(not hasattr(os, "fork"), reason="a fault may end the process")
@pytest.mark.parametrize("fault", [None, *FAULTS], ids=str)
def test_faults_in_native_code_are_found(monkeypatch, fault):
    text = entry.TEXT
    if fault:
        assert text.count(fault[0]) == 1
        text = text.replace(*fault)
    monkeypatch.setattr(entry, "TEXT", text)
    routines = objects.Native()
    for module in (kernel, pool, entries):
        monkeypatch.setattr(module, "native", lambda: routines)
    child = os.fork()
    if not child:
        faulthandler.disable()
        os._exit(bool(problem()))
    assert bool(os.waitpid(child, 0)[1]) == bool(fault)


@graphc.graph
def _differences(x: graphc.f64["n+1"], y: graphc.f64["n"]):
    return (x[1:] - x[:-1]) * y


@graphc.graph
def _turned_sum(x: graphc.f64["n"], y: graphc.f64["n"]):
    return x[::-1] + y, x.sum()


@graphc.graph
def _int32(j: graphc.i32):
    return j + 1
