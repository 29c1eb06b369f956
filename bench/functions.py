"""`python -m bench --functions`: each elementwise gate of floats on arrays in cache, in one thread.

A kernel is called through its native entry, a ufunc of NumPy or SciPy with `out=`, both on arrays
that begin with a cache line. JAX's functions are compiled for the CPU, with 64 bits, on arrays that
it already holds. What a call of JAX costs is what its negation of as many elements takes longer
than ours; its times count with that (raw) and without (net). All take turns, and so does a chain of
dependent operations of one cycle each, whose time is the processor's frequency at that moment.
"""

import ctypes
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import scipy.special as special

from bench.measure import Thunk, medians, progress
from graphc.errors import DifferentiationError
from graphc.gates.elementwise import Elementwise
from graphc.gates.gate import registry
from graphc.ir.graph import Builder, Graph
from graphc.ir.scalar import ScalarGraph
from graphc.ir.types import DType, f32, f64
from graphc.passes.simplify import simplify
from graphc.runtime.jit import Jit, Library
from graphc.runtime.kernel import compile_graph
from graphc.selftest.placement import Bound, at_offset
from graphc.transforms.adjoint import pull_back

N = 10_000
RTOL = {f64: 1e-7, f32: 1e-4}  # how far both sides may be apart; log_ndtr' of JAX is off by 4e-9
APART = 0.001  # the share of elements that may be further: steps of floor_divide and the like
INTERNAL = {"mul0", "stop_gradient", "tetragamma"}


@dataclass(frozen=True)
class Result:
    """Median seconds of a call on `N` elements; None where there is no such function."""

    gate: str
    dtype: str
    operations: int  # machine operations in the body, constants and reinterpretations apart
    peer: str  # "NumPy", "SciPy" or nothing
    hertz: float
    value: float
    derivative: float | None  # value and derivatives by each operand
    numpy: float | None
    jax: float | None
    jax_call: float | None  # of it, what a call costs
    jax_derivative: float | None
    jax_derivative_call: float | None

    @property
    def cycles(self) -> float:
        """Cycles per element."""
        return self.value * self.hertz / N

    @property
    def derivative_cycles(self) -> float | None:
        return self.derivative * self.hertz / N if self.derivative else None

    @property
    def numpy_ratio(self) -> float | None:
        return self.numpy / self.value if self.numpy else None

    @property
    def jax_ratio(self) -> float | None:
        return self.jax / self.value if self.jax else None

    @property
    def jax_net_ratio(self) -> float | None:
        return _net(self.jax, self.jax_call, self.value)

    @property
    def jax_derivative_ratio(self) -> float | None:
        return self.jax_derivative / self.derivative if self.jax_derivative else None

    @property
    def jax_derivative_net_ratio(self) -> float | None:
        return _net(self.jax_derivative, self.jax_derivative_call, self.derivative)


RATIOS = (
    "cycles", "derivative_cycles", "numpy_ratio", "jax_ratio", "jax_net_ratio",
    "jax_derivative_ratio", "jax_derivative_net_ratio",
)  # fmt: skip


def _net(raw: float | None, call: float | None, ours: float | None) -> float | None:
    """The ratio without the call; None where noise is larger than what is left."""
    return (raw - call) / ours if raw and call and ours and raw > call else None


# -- the other side -------------------------------------------------------------------------------

