import pytest

from graphc.errors import VerifyError
from graphc.gates.trigonometric import sin
from graphc.ir.graph import Builder, Graph, Node
from graphc.ir.types import Dim, TensorType, f32, f64
from graphc.ir.verify import verify
from tests.transforms.cases import CASES


def made(*outputs, inputs=None, name="g"):
    return Graph(name, tuple(inputs), tuple((f"y{i}", n) for i, n in enumerate(outputs)))


def pair():
    b = Builder()
    x = b.input("x", f64["n"])
    return x.node, sin(x).node


@pytest.mark.parametrize("name", CASES)
def test_good_graphs_pass(name):
    verify(CASES[name])


def test_a_wrong_type():
    x, _ = pair()
    wrong = Node("sin", (x,), (), f32["n"])
    with pytest.raises(
        VerifyError, match=r"graph g: %1 = sin %x : f32\[n\]: the gate derives f64\[n\]"
    ):
        verify(made(wrong, inputs=[x]))


def test_operands_that_do_not_fit():
    x, y = pair()
    wrong = Node("add", (y, Node("input", (), (("name", "z"),), f64[3])), (), f64["n"])
    with pytest.raises(VerifyError, match="add.*(shapes|not one of the graph's)|input"):
        verify(made(wrong, inputs=[x]))
    wrong = Node(
        "add", (x, Node("sum", (x,), (("axis", 0), ("order", "lanes")), f64[()])), (), f64["n"]
    )
    with pytest.raises(VerifyError, match="add: operands have the shapes"):
        verify(made(wrong, inputs=[x]))


def test_an_operand_after_its_user():
    x, _ = pair()
    late = Node("sin", (x,), (), x.type)
    user = Node("neg", (late,), (), x.type)
    late.serial, user.serial = user.serial, late.serial
    with pytest.raises(VerifyError, match="neg.*stands before one of its operands"):
        verify(made(user, inputs=[x]))


def test_a_foreign_input():
    x, y = pair()
    with pytest.raises(VerifyError, match="not one of the graph's"):
        verify(made(y, inputs=[]))


def test_an_input_that_is_none():
    x, y = pair()
    with pytest.raises(VerifyError, match="listed as an input"):
        verify(made(y, inputs=[x, y]))


def test_names_that_stand_twice():
    x, y = pair()
    twin = Node("input", (), (("name", "x"),), f64["n"])
    with pytest.raises(VerifyError, match="two inputs of the name 'x'"):
        verify(made(y, inputs=[x, twin]))
    with pytest.raises(VerifyError, match="two outputs of the name 'y'"):
        verify(Graph("g", (x,), (("y", y), ("y", x))))


def test_an_unknown_gate_and_unknown_attributes():
    x, _ = pair()
    with pytest.raises(VerifyError, match="no gate 'sine'"):
        verify(made(Node("sine", (x,), (), x.type), inputs=[x]))
    with pytest.raises(VerifyError, match="other attributes than"):
        verify(made(Node("sin", (x,), (("axis", 1),), x.type), inputs=[x]))
    with pytest.raises(VerifyError, match="axis does not parse back"):
        verify(made(Node("sum", (x,), (("axis", "0"), ("order", "lanes")), f64[()]), inputs=[x]))


def test_a_size_from_nowhere():
    x, _ = pair()
    wrong = Node("broadcast", (x,), (("shape", (Dim.symbol("m"), Dim.symbol("n"))),), f64["m", "n"])
    with pytest.raises(VerifyError, match="a size that no input has"):
        verify(made(wrong, inputs=[x]))


def test_graphs_inside_of_nodes():
    b = Builder()
    x = b.input("x", f64["n"])
    bad = Graph("inner", (x.node,), (("y", Node("sin", (x.node,), (), f32["n"])),))
    outer = Builder()
    z = outer.input("z", f64["n"])
    call = Node(
        "call",
        (z.node,),
        (("backward", None), ("forward", bad), ("label", "mine")),
        TensorType(f32, z.shape),
    )
    with pytest.raises(VerifyError, match="graph inner"):
        verify(made(call, inputs=[z.node]))
