"""Bound calls and function pointers."""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import graphc
from graphc.errors import DifferentiationError, IndexOutOfBounds, SignatureError
from graphc.runtime import bound as bound_module
from graphc.runtime import kernel, pool

RNG = np.random.default_rng(2)


@graphc.graph
def loss(p: {"w": graphc.f64["k"], "b": graphc.f64}, x: graphc.f64["n", "k"]):
    """The loss."""
    return ((x @ p["w"] + p["b"]) ** 2).sum()


@pytest.fixture(params=[pytest.param("native", marks=pytest.mark.native), "python"])
def way(request, monkeypatch):
    if request.param == "python":
        for module in (kernel, pool, bound_module):
            monkeypatch.setattr(module, "native", lambda: None)
    return request.param


def made(n=20):
    p = {"w": RNG.normal(size=3), "b": np.array(0.5)}
    return p, RNG.normal(size=(n, 3)), graphc.compile(loss, wrt="p")


def test_new_numbers_in_the_same_arrays(way):
    p, x, k = made()
    step = k.bind(p, x)
    assert step.is_native == (way == "native")
    first = step()
    for _ in range(5):
        x[...] = RNG.normal(size=x.shape)
        p["w"] += 0.1
        p["b"][...] = RNG.normal()
        result = step()
        assert result is first and result is step.result
        value, gradient = k.value_and_grad(p, x)
        assert result[0] == value and result[0].shape == ()
        assert result[1]["w"].tobytes() == gradient["w"].tobytes()
        assert result[1]["b"] == gradient["b"]


def test_the_value_alone(way):
    p, x, k = made()
    for step in (k.bind(p, x, what="value"), graphc.compile(loss).bind(p, x)):
        assert type(step()) is np.ndarray and step() is step() and step() == k(p, x)
    with pytest.raises(SignatureError, match="what is"):
        k.bind(p, x, what="gradient")
    with pytest.raises(DifferentiationError, match="compile it with wrt"):
        graphc.compile(loss).bind(p, x, what="value_and_grad")


def test_out(way):
    p, x, k = made()
    out = (np.empty(()), {"w": np.empty(3), "b": np.empty(())})
    step = k.bind(p, x, out=out)
    assert step()[0] is out[0] and step()[1]["w"] is out[1]["w"]
    for wrong in (np.empty(6)[::2], p["w"]):
        with pytest.raises(SignatureError, match="a bound call cannot write to it"):
            k.bind(p, x, out=(None, {"w": wrong, "b": None}))


def test_it_takes_no_arguments(way):
    p, x, k = made()
    step = k.bind(p, x)
    for args, kwargs in (((p,), {}), ((), {"x": x}), ((p, x), {})):
        with pytest.raises(SignatureError, match="is bound: it takes no arguments"):
            step(*args, **kwargs)
    step()


def test_what_can_be_bound():
    p, x, k = made()
    fine = k.bind({"w": p["w"], "b": 0.25}, x)
    assert fine()[0] == k({"w": p["w"], "b": 0.25}, x)
    for wrong in (x.astype(np.float32), np.asfortranarray(x), x[::2], x.tolist(), x.astype(">f8")):
        with pytest.raises(SignatureError, match="argument x is bound as it lies in memory"):
            k.bind(p, wrong)
    with pytest.raises(graphc.ShapeError):
        k.bind(p, np.ones((4, 4)))


def test_arrays_live_and_stay():
    p, x, k = made()
    w = p["w"]
    step = k.bind(p, x)
    kept = [weakref.ref(a) for a in (w, x)]
    expected = step()[0].copy()
    for check in (True, False):
        with pytest.raises(ValueError, match="cannot resize"):
            x.resize((400, 3), refcheck=check)
    del p, w, x, k
    gc.collect()
    assert all(r() is not None for r in kept) and step()[0] == expected
    result = step()
    del step
    gc.collect()
    assert all(r() is None for r in kept) and result[0] == expected


