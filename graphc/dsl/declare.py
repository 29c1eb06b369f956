"""Declared graphs: `@graphc.graph` on a typed function, or `graphc.Graph` built by hand.

In:   a function whose parameters have types, or inputs and outputs one by one.
Out:  a `Declared`: called on arrays it compiles and runs, called on traced values it is inlined.
Invariant: it is compiled exactly as declared: a size with a name is symbolic, a number is static.

>>> import numpy as np
>>> from graphc.ir.types import f64
>>> @graph
... def neuron(x: f64["n", 3], w: f64[3], b: f64):
...     return np.maximum(x @ w + b, 0.0)
>>> neuron(np.ones((2, 3)), np.arange(3.0), 1)
array([4., 4.])
"""

from __future__ import annotations

import functools
import inspect
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, ParamSpec, TypeVar

from graphc.dsl.apply import find_recorder, lifted
from graphc.dsl.inline import inline
from graphc.dsl.promote import operand
from graphc.dsl.recorder import Recorder, place_text, recording, user_place
from graphc.dsl.signature import (
    as_type,
    bind,
    evaluated_signature,
    name_of,
    parameter_types,
)
from graphc.dsl.tensor import Tensor
from graphc.dsl.trace import Traced, flatten_arguments, is_type, trace
from graphc.dsl.tree import LEAF, Structure, as_names, flatten_like, unflatten
from graphc.errors import SignatureError
from graphc.ir.graph import Graph as NodeGraph
from graphc.ir.graph import Value
from graphc.ir.types import Dim, TensorType
from graphc.runtime.arguments import as_result, bind_sizes, prepare
from graphc.runtime.compiling import once

P = ParamSpec("P")
R = TypeVar("R")


