"""Machine operations: the interpreter's bits, at every width and with every instruction set."""

import ctypes

import numpy as np
import pytest

from graphc.codegen import target
from graphc.codegen.llvm import Function, Module, register
from graphc.codegen.operations import write_body
from graphc.ir import scalar as s
from graphc.ir.reference import run_scalar
from graphc.ir.scalar import trace_scalar
from graphc.ir.types import f32, f64, i32, i64
from graphc.runtime.jit import Jit, machine, object_image

ISAS = ("v3", "host")
WIDTHS = {f64: (1, 2, 4, 8, 16), f32: (1, 4, 8, 16, 32)}
MEMORY = {"f64": "double", "f32": "float", "i64": "i64", "i32": "i32"}


def compiled(graph, width, isa):
    """The body as a native loop over arrays whose length is a multiple of the width."""
    here = target.of(isa)
    module = Module(here)
    params = [("ptr", f"x{i}") for i in range(len(graph.params))]
    fn = Function(module, "run", "void", [*params, ("ptr", "out"), ("i64", "n")], linkage="")

    def body(i, _):
        args = []
        for k, d in enumerate(graph.params):
            place = fn.do(f"getelementptr {MEMORY[d.name]}, ptr %x{k}, i64 {i}")
            args.append(fn.do(f"load {register(d, width)}, ptr {place}, align 1"))
        value = write_body(fn, graph, args, width)
        place = fn.do(f"getelementptr {MEMORY[graph.dtype.name]}, ptr %out, i64 {i}")
        fn.say(f"store {register(graph.dtype, width)} {value}, ptr {place}, align 1")
        return []

    fn.loop("0", "%n", width, [], body)
    fn.say("ret void")
    fn.close()
    made = machine(here.cpu, here.features, jit=True)
    library = Jit.link_objects((object_image(module.text(), made),), ("run",))

    def run(*arrays):
        out = np.empty(arrays[0].shape, graph.dtype.numpy)
        pointers = [ctypes.c_void_p(a.ctypes.data) for a in (*arrays, out)]
        ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(pointers), ctypes.c_int64)(
            library.address("run")
        )(*pointers, out.size)
        return out

    return run


def same_everywhere(body, *arrays, widths=None):
    dtypes = tuple({8: (f64, i64), 4: (f32, i32)}[a.itemsize][a.dtype.kind == "i"] for a in arrays)
    graph = trace_scalar("body", body, dtypes)
    n = arrays[0].size // 32 * 32
    arrays = [np.ascontiguousarray(a[:n]) for a in arrays]
    expected = run_scalar(graph, *arrays)
    for isa in ISAS:
        for width in widths or WIDTHS[f64 if arrays[0].itemsize == 8 else f32]:
            got = compiled(graph, width, isa)(*arrays)
            np.testing.assert_array_equal(got, expected, err_msg=f"{isa} width {width}")
            np.testing.assert_array_equal(np.signbit(got) & ~np.isnan(got),
                                          np.signbit(expected) & ~np.isnan(expected))  # fmt: skip
    return expected


def patterns(dtype, count=4096):
    rng = np.random.default_rng(4)
    bits = rng.integers(0, 2 ** (8 * dtype.itemsize), count, dtype=f"u{dtype.itemsize}")
    x = bits.view(dtype.numpy)
    info = np.finfo(dtype.numpy)
    edges = [0.0, -0.0, np.inf, -np.inf, np.nan, info.tiny, -info.tiny, info.max, 1.0, 2.0]
    edges += [info.smallest_subnormal, -info.smallest_subnormal, info.tiny / 2, 1 - info.epsneg]
    return np.concatenate([np.array(edges * 4, dtype.numpy), x])


@pytest.mark.parametrize("dtype", [f64, f32])
def test_scale(dtype):
    most = s.SCALED[dtype.name]
    rng = np.random.default_rng(5)
    a = (rng.uniform(0.5, 2, 4096) * np.exp2(rng.integers(-40, 40, 4096))).astype(dtype.numpy)
    a *= rng.choice([-1, 1], 4096).astype(dtype.numpy)
    n = rng.uniform(-most, most, 4096).astype(dtype.numpy)
    a[:64] = np.resize([0.0, -0.0, np.nan], 64)
    a[64:96], n[64:96] = np.nan, np.nan
    got = same_everywhere(s.scale, a, n)
    with np.errstate(all="ignore"):
        exact = a.astype(np.longdouble) * np.exp2(np.floor(n).astype(np.longdouble))
        np.testing.assert_array_equal(got, exact.astype(dtype.numpy))


