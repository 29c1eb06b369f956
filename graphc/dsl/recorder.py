"""The open end of a trace: a builder that knows the user's lines and the arrays that were captured.

In:   arrays, numbers and traced values, as the user's code mixes them.
Out:  nodes that carry the user's file and line.
Invariant: a recorder takes nodes only while its trace is open, and a value never crosses to another
recorder.

>>> import numpy as np
>>> recorder = Recorder("f")
>>> recorder.lift(np.arange(3.0))
Value(<constant : f64[3]>)
>>> recorder.lift(np.zeros(100)).node["name"], len(recorder.captured)
('captured_0', 1)
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NoReturn

import numpy as np

from graphc.errors import GraphcError, TraceError
from graphc.ir.graph import Builder, Graph, Node, Origin, Origins, Value
from graphc.ir.text import names_of
from graphc.ir.types import TensorType, from_numpy

CONSTANT_ELEMENTS = 64  # a captured array up to this size becomes a constant, a larger one an input

INSIDE = tuple(  # folders whose lines are not the user's
    os.path.dirname(os.path.abspath(path)) + os.sep
    for path in (os.path.dirname(__file__), np.__file__)
)


def user_place() -> Origins:
    """The innermost line on the stack that belongs neither to graphc nor to NumPy."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename.startswith(INSIDE):
        if frame.f_back is None:
            return ()
        frame = frame.f_back
    return _place(frame.f_code.co_filename, frame.f_lineno)


@lru_cache(maxsize=4096)
def _place(file: str, line: int) -> Origins:
    return (Origin(file, line),)


def place_text(origins: Origins | None) -> str:
    return str(origins[0]) if origins else "an unknown line"


class Recorder(Builder):
    """A builder for one trace."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.is_open = True
        self.captured: list[
            tuple[np.ndarray, np.ndarray, Value]
        ] = []  # the user's, our copy, its input
        self._captured_ids: dict[int, Value] = {}

    def enter_line(self) -> None:
        """New nodes come from the user's current line."""
        if not self.is_open:
            raise TraceError(
                f"a traced value of {self.name!r} is used at {place_text(user_place())} after its "
                "trace has ended: "
                "return it from the function instead of keeping it elsewhere"
            )
        self.at = user_place()

    def nominal(self, name: str, ty: TensorType) -> Value:
        """An input that stands for a nested transform's argument until it is substituted."""
        value = self.input(name, ty)
        self.inputs.pop()
        return value

    def lift(self, array: np.ndarray) -> Value:
        """A captured array: a constant if it is small, else a hidden input. Copied either way."""
        found = self._captured_ids.get(id(array))
        if found is not None:
            return found
        plain = plain_array(array, "a captured array")
        ty = TensorType(from_numpy(plain.dtype), plain.shape)
        if plain.size <= CONSTANT_ELEMENTS:
            return self.array(plain, ty)
        copy = np.array(plain, order="C")
        copy.setflags(write=False)
        value = self.nominal(f"captured_{len(self.captured)}", ty)
        self.captured.append((array, copy, value))
        self._captured_ids[id(array)] = value
        return value

    def fail(self, kind: type[GraphcError], message: str, **operands: Value) -> NoReturn:
        """Raise an error that names the user's line and describes the operands."""
        raise kind(
            "\n".join([message, *self.describe(operands), f"  at     {place_text(user_place())}"])
        )

    def describe(self, operands: dict[str, Value]) -> list[str]:
        lines = []
        for label, value in operands.items():
            place = self.origins.get(value.node)
            lines.append(f"  {label:<6} {self.text(value.node)}   {place_text(place)}")
        return lines

    def text(self, node: Node) -> str:
        """`x` for an input, `%2 = mul(x, w)` for another node."""
        if node.op == "input":
            return str(node["name"])
        names = names_of(Graph("", tuple(self.inputs), (("", node),)))
        operands = ", ".join(self._operand_text(a, names) for a in node.args)
        return f"{names[node]} = {node.op}({operands})"

    def _operand_text(self, node: Node, names: dict[Node, str]) -> str:
        value = Value(self, node)
        if node.op == "input":
            return str(node["name"])
        return repr(value.splat()) if value.is_splat() else names[node]


_active = threading.local()


def current() -> Recorder | None:
    """The innermost trace that is running on this thread."""
    stack = getattr(_active, "stack", None)
    return stack[-1] if stack else None


@contextmanager
def recording(recorder: Recorder) -> Iterator[Recorder]:
    """Array functions called inside record here."""
    stack = _active.__dict__.setdefault("stack", [])
    stack.append(recorder)
    try:
        yield recorder
    finally:
        stack.pop()


def plain_array(value: Any, what: str) -> np.ndarray:
    """An ndarray in native byte order; a DTypeError for what graphc would have to misread."""
    from graphc.runtime.arguments import as_plain_array

    return as_plain_array(value, what)
