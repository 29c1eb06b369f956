"""Hostile calls: every dtype, byte order, stride, overlap, subclass, count and keyword.

Each call is made several times: Python serves the first ones,
native code what it knows by then. All
All must agree: the right numbers, or the same typed error; and no input is changed.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import graphc
from graphc.errors import GraphcError
from graphc.runtime.function import Function

N, M = 4, 3


@graphc.graph
def subject(x: graphc.f64["n", "m"], y: graphc.f64["n"], s: graphc.f64 = 2.0):
    return {"z": s * x + y[:, None], "t": [y * 2.0, s * s]}


@graphc.graph
def typed(x: graphc.f32["n", 3], i: graphc.i64["n"], j: graphc.i32, flag: graphc.bool_):
    return (x + x, i + j, flag & (j > 0))


def base(*shape, dtype=np.float64):
    return (np.arange(np.prod(shape)) % 5).astype(dtype).reshape(shape)


def misaligned(a):
    memory = np.zeros(a.nbytes + 1, np.uint8)
    view = memory[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


class Subclass(np.ndarray):
    pass


class Arrayish:
    def __init__(self, value):
        self.value = value

    def __array__(self, dtype=None, copy=None):
        return self.value


class Raises:
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("no array today")


class Float(float):
    pass


NUMBERS = ["?", *"bhilq", *"BHILQ", "e", "f", "d", "g", "F", "D", "O", ">f8", ">f4", ">i8", "<f8"]


def arrays(*shape):
    """Every kind of array of a shape, good and bad."""
    a = base(*shape)
    made = {f"dtype {d}": a.astype(d) for d in NUMBERS}
    made |= {
        "strings": a.astype("U3"), "bytes": a.astype("S3"), "dates": a.astype("M8[s]"),
        "durations": a.astype("m8[s]"), "records": np.zeros(shape, [("a", "f8"), ("b", "i4")]),
        "fortran": np.asfortranarray(a), "reversed": a[::-1], "step": base(2 * shape[0],
        *shape[1:])[::2],
        "inner step": base(*shape[:-1], 2 * shape[-1])[..., ::2],
        "zero stride": np.broadcast_to(2.0, shape),
        "transposed": base(*shape[::-1]).T, "misaligned": misaligned(a), "read-only": read_only(a),
        "backwards": base(*shape)[..., ::-1], "subclass": a.view(Subclass),
        "masked": np.ma.masked_array(a),
        "list": a.tolist(), "tuple": tuple(a.tolist()), "arrayish": Arrayish(a), "raises": Raises(),
        "none": None, "string": "abc", "float": 1.5, "object": object(), "set": {1.0},
        "dict": {"x": a},
        "other rank": a[None], "scalar array": np.array(1.0), "longer": base(shape[0] + 1,
        *shape[1:]),
        "empty": base(0, *shape[1:]), "one": base(1, *shape[1:]), "nan": np.full(shape, np.nan),
        "swapped strided": a.astype(">f8")[::-1], "type": np.ndarray, "jagged": [[1.0], [1.0, 2.0]],
        "shared": np.lib.stride_tricks.as_strided(base(sum(shape)), shape, (8,) * len(shape)),
        "generator": (v for v in a.tolist()), "memoryview": memoryview(a), "huge": [10**400],
    }  # fmt: skip
    return made


def numbers():
    made = {f"scalar {d}": np.dtype(d).type(1) for d in [*"?bhilqBHILQefdg", "F"]}
    made |= {
        "float": 1.5, "int": 3, "bool": True, "big": 2**40, "huge": 10**400, "subclass": Float(2.5),
        "nan": float("nan"), "0-d": np.array(2.5), "0-d int": np.array(2),
        "0-d swapped": np.array(2.5, ">f8"),
        "1-d": np.array([1.5]), "none": None, "string": "1.5", "list": [1.5], "complex": 1j,
        "0-d strided": np.arange(3.0)[1, ...], "negative zero": -0.0, "object": object(),
        "raises": Raises(),
        "missing": ...,
    }  # fmt: skip
    return made


def bytes_of(x):
    if isinstance(x, np.ndarray):
        return (x.dtype.str, x.shape, x.strides, x.tobytes())
    return repr(x) if isinstance(x, (float, int, list, tuple, str)) else None


def outcome(call, args, kwargs):
    try:
        result = call(*args, **kwargs)
    except (GraphcError, RuntimeError) as error:
        return type(error), str(error)
    except (TypeError, ValueError, OverflowError) as error:
        return "python", type(error), str(error)
    leaves = graphc.dsl.tree.flatten(result)[0]
    return [(type(a), a.dtype, a.shape, a.tobytes()) for a in leaves]


def agree(k, args, kwargs):
    """The outcome of a call, the same from Python, and from native code where it serves it."""
    before = [bytes_of(x) for x in (*args, *kwargs.values())]
    expected = outcome(lambda *a, **b: Function.__call__(k, *a, **b), args, kwargs)
    for _ in range(3):
        got = outcome(k, args, kwargs)
        assert got == expected, (args, kwargs)
    assert [bytes_of(x) for x in (*args, *kwargs.values())] == before
    return expected


def as_numbers(x):
    return np.asarray(x).astype(np.float64)


@pytest.fixture(scope="module")
def kernel():
    return graphc.compile(subject)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", range(4))
def test_arrays_and_numbers(kernel, part):
    served = 0
    xs, ys, ss = arrays(N, M), arrays(N), numbers()
    combinations = list(itertools.product(xs, ys, ss))
    rng = np.random.default_rng(part)
    for at in rng.choice(len(combinations), 700, replace=False):
        x, y, s = (table[name] for table, name in zip((xs, ys, ss), combinations[at]))
        args = (x, y) if s is ... else (x, y, s)
        if "generator" in combinations[at]:
            continue
        found = agree(kernel, args, {})
        served += isinstance(found, list)
    assert served > 20


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("place", ["x", "y", "s"])
def test_one_at_a_time(kernel, place):
    """Each value in an otherwise good call; what is accepted is what NumPy computes."""
    table = {"x": arrays(N, M), "y": arrays(N), "s": numbers()}[place]
    good = {"x": base(N, M), "y": base(N), "s": 0.5}
    accepted = set()
    for name, value in table.items():
        if value is ... or name == "generator":
            continue
        given = {**good, place: value}
        found = agree(kernel, tuple(given.values()), {})
        agree(kernel, (given["x"],), {"s": given["s"], "y": given["y"]})
        if isinstance(found, list):
            accepted.add(name)
            given = {key: as_numbers(v.value if isinstance(v, Arrayish) else v)
                     for key, v in given.items()}  # fmt: skip
            z = given["s"] * given["x"] + given["y"][:, None]
            assert np.frombuffer(found[0][3]).tobytes() == z.tobytes()
    refused = {"dtype g", "dtype F", "dtype O", "strings", "subclass", "masked", "none", "raises"}
    assert not accepted & (refused - {"subclass"} if place == "s" else refused)
    wanted = {"float", "int", "bool", "0-d"} if place == "s" else {
        "fortran", "reversed", "step", "misaligned", "read-only", "dtype >f8", "dtype b", "list",
        "zero stride", "transposed", "shared"}  # fmt: skip
    assert wanted <= accepted


CALLS = [
    ((), {}), ((1,), {}), ((1, 2), {"z": 3}), ((0, 1, 2, 3), {}), ((0, 1), {"x": 2}), ((0,),
    {"y": 1, "q": 2}),
    ((), {"y": 1, "x": 0}), ((), {"s": 2, "y": 1, "x": 0}), ((0, 1), {"s": 2}), ((0,), {"y": 1}),
    ((0, 1, 2), {"s": 2}), ((0, 1), {"out": 5}), ((0, 1), {"": 2}), ((0, 1, 2), {}),
]  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_counts_and_names(kernel, call):
    values = [base(N, M), base(N), 1.5, base(N)]
    args = tuple(values[i % 4] for i in call[0])
    kwargs = {name: values[i % 4] for name, i in call[1].items()}
    agree(kernel, args, kwargs)


def test_names_that_are_not_interned(kernel):
    name = "".join(["y"])
    assert agree(kernel, (base(N, M),), {name: base(N), "".join("s"): 2.0})


@pytest.mark.filterwarnings("ignore")
def test_other_dtypes():
    k = graphc.compile(typed)
    xs, indices = arrays(N, 3), arrays(N)
    ints = {"int": 2, "bool": True, "float": 1.0, "i4": np.int32(3), "i8": np.int64(3),
    "big": 2**31,
            "least": -(2**31), "huge": 2**70, "0-d": np.array(1, np.int32),
            "u1": np.uint8(3)}  # fmt: skip
    flags = {"bool": True, "int": 1, "np": np.bool_(False), "0-d": np.array(True), "float": 0.0}
    good = (base(N, 3, dtype=np.float32), base(N, dtype=np.int64), 1, True)
    served = 0
    for place, table in enumerate((xs, indices, ints, flags)):
        for name, value in table.items():
            if name != "generator":
                args = (*good[:place], value, *good[place + 1 :])
                served += isinstance(agree(k, args, {}), list)
    for j, flag in itertools.product(ints.values(), flags.values()):
        served += isinstance(agree(k, (*good[:2], j, flag), {}), list)
    assert served > 30


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (1, 1), (3, 0), (1, 5), (2, 2), (300, 40)])
def test_sizes(kernel, shape):
    for x in (base(*shape), np.asfortranarray(base(*shape)), base(*shape)[::-1, ::-1]):
        found = agree(kernel, (x, base(shape[0]), 3.0), {})
        z = 3.0 * x + base(shape[0])[:, None]
        assert found[0][3] == z.tobytes() and found[0][2] == shape


def test_overlapping_arguments(kernel):
    memory = base(40)
    for x in (
        memory[:12].reshape(4, 3),
        memory[2:14].reshape(4, 3),
        memory[:24].reshape(4, 6)[:, ::2],
    ):
        for y in (memory[:4], memory[3:7], memory[:8:2], memory[7:3:-1]):
            agree(kernel, (x, y), {})
