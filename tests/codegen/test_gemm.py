"""Matrix products: the bits of `contract_reference` for every shape, layout and instruction set."""

import ctypes
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from graphc.codegen import target
from graphc.gates.contraction import contract_reference, contract_values
from graphc.ir.graph import Builder
from graphc.ir.types import DTYPES, evaluate, f64
from graphc.lower.loops import Contract, For, walk
from graphc.lower.matrix import IN_PLACE, matrices
from graphc.pipeline import Options, run_stages
from graphc.runtime import threads
from graphc.runtime.kernel import compile_graph

WIDE = target.Target("x86-64-v4", "+avx512f,+avx512dq,+avx512vl", True)
# "wide": tiles for 32 registers of 512 bits, in code that any processor with AVX2 runs
ISAS = ("host", "v3", "wide") if target.host().avx512 else ("host", "wide")
SPECS = ("ij,jk->ik", "ji,jk->ik", "ij,kj->ik", "ji,kj->ik", "ij,jk->ki", "ji,kj->ki")
SIZES = {"i": "m", "j": "k", "k": "n"}
BLOCKS = (255, 256, 257, 511, 512, 513, 769, 1025, 2049, 3330)


@pytest.fixture
def isa(request, monkeypatch):
    if request.param != "wide":
        return request.param
    if not target.host().x86:
        pytest.skip("these tiles are for x86")
    monkeypatch.setattr(target, "of", lambda isa: WIDE)
    return "host"


@pytest.fixture
def three(monkeypatch):
    """Three threads share whatever can be shared, however small it is."""
    monkeypatch.setattr(threads, "processors", lambda: 3)
    monkeypatch.setattr(threads, "LEAST_WORK", 0)
    assert threads.pool(3)[1] == 3
    return lambda kernel: replace(kernel, threads=3)


def product(spec, shapes, dtype="f64"):
    b = Builder()
    x, y = (b.input(name, DTYPES[dtype][shape]) for name, shape in zip("xy", shapes, strict=True))
    return b.graph("product", {"z": contract_values(x, y, spec)})


def compiled(spec, shapes, dtype, isa):
    return compile_graph(product(spec, shapes, dtype), Options(isa=isa))


def symbolic(spec):
    operands = spec.split("->")[0].split(",")
    return [tuple(SIZES[c] for c in letters) for letters in operands]


def values(shape, dtype, seed=0):
    """Numbers whose sums depend on their order, zeros of both signs among them."""
    r = np.random.default_rng(seed)
    if dtype in ("i64", "i32"):
        info = np.iinfo(dtype.replace("i", "int"))
        return r.integers(info.min, info.max, shape, info.dtype, endpoint=True)
    x = r.standard_normal(shape) * 10.0 ** r.integers(-3, 4, shape)
    x[r.random(shape) < 0.1] = 0.0
    x[r.random(shape) < 0.1] = -0.0
    return x.astype({"f64": np.float64, "f32": np.float32}[dtype])


@cache
def reference(m, n, k, dtype):
    """Operands (m, k) and (k, n) and their product; smaller ones are its corners."""
    a, b = values((m, k), dtype, 1), values((k, n), dtype, 2)
    wide = np.broadcast_to(a.T[:, :, None], (k, m, n)), np.broadcast_to(b[:, None, :], (k, m, n))
    return a, b, contract_reference(*wide, "chain" if dtype[0] == "f" else "any")


def laid(spec, a, b):
    """The operands as `spec` wants them, and what it makes of their product."""
    left, right = spec.split("->")[0].split(",")
    x, y = (a if left == "ij" else a.T), (b if right == "jk" else b.T)
    return np.ascontiguousarray(x), np.ascontiguousarray(y)


def same_bits(got, want):
    assert got.shape == want.shape
    assert got.tobytes() == np.ascontiguousarray(want).tobytes()


def check(kernel, spec, a, b, c):
    (got,) = kernel.run(list(laid(spec, a, b)))
    same_bits(got, c if spec.endswith("ik") else c.T)


EACH = [(spec, isa, dtype) for spec in SPECS for isa in ISAS for dtype in ("f64", "f32")]
INTEGERS = [(spec, "host", dtype) for spec in SPECS[:4] for dtype in ("i64", "i32")]


@pytest.mark.parametrize("spec, isa, dtype", EACH + INTEGERS, indirect=["isa"])
def test_small_sizes_known_at_the_call(spec, isa, dtype):
    """One kernel for all sizes: every remainder of rows and columns, and empty sums."""
    kernel = compiled(spec, symbolic(spec), dtype, isa)
    for k in (0, 1, 2, 3, 7, 8, 20):
        a, b, c = reference(20, 33, k, dtype)
        for m in range(21):
            for n in range(34) if m in (0, 1, 6) and k in (1, 7) else (m, 3, 9):
                check(kernel, spec, a[:m], b[:, :n], c[:m, :n])


