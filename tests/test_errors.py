"""Every error of `graphc.errors`, through public use: what failed, what was got, where, what to do.

A scenario is a function that must raise. Its decorator has the error and the parts of the message,
in order; `{here}` and `{there}` in them stand for `test_errors.py:LINE` of the scenario's lines
with these words in a comment.
"""

from __future__ import annotations

import copy
import inspect
import math
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import graphc
from graphc import errors, f32, f64, i32, i64
from graphc.aot.interface import from_json
from graphc.gates.elementwise import Elementwise, gate, maximum
from graphc.gates.gate import Gate, register, registry
from graphc.gates.trigonometric import sin
from graphc.ir.graph import Builder, Graph, Node
from graphc.ir.text import parse_graph
from graphc.ir.types import TensorType, parse_type
from graphc.ir.verify import verify
from graphc.lower.loop_text import parse_program
from graphc.lower.plan import verify_plan
from graphc.passes.rewrite import Index, Rewriter, Rule

ROWS, WEIGHTS = np.ones((5, 3)), np.ones(3)


@dataclass(frozen=True)
class Scenario:
    run: Callable[..., object]
    error: type[errors.GraphcError]
    texts: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.run.__name__

    def parts(self) -> list[str]:
        """The parts of the message, with lines for `{here}` and `{there}`."""
        lines, first = inspect.getsourcelines(self.run)
        places = {}
        for word in ("here", "there"):
            found = [first + i for i, line in enumerate(lines) if f"# {word}" in line]
            places[f"{{{word}}}"] = f"{Path(__file__).name}:{found[0]}" if found else ""
        parts = list(self.texts)
        for word, place in places.items():
            parts = [part.replace(word, place) for part in parts]
        return parts


SCENARIOS: list[Scenario] = []


def raises(error: type[errors.GraphcError], *texts: str) -> Callable[[Callable], Callable]:
    def enter(run: Callable[..., object]) -> Callable[..., object]:
        SCENARIOS.append(Scenario(run, error, texts))
        return run

    return enter


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.name)
def test_the_message(scenario, tmp_path, monkeypatch):
    given = {"tmp_path": tmp_path, "monkeypatch": monkeypatch}
    wanted = inspect.signature(scenario.run).parameters
    with pytest.raises(errors.GraphcError) as caught:
        scenario.run(**{name: given[name] for name in wanted})
    assert type(caught.value) is scenario.error
    message, position = str(caught.value), 0
    for part in scenario.parts():
        assert part in message[position:], f"{part!r} is not (in this place) in:\n{message}"
        position = message.index(part, position) + len(part)


def test_every_class_is_raised():
    classes = {c for c in vars(errors).values() if inspect.isclass(c)} - {errors.GraphcError}
    assert {s.error for s in SCENARIOS} == classes
    assert all(issubclass(c, errors.GraphcError) for c in classes)


def test_every_class_is_public_and_in_the_tree():
    """The tree in the module's docstring has every class, under the built-in one it says."""
    drawn = dict(
        re.findall(r"[├└]── (\w+) .*?(?:\(also an? (\w+)\))?$", errors.__doc__, re.MULTILINE)
    )
    for name, also in drawn.items():
        found = getattr(graphc, name)
        assert issubclass(found, errors.GraphcError) and found.__doc__
        if also:
            assert also in [c.__name__ for c in found.__mro__]
    assert set(drawn) == {s.error.__name__ for s in SCENARIOS}


# -- calls -----------------------------------------------------------------------------------------


@graphc.graph
def neuron(x: f64["n", 3], w: f64[3], b: f64):
    return graphc.sigmoid(x @ w + b).sum()


NEURON = graphc.compile(neuron, wrt=("w", "b"))


@graphc.graph
def doubled(x: f64["n"]):
    return x * 2.0


DOUBLED = graphc.compile(doubled, wrt="x")


@raises(errors.SignatureError, "argument x is f64[n,3], of rank 2", "the shape (3,), of rank 1")
def wrong_rank():
    NEURON(WEIGHTS, WEIGHTS, 1.0)


