"""The oracle: a graph in extended precision, with its derivative in one direction, by dual numbers.

In:   a graph as traced, arrays for its inputs, and a direction for the float ones.
Out:  for each output its value and its derivative, as object arrays of mpmath numbers.
Invariant: nothing of code generation, bodies, partials or transforms takes part: an elementwise
gate is its `sym` model, evaluated on dual numbers.

Each elementary function is computed with as many digits more as its argument could cancel, so that
`log(1 + x)` is right to the last digit at x = 1e-300.

>>> from graphc.ir.graph import Builder
>>> from graphc.ir.types import f64
>>> b = Builder()
>>> x = b.input("x", f64[()])
>>> ((value, slope),) = run_dual(b.graph("f", {"y": x * x}), [np.array(3.0)], [np.array(1.0)])
>>> print(value[()], slope[()])
9.0 6.0
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property
from typing import Any

import mpmath
import numpy as np

from graphc.aot.oracle_arrays import LINEAR, SPECIAL, Dual
from graphc.errors import GateError
from graphc.gates.gate import registry
from graphc.ir.graph import Graph, Node, open_graph
from graphc.ir.reference import sizes_of
from graphc.passes.expand import expand, is_composite

GUARD = 40  # bits beyond the digits asked for
MOST_EXTRA = 2600  # bits: what the smallest and the largest double can cancel


def run_dual(
    graph: Graph, inputs: Sequence[Any], tangents: Sequence[Any], digits: int = 40
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Values and derivatives of all outputs; a tangent of None is zero. Outputs that are no floats
    have none: zeros."""
    machine = Machine(digits)
    arrays = [np.asarray(x, n.type.dtype.numpy) for n, x in zip(graph.inputs, inputs, strict=True)]
    sizes = sizes_of(graph, arrays)
    plain = _without_composites(graph)
    known: dict[Node, Dual] = {}
    for node, x, t in zip(plain.inputs, arrays, tangents, strict=True):
        known[node] = (
            machine.lift(x),
            None if t is None else machine.lift(np.asarray(t, np.float64)),
        )
    for node in plain.nodes:
        if node not in known:
            value, slope = machine.node(node, [known[a] for a in node.args], sizes)
            known[node] = np.asarray(value), None if slope is None else np.asarray(slope, object)
    return [
        (v, machine.zeros(v.shape) if t is None else t)
        for v, t in (known[n] for n in plain.output_nodes)
    ]


def _without_composites(graph: Graph) -> Graph:
    builder, fresh = open_graph(graph)
    here = builder.inline(graph, [fresh[n] for n in graph.inputs])
    outputs = expand(builder, [here[n] for n in graph.output_nodes], is_composite)
    return builder.graph(
        graph.name, dict(zip([name for name, _ in graph.outputs], outputs, strict=True))
    )


# -- numbers ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _D:
    """x + t * epsilon."""

    m: Machine
    x: Any
    t: Any

    def __add__(self, o: Any) -> _D:
        o = self.m.dual(o)
        return _D(self.m, self.x + o.x, self.t + o.t)

    def __neg__(self) -> _D:
        return _D(self.m, -self.x, -self.t)

    def __sub__(self, o: Any) -> _D:
        return self + -self.m.dual(o)

    def __rsub__(self, o: Any) -> _D:
        return self.m.dual(o) - self

    def __mul__(self, o: Any) -> _D:
        o = self.m.dual(o)
        return _D(self.m, self.x * o.x, self.m.times(self.t, o.x) + self.m.times(o.t, self.x))

    def __truediv__(self, o: Any) -> _D:
        o = self.m.dual(o)
        q = self.m.quotient(self.x, o.x)
        return _D(
            self.m,
            q,
            self.m.quotient_of(self.t, o.x) - self.m.times(self.m.quotient_of(o.t, o.x), q),
        )

    def __rtruediv__(self, o: Any) -> _D:
        return self.m.dual(o) / self

    def __pow__(self, o: Any) -> _D:
        return self.m.power(self, self.m.dual(o))

    def __rpow__(self, o: Any) -> _D:
        return self.m.dual(o) ** self

    __radd__ = __add__
    __rmul__ = __mul__


