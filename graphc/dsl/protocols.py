"""NumPy's own functions on traced values: `np.tanh(x @ w)` in plain NumPy code traces.

In:   a ufunc or an array function of NumPy that met a traced value.
Out:  what graphc's function of the same name gives.
Invariant: an argument that has no traced meaning is an error, and none is ignored.

>>> import numpy as np
>>> from graphc.dsl.trace import trace
>>> from graphc.ir.types import f64
>>> trace(lambda x: np.sum(np.exp(x)), (f64["n"],), ("x",)).graph.outputs[0][1].op
'sum'
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy._globals import _NoValue

from graphc.dsl import functions
from graphc.dsl.apply import lifted, need_recorder
from graphc.dsl.recorder import place_text, recording, user_place
from graphc.dsl.tensor import Tensor
from graphc.errors import DTypeError, TraceError

_UFUNC_NAMES = {
    "bitwise_and": "logical_and",
    "bitwise_or": "logical_or",
    "bitwise_xor": "logical_xor",
    "invert": "logical_not",
    "bitwise_invert": "logical_not",
}
_SCIPY_NAMES = {  # ufuncs of scipy.special
    "expit": "sigmoid",
    "gammaln": "lgamma",
    "log_expit": "log_sigmoid",
    "psi": "digamma",
}
_REDUCTIONS = {
    "add": "sum",
    "multiply": "prod",
    "maximum": "max",
    "minimum": "min",
    "logical_and": "all",
    "logical_or": "any",
}
_SCANS = {"add": "cumsum", "multiply": "cumprod"}
_ALIASES = {"amax": "max", "amin": "min", "round_": "round", "around": "round", "vecdot": "vdot"}
_SAFE = {"out": None, "where": True, "order": "K", "subok": True, "casting": "same_kind"}


def call_ufunc(
    ufunc: np.ufunc, method: str, inputs: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    """What `Tensor.__array_ufunc__` answers."""
    name = f"numpy.{ufunc.__name__}" + ("" if method == "__call__" else f".{method}")
    options = _without_defaults(name, kwargs)
    if method == "reduce" and ufunc.__name__ in _REDUCTIONS:
        options.setdefault("axis", 0)
        return _function(_REDUCTIONS[ufunc.__name__], name)(*inputs, **options)
    if method == "accumulate" and ufunc.__name__ in _SCANS:
        options.setdefault("axis", 0)
        return _function(_SCANS[ufunc.__name__], name)(*inputs, **options)
    if method == "outer" and len(inputs) == 2:
        with recording(need_recorder(inputs)):
            x, y = (lifted(v) for v in inputs)
        return call_ufunc(ufunc, "__call__", (x[(...,) + (None,) * y.ndim], y), kwargs)
    if method != "__call__":
        raise _untraced(name)
    if ufunc.__name__ in _UFUNC_NAMES:
        _bools_only(name, inputs)
    known = {**_UFUNC_NAMES, **_SCIPY_NAMES}
    function = _function(known.get(ufunc.__name__, ufunc.__name__), name)
    dtype = options.pop("dtype", None)
    if options:
        raise _argument(name, next(iter(options)))
    if dtype is not None:
        inputs = [functions.astype(v, dtype) for v in inputs]
    return function(*inputs)


def call_function(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What `Tensor.__array_function__` answers."""
    name = f"{getattr(func, '__module__', 'numpy')}.{func.__name__}"
    if name in _INSPECTIONS:
        return _INSPECTIONS[name](*args, **kwargs)
    if getattr(func, "__module__", "numpy") != "numpy":
        raise _untraced(name)
    function = _function(_ALIASES.get(func.__name__, func.__name__), name)
    options = _without_defaults(name, kwargs)
    try:
        return function(*args, **options)
    except TypeError as error:
        if type(error) is TypeError and "argument" in str(error):
            raise TraceError(
                f"{name} at {place_text(user_place())}: on traced values, {error}"
            ) from error
        raise


_INSPECTIONS: dict[str, Callable[..., Any]] = {
    "numpy.shape": lambda x: x.shape,
    "numpy.ndim": lambda x: x.ndim,
    "numpy.size": lambda x, axis=None: x.size if axis is None else x.shape[axis],
    "numpy.result_type": lambda *args: np.result_type(
        *(a.dtype if isinstance(a, Tensor) else a for a in args)
    ),
    "numpy.iscomplexobj": lambda x: False,
    "numpy.isrealobj": lambda x: True,
}


def _function(name: str, numpy_name: str) -> Callable[..., Any]:
    if name not in functions.EXPORTS:
        raise _untraced(numpy_name)
    return getattr(functions, name)


def _untraced(name: str) -> TraceError:
    return TraceError(
        f"{name} of a traced value at {place_text(user_place())}: graphc has no such function. "
        "Write it with those that it has (dir(graphc.numpy)), or as a graphc.Gate"
    )


def _argument(name: str, argument: str) -> TraceError:
    return TraceError(
        f"{name} of a traced value at {place_text(user_place())}: the argument {argument!r} is "
        "not supported"
    )


def _without_defaults(name: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that say something; `out` and masks have no traced meaning."""
    kept = {}
    for k, v in kwargs.items():
        if k in _SAFE:
            given = v[0] if isinstance(v, tuple) and len(v) == 1 else v
            if not isinstance(given, (bool, str, type(None))) or given != _SAFE[k]:
                raise _argument(name, k)
        elif v is not _NoValue:
            kept[k] = v
    return kept


def _bools_only(name: str, inputs: Sequence[Any]) -> None:
    for v in inputs:
        dtype = getattr(v, "dtype", None)
        if (np.asarray(v).dtype if dtype is None else dtype) != np.bool_:
            raise DTypeError(
                f"{name} at {place_text(user_place())}: bitwise operations are for bools here, "
                f"got {dtype}"
            )