@raises(errors.SignatureError, "neuron(x: f64[n,3], w: f64[3], b: f64)", "missing", "'b'")
def missing_input():
    NEURON(ROWS, WEIGHTS)


@raises(errors.SignatureError, "neuron(x: f64[n,3], w: f64[3], b: f64)", "too many positional")
def too_many_inputs():
    NEURON(ROWS, WEIGHTS, 1.0, 2.0)


@raises(errors.SignatureError, "neuron(", "unexpected keyword argument 'c'")
def unknown_keyword():
    NEURON(ROWS, WEIGHTS, b=1.0, c=2.0)


@raises(errors.SignatureError, "(x, y)", "missing", "'y'")
def missing_input_of_a_function():
    graphc.jit(lambda x, y: x + y)(1.0)


@raises(errors.SignatureError, "argument x does not make an array", "inhomogeneous")
def ragged_lists():
    NEURON([[1.0, 2.0, 3.0], [4.0]], WEIGHTS, 1.0)


@raises(errors.SignatureError, "argument p", "the keys ['a', 'b']", "got", "['a']")
def missing_key():
    @graphc.graph
    def total(p: {"a": f64, "b": f64}):
        return p["a"] + p["b"]

    graphc.compile(total)({"a": 1.0})


@raises(errors.ShapeError, "argument w is f64[3]", "got the shape (4,)")
def wrong_size():
    NEURON(ROWS, np.ones(4), 1.0)


@raises(errors.ShapeError, "argument y is f64[n]", "the shape (4,)", "n is 3 in argument x")
def sizes_that_disagree():
    @graphc.graph
    def total(x: f64["n"], y: f64["n"]):
        return x + y

    graphc.compile(total)(np.ones(3), np.ones(4))


@raises(
    errors.DTypeError,
    "argument x is f32[n], got float64, which f32 does not hold exactly",
    ".astype('float32')",
)
def wrong_dtype():
    @graphc.graph
    def same(x: f32["n"]):
        return x

    graphc.compile(same)(np.ones(3))


@raises(errors.DTypeError, "argument k is i32[]", "the Python float 2.5")
def float_for_an_integer():
    @graphc.graph
    def same(k: i32):
        return k

    graphc.compile(same)(2.5)


@raises(errors.DTypeError, "argument k is i32[]", "1099511627776 does not fit")
def integer_that_does_not_fit():
    @graphc.graph
    def same(k: i32):
        return k

    graphc.compile(same)(2**40)


SUPPORTED = "use float64, float32, int64, int32 or bool"


@raises(errors.DTypeError, "argument x: dtype complex128 is not supported", SUPPORTED)
def complex_array():
    graphc.jit(lambda x: x)(np.ones(3) * 1j)


@raises(errors.DTypeError, "argument x: dtype complex128 is not supported", SUPPORTED)
def complex_number():
    NEURON(ROWS * 1j, WEIGHTS, 1.0)


@raises(errors.DTypeError, "argument x: dtype object is not supported", SUPPORTED)
def object_array():
    graphc.jit(lambda x: x)(np.array([None, 1.0]))


@raises(errors.DTypeError, "argument x: dtype <U1 is not supported", SUPPORTED)
def text_array():
    graphc.jit(lambda x: x)(np.array(["a"]))


@raises(errors.DTypeError, "argument x: dtype float16 is not supported", SUPPORTED)
def half_precision():
    graphc.jit(lambda x: x)(np.ones(3, np.float16))


@raises(errors.DTypeError, "argument x is a MaskedArray, whose meaning would be lost", "x.filled")
def masked_array():
    graphc.jit(lambda x: x)(np.ma.masked_array([1.0, 2.0], [False, True]))


@raises(
    errors.DTypeError, "argument x is a matrix, whose meaning would be lost", "numpy.asarray(x)"
)
def matrix():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        given = np.matrix([[1.0, 2.0]])
    graphc.jit(lambda x: x)(given)


@raises(errors.SignatureError, "out for out is read-only")
def read_only_out():
    out = np.zeros(5)
    out.flags.writeable = False
    DOUBLED(np.ones(5), out=out)


