"""Small graphs, each of which once gave other bits than the reference, or none."""

import numpy as np
import pytest

from graphc.errors import DTypeError
from graphc.gates.contraction import contract_order
from graphc.ir.graph import Builder
from graphc.ir.reference import run_graph, sizes_of
from graphc.ir.types import bool_, f32, f64, i32, i64, size_floordiv
from graphc.ir.verify import verify
from graphc.lower.interpreter import run_program
from graphc.pipeline import Options
from graphc.runtime.kernel import compile_graph
from tests.random_checks import same
from tests.random_graphs import user_gate


def agree(outputs, *args, builder, skip=()):
    """Compiled code and the loops give the reference's bits."""
    graph = builder.graph("case", outputs)
    kernel = compile_graph(graph, Options(skip=frozenset(skip)))
    args = [np.ascontiguousarray(a).reshape(np.shape(a)) for a in args]
    expected = run_graph(graph, args)
    sizes = sizes_of(graph, args)
    for got in (kernel.run(args), run_program(kernel.program, args, sizes)):
        assert all(same(a, b) for a, b in zip(got, expected, strict=True))


def normals(*shape):
    return np.random.default_rng(0).normal(size=shape)


PERMUTED = ["ab,bqap->bpq", "pbqa,ab->qbp", "ab,ab->b", "ba,cba->cb", "abc,a->cb"]


@pytest.mark.parametrize("spec", PERMUTED)
def test_a_vector_product_whose_result_is_permuted(spec):
    """A row of the accumulator is a row of the result, whatever the order of the operand's axes."""
    sizes = {"a": 5, "b": 3, "c": 2, "p": 4, "q": 6}
    left, right = spec.split("->")[0].split(",")
    shapes = [tuple(sizes[c] for c in letters) for letters in (left, right)]
    b = Builder()
    x, y = b.input("x", f64[shapes[0]]), b.input("y", f64[shapes[1]])
    z = b.apply("contract", x, y, spec=spec, order=contract_order(spec, x.type))
    agree({"z": z}, normals(*shapes[0]), normals(*shapes[1]), builder=b)


@pytest.mark.parametrize("shape", [(1, 9, 1), (70, 1), (9, 1, 1)])
def test_rows_are_summed_in_their_order_when_one_column_is_left(shape):
    """Axes of size 1 take no loop, but the order `rows` stays that of an array."""
    axis = shape.index(max(shape))
    b = Builder()
    x = b.input("x", f32[shape])
    agree({"y": x.sum(axis)}, normals(*shape).astype("f4"), builder=b)


def test_a_chain_over_one_column():
    b = Builder()
    x, y = b.input("x", f32["n"]), b.input("y", f32[1, "n", 1])
    z = b.apply("contract", x, y, spec="a,qap->pq", order="chain")
    agree({"z": z}, normals(7).astype("f4"), normals(1, 7, 1).astype("f4"), builder=b)


def test_the_product_of_no_rows_is_one():
    b = Builder()
    x = b.input("x", f32["n", 6])
    agree({"y": b.apply("prod", x, axis=0, order="rows")}, np.zeros((0, 6), "f4"), builder=b)


def test_a_strided_read_in_a_written_out_loop():
    """Rows of an input are asked for ahead of time; an address for each lane cannot be."""
    b = Builder()
    x, y = b.input("x", i32[1, 6, 6]), b.input("y", f32[1, 3])
    cut = b.apply("slice", x, starts=(0, 1, 0), shape=(1, 3, 3), steps=(-3, 2, 2))
    numbers = np.arange(36, dtype="i4").reshape(1, 6, 6)
    agree({"cut": cut, "m": b.apply("le", y, y)}, numbers, np.zeros((1, 3), "f4"), builder=b)


def test_an_accumulator_over_an_empty_axis():
    b = Builder()
    x = b.input("x", f32[1, "n", "n", 0])
    index = b.apply("argmax", x, axis=1)
    agree({"i": index}, np.zeros((1, 4, 4, 0), "f4"), builder=b)


def test_a_fixed_place_in_the_scratch_of_a_row_is_read_anew():
    """A column of a row's scratch is the same place in each iteration, but not the same value."""
    b = Builder()
    x, v = b.input("x", f64[70, 3]), b.input("v", i64[70, 3])
    low = b.apply("min", x, axis=0, order="any")
    column = b.apply("slice", v.cast(i32), starts=(0, 2), shape=(70, 1), steps=(1, -1))
    numbers = np.arange(210).reshape(70, 3)
    agree({"column": column, "low": low}, normals(70, 3), numbers, builder=b)


