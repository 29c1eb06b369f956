"""Elementwise functions: each gate of the registry under its public names, and what is written in them."""

from __future__ import annotations

import inspect
from typing import Any

from graphc.dsl.apply import Record, apply_gate, lifted, operate
from graphc.dsl.power import raised
from graphc.dsl.public import public
from graphc.dsl.tensor import Tensor
from graphc.gates import elementwise as gates
from graphc.ir.types import DType, from_numpy

# Public name -> record. A record's name is a public name, too, unless it is in HIDDEN.
NAMES: dict[str, Record] = {
    "add": gates.add, "subtract": gates.sub, "multiply": gates.mul, "divide": gates.div, "true_divide": gates.div,
    "floor_divide": gates.floor_divide, "remainder": gates.remainder, "mod": gates.remainder, "negative": gates.neg,
    "sign": gates.sign, "square": gates.square, "sqrt": gates.sqrt,
    "maximum": gates.maximum, "minimum": gates.minimum, "relu": gates.relu, "exp": gates.exp, "expm1": gates.expm1,
    "log": gates.log, "log1p": gates.log1p, "sin": gates.sin, "cos": gates.cos, "tanh": gates.tanh,
    "sigmoid": gates.sigmoid, "softplus": gates.softplus, "less": gates.lt, "less_equal": gates.le,
    "greater": gates.gt, "greater_equal": gates.ge, "equal": gates.eq, "not_equal": gates.ne,
    "logical_and": gates.logical_and, "logical_or": gates.logical_or, "logical_xor": gates.logical_xor,
    "logical_not": gates.logical_not, "isnan": gates.isnan, "isfinite": gates.isfinite, "isinf": gates.isinf,
    "rint": gates.round_,
}  # fmt: skip


def _pointwise(name: str, gate: Record) -> Any:
    """The public function of a record, with its parameters and its doc."""

    def function(*args: Any) -> Tensor:
        return apply_gate(gate, args, {})

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(p, kind, annotation=Any) for p in gate.params]
    function.__signature__ = inspect.Signature(parameters, return_annotation=Any)  # type: ignore[attr-defined]
    function.__name__ = function.__qualname__ = name
    function.__doc__ = gate.doc
    return _positional(public(*gate.params)(function), gate.params)


def _positional(function: Any, params: tuple[str, ...]) -> Any:
    return function


globals().update({name: _pointwise(name, gate) for name, gate in NAMES.items()})