@raises(errors.SignatureError, "out for out must be an array float64[5]", "got float64[4]")
def out_of_another_shape():
    DOUBLED(np.ones(5), out=np.zeros(4))


@raises(errors.SignatureError, "out for out must be an array float64[5]", "got float32[5]")
def out_of_another_dtype():
    DOUBLED(np.ones(5), out=np.zeros(5, np.float32))


@raises(errors.SignatureError, "out for out must be an array float64[5]", "got list")
def out_that_is_no_array():
    DOUBLED(np.ones(5), out=[0.0] * 5)


@raises(errors.SignatureError, "out for out repeats its elements", "stride is 0")
def out_that_repeats_its_elements():
    DOUBLED(np.ones(5), out=np.lib.stride_tricks.as_strided(np.zeros(1), (5,), (0,)))


def test_an_out_that_overlaps_an_input_is_filled_from_a_copy():
    memory = np.arange(6.0)
    expected = 2.0 * memory[:5]
    assert DOUBLED(memory[:5], out=memory[1:]) is not None
    assert memory[1:].tolist() == expected.tolist()


# -- declarations ----------------------------------------------------------------------------------


@raises(errors.SignatureError, "parameter x of f has no type", "x: graphc.f64['n', 3]")
def parameter_without_a_type():
    @graphc.graph
    def f(x):
        return x


@raises(errors.SignatureError, "parameter x of f is annotated with <class 'complex'>", "graphc.f64")
def annotation_that_is_no_type():
    @graphc.graph
    def f(x: complex):
        return x


@raises(
    errors.SignatureError, "the size 2*m+1 of x does not say what m is", "m be a size by itself"
)
def size_that_cannot_be_found():
    @graphc.graph
    def f(x: f64["2*m+1"]):
        return x


@raises(errors.SignatureError, "returned 'text', which has no arrays in it")
def result_without_arrays():
    graphc.jit(lambda x: "text")(1.0)


@raises(errors.ShapeError, "-1 is not a size", "a name or an integer that is at least 0")
def negative_size():
    f64[-1]


@raises(errors.ShapeError, "'_n': names of sizes do not begin with _")
def size_that_begins_with_an_underscore():
    graphc.Graph("g").input("x", f64["_n"])


@raises(errors.ShapeError, "f64[4611686018427387904,8] is too big", "2^63 - 1 bytes")
def type_of_too_many_bytes():
    f64[2**62, 8]


# -- shapes in a trace -----------------------------------------------------------------------------


@raises(
    errors.ShapeError,
    "add: cannot broadcast f64[3,4] with f64[5]\n",
    "  left   %3 = mul(x, 2.0)   {there}\n",
    "  right  w   ",
    "  at     {here}",
)
def shapes_that_do_not_broadcast():
    @graphc.graph
    def f(x: f64[3, 4], w: f64[5]):
        y = x * 2.0  # there
        return y + w  # here

    f.graph


@raises(
    errors.ShapeError,
    "add: cannot broadcast f64[3,4] with f64[5]\n",
    "  left   %2 = tanh(x)   {there}\n",
    "  right  w   ",
    "  at     {here}",
)
def shapes_that_do_not_broadcast_in_numpy_code():
    def f(x, w):
        y = np.tanh(x)  # there
        return y + w  # here

    graphc.jit(f)(np.ones((3, 4)), np.ones(5))


@raises(
    errors.ShapeError, "matmul: f64[3,4] does not fit f64[5]", "4 and 5", "left", "at     {here}"
)
def matrices_that_do_not_fit():
    graphc.jit(lambda x, w: x @ w)(np.ones((3, 4)), np.ones(5))  # here


@raises(errors.ShapeError, "reshape: f64[4] has 4 elements, which (5) does not hold", "{here}")
def reshape_to_another_count():
    graphc.jit(lambda x: x.reshape(5))(np.ones(4))  # here


@raises(errors.ShapeError, "max over axes (0,) of f64[0]: nothing to choose from", "{here}")
def maximum_of_an_empty_array():
    graphc.jit(lambda x: x.max())(np.ones(0))  # here


