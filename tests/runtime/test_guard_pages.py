"""Hostile calls with all arrays next to pages that may not be touched.

Arguments of every dtype, byte order, stride pattern, overlap and size, by position and by keyword;
with `out=`, bound, and with donated memory. A call gives the right numbers, which NumPy finds
without rounding, or a typed error, and changes no argument; native code gives what Python gives.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import GraphcError
from graphc.runtime.function import Function
from tests.guard_pages import PAGE, guarded, in_a_child

CALLS = 10_000  # of each part, at least
SIZES = (0, 0, 1, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 70)
BAD_SIZES = (0, 1, 2, 6, 63)

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(os, "fork"), reason="needs fork and mprotect"
)


@dataclass(frozen=True)
class Subject:
    """A graph, the dtypes and shapes of its arguments, and what NumPy says of it."""

    graph: Any
    types: tuple[str, ...]  # dtype, and names of sizes
    numpy: Callable[..., Any]
    wrt: tuple[str, ...] = ()
    donate: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.graph.__signature__.parameters)


@graphc.graph
def mixed(x: graphc.f64["n", "m"], y: graphc.f64["n"], s: graphc.f64 = 2.0):
    return {"z": s * x + y[:, None], "t": [y * 2.0, s * s]}


@graphc.graph
def typed(x: graphc.f32["n", 3], i: graphc.i64["n"], j: graphc.i32, flag: graphc.bool_["n"]):
    return (x + x, i + j, flag & (i > 0))


@graphc.graph
def product(a: graphc.f64["n", "k"], b: graphc.f64["k", "m"]):
    return ((a @ b) ** 2).sum()


@graphc.graph
def gathered(x: graphc.f64["n"], i: graphc.i64["m"]):
    return x[i] + x[i].sum()


@graphc.graph
def sums(x: graphc.f32["n", "m"], mask: graphc.bool_["m"]):
    return (x.sum(axis=0), x.sum(axis=1), (x[:, ::-1] * mask).T, np.where(x > 2, x, -x).max(axis=1))


@graphc.graph
def step(w: graphc.f64["n", "m"], g: graphc.f64["n", "m"]):
    return w - 2.0 * g


def gradient(a, b):
    c = 2 * (a @ b)
    return ((c / 2) ** 2).sum(), (c @ b.T, a.T @ c)


SUBJECTS = (
    Subject(mixed, ("f8 n m", "f8 n", "f8"),
            lambda x, y, s=2.0: {"z": s * x + y[:, None], "t": [y * 2.0, s * s]}),
    Subject(typed, ("f4 n 3", "i8 n", "i4", "? n"),
            lambda x, i, j, flag: (x + x, i + j, flag & (i > 0))),
    Subject(product, ("f8 n k", "f8 k m"), gradient, ("a", "b")),
    Subject(gathered, ("f8 n", "i8 m"), lambda x, i: x[i] + x[i].sum()),
    Subject(sums, ("f4 n m", "? m"), lambda x, mask: (
        x.sum(axis=0), x.sum(axis=1), (x[:, ::-1] * mask).T,
        np.where(x > 2, x, -x).max(axis=1, initial=-np.inf))),
    Subject(step, ("f8 n m", "f8 n m"), lambda w, g: w - 2.0 * g, donate=("w",)),
)  # fmt: skip


class Subclass(np.ndarray):
    pass


# -- how an array may lie in memory ----------------------------------------------------------------


def reverse(a):
    return a[::-1].copy()[::-1] if a.ndim else a.copy()


def every_other(a):
    """A step of two along each axis, in memory that ends with the last element."""
    wide = np.zeros([max(2 * n - 1, 0) for n in a.shape], a.dtype)
    view = wide[(*(slice(None, None, 2) for _ in a.shape), ...)]
    view[...] = a
    return view


def inner_part(a):
    wide = np.zeros([n + 2 for n in a.shape], a.dtype)
    view = wide[(*(slice(1, n + 1) for n in a.shape), ...)]
    view[...] = a
    return view


def misaligned(a):
    if a.dtype == object:
        return a.copy()
    memory = np.zeros(a.nbytes + 1, np.uint8)
    view = memory[1 : 1 + a.nbytes].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def backwards(a):
    """In the other order, from the end."""
    back = (*(slice(None, None, -1) for _ in a.shape), ...)
    return np.array(a[back], order="F")[back]


LAYOUTS = {
    "plain": np.array, "fortran": lambda a: np.array(a, order="F"), "reversed": reverse,
    "every other": every_other, "inner part": inner_part, "misaligned": misaligned,
    "read-only": read_only, "backwards": backwards,
    "no strides": lambda a: np.broadcast_to(a.reshape(-1)[:1].reshape((1,) * a.ndim), a.shape)
    if a.size else a.copy(),
    "window": lambda a: np.lib.stride_tricks.as_strided(
        np.arange(sum(a.shape) + 1) % 3, a.shape, (8,) * a.ndim).astype("f8")
    if a.ndim > 1 else a.copy(),
}  # fmt: skip
DTYPES = ("?", "b", "h", "i", "q", "B", "H", "I", "Q", "e", "f", "d", "g", "F", "D", "O",
          ">f8", ">f4", ">i8", ">i4", "U3", "S3", "M8[s]", "m8[s]", "V8")  # fmt: skip
OTHERS = (
    lambda a: a.tolist(), lambda a: tuple(a.tolist()) if a.ndim else a, lambda a: a.view(Subclass),
    np.ma.masked_array, lambda a: None, lambda a: "abc", lambda a: object(), lambda a: a[None],
    lambda a: a.reshape(-1), lambda a: {"x": a}, lambda a: memoryview(a.copy()), lambda a: 1.5,
    lambda a: 10**400, lambda a: np.float32(1.5), lambda a: True, lambda a: a.reshape(-1)[:1].sum(),
)  # fmt: skip


class Cases:
    """Random calls from a seed."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.subject = SUBJECTS[self.rng.integers(len(SUBJECTS))]

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def pick(self, choices):
        return choices[self.rng.integers(len(choices))]

    def call(self) -> tuple[list[Any], dict[str, Any]]:
        sizes = {name: self.pick(SIZES) for name in "nmk"}
        values = [self.value(ty, sizes) for ty in self.subject.types]
        if self.chance(0.05) and isinstance(values[0], np.ndarray):  # overlapping arguments
            values[-1] = values[0] if self.chance(0.5) else values[0][::-1]
        names = list(self.subject.names[: len(values)])
        split = len(values) if self.chance(0.7) else int(self.rng.integers(len(values) + 1))
        kwargs = dict(zip(names[split:], values[split:]))
        args = values[:split]
        if self.chance(0.05):
            self.spoil(args, kwargs, names)
        return args, kwargs

    def spoil(self, args: list[Any], kwargs: dict[str, Any], names: list[str]) -> None:
        kind = self.rng.integers(4)
        if kind == 0:
            args.append(np.zeros(3))
        elif kind == 1 and args:
            args.pop()
        elif kind == 2:
            kwargs["nobody"] = np.zeros(3)
        else:
            kwargs[names[0]] = np.zeros(3)

    def value(self, ty: str, sizes: dict[str, int]) -> Any:
        dtype, *axes = ty.split()
        shape = [sizes.get(a) if a in sizes else int(a) for a in axes]
        if self.chance(0.03) and shape:
            shape[self.rng.integers(len(shape))] = self.pick(BAD_SIZES)
        a = self.rng.integers(-1 if dtype == "i8" else 0, 4, shape).astype(dtype)
        if not axes and self.chance(0.5):
            return a.item()
        if self.chance(0.06):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                a = a.astype(np.dtype(self.pick(DTYPES))) if self.chance(0.95) else a
        if self.chance(0.03):
            return self.pick(OTHERS)(a)
        laid = LAYOUTS["plain" if self.chance(0.4) else self.pick(list(LAYOUTS))](a)
        return laid if laid.dtype == a.dtype or self.chance(0.2) else laid.astype(a.dtype)


