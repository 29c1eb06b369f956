"""`out=`: written directly where that is safe, through a copy where it is not, refused before
anything is written."""

from __future__ import annotations

import gc
import sys

import numpy as np
import pytest

import graphc
from graphc.errors import IndexOutOfBounds, SignatureError
from graphc.runtime import function

RNG = np.random.default_rng(1)


@graphc.graph
def energy(x: graphc.f64["n"], y: graphc.f64["n"]):
    return (np.exp(-x * x) * y).sum()


@graphc.graph
def parts(x: graphc.f64["n", 3], k: graphc.f64):
    return {"scaled": k * x, "rows": x.sum(axis=1), "most": x.max(), "big": x > 0}


@pytest.fixture
def written(monkeypatch):
    """The arrays that kernels wrote to."""
    seen = []
    original = function.place

    def place(*args):
        placed = original(*args)
        seen.append(placed)
        return placed

    monkeypatch.setattr(function, "place", place)
    return seen


def like(results):
    return {key: np.empty_like(np.asarray(r)) for key, r in results.items()}


@pytest.mark.parametrize("n", [0, 1, 5, 100])
def test_trees_of_outputs(n, written):
    x = RNG.normal(size=(n, 3)) if n else np.zeros((0, 3))
    k = graphc.compile(parts)
    if n == 0:
        x = np.zeros((1, 3))
    expected = k(x, 2.0)
    out = like(expected)
    for _ in range(3):
        assert k(x, 2.0, out=out) is out
        assert not written[-1].copies and written[-1].arrays[0] is out["scaled"]
        assert all(np.array_equal(out[key], expected[key]) for key in out)
        assert {key: a.dtype for key, a in out.items()} == {
            key: np.asarray(a).dtype for key, a in expected.items()
        }


def test_some_outputs():
    x = RNG.normal(size=(4, 3))
    k = graphc.compile(parts)
    expected = k(x, 2.0)
    rows = np.empty(4)
    got = k(x, 2.0, out={"scaled": None, "rows": rows, "most": None, "big": None})
    assert got["rows"] is rows and isinstance(got["most"], np.float64)
    assert all(np.array_equal(got[key], expected[key]) for key in got)


def test_values_and_gradients(written):
    k = graphc.compile(energy, wrt=("x", "y"))
    x, y = RNG.normal(size=(2, 30))
    value, (dx, dy) = k.value_and_grad(x, y)
    out = (np.empty(()), (np.empty(30), np.empty(30)))
    assert k.value_and_grad(x, y, out=out) is out and not written[-1].copies
    assert out[0] == value and np.array_equal(out[1][0], dx) and np.array_equal(out[1][1], dy)
    got = k.value_and_grad(x, y, out=(None, (out[1][1], None)))
    assert got[1][0] is out[1][1] and np.array_equal(got[1][0], dx) and got[0] == value
    single = graphc.compile(energy, wrt="x")
    gradient = np.empty(30)
    assert single.value_and_grad(x, y, out=(None, gradient))[1] is gradient
    assert np.array_equal(gradient, dx)


def odd(shape):
    memory = np.empty(8 * int(np.prod(shape)) + 1, np.uint8)
    return memory[1:].view(np.float64).reshape(shape)