@raises(errors.ShapeError, "max at {here}: axis 0 of f64[n] is empty", "nothing to choose from")
def maximum_over_an_axis_found_empty_at_the_call():
    @graphc.graph
    def largest(x: f64["n"]):
        return x.max()  # here

    graphc.compile(largest)(np.ones(0))


# -- what a trace cannot know ----------------------------------------------------------------------

UNKNOWN = "a traced value has no numbers until the graph runs"


@raises(
    errors.TraceError,
    "a traced bool[] was read as a Python bool (by if,",
    f"at {{here}}: {UNKNOWN}",
    "value  %2 = gt(x, 0.0)   {here}",
    "instead: graphc.where(condition, x, y)",
)
def if_on_a_traced_value():
    def f(x):
        if x > 0.0:  # here
            return x
        return -x

    graphc.jit(f)(1.0)


@raises(errors.TraceError, "f64[] was read as a Python float at {here}", UNKNOWN, "x.astype(float)")
def float_of_a_traced_value():
    graphc.jit(lambda x: float(x))(1.0)  # here


@raises(errors.TraceError, "f64[] was read as a Python float at {here}", "graphc.numpy for math")
def math_on_a_traced_value():
    graphc.jit(lambda x: math.sin(x))(1.0)  # here


@raises(errors.TraceError, "f64[] was read as a Python int at {here}", UNKNOWN, "x.astype(int)")
def int_of_a_traced_value():
    graphc.jit(lambda x: int(x))(1.0)  # here


@raises(errors.TraceError, "f64[] was read as a Python complex at {here}", "real arithmetic")
def complex_of_a_traced_value():
    graphc.jit(lambda x: complex(x))(1.0)  # here


@raises(errors.TraceError, "i64[] was read as an index or a size of Python at {here}", "take")
def range_of_a_traced_value():
    graphc.jit(lambda k: sum(range(k)))(3)  # here


@raises(errors.TraceError, "a loop over an axis of size n at {here}", "operations over the whole")
def iteration_over_a_named_axis():
    @graphc.graph
    def f(x: f64["n"]):
        return sum(v for v in x)  # here

    f.graph


@raises(errors.TraceError, "len() of an axis whose size is a name at {here}", "x.shape[0]")
def length_of_a_named_axis():
    @graphc.graph
    def f(x: f64["n"]):
        return x.sum() / len(x)  # here

    f.graph


@raises(errors.TraceError, "f64[3] was read as a NumPy array at {here}", "graphc.numpy functions")
def numpy_array_of_a_traced_value():
    graphc.jit(lambda x: np.asarray(x))(np.ones(3))  # here


@raises(errors.TraceError, "f64[] was formatted with '.3f' at {here}", UNKNOWN)
def number_in_a_text():
    graphc.jit(lambda x: f"{x:.3f}")(1.0)  # here


@raises(errors.TraceError, "an assignment to elements at {here}", "graphc.where(mask, new, x)")
def assignment_to_elements():
    def f(x):
        x[0] = 1.0  # here
        return x

    graphc.jit(f)(np.ones(3))


@raises(errors.TraceError, "a boolean mask as an index at {here}", "graphc.where(mask, x, 0)")
def boolean_mask():
    graphc.jit(lambda x: x[x > 0])(np.ones(3))  # here


@raises(errors.TraceError, "numpy.linalg.svd of a traced value at {here}", "as a graphc.Gate")
def function_that_graphc_lacks():
    graphc.jit(lambda x: np.linalg.svd(x))(np.ones((3, 3)))  # here


@raises(
    errors.TraceError, "a traced value of 'f' is used at {here} after its trace has ended", "return"
)
def leaked_value():
    kept = []

    def f(x):
        kept.append(x * 2.0)
        return x

    graphc.jit(f)(1.0)
    kept[0] + 1.0  # here


@raises(
    errors.TraceError, "a traced value of 'f' is used at {here} after its trace has ended", "return"
)
def leaked_value_in_another_trace():
    kept = []

    def f(x):
        kept.append(x * 2.0)
        return x

    graphc.jit(f)(1.0)
    graphc.jit(lambda y: y + kept[0])(1.0)  # here


# -- gradients -------------------------------------------------------------------------------------