@pytest.mark.parametrize("spec, isa, dtype", EACH, indirect=["isa"])
def test_blocks_of_k(spec, isa, dtype):
    kernel = compiled(spec, symbolic(spec), dtype, isa)
    for k in BLOCKS:
        a, b, c = reference(15, 37, k, dtype)
        for m, n in ((1, 1), (6, 8), (7, 17), (15, 37)):
            check(kernel, spec, a[:m], b[:, :n], c[:m, :n])


@pytest.mark.parametrize("spec, isa, dtype", EACH, indirect=["isa"])
def test_sums_that_wait_in_the_result_itself(spec, isa, dtype):
    """Those of the highest level do, unless two panels make the same columns."""
    kernel = compiled(spec, symbolic(spec), dtype, isa)
    for k in (257, 513, 769, 1025, 1281, 2100):
        a, b, c = reference(15, 80, k, dtype)
        for m, n in ((1, 8), (5, 16), (13, 24), (15, 32), (12, 33), (15, 40), (7, 63), (15, 80)):
            check(kernel, spec, a[:m], b[:, :n], c[:m, :n])


@pytest.mark.parametrize("spec, isa, dtype", EACH, indirect=["isa"])
def test_several_regions(spec, isa, dtype, three):
    """More rows and columns than a region has, on both sides of where operands are packed."""
    alone = compiled(spec, symbolic(spec), dtype, isa)
    for m, n, k in (
        (IN_PLACE, 530, 5),
        (IN_PLACE + 1, 1100, 5),
        (101, 70, 300),
        (50, 600, 513),
        (577, 40, 300),
        (1170, 20, 5),
    ):
        for kernel in (alone, three(alone)):
            check(kernel, spec, *reference(m, n, k, dtype))


@pytest.mark.parametrize("isa", ISAS, indirect=True)
@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (6, 8, 4), (7, 3, 300), (25, 16, 9), (64, 10, 100), (49, 97, 513)]
)
@pytest.mark.parametrize("spec", SPECS)
def test_sizes_known_before(spec, isa, shape, three):
    m, n, k = shape
    a, b, c = reference(m, n, k, "f64")
    x, y = laid(spec, a, b)
    kernel = compiled(spec, (x.shape, y.shape), "f64", isa)
    check(kernel, spec, a, b, c)
    check(three(kernel), spec, a, b, c)


@pytest.mark.parametrize("spec, isa, dtype", EACH + INTEGERS[:2], indirect=["isa"])
@pytest.mark.parametrize("rows", [16, "m"])
def test_threads_share_k(spec, isa, dtype, rows, three):
    """Few columns, many blocks of k: a part is a subtree of the blocks; the last is shorter."""
    if spec.endswith("ki") and rows == "m":
        pytest.skip("columns are known only at the call")
    for n, blocks in ((20, (769, 1024, 1025, 3330)), (3, (5 * 256, 2049))):
        sizes = {"i": rows, "k": n, "j": "k"}
        shapes = [tuple(sizes[c] for c in o) for o in spec.split("->")[0].split(",")]
        kernel = three(compiled(spec, shapes, dtype, isa))
        assert kernel.program.partials != 0
        for k in blocks:
            for m in (16,) if rows == 16 else (1, 16, 1000):  # 1000: too many numbers to share k
                check(kernel, spec, *reference(m, n, k, dtype))


@pytest.mark.parametrize("isa", ISAS, indirect=True)
@pytest.mark.parametrize(
    "spec",
    ["kij,nkj->nki", "nki,nkj->kij", "nij,njk->nik", "nij,njk->ikn", "abj,jk->abk", "abj,kj->kab"],
)
@pytest.mark.parametrize("static", [True, False])
def test_products_around_products(spec, isa, static, three):
    letters = dict(zip("kijnab", (5, 9, 11, 12, 4, 13), strict=True))
    operands = spec.split("->")[0].split(",")
    a, b = (
        values([letters[c] for c in operand], "f64", seed) for seed, operand in enumerate(operands)
    )
    shapes = [x.shape if static else tuple(o) for x, o in zip((a, b), operands, strict=True)]
    kernel = compiled(spec, shapes, "f64", isa)
    graph = product(spec, [x.shape for x in (a, b)])
    (node,) = [n for n in graph.nodes if n.op == "contract"]
    want = node.gate.reference(node, [a, b] if node.args[0]["name"] == "x" else [b, a], {})
    same_bits(kernel.run([a, b])[0], want)
    same_bits(three(kernel).run([a, b])[0], want)