LAYOUTS = {
    "strided": lambda: np.empty((20, 6))[::2, ::2],
    "reversed": lambda: np.empty((10, 3))[::-1],
    "fortran": lambda: np.empty((10, 3), order="F"),
    "misaligned": lambda: odd((10, 3)),
    "memmap": lambda: np.empty((10, 3)).view(np.ndarray),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(name):
    x = RNG.normal(size=(10, 3))
    k = graphc.compile(parts)
    expected = k(x, 2.0)
    out = like(expected)
    out["scaled"] = LAYOUTS[name]()
    k(x, 2.0, out=out)
    assert all(np.array_equal(out[key], expected[key]) for key in out)


def test_overlaps(written):
    k = graphc.compile(energy, wrt=("x", "y"))
    x, y = RNG.normal(size=(2, 30))
    value, (dx, dy) = k.value_and_grad(x, y)
    copy = x.copy()
    got = k.value_and_grad(copy, y, out=(None, (copy, None)))
    assert len(written[-1].copies) == 1 and got[1][0] is copy
    assert np.array_equal(copy, dx) and np.array_equal(got[1][1], dy) and got[0] == value
    memory = np.zeros(31)
    memory[:30] = x
    k.value_and_grad(memory[:30], y, out=(None, (memory[1:], None)))
    assert np.array_equal(memory[1:], dx)
    memory = np.zeros(45)
    k.value_and_grad(x, y, out=(None, (memory[:30], memory[15:])))
    assert np.array_equal(memory[15:], dy) and np.array_equal(memory[:15], dx[:15])
    same = np.zeros(30)
    k.value_and_grad(x, y, out=(None, (same, same)))
    assert np.array_equal(same, dy)


def test_arrays_without_elements():
    """Strides of a column-major array that is empty are 0, but nothing is repeated."""
    k = graphc.compile(twice)
    for shape in ((0, 5), (5, 0), (0, 0)):
        out = np.zeros(shape, order="F")
        assert k(np.zeros(shape), out=out) is out


@graphc.graph
def double(x: graphc.f64["n"]):
    return 2.0 * x


@graphc.graph
def twice(x: graphc.f64["n", "m"]):
    return 2.0 * x


BAD = [
    (lambda: np.empty(9), r"out for out must be an array float64\[10\], got float64\[9\]"),
    (lambda: np.empty((10, 1)), r"got float64\[10, 1\]"),
    (lambda: np.empty(10, np.float32), r"got float32\[10\]"),
    (lambda: np.empty(10, ">f8"), r"got >f8\[10\]"),
    (lambda: [0.0] * 10, "got list"),
    (lambda: 1.0, "got float"),
    (lambda: np.broadcast_to(np.zeros(1), 10), "out for out is read-only"),
    (lambda: np.lib.stride_tricks.as_strided(np.zeros(1), (10,), (0,)), "repeats its elements"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_refused(make, message):
    k, target = graphc.compile(double), make()
    before = np.array(target).tobytes()
    with pytest.raises(SignatureError, match=message):
        k(np.ones(10), out=target)
    assert np.array(target).tobytes() == before


def test_nothing_is_written_before_all_is_checked():
    x = np.ones((10, 3))
    k = graphc.compile(parts)
    out = {**like(k(x, 1.0)), "big": np.zeros((10, 3), np.int64)}
    out["scaled"][...] = 5.0
    with pytest.raises(SignatureError, match="out for big"):
        k(x, 1.0, out=out)
    assert (out["scaled"] == 5.0).all()
    with pytest.raises(SignatureError, match="argument out is a dict with the keys"):
        k(x, 1.0, out={"scaled": out["scaled"]})


def test_a_failed_call_leaves_its_inputs():
    @graphc.graph
    def picked(x: graphc.f64["n"], i: graphc.i64["m"]):
        return x[i]

    k, x, i = graphc.compile(picked), np.arange(4.0), np.array([1, 9])
    out = np.zeros(2)
    for _ in range(4):
        with pytest.raises(
            IndexOutOfBounds, match="index 9 is out of bounds for an axis of size 4"
        ):
            k(x, i, out=out)
        with pytest.raises(IndexOutOfBounds, match="index 9"):
            k(x, i)
    assert x.tolist() == [0, 1, 2, 3] and i.tolist() == [1, 9]
    assert k(x, i % 4, out=out) is out and out.tolist() == [1.0, 1.0]


# -- served by native code -------------------------------------------------------------------------


def warm(call, *args, **kwargs):
    """Call until native code serves; the calls that Python served since then are none."""
    for _ in range(3):
        result = call(*args, **kwargs)
    before = call.slow_calls
    call(*args, **kwargs)
    assert call.is_native and call.slow_calls == before
    return result


def served(call, *args, **kwargs):
    """The result of a call that Python does not see."""
    before = call.slow_calls
    result = call(*args, **kwargs)
    assert call.slow_calls == before
    return result


@graphc.graph
def longer(x: graphc.f64["n"], m: graphc.f64["m"]):
    return np.concatenate([x, m]), x.sum(), (m > 0).reshape(-1, 1)


@pytest.mark.native
def test_arrays_that_native_code_fills():
    k = graphc.compile(parts)
    x = RNG.normal(size=(4, 3))
    out = like(k(x, 2.0))
    some = {"scaled": None, "rows": np.empty(4), "most": None, "big": np.empty((4, 3), bool)}
    for given in (out, some):
        warm(k, x, 2.0, out=given)
    for n in (1, 4, 9):
        x = RNG.normal(size=(n, 3))
        expected = k(x, -1.5)
        out = like(expected)
        assert served(k, x, -1.5, out=out) is out
        assert all(np.array_equal(out[key], expected[key]) for key in out)
        some |= {"rows": np.empty(n), "big": np.empty((n, 3), bool)}
        got = served(k, x, -1.5, out=some)
        assert got["rows"] is some["rows"] and got["big"] is some["big"]
        assert all(np.array_equal(got[key], expected[key]) for key in got)
        assert list(got) == list(expected) and isinstance(got["most"], np.float64)
        assert some["scaled"] is None and got["scaled"].shape == (n, 3)


@pytest.mark.native
def test_native_code_fills_sizes_that_are_computed():
    k = graphc.compile(longer)
    x, m = RNG.normal(size=5), RNG.normal(size=3)
    new = lambda n, m: (np.empty(n + m), np.empty(()), np.empty((m, 1), bool))  # noqa: E731
    warm(k, x, m, out=new(5, 3))
    for n, size in ((5, 3), (0, 4), (7, 0), (0, 0), (2, 9)):
        x, m = RNG.normal(size=n), RNG.normal(size=size)
        out = new(n, size)
        assert served(k, x, m, out=out) is out
        for a, b in zip(out, k(x, m), strict=True):
            assert a.tobytes() == np.asarray(b).tobytes()
        with pytest.raises(SignatureError, match="out for out.0 must be an array"):
            k(x, m, out=(np.empty(n + size + 1), *out[1:]))


@pytest.mark.native
@pytest.mark.parametrize(("make", "message"), BAD)
def test_native_code_leaves_what_does_not_fit_to_python(make, message):
    k = graphc.compile(double)
    warm(k, np.ones(10), out=np.empty(10))
    with pytest.raises(SignatureError, match=message):
        k(np.ones(10), out=make())


class Special(np.ndarray):
    pass


@pytest.mark.native
def test_native_code_fills_no_array_that_lies_elsewhere():
    """Strided, swapped and subclassed arrays are filled by Python, and None is no array."""
    k = graphc.compile(double)
    x = RNG.normal(size=10)
    warm(k, x, out=np.empty(10))
    for out in (np.empty(20)[::2], np.empty(10)[::-1], odd((10,)), np.empty(10).view(Special)):
        before = k.slow_calls
        assert k(x, out=out) is out and k.slow_calls == before + 1
        assert np.array_equal(out, 2 * x)
    assert np.array_equal(k(x, out=None), 2 * x)


CONSTANTS = np.arange(10.0)


@pytest.mark.native
def test_native_code_fills_nothing_that_is_read():
    @graphc.graph
    def both(x: graphc.f64["n"], y: graphc.f64["n"]):
        return x + y, (x - y + CONSTANTS[:5].sum()) * x[::-1]

    k = graphc.compile(both)
    memory = np.zeros(40)
    warm(k, memory[:10], memory[10:20], out=(memory[20:30], memory[30:]))
    starts = (0, 1, 9, 10, 11, 20, 29, 30)
    for places in ((a, b, c, d) for a in starts for b in starts for c in starts for d in starts):
        memory[:] = RNG.normal(size=40)
        x, y, first, second = (memory[p : p + 10] for p in places)
        expected = k(x.copy(), y.copy())
        apart = min(abs(a - b) for i, a in enumerate(places[2:]) for b in places[: i + 2]) >= 10
        before = k.slow_calls
        k(x, y, out=(first, second))
        assert (k.slow_calls == before) is apart, places
        assert np.array_equal(second, expected[1]), places
        if abs(places[2] - places[3]) >= 10:
            assert np.array_equal(first, expected[0]), places


@pytest.mark.native
def test_native_code_does_not_fill_what_a_function_captured():
    captured = RNG.normal(size=10)

    @graphc.graph
    def shifted(x: graphc.f64[10]):
        return x[::-1] + captured

    k = graphc.compile(shifted)
    x = RNG.normal(size=10)
    expected = k(x)
    warm(k, x, out=np.empty(10))
    assert k(x, out=captured) is captured and np.array_equal(captured, expected)
    for own in k.traced.captured:
        if own.flags.writeable:
            k(x, out=own)
            assert np.array_equal(own, expected)


@pytest.mark.native
def test_native_code_keeps_no_array_that_it_filled():
    @graphc.graph
    def picked(x: graphc.f64["n"], i: graphc.i64["m"]):
        return {"value": x[i], "total": x.sum()}

    k = graphc.compile(picked)
    x, i = np.arange(4.0), np.array([1, 2])
    out = {"value": np.empty(2), "total": np.empty(())}
    warm(k, x, i, out=out)
    gc.collect()
    counts = [sys.getrefcount(a) for a in (x, i, out, *out.values())]
    for _ in range(100):
        assert served(k, x, i, out=out) is out
        with pytest.raises(IndexOutOfBounds, match="index 9"):
            k(x, np.array([1, 9]), out=out)
        with pytest.raises(SignatureError):
            k(x, i, out={"value": np.empty(3), "total": np.empty(())})
    gc.collect()
    assert [sys.getrefcount(a) for a in (x, i, out, *out.values())] == counts


# -- donated arguments -----------------------------------------------------------------------------


@graphc.graph
def descend(w: graphc.f64["n", "m"], g: graphc.f64["n", "m"], rate: graphc.f64):
    return {"w": w - rate * g, "size": (g * g).sum()}


def matrices(n, m=4):
    return RNG.normal(size=(2, n, m))


@pytest.mark.native
def test_native_code_fills_donated_arguments():
    plain, k = graphc.compile(descend), graphc.compile(descend, donate="w")
    warm(k, *matrices(3), 0.5)
    for n in (0, 1, 3, 50):
        w, g = matrices(n)
        expected = plain(w.copy(), g, 0.25)
        got = served(k, w, g, 0.25)
        assert got["w"] is w and np.array_equal(w, expected["w"])
        assert got["size"] == expected["size"] and isinstance(got["size"], np.float64)


@pytest.mark.native
def test_native_code_fills_donated_arguments_or_others():
    """Where an array is given for the result, the donated one stays as it is."""
    plain, k = graphc.compile(descend), graphc.compile(descend, donate="w")
    w, g = matrices(3)
    warm(k, w, g, 0.5)
    warm(k, w, g, 0.5, out={"w": np.empty((3, 4)), "size": None})
    warm(k, w, g, 0.5, out={"w": None, "size": np.empty(())})
    before, expected = w.copy(), plain(w, g, 0.25)
    out = {"w": np.empty((3, 4)), "size": None}
    got = served(k, w, g, 0.25, out=out)
    assert got["w"] is out["w"] and np.array_equal(w, before)
    assert np.array_equal(got["w"], expected["w"]) and got["size"] == expected["size"]
    out = {"w": None, "size": np.empty(())}
    got = served(k, w, g, 0.25, out=out)
    assert got["w"] is w and got["size"] is out["size"] and np.array_equal(w, expected["w"])
    assert out["size"] == expected["size"]


@pytest.mark.native
def test_python_looks_at_donated_arguments_that_cannot_be_filled():
    plain, k = graphc.compile(descend), graphc.compile(descend, donate="w")
    warm(k, *matrices(3), 0.5)
    memory = RNG.normal(size=40)
    w, g = memory[:12].reshape(3, 4), memory[4:16].reshape(3, 4)
    read_only = matrices(3)[0]
    read_only.flags.writeable = False
    for a, b in ((w, g), (g, w), (w, w), (read_only, g)):
        kept, expected = a.copy(), plain(a.copy(), b.copy(), 0.25)
        before = k.slow_calls
        got = k(a, b, 0.25)
        assert k.slow_calls == before + 1
        assert np.array_equal(got["w"], expected["w"]) and got["size"] == expected["size"]
        assert np.array_equal(a, kept)


@pytest.mark.native
def test_native_code_keeps_no_donated_argument():
    k = graphc.compile(descend, donate="w")
    w, g = matrices(3)
    warm(k, w, g, 0.5)
    gc.collect()
    counts = sys.getrefcount(w), sys.getrefcount(g)
    for _ in range(100):
        served(k, w, g, 0.0)
    assert (sys.getrefcount(w), sys.getrefcount(g)) == counts


# -- what is kept ----------------------------------------------------------------------------------


def failing(k, *args, **kwargs):
    with pytest.raises(SignatureError):
        k(*args, **kwargs)


KEEPING = {
    "a call": lambda k, x: k(x),
    "strided": lambda k, x: k(x[::2]),
    "filled": lambda k, x: k(np.ones(6), out=x),
    "in place": lambda k, x: k(x, out=x),
    "bound": lambda k, x: k.bind(x)(),
    "the wrong rank": lambda k, x: failing(k, x.reshape(2, 3)),
    "the wrong size": lambda k, x: failing(k, np.ones(5), out=x),
    "jit": lambda k, x: graphc.jit(lambda a: a * 2.0)(x),
    "trees": lambda k, x: graphc.value_and_grad(lambda a: (a["w"] ** 2).sum())({"w": x}),
}


@pytest.mark.parametrize("name", KEEPING)
def test_no_call_keeps_its_arrays_until_garbage_is_collected(name):
    k, x = graphc.compile(double), np.arange(6.0)
    before = sys.getrefcount(x)
    gc.disable()
    try:
        for _ in range(3):
            KEEPING[name](k, x)
        assert sys.getrefcount(x) == before
    finally:
        gc.enable()