def test_changed_arrays_are_errors(way):
    p, x, k = made()
    step = k.bind(p, x)
    step()
    other = np.ones((5, 3))
    x.__setstate__(other.__reduce__()[2])
    for _ in range(3):
        with pytest.raises(SignatureError, match="changed its memory or its shape"):
            step()
    p, x, k = made()
    step = k.bind(p, x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x.shape = (3, 20)
    with pytest.raises(SignatureError, match="changed its memory or its shape"):
        step()


def test_errors_of_indices(way):
    @graphc.graph
    def picked(x: graphc.f64["n"], i: graphc.i64["m"]):
        return x[i]

    i = np.array([0, 1])
    step = graphc.compile(picked).bind(np.arange(4.0), i)
    assert step().tolist() == [0, 1]
    i[1] = 7
    for _ in range(3):
        with pytest.raises(
            IndexOutOfBounds, match="index 7 is out of bounds for an axis of size 4"
        ):
            step()
    i[1] = -1
    assert step().tolist() == [0, 3]


def test_threads_take_turns(way):
    """In one arena, whose places are used again: two runs at a time would spoil each other."""
    n = 20_000
    x = np.linspace(-1, 1, n)

    @graphc.graph
    def energy(x: graphc.f64["n"]):
        y = np.tanh(np.exp(x) * np.sin(x))
        for _ in range(6):
            y = np.sqrt(np.abs(y / y.sum() + x))
            y = y[::-1] * y.max()
        return y.sum()

    k = graphc.compile(energy, wrt="x")
    step = k.bind(x)
    expected = k.value_and_grad(x)
    wrong = []

    def work():
        for _ in range(100):
            value, gradient = step()
            if value != expected[0] or gradient.tobytes() != expected[1].tobytes():
                wrong.append(value)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for t in workers:
        t.start()
    for t in workers:
        t.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_during_another_threads_run(way):
    """The child does not wait for the end of a run that nobody makes there."""
    x, steps = np.linspace(-1, 1, 1_000_000), []

    @graphc.graph
    def energy(x: graphc.f64["n"]):
        return np.tanh(np.exp(x) * np.sin(x)).sum()

    step = graphc.compile(energy).bind(x)
    expected, stop = float(step()), threading.Event()

    def work():
        while not stop.is_set():
            steps.append(step())

    thread = threading.Thread(target=work)
    thread.start()
    while not steps:
        time.sleep(0.001)
    children = []
    for i in range(5):
        time.sleep(0.002 * i)
        children.append(os.fork())
        if not children[-1]:
            faulthandler.disable()
            signal.alarm(20)
            os._exit(0 if step() == expected else 1)
    stop.set()
    thread.join()
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 5


def test_nothing_is_leaked():
    p, x, k = made()
    step = k.bind(p, x)
    step()
    watched = (step, step.result, None)
    counts = [sys.getrefcount(o) for o in watched]
    blocks = sys.getallocatedblocks()
    for _ in range(100_000):
        step()
    after = [sys.getrefcount(o) for o in watched]
    assert all(abs(a - b) < 10 for a, b in zip(after, counts)), (counts, after)
    assert sys.getallocatedblocks() - blocks < 50


def test_donated_memory(way):
    @graphc.graph
    def descend(w: graphc.f64["n"], g: graphc.f64["n"]):
        return w - 0.5 * g

    w, g = np.ones(4), np.arange(4.0)
    step = graphc.compile(descend, donate="w").bind(w, g)
    for i in range(1, 4):
        assert step() is w and w.tolist() == (1 - 0.5 * i * g).tolist()


def test_pointers():
    p, x, k = made()
    pointer = k.pointer()
    names = ("wrong index", "its size", "arena", "pool", "p.w", "p.b", "x")
    assert pointer.slots[:7] == names and pointer.slots[-2:] == ("size k", "size n")
    arena = np.empty(pointer.arena_bytes(n=20, k=3) + 64, np.uint8)
    value, dw, db = np.empty(()), np.empty(3), np.empty(())
    arrays = (p["w"], p["b"], x, value, dw, db)
    start = (arena.ctypes.data + 63) & -64
    given = (0, 0, start, 0, *(a.ctypes.data for a in arrays), 3, 20)
    slots = (ctypes.c_int64 * len(pointer.slots))(*given)
    address = int(pointer)
    run = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)(address)
    assert run(slots) == 0
    expected = k.value_and_grad(p, x)
    assert value == expected[0] and dw.tobytes() == expected[1]["w"].tobytes()
    assert "int32_t (*)(int64_t *slots)" in repr(pointer)
    assert int(k.pointer("value")) != address


DESCENT = """
#include <stdint.h>
int32_t descend(int32_t (*run)(int64_t *), int64_t *slots, double *x, const double *g,
                int64_t n, int64_t steps) {
    for (int64_t s = 0; s < steps; s++) {
        int32_t status = run(slots);
        if (status) return status;
        for (int64_t i = 0; i < n; i++) x[i] = x[i] - 0.125 * g[i];
    }
    return 0;
}
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_pointers_in_c(tmp_path):
    """A loop in C around value and gradient, as in Python; in several threads at once."""
    (tmp_path / "descent.c").write_text(DESCENT)
    library = tmp_path / "descent.so"
    options = ["-O1", "-ffp-contract=off", "-shared", "-fPIC"]
    subprocess.run(["cc", *options, str(tmp_path / "descent.c"), "-o", str(library)], check=True)
    descend = ctypes.CDLL(str(library)).descend
    descend.argtypes = [ctypes.c_void_p] * 4 + [ctypes.c_int64] * 2

    @graphc.graph
    def valley(x: graphc.f64["n"]):
        return (x[1:] * x[:-1]).sum() + (x * x * np.cos(x)).sum()

    k = graphc.compile(valley, wrt="x")
    pointer = k.pointer()

    def work(n):
        x, value, g = np.linspace(-1.0, 1.0, n), np.empty(()), np.empty(n)
        arena = np.empty(pointer.arena_bytes(n=n) + 64, np.uint8)
        data = [(arena.ctypes.data + 63) & -64, 0, *(a.ctypes.data for a in (x, value, g)), n]
        slots = (ctypes.c_int64 * len(pointer.slots))(0, 0, *data)
        assert descend(pointer.address, slots, x.ctypes.data, g.ctypes.data, n, 50) == 0
        y = np.linspace(-1.0, 1.0, n)
        for _ in range(50):
            last, gradient = k.value_and_grad(y)
            y = y - 0.125 * gradient
        assert x.tobytes() == y.tobytes() and value == last
        return True

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(work, (1, 2, 7, 64, 65, 1000) * 3))


def test_what_pointers_and_bound_calls_hold_goes_with_them(way):
    """The machine code lives as long as any of them, and no longer; and so do buffers."""
    for make in (lambda k, p, x: k.pointer(), lambda k, p, x: k.bind(p, x)):
        p, x, k = made()
        kernel_of = weakref.ref(k.value_and_grad.kernel.library)
        array = weakref.ref(x)
        held = make(k, p, x)
        del k, p, x
        gc.collect()
        assert kernel_of() is not None
        if callable(held):
            assert array() is not None and np.isfinite(held()[0])
        del held
        gc.collect()
        assert kernel_of() is None and array() is None