def test_a_view_is_read_as_it_lies():
    b = Builder()
    x, y = b.input("x", f64[40, 30]), b.input("y", f64[30, 64])
    part = b.apply("slice", x, starts=(3, 1), steps=(2, 3), shape=(17, 9))
    other = b.apply("slice", y, starts=(2, 5), steps=(3, 1), shape=(9, 50))
    kernel = compile_graph(b.graph("views", {"z": contract_values(part, other, "ij,jk->ik")}))
    u, v = values((40, 30), "f64", 3), values((30, 64), "f64", 4)
    (got,) = kernel.run([u, v])
    s, t = u[3:37:2, 1:28:3], v[2:29:3, 5:55]
    shape = 9, 17, 50
    wide = np.broadcast_to(s.T[:, :, None], shape), np.broadcast_to(t[:, None, :], shape)
    same_bits(got, contract_reference(*wide, "chain"))


def test_special_numbers_meet_only_their_own_rows_and_columns():
    a, b = values((13, 6), "f64", 5), values((6, 11), "f64", 6)
    a[4], b[:, 7] = np.inf, np.nan
    (got,) = compiled("ij,jk->ik", (a.shape, b.shape), "f64", "host").run([a, b])
    assert np.isnan(got[:, 7]).all()
    rest = np.delete(np.delete(got, 4, 0), 7, 1)
    assert np.isfinite(rest).all()


def test_roles_do_not_depend_on_which_operand_comes_first():
    found = []
    for spec, shapes in (("ij,jk->ik", [(3, 4), (4, 5)]), ("jk,ij->ik", [(4, 5), (3, 4)])):
        program = run_stages(product(spec, shapes), Options(), last="fuse")
        p = matrices(program.kernels[0].body[0])
        found.append((p.rows, p.columns, p.left_kind, p.right_kind, p.left.buffer, p.packs_right))
    roles = (3, 5, "ahead", "beside")
    assert found == [(*roles, "x", "always"), (*roles, "y", "always")]


def only_product(spec, shapes):
    program = run_stages(product(spec, shapes), Options(), last="fuse")
    (found,) = [s for k in program.kernels for s, _ in walk(k.body) if isinstance(s, Contract)]
    return matrices(found)


def test_letters_that_walk_memory_as_one_are_one():
    p = only_product("abj,jk->abk", [("a", 6, 40), (40, 16)])
    assert (str(p.rows), p.columns, p.outer) == ("6*a", 16, ())
    p = only_product("nij,njk->nik", [("n", 16, 40), ("n", 40, 16)])
    assert [str(size) for _, size in p.outer] == ["n"]
    p = only_product("abj,jk->bak", [(4, 6, 40), (40, 16)])  # not in the result's order
    assert (p.rows, [size for _, size in p.outer]) == (4, [6])


@pytest.mark.parametrize("shape", [(1, 1, 1), (30, 9, 4), (48, 100, 256), (49, 33, 700)])
@pytest.mark.parametrize("isa", ISAS, indirect=True)
@pytest.mark.parametrize("spec", SPECS)
def test_nothing_is_written_beyond_the_arena(spec, isa, shape):
    m, n, k = shape
    a, b, c = reference(m, n, k, "f64")
    operands = laid(spec, a, b)
    kernel = compiled(spec, [x.shape for x in operands], "f64", isa)
    size = evaluate(kernel.program.arena, {})
    memory = np.full(size + 4096 + 64, 0xA5, np.uint8)
    start = -memory.ctypes.data % 64
    out = np.empty(c.shape if spec.endswith("ik") else c.T.shape)
    pointers = [x.ctypes.data for x in (memory[start:], *operands, out)]
    slots = (ctypes.c_int64 * 7)(0, 0, pointers[0], 0, *pointers[1:])
    assert kernel.entry(slots) == 0
    same_bits(out, c if spec.endswith("ik") else c.T)
    assert (memory[start + size :] == 0xA5).all()


# -- tiny ones are loops --------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["nij,njk->nik", "ij,njk->nik", "nij,kj->nik", "nij,njk->kni"])
@pytest.mark.parametrize("skip", [frozenset(), frozenset({"unroll"}), frozenset({"fuse"})])
@pytest.mark.parametrize("n", [0, 1, 7, 100])
def test_many_tiny_matrices(spec, skip, n):
    letters = {"n": n, "i": 3, "j": 5, "k": 4}
    operands = spec.split("->")[0].split(",")
    a, b = (values([letters[c] for c in o], "f64", seed) for seed, o in enumerate(operands))
    shapes = [tuple("n" if c == "n" else letters[c] for c in o) for o in operands]
    graph = product(spec, shapes)
    kernel = compile_graph(graph, Options(skip=skip))
    statements = [s for k in kernel.program.kernels for s, _ in walk(k.body)]
    assert not any(isinstance(s, Contract) for s in statements)
    if not skip:  # all written out: lanes are the products
        loops = [s for s in statements if isinstance(s, For)]
        assert [s.mode for s in loops if str(s.size) == "n"] == ["vector"]
    (node,) = [x for x in graph.nodes if x.op == "contract"]
    want = node.gate.reference(node, [a, b] if node.args[0]["name"] == "x" else [b, a], {})
    same_bits(kernel.run([a, b])[0], want)