@raises(errors.DifferentiationError, "argument x is i64[3] at {here}", "floats only", "argnums")
def gradient_of_an_integer_input():
    graphc.grad(lambda x: (x * 2.0).sum())(np.arange(3))  # here


@raises(
    errors.DifferentiationError,
    "graph f: the input 'x' at {here} is i64[n]; only float inputs have derivatives",
    "leave it out of wrt, or cast it",
)
def gradient_of_a_declared_integer_input():
    @graphc.graph  # here
    def f(x: i64["n"]):
        return (x * 2.0).sum()

    graphc.compile(f, wrt="x").value_and_grad(np.arange(3))


@raises(
    errors.DifferentiationError,
    "must return a float of rank 0, got f64[3]",
    "take its sum or mean, or use vjp",
    "value  %3 = mul(x, 2.0)   {here}",
)
def gradient_of_an_array():
    graphc.grad(lambda x: x * 2.0)(np.ones(3))  # here


@raises(
    errors.DifferentiationError, "the output 'out' at {here}", "f64[n]", "must be one float", "sum"
)
def gradient_of_a_declared_array():
    @graphc.graph
    def f(x: f64["n"]):
        return x * 2.0  # here

    graphc.compile(f, wrt="x").value_and_grad(np.ones(3))


@raises(errors.DifferentiationError, "must return a float of rank 0, got i64[]", "{here}")
def gradient_of_an_index():
    graphc.grad(lambda x: graphc.argmax(x))(np.ones(3))  # here


@raises(errors.DifferentiationError, "neuron.value_and_grad needs parameters", "wrt=(...)")
def gradient_without_wrt():
    graphc.compile(neuron).value_and_grad(ROWS, WEIGHTS, 1.0)


@raises(
    errors.DifferentiationError,
    "the cotangent of f64[3] has the type f64[4]",
    "mul(x, 2.0)   {there}",
    "at     {here}",
)
def cotangent_of_another_shape():
    _, pull_back = graphc.vjp(lambda x: x * 2.0, np.ones(3))  # there
    pull_back(np.ones(4))  # here


@raises(errors.SignatureError, "neuron has no parameter 'v'; it has x, w, b")
def unknown_name_in_wrt():
    graphc.compile(neuron, wrt="v")


@raises(errors.SignatureError, "argnums 3, but 1 arguments were given by position")
def unknown_argnums():
    graphc.grad(lambda x: x, argnums=3)(1.0)


# -- indices ---------------------------------------------------------------------------------------


@graphc.graph
def picked(x: f64["n"], i: i64["m"]):
    return x[i]


@raises(errors.IndexOutOfBounds, "index 7 is out of bounds for an axis of size 4")
def index_found_out_of_bounds_at_the_call():
    graphc.compile(picked)(np.arange(4.0), np.array([0, 7]))


@raises(errors.IndexOutOfBounds, "index -5 is out of bounds for an axis of size 4")
def negative_index_out_of_bounds():
    graphc.compile(picked)(np.arange(4.0), np.array([-4, -5]))


@raises(errors.IndexOutOfBounds, "index 7 is out of bounds for axis 0 with size 4 at {here}")
def index_out_of_bounds_in_the_trace():
    graphc.jit(lambda x: x[7])(np.arange(4.0))  # here


@raises(errors.IndexOutOfBounds, "index -9 is out of bounds for axis 1 with size 4 at {here}")
def index_array_out_of_bounds_in_the_trace():
    graphc.jit(lambda x: x[:, np.array([1, -9])])(np.ones((2, 4)))  # here


def test_a_failed_call_leaves_inputs_and_out_alone():
    x, i, out = np.arange(4.0), np.array([0, 7]), np.full(2, 5.0)
    before = copy.deepcopy((x, i, out))
    with pytest.raises(IndexError):
        graphc.compile(picked)(x, i, out=out)
    for now, then in zip((x, i, out), before, strict=True):
        assert now.tobytes() == then.tobytes()


# -- gates -----------------------------------------------------------------------------------------


@raises(errors.GateError, "{here}: gate 'cube' needs a sym model, or the reason")
def record_without_a_model():
    gate("cube", "x cubed.", body=lambda x: x * x * x)  # here


