"""What makes a function public: on traced values it records, on arrays it compiles itself and runs.

In:   a function over traced values, and which of its parameters are arrays.
Out:  the same function for arrays, too: compiled once for each set of types and other arguments.
Invariant: inside of a running trace everything is recorded, so that transforms see it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import numpy as np

from graphc.dsl.apply import find_recorder
from graphc.dsl.recorder import recording
from graphc.gates.gate import Gate

F = TypeVar("F", bound=Callable[..., Any])


def public(*arrays: str) -> Callable[[F], F]:
    """Decorate a function whose parameters of these names are arrays; `arrays` is a list."""

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        function.__name__ = function.__qualname__ = function.__name__.rstrip("_")

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            recorder = find_recorder((*args, *kwargs.values()) if kwargs else args)
            if recorder is None:
                bound = signature.bind(*args, **kwargs).arguments
                return _compiled(function, bound, arrays)
            recorder.enter_line()
            with recording(recorder):
                return function(*args, **kwargs)

        return call  # type: ignore[return-value]

    return decorate


def _compiled(
    function: Callable[..., Any], arguments: Mapping[str, Any], arrays: tuple[str, ...]
) -> Any:
    given = {
        k: _as_array(v, k == "arrays")
        for k, v in arguments.items()
        if k in arrays and v is not None
    }
    fixed = tuple((k, frozen(v)) for k, v in arguments.items() if k not in given)
    return _jitted(function, tuple(given), fixed)(*given.values())


def _as_array(value: Any, several: bool) -> Any:
    """Lists of numbers are arrays; `arrays` is a list of such."""
    if several:
        return [_as_array(v, False) for v in value]
    return np.asarray(value) if isinstance(value, (list, tuple)) else value


def frozen(value: Any) -> Hashable:
    """A hashable form of shapes, axes and widths."""
    if isinstance(value, (list, tuple)):
        return tuple(frozen(v) for v in value)
    if isinstance(value, np.ndarray):
        return frozen(value.tolist())
    return value


@functools.lru_cache(maxsize=1024)
def _jitted(
    function: Callable[..., Any], names: tuple[str, ...], fixed: tuple[tuple[str, Any], ...]
) -> Any:
    from graphc.dsl.transform import jit

    def evaluated(*values: Any) -> Any:
        return function(**dict(zip(names, values)), **dict(fixed))

    evaluated.__name__ = evaluated.__qualname__ = function.__name__
    return jit(evaluated)


def evaluate(gate: Gate, args: tuple[Any, ...], attrs: Mapping[str, Any]) -> Any:
    """A gate's record called on arrays."""
    from graphc.dsl.apply import apply_gate

    if find_recorder(args) is not None:
        return apply_gate(gate, args, attrs)
    return _jitted_gate(gate, tuple(sorted((k, frozen(v)) for k, v in attrs.items())))(*args)


@functools.lru_cache(maxsize=1024)
def _jitted_gate(gate: Gate, attrs: tuple[tuple[str, Any], ...]) -> Any:
    from graphc.dsl.apply import apply_gate
    from graphc.dsl.transform import jit

    def evaluated(*values: Any) -> Any:
        return apply_gate(gate, values, dict(attrs))

    evaluated.__name__ = evaluated.__qualname__ = gate.name
    return jit(evaluated)