class Machine:
    """mpmath at one precision, on dual numbers and arrays of them."""

    def __init__(self, digits: int) -> None:
        self.context = mpmath.MPContext()
        self.context.dps = digits
        self.context.prec += GUARD
        self.base = self.context.prec
        self.zero, self.one = self.context.mpf(0), self.context.mpf(1)
        self.nan, self.inf = self.context.mpf("nan"), self.context.mpf("inf")

    def lift(self, x: np.ndarray) -> np.ndarray:
        """Floats as mpmath numbers, exactly; other arrays as they are."""
        if x.dtype.kind != "f":
            return x
        return self.array([self.context.mpf(float(v)) for v in x.reshape(-1)], x.shape)

    def array(self, values: Sequence[Any], shape: tuple[int, ...]) -> np.ndarray:
        out = np.empty(len(values), object)
        out[:] = values
        return out.reshape(shape)

    def zeros(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.full(shape, self.zero, object)

    # -- scalars -----------------------------------------------------------------------------------

    def dual(self, x: Any) -> _D:
        if isinstance(x, _D):
            return x
        if isinstance(x, Fraction):  # such as 1/3 in a model: a rational, at today's precision
            return _D(self, self.context.mpf(x.numerator) / x.denominator, self.zero)
        return _D(self, self.context.mpf(x), self.zero)

    def times(self, t: Any, p: Any) -> Any:
        """A derivative times a partial: 0 where the derivative is 0, whatever the partial is."""
        return t if t == 0 else t * p

    def quotient(self, a: Any, b: Any) -> Any:
        """a / b, with IEEE's values for a zero divisor (of a positive sign: mpmath has no -0)."""
        if b != 0:
            return a / b
        return self.nan if a == 0 or a != a else self.inf if a > 0 else -self.inf

    def quotient_of(self, t: Any, b: Any) -> Any:
        return t if t == 0 else self.quotient(t, b)

    def power(self, a: _D, b: _D) -> _D:
        """a ** b; by a: b * a**(b-1), 0 for b = 0; by b: a**b * log(a), 0 for a = 0 and b > 0."""
        x = self.raised(a.x, b.x)
        by_a = self.zero if b.x == 0 else b.x * self.raised(a.x, b.x - 1)
        by_b = self.zero if a.x == 0 and b.x > 0 else x * self.call("log", a.x)
        return _D(self, x, self.times(a.t, by_a) + self.times(b.t, by_b))

    def raised(self, a: Any, b: Any) -> Any:
        if b == 0 or a == 1:
            return self.one
        if a == 0:
            return self.zero if b > 0 else self.inf
        return self.real(lambda: a**b)

    def call(self, name: str, x: Any) -> Any:
        return self.real(lambda: getattr(self.context, name)(x))

    def real(self, compute: Callable[[], Any]) -> Any:
        """A real result; NaN where the function has none, inf at a pole."""
        try:
            y = compute()
        except ZeroDivisionError:
            return self.inf
        except (ValueError, OverflowError):
            return self.nan
        return self.nan if isinstance(y, self.context.mpc) else y

    def smooth(self, name: str, slope: Callable[[Any, Any], Any]) -> Callable[[Any], _D]:
        def apply(a: Any) -> _D:
            a = self.dual(a)
            y = self.call(name, a.x)
            return _D(self, y, self.zero if a.t == 0 else a.t * slope(a.x, y))

        return apply

    def polygamma(self, order: Any, a: Any) -> _D:
        """The derivative of order `order` of digamma."""
        a, n = self.dual(a), int(order)
        value = self.real(lambda: self.context.polygamma(n, a.x))
        slope = self.zero
        if a.t != 0:
            slope = a.t * self.real(lambda: self.context.polygamma(n + 1, a.x))
        return _D(self, value, slope)

    def loggamma(self, a: Any) -> _D:
        """log |gamma|: the real part, left of 0, too."""
        a = self.dual(a)
        value = self.real(lambda: self.context.re(self.context.loggamma(a.x)))
        slope = self.zero if a.t == 0 else a.t * self.call("digamma", a.x)
        return _D(self, value, slope)

    def atan2(self, a: Any, b: Any) -> _D:
        a, b = self.dual(a), self.dual(b)
        area = a.x * a.x + b.x * b.x
        turned = self.times(a.t, b.x) - self.times(b.t, a.x)
        return _D(self, self.context.atan2(a.x, b.x), self.quotient_of(turned, area))

    def hypot(self, a: Any, b: Any) -> _D:
        a, b = self.dual(a), self.dual(b)
        length = self.context.hypot(a.x, b.x)
        along = self.times(a.t, a.x) + self.times(b.t, b.x)
        return _D(self, length, self.quotient_of(along, length))

    def stepped(self, name: str) -> Callable[[Any], _D]:
        return lambda a: _D(self, self.call(name, self.dual(a).x), self.zero)

    def sign(self, a: Any) -> _D:
        x = self.dual(a).x
        return _D(self, x if x != x else self.context.mpf((x > 0) - (x < 0)), self.zero)

    def extreme(self, larger: bool) -> Callable[[Any, Any], _D]:
        """Max or Min: NaN if either is; ties share the derivative."""

        def apply(a: Any, b: Any) -> _D:
            a, b = self.dual(a), self.dual(b)
            if a.x != a.x or b.x != b.x:
                return _D(self, self.nan, self.nan)
            if a.x == b.x:
                return _D(self, a.x, (a.t + b.t) / 2)
            return a if (a.x > b.x) == larger else b

        return apply

    def inverse_root(self, x: Any) -> Any:
        return self.real(lambda: 1 / self.context.sqrt(x))

    def bell(self, x: Any) -> Any:
        """The derivative of erf."""
        return 2 / self.context.sqrt(self.context.pi) * self.context.exp(-x * x)

    @cached_property
    def functions(self) -> dict[str, Any]:
        """What a `sym` model may call."""
        c = self.context
        return {
            "__builtins__": {},
            "exp": self.smooth("exp", lambda x, y: y),
            "log": self.smooth("log", lambda x, y: self.quotient(self.one, x)),
            "sqrt": self.smooth("sqrt", lambda x, y: self.quotient(self.one, 2 * y)),
            "pi": c.pi,
            "sin": self.smooth("sin", lambda x, y: c.cos(x)),
            "cos": self.smooth("cos", lambda x, y: -c.sin(x)),
            "tan": self.smooth("tan", lambda x, y: 1 + y * y),
            "asin": self.smooth("asin", lambda x, y: self.inverse_root((1 - x) * (1 + x))),
            "acos": self.smooth("acos", lambda x, y: -self.inverse_root((1 - x) * (1 + x))),
            "atan": self.smooth("atan", lambda x, y: 1 / (1 + x * x)),
            "atan2": self.atan2,
            "hypot": self.hypot,
            "tanh": self.smooth("tanh", lambda x, y: 1 / c.cosh(x) ** 2),
            "cosh": self.smooth("cosh", lambda x, y: c.sinh(x)),
            "sinh": self.smooth("sinh", lambda x, y: c.cosh(x)),
            "asinh": self.smooth("asinh", lambda x, y: self.inverse_root(1 + x * x)),
            "acosh": self.smooth("acosh", lambda x, y: self.inverse_root((x - 1) * (x + 1))),
            "atanh": self.smooth("atanh", lambda x, y: self.quotient(self.one, (1 - x) * (1 + x))),
            "erf": self.smooth("erf", lambda x, y: self.bell(x)),
            "erfc": self.smooth("erfc", lambda x, y: -self.bell(x)),
            "erfinv": self.smooth("erfinv", lambda x, y: 1 / self.bell(y)),
            "loggamma": self.loggamma,
            "digamma": lambda a: self.polygamma(0, a),
            "trigamma": lambda a: self.polygamma(1, a),
            "polygamma": self.polygamma,
            "Abs": lambda a: self.dual(a) * self.sign(a),
            "sign": self.sign,
            "floor": self.stepped("floor"),
            "ceiling": self.stepped("ceil"),
            "Max": self.extreme(True),
            "Min": self.extreme(False),
            "round": self.stepped("nint"),
        }

    # -- gates -------------------------------------------------------------------------------------

    def node(self, node: Node, args: Sequence[Dual], sizes: Mapping[str, int]) -> Dual:
        values = [v for v, _ in args]
        if node.op in LINEAR:
            return self.linear(node, args, sizes)
        if not node.type.dtype.is_float and all(not a.type.dtype.is_float for a in node.args):
            return np.asarray(node.gate.reference(node, values, sizes)), None
        special = SPECIAL.get(node.op)
        if special is not None:
            return special(self, node, args, sizes)
        if node.gate.kind == "elementwise":
            return self.elementwise(node, args)
        if node.gate.kind == "source":
            return self.lift(np.array(node.gate.reference(node, [], sizes))), None
        raise GateError(f"the oracle has no model of the gate {node.op}")

    def linear(self, node: Node, args: Sequence[Dual], sizes: Mapping[str, int]) -> Dual:
        """A gate that moves or adds elements: value and derivative alike."""
        apply = LINEAR[node.op]
        value = apply(self, node, [v for v, _ in args], sizes, False)
        if all(t is None for _, t in args):
            return value, None
        along = [
            t if t is not None else self.zeros(v.shape) if a.type.dtype.is_float else v
            for a, (v, t) in zip(node.args, args, strict=True)
        ]
        return value, apply(self, node, along, sizes, True)

    def elementwise(self, node: Node, args: Sequence[Dual]) -> Dual:
        """A gate by its `sym` model, one element at a time."""
        gate: Any = node.gate
        model = parse_model(gate.sym or {"round": "round(x)"}[node.op])
        names, shape = gate.params, args[0][0].shape
        moving = any(t is not None for _, t in args)
        columns = [(v.reshape(-1), self._flat(t, v.size)) for v, t in args]
        values, slopes = [], []
        cancels = not _CANCELLING.isdisjoint(
            n.id for n in ast.walk(model) if isinstance(n, ast.Name)
        )
        for i in range(args[0][0].size):
            operands = [_D(self, v[i], t[i]) for v, t in columns]
            self.context.prec = self.base + (max(_extra(d.x) for d in operands) if cancels else 0)
            kink = _at_kink(node.op, operands)
            out = self.dual(kink or run_model(model, self.functions | dict(zip(names, operands))))
            values.append(out.x)
            slopes.append(out.t)
        self.context.prec = self.base
        return self.array(values, shape), self.array(slopes, shape) if moving else None

    def _flat(self, t: np.ndarray | None, size: int) -> np.ndarray:
        return np.full(size, self.zero, object) if t is None else t.reshape(-1)


@cache
def parse_model(sym: str) -> ast.expr:
    return ast.parse(sym, mode="eval").body


def run_model(model: ast.expr, names: Mapping[str, Any]) -> Any:
    """The value of a `sym` model: numbers, names, calls and arithmetic."""
    match model:
        case ast.Constant(value):
            return value
        case ast.Name(name):
            return names[name]
        case ast.Call(ast.Name(name), args):
            return names[name](*(run_model(a, names) for a in args))
        case ast.UnaryOp(ast.USub(), operand):
            return -run_model(operand, names)
        case ast.BinOp(ast.Constant(int(above)), ast.Div(), ast.Constant(int(below))):
            return Fraction(above, below)
        case ast.BinOp(left, op, right) if type(op) in _ARITHMETIC:
            return _ARITHMETIC[type(op)](run_model(left, names), run_model(right, names))
    raise GateError(f"{ast.unparse(model)!r} cannot stand in a sym model")


_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}