@raises(errors.GateError, "{here}: gate 'cube' needs a line of doc")
def record_without_doc():
    gate("cube", "", body=lambda x: x * x * x, sym="x**3")  # here


@raises(errors.GateError, "{here}: gate 'exp' is already defined at", "exponential.py:")
def record_of_a_name_that_is_taken():
    gate("exp", "x cubed.", body=lambda x: x * x * x, sym="x**3")  # here


@raises(errors.GateError, "test_errors.py", "gate 'half' has no 'infer'", "Half, must define")
def kind_without_a_method():
    class Half(Gate):
        pass

    Half("half", "x / 2.", source=__file__).infer([f64[3]], {})


@raises(errors.GateError, "machine operation shl is not defined on f64")
def body_that_no_machine_has():
    Elementwise("odd", "Odd.", ("x",), body=lambda x: x << 1).body_graph((graphc.f64,))


@raises(errors.GateError, "the body of odd.f64 returned 1.0")
def body_that_returns_no_handle():
    Elementwise("odd", "Odd.", ("x",), body=lambda x: 1.0).body_graph((graphc.f64,))


@raises(errors.GateError, "gate Empty needs a forward method")
def gate_without_forward():
    class Empty(graphc.Gate):
        pass

    graphc.jit(Empty())(1.0)


@raises(errors.GateError, "gate Multiply: backward gives 1 cotangents for 2 operands")
def gate_whose_backward_is_too_short():
    class Multiply(graphc.Gate):
        def forward(self, x, y):
            return x * y

        def backward(self, dz, x, y):
            return dz * y

    graphc.grad(lambda x: Multiply()(x, 2.0))(1.0)


def test_a_failed_record_is_not_entered():
    before = dict(registry())
    with pytest.raises(errors.GateError):
        register(Elementwise("cube", "", ("x",)))
    assert dict(registry()) == before


# -- text ------------------------------------------------------------------------------------------


@raises(errors.FormatError, "line 2: 'frobnicate' is not a gate")
def text_with_an_unknown_gate():
    parse_graph("graph f(x: f64[n])\n  %1 = frobnicate %x : f64[n]\nreturn y=%1")


@raises(errors.FormatError, "line 3: '  %2 = neg' is not a node")
def text_that_ends_in_a_line():
    parse_graph("graph f(x: f64[n])\n  %1 = neg %x : f64[n]\n  %2 = neg\nreturn y=%1")


@raises(errors.FormatError, "line 2: %y is not defined above")
def text_with_an_unknown_operand():
    parse_graph("graph f(x: f64[n])\n  %1 = neg %y : f64[n]\nreturn y=%1")


@raises(errors.FormatError, "line 2: neg gives f64[n], the text says f64[m]")
def text_with_another_type():
    parse_graph("graph f(x: f64[n])\n  %1 = neg %x : f64[m]\nreturn y=%1")


@raises(errors.FormatError, "line 4: '%1 = lode x[_i] : f64'", "'lode' is not an operation")
def program_with_an_unknown_operation():
    parse_program(
        "program f(x: f64[n])\nkernel k0\n  for _i in n vector\n    %1 = lode x[_i] : f64"
    )


@raises(errors.FormatError, "line 3: 'for _i in n sideways' is not a loop")
def program_with_an_unknown_schedule():
    parse_program("program f(x: f64[n])\nkernel k0\n  for _i in n sideways\n    %1 = iota _i")


@raises(errors.FormatError, "line 3: 'for _i in n' is not a loop")
def program_that_ends_in_a_line():
    parse_program("program f(x: f64[n])\nkernel k0\n  for _i in n")


@raises(errors.FormatError, "line 4: 'acc %1: f4 sum lanes' is not an accumulator")
def program_with_an_unknown_dtype():
    parse_program("program f(x: f64[n])\nkernel k0\n  for _i in n rows\n    acc %1: f4 sum lanes")


@raises(errors.FormatError, "line 1: '' does not begin a program")
def program_without_text():
    parse_program("")