NUMPY = {
    "abs": "fabs", "acos": "arccos", "acosh": "arccosh", "add": "add", "asin": "arcsin",
    "asinh": "arcsinh", "atan": "arctan", "atan2": "arctan2", "atanh": "arctanh", "cbrt": "cbrt",
    "ceil": "ceil", "clip": "clip", "copysign": "copysign", "cos": "cos", "cosh": "cosh",
    "div": "divide", "exp": "exp", "exp2": "exp2", "expm1": "expm1", "floor": "floor",
    "floor_divide": "floor_divide", "fmax": "fmax", "fmin": "fmin", "fmod": "fmod",
    "heaviside": "heaviside", "hypot": "hypot", "log": "log",
    "log10": "log10", "log1p": "log1p", "log2": "log2", "logaddexp": "logaddexp",
    "logaddexp2": "logaddexp2", "maximum": "maximum", "minimum": "minimum", "mul": "multiply",
    "neg": "negative", "power": "power", "reciprocal": "reciprocal", "remainder": "remainder",
    "round": "rint", "sign": "sign", "sin": "sin", "sinh": "sinh", "sqrt": "sqrt",
    "square": "square", "sub": "subtract", "tan": "tan", "tanh": "tanh", "trunc": "trunc",
}  # fmt: skip
SCIPY = {
    "digamma": "psi", "erf": "erf", "erfc": "erfc", "erfcinv": "erfcinv", "erfcx": "erfcx",
    "erfinv": "erfinv", "exp10": "exp10", "lgamma": "gammaln", "log_ndtr": "log_ndtr",
    "log_sigmoid": "log_expit", "logit": "logit", "ndtr": "ndtr", "ndtri": "ndtri",
    "sigmoid": "expit", "xlog1py": "xlog1py", "xlogy": "xlogy",
}  # fmt: skip
JAX = {
    "abs": "numpy.abs", "add": "numpy.add", "clip": "numpy.clip", "div": "numpy.divide",
    "digamma": "scipy.special.digamma", "erf": "scipy.special.erf", "erfc": "scipy.special.erfc",
    "erfinv": "scipy.special.erfinv", "gelu": "nn.gelu", "lgamma": "scipy.special.gammaln",
    "log_ndtr": "scipy.special.log_ndtr", "log_sigmoid": "nn.log_sigmoid",
    "logit": "scipy.special.logit", "mul": "numpy.multiply", "ndtr": "scipy.special.ndtr",
    "ndtri": "scipy.special.ndtri", "neg": "numpy.negative", "relu": "nn.relu",
    "round": "numpy.rint", "rsqrt": "lax.rsqrt", "sigmoid": "nn.sigmoid", "silu": "nn.silu",
    "sinc": "numpy.sinc", "softplus": "nn.softplus", "sub": "numpy.subtract",
    "trigamma": "scipy.special.polygamma", "xlog1py": "scipy.special.xlog1py",
    "xlogy": "scipy.special.xlogy",
}  # fmt: skip
# What takes several calls, as a user would write it with `out=`.
WRITTEN: dict[str, Callable[..., Any]] = {
    "gelu": lambda x, out: np.multiply(x, special.ndtr(x, out=out), out=out),
    "relu": lambda x, out: np.maximum(x, 0, out=out),
    "rsqrt": lambda x, out: np.reciprocal(np.sqrt(x, out=out), out=out),
    "silu": lambda x, out: np.multiply(x, special.expit(x, out=out), out=out),
    "sinc": lambda x, out: np.copyto(out, np.sinc(x)),
    "softplus": lambda x, out: np.logaddexp(0, x, out=out),
    "trigamma": lambda x, out: special.zeta(2, x, out=out),
}
OF_SCIPY = {"gelu", "silu", "trigamma"}


def numpy_side(gate: str) -> tuple[str, Callable[..., Any] | None]:
    """Whose function it is, and the function, which takes `out=`."""
    if gate in WRITTEN:
        return "SciPy" if gate in OF_SCIPY else "NumPy", WRITTEN[gate]
    if gate in NUMPY:
        return "NumPy", getattr(np, NUMPY[gate])
    if gate in SCIPY:
        return "SciPy", getattr(special, SCIPY[gate])
    return "", None


def jax_side(gate: str) -> Callable[..., Any] | None:
    """JAX's function of the same meaning."""
    jax = _jax()
    path = JAX.get(gate) or (f"numpy.{NUMPY[gate]}" if gate in NUMPY else None)
    if jax is None or path is None:
        return None
    found = jax
    for part in path.split("."):
        found = getattr(found, part)
    if gate == "gelu":
        return lambda x: found(x, approximate=False)
    if gate == "trigamma":
        return lambda x: found(1, x)
    return found


