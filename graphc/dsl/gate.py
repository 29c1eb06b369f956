"""`graphc.Gate`: a user's gate, a class with `forward` and `backward` in symbolic terms.

In:   a subclass, and operands.
Out:  one `call` node that carries both as graphs.
Invariant: it compiles like any other gate; without `backward` its forward is differentiated.

>>> class Multiply(Gate):
...     def forward(self, x, y): return x * y
...     def backward(self, dz, x, y): return dz * y, dz * x
>>> float(Multiply(3.0, 4.0))
12.0
>>> from graphc.dsl.transform import grad
>>> [float(d) for d in grad(Multiply(), argnums=(0, 1))(3.0, 4.0)]
[4.0, 3.0]
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from graphc.dsl.apply import find_recorder, lifted
from graphc.dsl.promote import mismatch
from graphc.dsl.signature import name_of
from graphc.dsl.tensor import Tensor
from graphc.dsl.trace import Leaf, Recording, Traced, record
from graphc.dsl.tree import LEAF
from graphc.errors import GateError
from graphc.ir.graph import Graph, Node
from graphc.ir.types import TensorType

Types = tuple[Leaf, ...]


class Gate:
    """Subclass it with `forward(self, x, ...)` and `backward(self, dz, x, ...)`.

    `forward` returns one array. `backward` takes its cotangent and the operands, and returns a
    cotangent for each operand, in a tuple where there are several; None is zero, and goes for
    integers. Where forward broadcasts an operand, its cotangent may have the broadcast shape: it is
    summed. Instances are callable; a class without a constructor of its own can be called on
    operands directly.
    """

    _graphs: dict[Types, tuple[Traced, Traced | None]]
    _jitted: Any

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if not args or cls.__init__ is not object.__init__:
            made = super().__new__(cls)
            made._graphs, made._jitted = {}, None
            return made
        if "_shared" not in cls.__dict__:
            cls._shared = cls()
        return cls._shared(*args, **kwargs)

    _shared: Any

    def forward(self, *operands: Any) -> Any:
        """The gate's result."""
        raise GateError(f"gate {type(self).__name__} needs a forward method")

    def backward(self, ct: Any, *operands: Any) -> Any:
        """The operands' cotangents."""
        raise GateError(f"gate {type(self).__name__} has no backward method")

    @property
    def __name__(self) -> str:
        return name_of(type(self))

    def __call__(self, *operands: Any) -> Any:
        if find_recorder(operands) is None:
            return self._compiled()(*operands)
        given = [lifted(x) for x in operands]
        recorder = given[0].recorder if given else None
        if recorder is None:
            raise GateError(f"gate {self.__name__} needs at least one operand")
        forward, backward = self._graphs_for(tuple(Leaf(x.type, x.weak) for x in given))
        recorder.enter_line()
        hidden = [
            recorder.lift(a) for a in (*forward.captured, *(backward.captured if backward else ()))
        ]
        attrs = _attrs(self.__name__, forward, backward)
        return Tensor(recorder.apply("call", *(x.value for x in given), *hidden, **attrs))

    def _compiled(self) -> Any:
        from graphc.dsl.transform import Jit

        if self._jitted is None:
            self._jitted = Jit(lambda *operands: self(*operands), self.__name__)
        return self._jitted

    def _graphs_for(self, types: Types) -> tuple[Traced, Traced | None]:
        found = self._graphs.get(types)
        if found is None:
            found = self._graphs[types] = self._traced(types)
        return found

    def _traced(self, types: Types) -> tuple[Traced, Traced | None]:
        names = _names(self.forward, len(types))
        forward = record(self.forward, types, names, self.__name__).closed()
        out = forward.graph.outputs[0][1].type
        if forward.out_tree != LEAF:
            raise GateError(f"gate {self.__name__}: forward returns one array")
        if type(self).backward is Gate.backward or not out.dtype.is_float:
            return forward, None
        return forward, self._traced_backward(forward, out, types, names)

    def _traced_backward(
        self, forward: Traced, out: TensorType, types: Types, names: Sequence[str]
    ) -> Traced:
        """The backward: its results are the cotangents of float operands, captured ones too."""

        def cotangents(ct: Tensor, *operands: Tensor) -> tuple[Any, ...]:
            found = self.backward(ct, *operands)
            found = found if isinstance(found, (tuple, list)) else (found,)
            if len(found) != len(operands):
                raise GateError(
                    f"gate {self.__name__}: backward gives {len(found)} cotangents for "
                    f"{len(operands)} operands"
                )
            return tuple(
                self._fitted(c, x, n)
                for c, x, n in zip(found, operands, names)
                if x.value.dtype.is_float
            )

        ct_name = next(n for n in ("ct", "cotangent", "cotangent_") if n not in names)
        recorded = record(
            _or_nothing(cotangents), (out, *types), (ct_name, *names), f"{self.__name__}_backward"
        )
        _add_captured(recorded, forward)
        return recorded.closed()

    def _fitted(self, given: Any, operand: Tensor, name: str) -> Tensor:
        """A cotangent of the operand's type."""
        if given is None:
            return Tensor(operand.value.zeros_like())
        ct = _summed(lifted(given), operand)
        if ct.shape != operand.shape:
            what = f"gate {self.__name__}: backward gives {ct.type} for the operand {name}"
            what = f"{what} of {operand.type}"
            sizes = next(((s, t) for s, t in zip(ct.shape, operand.shape) if s != t), (0, 0))
            raise mismatch(operand.recorder, what, {"given": ct.value}, *sizes)
        return Tensor(ct.value.cast(operand.value.dtype))