@raises(errors.FormatError, "line 2: '%1 = sum  axis=0 order=lanes : f64[]'", "more operands")
def text_without_operands():
    parse_graph("graph f(x: f64[n])\n  %1 = sum  axis=0 order=lanes : f64[]\nreturn y=%1")


@raises(errors.FormatError, "'f65[n]' is not a type")
def text_that_is_no_type():
    parse_type("f65[n]")


@raises(errors.FormatError, "test_errors.py is not a library that graphc made")
def library_of_another_kind():
    graphc.load(__file__)


@raises(errors.FormatError, "the library's description cannot be read")
def description_of_another_kind():
    from_json('{"graphc_abi": 1}')


# -- defects ---------------------------------------------------------------------------------------


@raises(errors.VerifyError, "graph g: %1 = neg %x : f64[m]: the gate derives f64[n]")
def graph_with_a_wrong_type():
    x = Node("input", (), (("name", "x"),), f64["n"])
    verify(Graph("g", (x,), (("y", Node("neg", (x,), (), f64["m"])),)))


@raises(errors.VerifyError, "graph g has two inputs of the name 'x'")
def graph_with_two_inputs_of_one_name():
    inputs = tuple(Node("input", (), (("name", "x"),), f64["n"]) for _ in range(2))
    verify(Graph("g", inputs, (("y", inputs[0]),)))


@raises(errors.VerifyError, "plan: the temp", "has no offset")
def program_without_offsets():
    text = graphc.compile(kept_apart).stages["plan"]
    verify_plan(parse_program(re.sub(r" offset=\d+", "", text)))


@graphc.graph
def kept_apart(x: f64["n"]):
    return x / (x * x).sum() + (x - x.max()).sum()


@raises(errors.RewriteError, "the rules lead back to where they began: there, back")
def rules_in_a_cycle():
    there = Rule("there", lambda x, y: x + y, lambda x, y: maximum(x, y))
    back = Rule("back", lambda x, y: maximum(x, y), lambda x, y: x + y)
    settle(there, back)


@raises(errors.RewriteError, "the rules do not settle", "fired: grow")
def rules_without_end():
    settle(Rule("grow", lambda x: sin(x), lambda x: sin(-x)))


@raises(errors.RewriteError, "rule sums makes f64[] of f64[n]")
def rule_that_changes_the_type():
    settle(Rule("sums", lambda x: sin(x), lambda x: x.sum(0)))


def settle(*rules: Rule) -> None:
    builder = Builder()
    x = builder.input("x", TensorType(graphc.f64, f64["n"].shape))
    Rewriter(builder, Index(rules)).settle([x + sin(x)])


# -- compiling -------------------------------------------------------------------------------------


@raises(errors.CompileError, "graph f: reshape at {here} has 13 axes, more than the 12", "fewer")
def rank_13():
    def f(x):
        return x.reshape((1,) * 13) + 1.0  # here

    graphc.jit(f)(np.ones(1))


@raises(errors.CompileError, "graph f: the size '_n' begins with _", "rename it")
def size_that_loops_would_take():
    graph = parse_graph("graph f(x: f64[_n])\n  %1 = neg %x : f64[_n]\nreturn y=%1")
    run_stages(graph)


def run_stages(graph: Graph) -> None:
    from graphc.runtime.kernel import compile_graph

    compile_graph(graph)


@raises(
    errors.CompileError, "neuron.so cannot be made: no linker driver (cc, gcc, clang)", "neuron.o"
)
def no_linker(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    NEURON.save(tmp_path / "neuron.so")


@raises(errors.CompileError, "neuron.txt: a compiled graph is saved as .so or .o")
def library_of_another_ending(tmp_path):
    NEURON.save(tmp_path / "neuron.txt")


@raises(errors.CompileError, "'exp' cannot be exported", "choose another name")
def name_that_c_has_taken(tmp_path):
    @graphc.graph
    def exp(x: f64["n"]):
        return x

    graphc.compile(exp).save(tmp_path / "library.o")


@raises(errors.CompileError, "cannot write", "No such file or directory")
def folder_that_is_not_there(tmp_path):
    NEURON.save(tmp_path / "nowhere" / "neuron.o")