@cache
def _jax() -> Any:
    """JAX on the CPU, in one thread, with 64 bits; None where it is not installed."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    threads = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {threads}".strip()
    try:
        import jax
        import jax.scipy.special  # noqa: F401  which jax does not load by itself
    except ImportError:
        return None
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_cpu_enable_async_dispatch", False)  # the work is done by the caller
    return jax


# -- our side -------------------------------------------------------------------------------------


def gates() -> list[Elementwise]:
    """Elementwise gates with float results, those apart that serve only inside of others."""
    found = [g for g in registry().values() if isinstance(g, Elementwise)]
    floats = [g for g in found if g.accepts in ("float", "number") and g.result == "same"]
    inner = {str(i.attr) for g in floats for i in _body(g, f64).code if i.op in ("call", "rare")}
    named = {*NUMPY, *SCIPY, *WRITTEN}
    return [
        g
        for g in floats
        if g.name in named
        or not (g.name in inner or g.name in INTERNAL or g.name.endswith("_partial"))
    ]


def _body(gate: Elementwise, dtype: DType) -> ScalarGraph:
    return gate.body_graph((dtype,) * len(gate.params))


def operations(gate: Elementwise, dtype: DType) -> int:
    """Machine operations of the body, with those of the gates that it always calls."""
    total = 0
    for i in _body(gate, dtype).code:
        if i.op == "call":
            called = registry()[str(i.attr)]
            assert isinstance(called, Elementwise)
            total += operations(called, dtype)
        elif i.op not in ("const", "bitcast"):
            total += 1
    return total


def graph_of(gate: Elementwise, dtype: DType, derivative: bool) -> Graph:
    """The gate on `N` elements, with its derivative by each operand."""
    builder = Builder()
    operands = [builder.input(p, dtype[N]) for p in gate.params]
    y = gate(*operands)
    outputs = {"y": y}
    if derivative:
        by = pull_back(builder, [y], [y.constant(1)], operands)
        outputs.update((f"by_{p}", d) for p, d in zip(gate.params, by, strict=True))
    return builder.graph(gate.name, outputs)


def varies(gate: Elementwise) -> bool:
    """Has the gate a derivative that is no constant?"""
    try:
        graph = simplify(graph_of(gate, f64, derivative=True))
    except DifferentiationError:
        return False
    return any(d.op != "constant" for d in graph.output_nodes[1:])


def negations(dtype: DType, count: int) -> Graph:
    """-x, -2 x, -4 x and so on: what reads and writes as much, and computes next to nothing."""
    builder = Builder()
    x = builder.input("x", dtype[N])
    return builder.graph("negations", {f"y{i}": -x * 2.0**i for i in range(count)})


# -- measuring ------------------------------------------------------------------------------------


def run_all(chosen: Sequence[Elementwise], seconds: float) -> list[Result]:
    results = []
    with progress() as show, np.errstate(all="ignore"):
        for gate in chosen:
            for dtype in (f64, f32):
                show(f"{gate.name} {dtype}")
                results.append(run(gate, dtype, seconds))
    return results


def run(gate: Elementwise, dtype: DType, seconds: float) -> Result:
    rng = np.random.default_rng(0)
    args = [at_offset(rng.uniform(*gate.domain, N).astype(dtype.numpy), 0) for _ in gate.params]
    thunks: dict[str, Thunk] = {"chain": _chain()}
    outputs: dict[str, Any] = {}
    counts = {"value": 1, **({"derivative": 1 + len(args)} if varies(gate) else {})}
    for name, count in counts.items():
        outputs[name] = [at_offset(args[0], 0) for _ in range(count)]
        kernel = compile_graph(graph_of(gate, dtype, name == "derivative"))
        thunks[name] = Bound(kernel, args, outputs[name])
        thunks[f"{name}_negation"] = Bound(compile_graph(negations(dtype, count)), args[:1])
    peer, function = numpy_side(gate.name)
    if function is not None:
        out = at_offset(args[0], 0)
        thunks["numpy"], outputs["numpy"] = lambda: function(*args, out=out), [out]
    theirs = jax_side(gate.name)
    if theirs is not None:
        for name, count in counts.items():
            compiled, negation = _jax_functions(theirs, name == "derivative", count)
            held = [_jax().device_put(x) for x in args]
            outputs[f"jax_{name}"] = compiled(*held)
            thunks[f"jax_{name}"] = _waited(compiled, held)
            thunks[f"jax_{name}_negation"] = _waited(negation, held)
    for f in thunks.values():
        f()
    _check(f"{gate.name} {dtype}", outputs, RTOL[dtype])
    times = dict(zip(thunks, medians(list(thunks.values()), seconds), strict=True))
    return Result(
        gate.name, str(dtype), operations(gate, dtype), peer, CHAIN / times["chain"],
        times["value"], times.get("derivative"), times.get("numpy"),
        times.get("jax_value"), _call("value", times),
        times.get("jax_derivative"), _call("derivative", times),
    )  # fmt: skip


def _call(name: str, times: dict[str, float]) -> float | None:
    """What a call of JAX costs."""
    whole = times.get(f"jax_{name}_negation")
    return None if whole is None else max(whole - times[f"{name}_negation"], 0.0)


def _jax_functions(
    function: Callable[..., Any], derivative: bool, count: int
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The function, with its derivative by each operand or alone, and as many negations."""
    jax = _jax()

    def alone(*operands):
        return (function(*operands),)

    def both(*operands):
        y, pull = jax.vjp(function, *operands)
        return y, *pull(jax.numpy.ones_like(y))

    def negated(x, *others):
        return tuple(-x * 2.0**i for i in range(count))

    return jax.jit(both if derivative else alone), jax.jit(negated)