# -- what a call gives -----------------------------------------------------------------------------


def outcome(call, *args, **kwargs):
    try:
        result = call(*args, **kwargs)
    except (GraphcError, TypeError, ValueError, OverflowError) as error:
        return type(error), str(error)
    leaves = graphc.dsl.tree.flatten(result)[0]
    return [(type(a), a.dtype, a.shape, a.tobytes()) for a in leaves]


def bytes_of(x):
    if isinstance(x, np.ndarray) and x.dtype != object:
        return (x.dtype.str, x.shape, x.strides, x.tobytes())
    return repr(x) if isinstance(x, (float, int, list, tuple, str)) else None


class Compiled:
    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        k = graphc.compile(subject.graph, wrt=subject.wrt)
        self.call: Function = k.value_and_grad if subject.wrt else k
        donating = graphc.compile(subject.graph, donate=subject.donate) if subject.donate else None
        self.donating = donating

    def expected(self, args: list[Any], kwargs: dict[str, Any]) -> list[bytes]:
        """The bytes of NumPy's results, in the dtypes that the graph declares."""
        names = self.subject.names
        given = dict(zip(names, args)) | kwargs
        dtypes = {n: ty.split()[0] for n, ty in zip(names, self.subject.types)}
        plain = {n: np.asarray(x).astype(dtypes[n]) for n, x in given.items()}
        leaves = graphc.dsl.tree.flatten(self.subject.numpy(**plain))[0]
        return [np.ascontiguousarray(leaf).tobytes() for leaf in leaves]

    def check(self, args: list[Any], kwargs: dict[str, Any], cases: Cases) -> int:
        more, before = 0, [bytes_of(x) for x in (*args, *kwargs.values())]
        expected = outcome(lambda *a, **b: Function.__call__(self.call, *a, **b), *args, **kwargs)
        for _ in range(2):
            assert outcome(self.call, *args, **kwargs) == expected, "not as in Python"
        if isinstance(expected, list):
            right = self.expected(args, kwargs)
            assert [leaf[3] for leaf in expected] == right, "not as in NumPy"
            more = self.check_memory(args, kwargs, expected, cases)
        assert [bytes_of(x) for x in (*args, *kwargs.values())] == before, "an argument changed"
        return 3 + more

    def check_memory(self, args, kwargs, expected, cases: Cases) -> int:
        """Results in the caller's arrays; in a donated argument's memory; of a bound call."""
        shaped = [np.zeros(shape, dtype) for _, dtype, shape, _ in expected]
        layout = LAYOUTS[cases.pick([n for n in LAYOUTS if n not in ("no strides", "window")])]
        targets = [layout(a) for a in shaped]
        tree = graphc.dsl.tree.unflatten(self.call.result, targets)
        found = outcome(lambda: self.call(*args, **kwargs, out=tree))
        if all(t.flags.writeable for t in targets):
            assert not isinstance(found, tuple), found
            assert [leaf[3] for leaf in found] == [leaf[3] for leaf in expected], "out="
        try:
            bound = self.call.bind(*args, **kwargs)
        except GraphcError:
            bound = None
        for _ in range(2 if bound else 0):
            found = outcome(bound)
            assert [leaf[3] for leaf in found] == [leaf[3] for leaf in expected], "bound"
        if self.donating and all(isinstance(x, np.ndarray) for x in (*args, *kwargs.values())):
            copies = [np.array(x, copy=True, order="K") for x in args]
            again = {n: np.array(x, copy=True, order="K") for n, x in kwargs.items()}
            assert outcome(self.donating, *copies, **again) == expected, "donated"
        return 4 if bound else 2


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("touching", ["last", "first"])
def test_hostile_calls(touching):
    compiled = {s: Compiled(s) for s in SUBJECTS}

    def work(say):
        calls, native, seed = 0, 0, 0
        warnings.simplefilter("ignore")  # in the child
        with guarded(touching) as taken:
            while calls < CALLS:
                seed += 1
                say(f"seed {seed}")
                cases = Cases(seed)
                args, kwargs = cases.call()
                k = compiled[cases.subject]
                before = k.call.slow_calls
                calls += k.check(args, kwargs, cases)
                native += k.call.slow_calls < before + 2
        assert taken() > calls
        assert native > CALLS / 8

    in_a_child(work)


