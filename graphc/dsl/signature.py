"""Signatures: `x: graphc.f64["n", 3]` -> types, and calls -> arguments in order.

In:   a function with annotated parameters.
Out:  parameter names, and for each a tree of types; dicts, tuples and classes of annotations are
      trees.
Invariant: annotations mean the same with and without `from __future__ import annotations`.

>>> from graphc.ir.types import f64
>>> def neuron(x: f64["n", 3], params: {"w": f64[3], "b": f64}): ...
>>> parameter_types(neuron)
(('x', 'params'), (f64[n,3], {'w': f64[3], 'b': f64[]}))
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ForwardRef, get_args, get_origin

from graphc.errors import SignatureError
from graphc.ir.types import DType, TensorType, bool_, f64, i64

_PYTHON = {float: f64, int: i64, bool: bool_}


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """The signature; one that takes anything where there is none."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return inspect.signature(lambda *args, **kwargs: None)


def name_of(function: Callable[..., Any]) -> str:
    """A name that a graph can have."""
    inner = getattr(function, "func", None)  # of a functools.partial
    name: str = (
        getattr(function, "__name__", None) or getattr(inner, "__name__", None) or "function"
    )
    return name if name.isidentifier() and name.isascii() else "function"


def evaluated_signature(
    function: Callable[..., Any], local: Mapping[str, Any] | None = None
) -> inspect.Signature:
    """The signature, with what its annotations say in place of their text."""
    try:
        return inspect.signature(function, locals=dict(local or {}), eval_str=True)
    except Exception as error:
        raise SignatureError(
            f"an annotation of {name_of(function)} cannot be read: {error}"
        ) from error


def parameter_types(
    function: Callable[..., Any], local: Mapping[str, Any] | None = None
) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    """Names and types of the parameters of a declared graph."""
    signature = evaluated_signature(function, local)
    types = []
    for p in signature.parameters.values():
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            raise SignatureError(
                f"{name_of(function)}: a graph has a fixed count of parameters, not *{p.name}"
            )
        types.append(as_type(p.annotation, f"parameter {p.name} of {name_of(function)}"))
    return tuple(signature.parameters), tuple(types)


def as_type(annotation: Any, what: str) -> Any:
    """A tree of types for a tree of annotations."""
    if isinstance(annotation, DType):
        return TensorType(annotation)
    if isinstance(annotation, TensorType):
        return annotation
    if isinstance(annotation, type) and annotation in _PYTHON:
        return TensorType(_PYTHON[annotation])
    if isinstance(annotation, dict):
        return {k: as_type(v, f"{what}, key {k!r}") for k, v in annotation.items()}
    if isinstance(annotation, (tuple, list)):
        return type(annotation)(as_type(v, what) for v in annotation)
    if get_origin(annotation) is tuple:
        return tuple(as_type(v, what) for v in get_args(annotation))
    if isinstance(annotation, type) and (
        dataclasses.is_dataclass(annotation) or hasattr(annotation, "_fields")
    ):
        return _of_class(annotation, what)
    if annotation is inspect.Parameter.empty:
        raise SignatureError(f"{what} has no type: annotate it, as in x: graphc.f64['n', 3]")
    raise SignatureError(
        f"{what} is annotated with {annotation!r}: use a type such as graphc.f64['n', 3]"
    )


def _of_class(cls: type, what: str) -> Any:
    """A dataclass or named tuple whose fields are annotated with types."""
    fields = inspect.get_annotations(_with_text(cls), eval_str=True)
    parts = {k: as_type(v, f"{what}, field {k}") for k, v in fields.items()}
    if hasattr(cls, "_fields"):
        return cls(**parts)
    made: Any = object.__new__(cls)
    for k, v in parts.items():
        object.__setattr__(made, k, v)
    return made


def _with_text(cls: type) -> type:
    """A class of the same annotations, where a named tuple has the text in forward references."""
    fields = inspect.get_annotations(cls)
    text = {k: v.__forward_arg__ if isinstance(v, ForwardRef) else v for k, v in fields.items()}
    return type(cls.__name__, (), {"__annotations__": text, "__module__": cls.__module__})


def bind(
    signature: inspect.Signature, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> inspect.BoundArguments:
    """Arguments by parameter; a SignatureError says what is missing or too much."""
    try:
        return signature.bind(*args, **kwargs)
    except TypeError as error:
        raise SignatureError(f"{name}{signature}: {error}") from None
