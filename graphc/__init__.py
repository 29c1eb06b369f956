"""graphc: a graph compiler. NumPy-style code in, machine code for the value and its gradient out.

Every public name is listed here; what it needs is loaded on its first use: the import is quick.

>>> import graphc
>>> graphc.f64["n", 3]
f64[n,3]
"""

from __future__ import annotations

import importlib
import time
from typing import TYPE_CHECKING, Any

# ruff: noqa: F401  names for type checkers alone
if TYPE_CHECKING:
    from graphc.dsl.declare import Graph, graph
    from graphc.dsl.functions import *  # noqa: F403
    from graphc.dsl.gate import Gate
    from graphc.dsl.tensor import Tensor
    from graphc.dsl.transform import grad, hvp, jit, jvp, value_and_grad, vjp
    from graphc.errors import (
        CompileError,
        DifferentiationError,
        DTypeError,
        FormatError,
        GateError,
        GraphcError,
        IndexOutOfBounds,
        RewriteError,
        ShapeError,
        SignatureError,
        TraceError,
        VerifyError,
    )
    from graphc.ir.types import bool_, f32, f64, i32, i64
    from graphc.runtime.cache import CacheWarning, cache_info
    from graphc.runtime.threads import get_threads, set_threads

__version__ = "0.1.0"
_IMPORTED = time.time_ns()  # source files that change later are not what this process runs

_FUNCTIONS = """
    abs absolute acos acosh add all amax amin any arange arccos arccosh arcsin arcsinh arctan
    arctan2 arctanh argmax argmin asin asinh astype atan atan2 atanh broadcast_to cbrt ceil clip
    concatenate copysign cos cosh count_nonzero cumprod cumsum deg2rad degrees diff digamma divide
    divmod dot einsum empty equal erf erfc erfinv exp exp2 expand_dims expm1 eye fabs fix flatten
    flip floor floor_divide fmax fmin fmod full full_like gelu greater greater_equal heaviside
    hstack hypot identity inner isfinite isinf isnan less less_equal lgamma linspace log log10 log1p
    log2 log_ndtr log_sigmoid log_softmax logaddexp logaddexp2 logical_and logical_not logical_or
    logical_xor logsumexp matmul max maximum mean min minimum mod moveaxis multiply ndtr negative
    not_equal ones ones_like outer pad positive power prod rad2deg radians ravel reciprocal relu
    remainder repeat reshape rint roll round rsqrt sigmoid sign silu sin sinc sinh softmax softplus
    sqrt square squeeze stack stop_gradient subtract sum swapaxes take tan tanh tensordot tile
    transpose trigamma true_divide trunc var vdot vstack where xlog1py xlogy zeros zeros_like
"""
_NAMES = {
    "graphc.aot.certificate": "check",
    "graphc.aot.library": "load",
    "graphc.dsl.declare": "Graph graph",
    "graphc.dsl.functions": _FUNCTIONS,
    "graphc.dsl.gate": "Gate",
    "graphc.dsl.tensor": "Tensor",
    "graphc.dsl.transform": "grad hvp jit jvp value_and_grad vjp",
    "graphc.errors": "CompileError DTypeError DifferentiationError FormatError GateError "
    "GraphcError IndexOutOfBounds RewriteError ShapeError SignatureError TraceError VerifyError",
    "graphc.ir.types": "bool_ f32 f64 i32 i64",
    "graphc.runtime.cache": "CacheWarning cache_info",
    "graphc.runtime.compiled": "compile",
    "graphc.runtime.threads": "get_threads set_threads",
}
_WHERE = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = sorted(_WHERE)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    """Load a public name on its first use."""
    if name == "numpy":
        return importlib.import_module("graphc.numpy")
    if name not in _WHERE:
        raise AttributeError(f"module 'graphc' has no attribute {name!r}")
    value = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*_WHERE, "numpy", "__version__"})