# -- the rig itself --------------------------------------------------------------------------------


@pytest.mark.parametrize("touching", ["last", "first"])
@pytest.mark.parametrize("n", [1, 5, PAGE // 8, 3 * PAGE])
def test_what_is_out_of_bounds_ends_the_child(touching, n):
    import ctypes

    def touch(offset):
        def work(say):
            say(f"byte {offset}")
            with guarded(touching):
                a = np.zeros(n)
                ctypes.memset(a.ctypes.data + offset, 1, 1)

        return work

    for inside in (0, 8 * n - 1):
        in_a_child(touch(inside))
    outside = 8 * n if touching == "last" else -1
    with pytest.raises(AssertionError, match=f"SIGSEGV at byte {outside}"):
        in_a_child(touch(outside))


def test_freed_memory_ends_the_child():
    import ctypes

    def work(say):
        with guarded("last"):
            a = np.zeros(5)
            address = a.ctypes.data
            del a
            ctypes.memset(address, 1, 1)

    with pytest.raises(AssertionError, match="SIGSEGV"):
        in_a_child(work)


@pytest.mark.native
def test_a_kernel_that_reads_too_much_ends_the_child(monkeypatch):
    """A fault in the routine that copies strided arguments: one row too many."""
    from graphc.codegen import entry
    from graphc.runtime import entries, kernel, objects

    text = entry.TEXT.replace("    n = load(sizes)\n    step", "    n = load(sizes) + 1\n    step")
    assert text != entry.TEXT
    monkeypatch.setattr(entry, "TEXT", text)
    routines = objects.Native()
    for module in (kernel, entries):
        monkeypatch.setattr(module, "native", lambda: routines)
    k = graphc.compile(step)

    def work(say):
        with guarded("last"):
            for n in range(1, 60):
                w = every_other(np.ones((1, n)))
                for _ in range(3):
                    k(w, w)

    with pytest.raises(AssertionError, match="SIGSEGV"):
        in_a_child(work)
