"""Powers: a literal integer exponent is a product, so that its derivatives are finite at 0.

`x**2` is `x * x` by definition, `x**-1` a reciprocal; up to the 16th power products of squares.
`x**0.5` and `x**-0.5` are roots, but at -0 and -inf, where powers are those of 0 and inf.
"""

from __future__ import annotations

import math
from typing import Any

from graphc.dsl.apply import elementwise, need_recorder
from graphc.dsl.promote import Operand, fit, operand, result_dtype
from graphc.dsl.tensor import Tensor
from graphc.gates import exponential
from graphc.gates.elementwise import eq, where
from graphc.ir.graph import Value
from graphc.ir.types import TensorType

LARGEST = 16  # literal exponents up to here become products
HALVES = {0.5: ("sqrt", math.inf), -0.5: ("rsqrt", 0.0)}  # a gate, and the power of -inf


def raised(x: Any, y: Any, strong: bool = False) -> Tensor:
    """x ** y with NumPy's dtypes."""
    recorder = need_recorder((x, y))
    recorder.enter_line()
    base, exponent = operand(recorder, x), operand(recorder, y)
    weak = base.weak and exponent.weak and not strong
    common = result_dtype((base.kind, exponent.kind))
    if common.is_float and type(exponent.literal) is float and exponent.literal in HALVES:
        value = fit(recorder, base, TensorType(common, base.shape))
        return Tensor(_root(value, *HALVES[exponent.literal]), weak)
    literal = _integral(exponent)
    if common.is_int and literal is not None and literal < 0:
        raise ValueError("Integers to negative integer powers are not allowed.")
    if literal is None or abs(literal) > LARGEST or common.is_bool:
        return Tensor(elementwise(recorder, exponential.power, (base, exponent), {}), weak)
    value = fit(recorder, base, TensorType(common, base.shape))
    return Tensor(_product(value, literal), weak)


def _integral(exponent: Operand) -> int | None:
    """The value of a Python number that is whole."""
    if exponent.literal is None or type(exponent.literal) is bool or exponent.literal % 1 != 0:
        return None
    return int(exponent.literal)


def _root(x: Value, gate: str, of_minus_inf: float) -> Value:
    """x + 0 is +0 for -0."""
    root = x.builder.apply(gate, x + 0.0)
    return where(eq(x, x.constant(-math.inf)), x.constant(of_minus_inf), root)


def _product(x: Value, n: int) -> Value:
    """x ** n by squaring, from the highest bit of n down."""
    if n < 0:
        return x.builder.apply("reciprocal", _product(x, -n))
    if n == 0:
        return x.constant(1)
    result = x
    for bit in bin(n)[3:]:
        result = x.builder.apply("square", result)
        if bit == "1":
            result = result * x
    return result
