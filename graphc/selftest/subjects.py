"""What is judged: a gate as users get it, compiled or interpreted, and its peers.

In:   an elementwise gate and a dtype.
Out:  a `Subject`: arrays in, the value and each partial derivative out.
Invariant: the derivatives are those of the gradient graph of a graph of this one gate, through
adjoint, simplify and code generation; nothing asks the record's partials directly.

>>> from graphc.gates.gate import registry
>>> from graphc.ir.types import f64
>>> exp = compiled(registry()["exp"], f64)
>>> exp.run(np.array([0.0]))
[array([1.]), array([1.])]
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from graphc.errors import DifferentiationError
from graphc.gates.elementwise import Elementwise
from graphc.gates.gate import registry
from graphc.ir.graph import Builder, Graph
from graphc.ir.types import DType, f32, f64
from graphc.transforms.adjoint import adjoint

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Subject:
    """Arrays in, [value, partial, ...] out; a partial that is not given is None."""

    name: str
    apply: Callable[..., list[Array | None]]

    def run(self, *args: Array) -> list[Array | None]:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.apply(*args)


def judged_gates() -> list[Elementwise]:
    """The elementwise gates of floats, as far as they promise an error."""
    return [
        g
        for g in registry().values()
        if isinstance(g, Elementwise)
        and g.ulp is not None
        and not g.attrs
        and not g.choice
        and g.result == "same"
        and g.accepts in ("float", "number", "any")
    ]


def inner_gates() -> frozenset[str]:
    """Gates that bodies call, behind `rare` or not: their callers' errors are theirs."""
    found: set[str] = set()
    for gate in judged_gates():
        for dtype in (f64, f32):
            try:
                code = gate.body_graph((dtype,) * len(gate.params)).code
            except Exception:  # its own report will say so
                continue
            found |= {str(i.attr) for i in code if i.op in ("rare", "call")}
    return frozenset(found)


def graph_of(gate: Elementwise, dtype: DType, gradient: bool) -> Graph:
    """y = gate(...), and, for a gradient, the sum of y: a scalar to differentiate."""
    builder = Builder()
    y = gate(*[builder.input(p, dtype["n"]) for p in gate.params])
    return builder.graph(gate.name, {"sum": y.sum(0), "y": y} if gradient else {"y": y})


def differentiable(gate: Elementwise, dtype: DType) -> bool:
    """Whether the gate has derivatives; the last one of a chain, such as lgamma's, has none."""
    if gate.structure == "zero":
        return False
    try:
        adjoint(graph_of(gate, dtype, True), gate.params)
    except DifferentiationError:
        return False
    return True


def compiled(gate: Elementwise, dtype: DType, gradient: bool = True) -> Subject:
    """The gate in machine code; its value comes from the same kernel as its gradient."""
    from graphc.pipeline import Options
    from graphc.runtime.kernel import compile_graph

    gradient = gradient and differentiable(gate, dtype)
    options = Options(wrt=gate.params if gradient else ())
    kernel = compile_graph(graph_of(gate, dtype, gradient), options)

    def apply(*args: Array) -> list[Array | None]:
        return [*kernel.run(args)[1:]] if gradient else [*kernel.run(args)]

    return Subject("graphc", apply)


def interpreted(gate: Elementwise, dtype: DType) -> Subject:
    """The same graphs in the reference interpreter."""
    from graphc.ir.reference import run_graph
    from graphc.passes.simplify import simplify

    gradient = differentiable(gate, dtype)
    graph = graph_of(gate, dtype, gradient)
    graph = simplify(adjoint(graph, gate.params) if gradient else graph)

    def apply(*args: Array) -> list[Array | None]:
        return [*run_graph(graph, args)[1 if gradient else 0 :]]

    return Subject("interpreter", apply)


# -- peers -----------------------------------------------------------------------------------------

NUMPY = {
    "asin": "arcsin", "acos": "arccos", "atan": "arctan", "asinh": "arcsinh", "acosh": "arccosh",
    "atanh": "arctanh", "atan2": "arctan2", "round": "rint", "neg": "negative", "div": "divide",
    "mul": "multiply", "sub": "subtract", "abs": "absolute",
    **{n: n for n in (
        "add", "sign", "square", "sqrt", "reciprocal", "floor", "ceil", "trunc", "maximum",
        "minimum", "fmax", "fmin", "copysign", "heaviside", "fmod", "remainder", "floor_divide",
        "exp", "expm1", "exp2", "log", "log2", "log10", "log1p", "power", "cbrt", "hypot",
        "logaddexp", "logaddexp2", "sin", "cos", "tan", "sinc", "sinh", "cosh", "tanh", "clip")},
}  # fmt: skip
SCIPY = {
    "sigmoid": "expit", "log_sigmoid": "log_expit", "erf": "erf", "erfc": "erfc",
    "erfinv": "erfinv", "ndtr": "ndtr", "log_ndtr": "log_ndtr", "lgamma": "gammaln",
    "digamma": "psi", "xlogy": "xlogy", "xlog1py": "xlog1py",
}  # fmt: skip


def _jax_function(name: str) -> Callable[..., Any] | None:
    import jax
    import jax.numpy as jnp
    from jax.scipy import special

    own: dict[str, Callable[..., Any]] = {
        "sigmoid": jax.nn.sigmoid, "softplus": jax.nn.softplus, "silu": jax.nn.silu,
        "log_sigmoid": jax.nn.log_sigmoid, "gelu": partial(jax.nn.gelu, approximate=False),
        "rsqrt": jax.lax.rsqrt, "erf": special.erf, "erfc": special.erfc, "erfinv": special.erfinv,
        "ndtr": special.ndtr, "log_ndtr": special.log_ndtr, "lgamma": special.gammaln,
        "digamma": special.digamma, "xlogy": special.xlogy,
        "xlog1py": special.xlog1py, "relu": jax.nn.relu,
    }  # fmt: skip
    return own.get(name) or getattr(jnp, NUMPY.get(name, "no such function"), None)


def numpy_peer(name: str) -> Subject | None:
    """NumPy's function, or SciPy's where it is installed; its polygamma takes hours far left of 0,
    and is left out."""
    if name in NUMPY:
        function = getattr(np, NUMPY[name])
        return Subject("numpy", lambda *args: [function(*args)])
    try:
        from scipy import special
    except ImportError:
        return None
    if name in SCIPY:
        function = getattr(special, SCIPY[name])
        return Subject("scipy", lambda *args: [function(*args)])
    return None


def jax_peer(name: str, arity: int) -> Subject | None:
    """JAX's function and its gradient, in 64 bits; its polygamma takes minutes, and is left out."""
    try:
        import jax
    except ImportError:
        return None
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_platforms", "cpu")
    function = _jax_function(name)
    if function is None:
        return None
    value = jax.jit(function)
    slopes = jax.jit(jax.vmap(jax.grad(function, tuple(range(arity)))))

    def apply(*args: Array) -> list[Array | None]:
        n = args[0].size
        length = 1 << max(n - 1, 1).bit_length()  # JAX compiles anew for every length
        padded = [np.concatenate([a, np.ones(length - n, a.dtype)]) for a in args]
        try:
            partials = slopes(*padded)
        except (TypeError, RuntimeError):
            partials = ()
        return [np.asarray(y)[:n] for y in (value(*padded), *partials)]

    return Subject("jax", apply)