class _Callable(ABC):
    """A graph with types, as a function of its inputs."""

    __name__: str
    __signature__: inspect.Signature

    @property
    @abstractmethod
    def traced(self) -> Traced:
        """The trace, made when it is first asked for."""

    @property
    def graph(self) -> NodeGraph:
        """The graph as traced."""
        return self.traced.graph

    @property
    def in_types(self) -> tuple[TensorType, ...]:
        return tuple(n.type for n in self.traced.arguments)

    def _leaves(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
        bound = bind(self.__signature__, self.__name__, args, kwargs)
        bound.apply_defaults()
        leaves = []
        for child, (name, value) in zip(self.traced.in_tree.children, bound.arguments.items()):
            leaves.extend(flatten_like(child, value, name))
        return leaves

    @once
    def _run(self) -> Any:
        from graphc.dsl.transform import compiled

        return compiled(self.traced)

    def _call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        leaves, traced = self._leaves(args, kwargs), self.traced
        names = [n["name"] for n in traced.arguments]
        recorder = find_recorder(leaves)
        if recorder is not None:
            return self._inlined(recorder, leaves, names)
        arrays = [prepare(x, n.type, name) for x, n, name in zip(leaves, traced.arguments, names)]
        bind_sizes(self.in_types, [a.shape for a in arrays], names)
        return unflatten(traced.out_tree, map(as_result, self._run(arrays)))

    def _inlined(self, recorder: Recorder, leaves: Sequence[Any], names: Sequence[str]) -> Any:
        recorder.enter_line()
        with recording(recorder):
            outputs = inline(recorder, self.traced, [lifted(x) for x in leaves], names)
        return unflatten(self.traced.out_tree, outputs)


class Declared(_Callable, Generic[P, R]):
    """A typed function as a graph. It keeps name, doc and signature."""

    def __init__(self, function: Callable[P, R], local: Mapping[str, Any] | None = None) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self.__name__ = name_of(function)
        self.__signature__ = evaluated_signature(function, local)
        self.names, self.types = parameter_types(function, local)
        _check_sizes(self.__name__, self.names, self.types)

    @once
    def traced(self) -> Traced:
        return trace(self._function, self.types, self.names, self.__name__)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._call(args, kwargs)

    def __repr__(self) -> str:
        return f"<graphc.graph {self.__name__}{self.__signature__}>"


def graph(function: Callable[P, R]) -> Declared[P, R]:
    """Declare a graph by a function with typed parameters, `x: graphc.f64["n", 3]`.

    It is traced when it is first used. Sizes with names are symbolic, and equal names are equal
    sizes.
    """
    return Declared(function, sys._getframe(1).f_locals)


def _check_sizes(name: str, names: Sequence[str], types: Sequence[Any]) -> None:
    """Every named size stands somewhere alone, so that a call can tell its value."""
    leaves, leaf_names, _ = flatten_arguments(types, names, is_type)
    sizes = [(s, at) for t, at in zip(leaves, leaf_names) for s in t.shape if isinstance(s, Dim)]
    alone = {s.text for s, _ in sizes if s.text.isidentifier()}
    for s, at in sizes:
        unknown = [n for n in s.symbols() if n not in alone]
        if unknown:
            raise SignatureError(
                f"{name}: the size {s} of {at} does not say what {unknown[0]} is: let "
                f"{unknown[0]} be a size by itself"
            )


class Graph(_Callable):
    """A graph built by hand: inputs by name and type, then outputs by name.

    >>> from graphc.ir.types import f64
    >>> g = Graph("double")
    >>> x = g.input("x", f64["n"])
    >>> _ = g.output("y", x + x)
    >>> print(g.graph.outputs[0][1].op)
    add
    """

    def __init__(self, name: str) -> None:
        if not (name.isidentifier() and name.isascii()):
            raise SignatureError(
                f"{name!r} is not a name for a graph: use letters, digits and underscores"
            )
        self.__name__ = name
        self.__doc__ = f"The graph {name}."
        self._recorder = Recorder(name)
        self._inputs: dict[str, Value] = {}
        self._outputs: dict[str, Value] = {}
        self._traced: Traced | None = None

    def input(self, name: str, annotation: Any) -> Tensor:
        """A new input of a type such as `graphc.f64["n", 3]`."""
        if name in self._inputs or as_names([name]) != [name]:
            raise SignatureError(
                f"{self.__name__}: an input needs a new name of letters and digits, got {name!r}"
            )
        ty = as_type(annotation, f"input {name} of {self.__name__}")
        if not isinstance(ty, TensorType):
            raise SignatureError(f"{self.__name__}: input {name} is one array, got {annotation!r}")
        self._open()
        self._inputs[name] = self._recorder.input(name, ty)
        return Tensor(self._inputs[name])

    def output(self, name: str, value: Any) -> Any:
        """Name a result; gives it back."""
        if name in self._outputs or as_names([name]) != [name]:
            raise SignatureError(
                f"{self.__name__}: an output needs a new name of letters and digits, got {name!r}"
            )
        self._open()
        self._outputs[name] = operand(self._recorder, value).lifted(self._recorder)
        return value

    def _open(self) -> None:
        self._recorder.enter_line()
        self._traced = None
        self.__dict__.pop("_run", None)

    @property
    def traced(self) -> Traced:
        if self._traced is None:
            self._traced = self._snapshot()
        return self._traced

    def _snapshot(self) -> Traced:
        if not self._outputs:
            raise SignatureError(
                f"{self.__name__} has no output at {place_text(user_place())}: name one with "
                ".output()"
            )
        captured = self._recorder.captured
        inputs = [*self._inputs.values(), *(v for _, _, v in captured)]
        names = list(self._inputs)
        _check_sizes(self.__name__, names, [v.type for v in self._inputs.values()])
        made = self._recorder.graph(self.__name__, self._outputs, inputs)
        in_tree = Structure("tuple", None, (LEAF,) * len(names))
        keys = tuple(self._outputs)
        out_tree = LEAF if len(keys) == 1 else Structure("dict", (dict, keys), (LEAF,) * len(keys))
        return Traced(made, in_tree, out_tree, tuple(copy for _, copy, _ in captured))

    @property
    def __signature__(self) -> inspect.Signature:  # type: ignore[override]
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        return inspect.Signature(
            [inspect.Parameter(n.replace(".", "_"), kind) for n in self._inputs]
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The output on these inputs; of several outputs a dict by name."""
        return self._call(args, kwargs)

    def __repr__(self) -> str:
        inputs, outputs = ", ".join(self._inputs), ", ".join(self._outputs)
        return f"<graphc.Graph {self.__name__}({inputs}) -> {outputs}>"