def _summed(ct: Tensor, operand: Tensor) -> Tensor:
    """A cotangent of the broadcast shape, summed over the axes along which x was repeated."""
    value, offset = ct.value, ct.ndim - operand.ndim
    if offset < 0 or any(s not in (1, t) for s, t in zip(operand.shape, ct.shape[offset:])):
        return ct
    for axis in reversed(range(ct.ndim)):
        if axis < offset:
            value = value.sum(axis)
        elif operand.shape[axis - offset] != ct.shape[axis]:
            value = value.sum(axis).expand(axis)
    return Tensor(value)


def _or_nothing(function: Any) -> Any:
    """A gate of integers alone has no cotangents; its backward then has one that nothing reads."""
    return lambda ct, *operands: function(ct, *operands) or (ct,)


def _names(function: Any, count: int) -> list[str]:
    known = [
        p.name
        for p in inspect.signature(function).parameters.values()
        if p.kind is not p.VAR_POSITIONAL
    ]
    return [known[i] if i < len(known) else f"x{i}" for i in range(count)]


def _add_captured(recorded: Recording, forward: Traced) -> None:
    """Zeros for the cotangents of captured floats: the forward's first, then the backward's own."""
    own = [v.type for _, _, v in recorded.recorder.captured]
    for i, ty in enumerate(
        [*(TensorType(n.type.dtype, n.type.shape) for n in _hidden(forward)), *own]
    ):
        if ty.dtype.is_float:
            recorded.add_output(f"zero_{i}", recorded.recorder.constant(0, ty))


def _hidden(traced: Traced) -> tuple[Node, ...]:
    return traced.graph.inputs[len(traced.arguments) :]


def _attrs(label: str, forward: Traced, backward: Traced | None) -> dict[str, Any]:
    """Both graphs over one list of operands: the user's, captured forward, captured backward."""
    if backward is None:
        return {"label": label, "forward": forward.graph, "backward": None}
    theirs = _nominal("backward", _hidden(backward))
    ours = _nominal("forward", _hidden(forward))
    f, b = forward.graph, backward.graph
    if not theirs and not ours:
        return {"label": label, "forward": f, "backward": b}
    return {
        "label": label,
        "forward": Graph(f.name, (*f.inputs, *theirs), f.outputs, f.origins),
        "backward": Graph(
            b.name, (*backward.arguments, *ours, *_hidden(backward)), b.outputs, b.origins
        ),
    }


def _nominal(name: str, nodes: Sequence[Node]) -> tuple[Node, ...]:
    return tuple(Node("input", (), (("name", f"{name}_{i}"),), n.type) for i, n in enumerate(nodes))
