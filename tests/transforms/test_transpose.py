import numpy as np
import pytest

from graphc.errors import GateError, VerifyError
from graphc.gates.elementwise import mul0, where
from graphc.gates.trigonometric import sin
from graphc.ir.graph import Builder, Value
from graphc.ir.reference import run_graph
from graphc.ir.types import f64
from graphc.transforms.transpose import transpose_linear


def test_cotangents_of_a_shared_value_are_added_in_a_fixed_order():
    texts = set()
    for _ in range(3):
        b = Builder()
        x, p, ct = b.input("x", f64[2]), b.input("p", f64[2]), b.input("ct", f64[2])
        y = mul0(x, p) + mul0(x, sin(p)) + (-x)
        (back,) = transpose_linear(b, [y], [ct], [x])
        texts.add(str(b.graph("g", {"x": back}, [p, ct])))
    assert len(texts) == 1


def test_transposing_twice_is_the_map_itself():
    b = Builder()
    x, p, ct = b.input("x", f64[2, 3]), b.input("p", f64[2, 3]), b.input("ct", f64[3])
    y = mul0(x, p).sum(0)
    (back,) = transpose_linear(b, [y], [ct], [x])
    (again,) = transpose_linear(b, [back], [x], [ct])
    graph = b.graph("g", {"y": y, "again": again}, [x, p])
    one, two = run_graph(graph, [np.arange(6.0).reshape(2, 3), np.linspace(-1, 1, 6).reshape(2, 3)])
    assert np.array_equal(one, two)


def test_unreached_inputs_are_zero():
    b = Builder()
    x, y, ct = b.input("x", f64[2]), b.input("y", f64["n"]), b.input("ct", f64[2])
    _, back = transpose_linear(b, [-x], [ct], [x, y])
    assert back.is_splat() and back.splat() == 0 and back.type == y.type


def test_outputs_and_cotangents_that_are_none():
    b = Builder()
    x, ct = b.input("x", f64[2]), b.input("ct", f64[2])
    (back,) = transpose_linear(b, [None, -x, x], [ct, None, ct], [x])
    assert back.node is ct.node


def test_the_condition_of_a_choice_is_kept():
    b = Builder()
    x, c, ct = b.input("x", f64[2]), b.input("c", f64[2]), b.input("ct", f64[2])
    from graphc.gates.elementwise import lt

    y = where(lt(c, c.constant(0)), x, x.zeros_like())
    (back,) = transpose_linear(b, [y], [ct], [x])
    assert back.node.op == "where" and back.node.args[0] is y.node.args[0]


def test_what_is_not_linear_has_no_transpose():
    b = Builder()
    x, ct = b.input("x", f64[2]), b.input("ct", f64[2])
    with pytest.raises(GateError, match="sin is not linear"):
        transpose_linear(b, [sin(x)], [ct], [x])


def test_a_cotangent_of_another_type_is_a_defect():
    b = Builder()
    x, ct = b.input("x", f64[2]), b.input("ct", f64[3])
    with pytest.raises(VerifyError, match="cotangent"):
        transpose_linear(b, [-x], [ct], [x])


def test_a_linear_input_that_is_an_output():
    b = Builder()
    x, ct = b.input("x", f64[2]), b.input("ct", f64[2])
    (back,) = transpose_linear(b, [x, x], [ct, ct], [x])
    assert isinstance(back, Value) and back.node.op == "add"