# Functions of which models are made whose parts nearly cancel; pi x is reduced modulo 2.
_CANCELLING = frozenset({"exp", "log", "pi"})


def _extra(x: Any) -> int:
    """Bits that 1 + x, or 1 + exp(x), may cancel."""
    if x == 0 or not mpmath.isfinite(x):
        return 0
    small = max(0, -mpmath.mag(x)) * 2
    large = int(3 * min(abs(x), 1200)) // 2
    return min(max(small, large), MOST_EXTRA)


def _at_kink(op: str, operands: Sequence[_D]) -> _D | None:
    """What graphc documents where a model has a kink: relu' is 0 at 0, clip passes on its
    bounds, and belongs to one of them where both are the same; angle and length have no slope at
    the origin, x log y is 0 where x is, and sinc is smooth."""
    zeros = [d.x == 0 for d in operands]
    if op in ("atan2", "hypot") and all(zeros):
        return operands[0].m.dual(0)
    if op == "sinc" and zeros[0]:
        return operands[0].m.dual(1)
    if op in ("xlogy", "xlog1py") and zeros[0]:
        m, y = operands[0].m, operands[1].x + (op == "xlog1py")
        return _D(m, m.zero, m.times(operands[0].t, m.call("log", y) if y > 0 else -m.inf))
    if op == "relu" and operands[0].x == 0:
        return operands[0].m.dual(0)
    if op == "clip":
        x, low, high = operands
        if low.x <= high.x < x.x or high.x < low.x:
            return high
        if x.x < low.x <= high.x:
            return low
        return x if low.x <= x.x <= high.x else None
    return None


def covered() -> list[str]:
    """Gates that the oracle can evaluate on floats, for tests of its completeness."""
    gates = registry().values()
    return [
        g.name
        for g in gates
        if g.name in LINEAR or g.name in SPECIAL or getattr(g, "sym", None) or g.name == "round"
    ]