@pytest.mark.parametrize("bounds", [None, (-3, 5), (-1, 0), "subnormal", "all"])
@pytest.mark.parametrize("dtype", [f64, f32])
def test_scale_by_whole(dtype, bounds):
    info = np.finfo(dtype.numpy)
    lowest, most = int(info.minexp) - int(info.nmant) - 20, s.SCALED[dtype.name]
    named = {None: (-most, most), "subnormal": (lowest, 0), "all": (lowest, int(info.maxexp))}
    low, high = named.get(bounds, bounds)
    rng = np.random.default_rng(5)
    a = (rng.uniform(0.5, 1, 4096) * np.exp2(rng.integers(-15, 16, 4096))).astype(dtype.numpy)
    a *= rng.choice([-1, 1], 4096).astype(dtype.numpy)
    n = rng.integers(low, high + 1, 4096).astype(dtype.numpy)
    n[96:192], n[192:288] = low, high
    a[:64] = np.resize([0.0, -0.0, np.nan], 64)
    a[64:96], n[64:96] = np.nan, np.nan
    within = None if bounds is None else (low, high)
    got = same_everywhere(lambda a, n: s.scale_by_whole(a, n, within), a, n)
    with np.errstate(all="ignore"):
        exact = a.astype(np.longdouble) * np.exp2(n.astype(np.longdouble))
        np.testing.assert_array_equal(got, exact.astype(dtype.numpy))


def test_broken_promises_are_found():
    graph = trace_scalar("body", lambda a, n: s.scale_by_whole(a, n, (-9, 9)), (f64, f64))
    assert run_scalar(graph, np.r_[3.0, 1e-9, 0.0], np.r_[-9.0, 2.0, -5.0]).tolist()[0] == 3 / 512
    for a, n in ((3.0, 0.5), (3.0, -10.0), (3.0, 10.0), (1e-9, -1.0), (1e9, 1.0)):
        with pytest.raises(ValueError, match=r"scale whole:-9\.\.9"):
            run_scalar(graph, np.r_[1.0, a], np.r_[1.0, n])


@pytest.mark.parametrize("dtype", [f64, f32])
def test_exponent_and_mantissa(dtype):
    x = patterns(dtype)
    k, m = same_everywhere(s.exponent, x), same_everywhere(s.mantissa, x)
    x = x[: m.size]
    inside = (x > 0) & np.isfinite(x)
    assert ((m[inside] >= 1) & (m[inside] < 2)).all()
    wide = m[inside].astype(np.longdouble) * np.exp2(k[inside].astype(np.longdouble))
    np.testing.assert_array_equal(wide, x[inside].astype(np.longdouble))
    assert k[:6].tolist()[:4] == [-np.inf, -np.inf, np.inf, np.inf] and np.isnan(k[4])
    assert m[:3].tolist() == [1, -1, 1] and np.isnan(m[3:5]).all()


@pytest.mark.parametrize("dtype, sizes", [(f64, (2, 4, 8, 16)), (f32, (2, 8, 16, 32))])
def test_lookup(dtype, sizes):
    index = np.random.default_rng(6).integers(-(2**31), 2**31, 256)
    index = index.astype(i64.numpy if dtype is f64 else i32.numpy)
    for size in sizes:
        table = [1.5 * i - 3 for i in range(size)]
        got = same_everywhere(lambda i, table=table: s.lookup(i, table), index)
        np.testing.assert_array_equal(got, np.array(table, dtype.numpy)[index % size])


@pytest.mark.parametrize("count", [2, 3, 4])
def test_lookups_by_one_index(count):
    index = np.random.default_rng(7).integers(-(2**31), 2**31, 256)
    tables = [[1.5 * i - 3 * j for i in range(16)] for j in range(count)]
    tables[-1] = tables[-1][: 16 if count < 4 else 8]  # of another size: not a column of the others

    def body(i):
        found = [s.lookup(i, table) for table in tables]
        total = found[0]
        for j, v in enumerate(found[1:], 1):
            total = s.fma(v, 1000.0**j, total)
        return total

    same_everywhere(body, index)


def test_text_of_a_lookup_parses_back():
    from graphc.lower.loop_text import _parse_statement, statement_text
    from graphc.lower.loops import Let, let

    graph = trace_scalar("body", lambda i: s.lookup(i, [1.0, -0.0]), (i64,))
    made = let("%v", graph.code[0], ("%i",))
    assert isinstance(made, Let) and _parse_statement(statement_text(made)) == made


def test_text_of_a_scale_parses_back():
    from graphc.lower.loop_text import _parse_statement, statement_text
    from graphc.lower.loops import Let, let

    for within in (None, (-5, 0)):
        graph = trace_scalar("body", lambda a, w=within: s.scale_by_whole(a, a, w), (f64,))
        made = let("%v", graph.code[0], ("%a",) * 2)
        assert isinstance(made, Let) and _parse_statement(statement_text(made)) == made


@pytest.mark.parametrize("dtype", [i64, i32], ids=str)
@pytest.mark.parametrize("shift", [lambda a, n: a << n, s.lshr, lambda a, n: a >> n],
                         ids=["shl", "lshr", "ashr"])  # fmt: skip
def test_shifts_by_any_count(shift, dtype):
    rng = np.random.default_rng(3)
    info = np.iinfo(dtype.numpy)
    counts = np.concatenate([np.arange(-70, 135), [info.min, info.max, info.min + 1, 2**31 - 1]])
    counts = np.tile(counts, 9).astype(dtype.numpy)
    a = rng.integers(info.min, info.max, counts.size, dtype.numpy)
    same_everywhere(shift, a, counts)