def _waited(function: Callable[..., Any], held: list[Any]) -> Thunk:
    def call() -> None:
        for x in function(*held):
            x.block_until_ready()

    return call


def _check(what: str, outputs: dict[str, Any], rtol: float) -> None:
    """All sides have computed the same thing."""
    for name, theirs in outputs.items():
        ours = outputs["derivative" if name.endswith("derivative") else "value"]
        for a, b in zip(ours, theirs, strict=False):
            a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
            scale = np.maximum(np.abs(b), 1.0)
            share = np.mean(~(np.abs(a - b) <= rtol * scale))
            if share > APART:
                raise AssertionError(f"{what}: graphc and {name} differ in {share:.1%} of elements")


# -- frequency ------------------------------------------------------------------------------------

ROUNDS, UNROLLED = 5_000, 32
CHAIN = ROUNDS * UNROLLED  # cycles


@cache
def _chain() -> Thunk:
    """Additions and exclusive ors in turns, each of the result before: one cycle each."""
    steps = "\n".join(
        f"  %x{i + 1} = {('add', 'xor')[i % 2]} i64 %x{i}, %step" for i in range(UNROLLED)
    )
    text = f"""
define i64 @chain(i64 %x, i64 %step, i64 %rounds) {{
entry:
  br label %body
body:
  %round = phi i64 [0, %entry], [%next, %body]
  %x0 = phi i64 [%x, %entry], [%x{UNROLLED}, %body]
{steps}
  %next = add i64 %round, 1
  %more = icmp slt i64 %next, %rounds
  br i1 %more, label %body, label %done
done:
  ret i64 %x{UNROLLED}
}}
"""
    library: Library = Jit.link(text, ("chain",))
    word = ctypes.c_int64
    function = ctypes.CFUNCTYPE(word, word, word, word)(library.address("chain"))
    function.library = library
    return lambda: function(1, 3, ROUNDS)