def test_infinities_of_a_contraction_raise_no_warning():
    """The reference of a contraction meets inf - inf in silence, as all others do."""
    b = Builder()
    x, y = b.input("x", f64["n"]), b.input("y", f64["n"])
    z = b.apply("contract", x, y, spec="i,i->", order="lanes")
    values = np.resize([np.inf, -np.inf, np.nan, 1e308], 40)
    agree({"z": z}, values, np.ones(40), builder=b)


def test_composites_and_scatters_check_their_dtypes():
    """Where types cannot work, the error comes when the node is made."""
    b = Builder()
    whole, truth = b.input("i", i64[3]), b.input("p", bool_[3])
    for op, x in (("logsumexp", whole), ("logsumexp", truth), ("argmax", truth), ("argmin", truth)):
        with pytest.raises(DTypeError, match="not defined on"):
            b.apply(op, x, axis=0)
    with pytest.raises(DTypeError, match="bool"):
        b.apply("scatter_add", truth, whole, axis=0, shape=(4,))


def test_the_graphs_of_a_gate_may_use_the_sizes_around_them():
    """A user's gate on a slice has inputs of derived sizes only."""
    b = Builder()
    x = b.input("x", f64["n"])
    half = (x.shape[0] + 1) // 2
    y = b.apply("slice", x, starts=(0,), shape=(half,), steps=(2,))
    forward, backward = user_gate(y.node.type)
    z = b.apply("call", y, y, forward=forward, backward=backward, label="mine")
    verify(b.graph("case", {"z": z}))
    agree({"z": z}, normals(9), builder=b)


def test_a_size_divided_by_an_empty_one_is_zero():
    """As of integers; the processor would trap and end the process."""
    b = Builder()
    x = b.input("x", f64["n", "m"])
    quotient = size_floordiv(*x.shape)
    outputs = {"q": b.size(quotient), "row": b.constant(1.5, f64[(quotient,)])}
    for shape in ((4, 0), (4, 2), (0, 3), (7, 3), (0, 0)):
        agree(outputs, np.zeros(shape), builder=b)


def test_offsets_of_symbolic_size_are_cheap_to_compile():
    """Many temporaries of many symbolic sizes: their offsets are computed once, by shifts."""
    b = Builder()
    x = b.input("x", f64["n", "m"])
    for i in range(8):
        x = x - x.sum(i % 2).along(i % 2, x)
    agree({"x": x}, normals(5, 9), builder=b)
    program = compile_graph(b.graph("case", {"x": x})).program
    from graphc.codegen.kernels import emit

    assert "sdiv" not in emit(program)


def test_a_smallest_along_an_axis_of_an_array_without_elements_beside_another():
    """Its accumulator has no elements, and went where the loop next to its own was written out."""
    b = Builder()
    x, y = b.input("x", f64[9, 9, 9]), b.input("y", f64[9, 9, 0])
    z = b.input("z", f64[9, 1, 1, 0])
    rows = b.apply("max", x, axis=2, order="any")
    outputs = {
        "a": b.apply("min", y, axis=0, order="any"),
        "b": b.apply("min", rows, axis=0, order="any"),
        "c": z,
    }
    agree(outputs, normals(9, 9, 9), normals(9, 9, 0), normals(9, 1, 1, 0), builder=b)


def test_each_iteration_of_a_block_has_its_own_row_of_running_values():
    """A loop in blocks gave all of them the room of one."""
    b = Builder()
    x, v = b.input("x", f32[3, 3]), b.input("v", i64[3, 8, 8])
    most = b.apply("max", x, axis=0, order="any")
    run = b.apply("cumsum", v, axis=1, reverse=True)
    numbers = np.arange(192).reshape(3, 8, 8)
    agree({"most": most, "run": run}, normals(3, 3).astype("f4"), numbers, builder=b)


def test_a_partial_vector_of_one_number_that_was_cut_writes_no_more():
    """LLVM made a store of 8 bytes of it, over what the iteration before had written."""
    b = Builder()
    x = b.input("x", i64[9, 9])
    run = b.apply("cumsum", x, axis=0, reverse=True)
    numbers = np.arange(81).reshape(9, 9) % 7
    agree({"run": run, "cut": run.cast(i32), "more": run * x}, numbers, builder=b)
