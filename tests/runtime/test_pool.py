"""Blocks of large results and arenas of temporaries: used again, never too early, never without
bound."""

from __future__ import annotations

import gc
import os
import pickle
import resource
import subprocess
import sys
import threading

import numpy as np
import pytest

import graphc
from graphc.codegen.memory import ARENA_ENTRIES, ARENA_KEPT, HUGE, LARGE, POOL_ENTRIES
from graphc.runtime import pool
from graphc.runtime.objects import native

F64 = np.dtype(np.float64)
N = LARGE // 8


@graphc.graph
def shifted(x: graphc.f64["n"]):
    return x + 1.0


@pytest.fixture(autouse=True)
def clean():
    gc.collect()
    pool.clear()
    yield
    pool.set_limit(256 << 20)


def address(a):
    return a.__array_interface__["data"][0]


def test_small_arrays_are_numpys():
    a = pool.empty((N - 1,), F64)
    assert a.base is None and a.flags.owndata


@pytest.mark.parametrize("shape", [(N,), (N + 1,), (3, N), (2, 2, N), (N, 1, 1, 2)])
@pytest.mark.parametrize("dtype", ["f8", "f4", "i8", "i4", "?"])
def test_blocks(shape, dtype):
    dtype = np.dtype(dtype)
    shape = (*shape[:-1], shape[-1] * 8 // dtype.itemsize)
    a = pool.empty(shape, dtype)
    assert a.shape == shape and a.dtype == dtype and type(a) is np.ndarray
    assert a.flags.c_contiguous and a.flags.aligned and a.flags.writeable and address(a) % 64 == 0
    a[...] = 1
    assert a.sum() == a.size
    where = address(a)
    del a
    again = pool.empty(shape, dtype)
    assert address(again) == where


def test_views_keep_a_block():
    a = pool.empty((2, N), F64)
    a[...] = 7.0
    view, where = a[1, ::2], address(a)
    memory = memoryview(a)
    del a
    others = [pool.empty((2, N), F64) for _ in range(3)]
    assert where not in map(address, others)
    for o in others:
        o[...] = 0.0
    assert (view == 7.0).all()
    del view
    assert address(pool.empty((2, N), F64)) != where
    memory.release()
    del memory, others, o
    assert pool.usage().blocks == 5


def test_resizing_is_refused():
    a = pool.empty((N,), F64)
    for check in (True, False):
        with pytest.raises(ValueError, match="does not own its data"):
            a.resize(2 * N, refcheck=check)


def test_copies_and_pickles():
    a = pool.empty((N,), F64)
    a[...] = np.arange(N)
    for made in (a.copy(), pickle.loads(pickle.dumps(a)), np.array(a)):
        assert np.array_equal(made, a) and not np.may_share_memory(made, a)


def test_the_bound():
    pool.set_limit(4 * 8 * N)
    assert pool.limit() == 4 * 8 * N
    made = [pool.empty((N,), F64) for _ in range(9)]
    del made
    assert pool.usage().held <= 4 * 8 * N and pool.usage().blocks == 4
    del_me = pool.empty((10 * N,), F64)
    del del_me
    assert pool.usage().held <= 4 * 8 * N
    pool.clear()
    assert pool.usage().held == pool.usage().blocks == 0 and pool.limit() == 4 * 8 * N
    pool.set_limit(0)
    pool.empty((N,), F64)
    assert pool.usage().held == 0
    with pytest.raises(ValueError, match="number of bytes"):
        pool.set_limit(-1)


def test_many_small_blocks():
    made = [pool.empty((N,), F64) for _ in range(POOL_ENTRIES + 20)]
    del made
    assert pool.usage().blocks == POOL_ENTRIES


def test_old_sizes_leave_for_new_ones():
    pool.set_limit(10 * 8 * N)
    for i in range(1, 10):
        a = pool.empty((i * N,), F64)
        del a
        assert pool.usage().held <= 10 * 8 * N
    where = address(pool.empty((9 * N,), F64))
    assert address(pool.empty((9 * N,), F64)) == where


def test_sizes_are_rounded_by_an_eighth_at_most():
    for size in (N, N + 1, 5 * N // 3, 17 * N, 1_000_003, 123_456_7):
        a = pool.empty((size,), F64)
        del a
        held = pool.usage().held
        assert 8 * size <= held <= 8 * size * 1.125 + LARGE // 8
        pool.clear()


def mapped():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[0]) * resource.getpagesize()


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for large pages")
@pytest.mark.parametrize("size", [HUGE - 8, HUGE, HUGE + 8, 3 * HUGE, 10_000_000])
def test_large_blocks_begin_at_large_pages_and_go_back_to_the_system(size):
    pool.empty((size // 8,), F64)  # what is made once
    pool.clear()
    before = mapped()
    made = [pool.empty((size // 8,), F64) for _ in range(5)]
    for i, a in enumerate(made):
        a[...] = i
    assert all((a == i).all() for i, a in enumerate(made))
    assert len({address(a) for a in made}) == 5
    assert all(address(a) % (HUGE if size >= HUGE else 64) == 0 for a in made)
    assert mapped() - before >= 5 * size or size < HUGE  # small ones come from the C library
    del a, made
    assert pool.usage().blocks == 5
    pool.clear()
    assert mapped() - before < size


def test_more_than_there_is():
    with pytest.raises(MemoryError):
        pool.empty((1 << 45,), F64)
    with pytest.raises(MemoryError):
        pool.empty((1 << 58,), F64)


def test_results_come_back():
    k, x = graphc.compile(shifted), np.ones(4 * N)
    k(x)
    made = pool.usage().made
    for _ in range(20):
        y = k(x)
        assert (y == 2.0).all()
        del y
    assert pool.usage().made == made
    kept = [k(x) for _ in range(5)]
    assert len({address(y) for y in kept}) == 5


def test_threads():
    k = graphc.compile(shifted)
    wrong = []

    def work(i):
        x = np.full(2 * N, float(i))
        kept = []
        for j in range(200):
            kept.append(k(x))
            if j % 3 == 0:
                kept.pop(0)
            kept = kept[-4:]
        wrong.extend(y for y in kept if not (y == i + 1.0).all())

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong and pool.usage().held <= pool.limit()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork():
    code = """
import os, numpy as np
from graphc.runtime import pool
a = pool.empty((100_000,), np.dtype(float)); a[...] = 3.0
free = pool.empty((100_000,), np.dtype(float)); del free
child = os.fork()
b = pool.empty((100_000,), np.dtype(float)); b[...] = 5.0 if child else 4.0
assert (a == 3.0).all() and (b == (5.0 if child else 4.0)).all()
del a, b
assert pool.usage().blocks == 2
if child:
    assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


SHUTDOWNS = [
    "a = k(x); sys.kept = a",
    "a = k(x); builtins.kept = [a[::2]]",
    "class C:\n    def __del__(self): del self.a\nc = C(); c.a = k(x); builtins.kept = c",
    "a = k(x); a_cycle = [a]; a_cycle.append(a_cycle)",
    "t = threading.Thread(target=lambda: [k(x) for _ in range(50)]); t.start(); kept = k(x)",
    "t = threading.Thread(target=lambda: [k(x) for _ in range(10**9)], daemon=True); t.start()",
    "atexit.register(lambda: k(x).sum()); b = k.bind(x); atexit.register(b)",
    "import gc; gc.disable(); kept = [k, k(x), k.bind(x)]; kept.append(kept); sys.k = kept",
]


@pytest.mark.parametrize("code", SHUTDOWNS)
def test_shutdown(code):
    head = """
import atexit, builtins, sys, threading, numpy as np, graphc
x = np.ones(100_000)
@graphc.graph
def f(x: graphc.f64["n"]):
    return x + 1.0
k = graphc.compile(f)
k(x); k(x); k(x)
"""
    path = os.environ | {"PYTHONPATH": os.getcwd()}
    run = [sys.executable, "-X", "faulthandler", "-c"]
    file = subprocess.run([*run, f"exec({head + code!r})"], env=path, timeout=60,
                          capture_output=True, text=True)  # fmt: skip
    assert file.returncode == 0 and not file.stderr, file.stderr


# -- arenas ----------------------------------------------------------------------------------------


def test_arenas_that_were_interrupted_while_they_were_made():
    """Ctrl-C may come before `__init__` has begun: nothing is given back, and nothing is said."""
    half_made = pool.Arenas.__new__(pool.Arenas)
    half_made.__del__()


def test_arenas_are_kept():
    arenas = pool.Arenas()
    a, b = arenas.take(1000), arenas.take(1000)
    assert a != b and a % 64 == b % 64 == 0 and arenas.kept == 0
    arenas.give(a)
    arenas.give(b)
    assert arenas.kept == 2
    assert arenas.take(500) == b and arenas.take(2000) not in (a, b) and arenas.take(1000) == a


def test_arenas_are_bounded():
    arenas = pool.Arenas()
    taken = [arenas.take(4096) for _ in range(ARENA_ENTRIES + 5)]
    for a in taken:
        arenas.give(a)
    assert arenas.kept == ARENA_ENTRIES
    large = arenas.take(ARENA_KEPT + 1)
    arenas.give(large)
    assert arenas.kept == ARENA_ENTRIES and pool.usage().blocks == 1
    assert arenas.take(ARENA_KEPT + 1) == large
    arenas.give(large)
    nothing = arenas.take(0)
    arenas.give(nothing)
    assert arenas.kept == ARENA_ENTRIES
    with pytest.raises(MemoryError, match="no memory for temporaries"):
        arenas.take(1 << 60)


def test_a_kernel_uses_one_arena_again():
    @graphc.graph
    def centred(x: graphc.f64["n"]):
        y = np.exp(x)
        return y[::-1] - y.sum(), (y - y.mean()) ** 2

    k = graphc.compile(centred, skip=("fuse",))
    x = np.linspace(0, 1, 500)
    assert k.plan.arena_bytes(n=500) > 4000
    for _ in range(10):
        k(x)
        assert k.kernel.arenas.kept == 1
    if native() is not None:
        assert k.is_native and k.slow_calls == 0
