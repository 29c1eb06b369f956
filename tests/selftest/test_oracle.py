"""The dual-number oracle on every gate's `sym` model, against the table of exact functions."""

import mpmath
import numpy as np
import pytest

from graphc.aot.oracle import parse_model, run_dual, run_model
from graphc.gates.elementwise import gate as enter
from graphc.gates.gate import _REGISTRY, registry
from graphc.ir.graph import Builder
from graphc.ir.types import f64
from graphc.selftest.arithmetic import Extended, evaluated
from graphc.selftest.exact import exact_of
from graphc.selftest.subjects import judged_gates

WITH_MODEL = [g.name for g in judged_gates() if g.sym and exact_of(g.name) is not None]
M = Extended(300)


def dual(gate, args, along):
    """Value and derivative of one gate at points, along one operand."""
    builder = Builder()
    graph = builder.graph(
        "one", {"y": gate(*[builder.input(p, f64[len(args[0])]) for p in gate.params])}
    )
    tangents = [np.ones(len(a)) if i == along else None for i, a in enumerate(args)]
    ((value, slope),) = run_dual(graph, args, tangents)
    return value, slope


@pytest.mark.parametrize("name", WITH_MODEL)
def test_models_are_the_exact_functions(name):
    """Two derivations that share nothing: a model with dual numbers, a formula with mpmath."""
    gate, exact = registry()[name], exact_of(name)
    rng = np.random.default_rng(11)
    args = [rng.uniform(*gate.domain, 5) for _ in gate.params]
    for i, partial in enumerate([*exact.partials, *[None] * len(args)][: len(args)]):
        value, slope = dual(gate, args, i)
        for k in range(5):
            at = [a[k] for a in args]
            true = evaluated(M, exact.value, at)
            assert true is None or abs(value[k] - true) <= 1e-35 * abs(true)
            steep = None if partial is None else evaluated(M, partial, at)
            assert steep is None or abs(slope[k] - steep) <= 1e-33 * max(1, abs(steep))


CALLS = {
    "tan(x)": mpmath.tan, "asin(x)": mpmath.asin, "acos(x)": mpmath.acos, "atan(x)": mpmath.atan,
    "sinh(x)": mpmath.sinh, "cosh(x)": mpmath.cosh, "tanh(x)": mpmath.tanh,
    "asinh(x)": mpmath.asinh, "acosh(1 + x)": lambda x: mpmath.acosh(1 + x),
    "atanh(x)": mpmath.atanh, "erf(x)": mpmath.erf, "erfc(x)": mpmath.erfc,
    "erfinv(x)": mpmath.erfinv, "loggamma(x)": mpmath.loggamma, "digamma(x)": mpmath.digamma,
    "trigamma(x)": lambda x: mpmath.polygamma(1, x),
    "polygamma(2, x)": lambda x: mpmath.polygamma(2, x),
    "atan2(x, 3)": lambda x: mpmath.atan(x / 3), "atan2(3, x)": lambda x: mpmath.atan(3 / x),
    "hypot(x, 2)": lambda x: mpmath.sqrt(x * x + 4), "x**(1/3)": mpmath.cbrt,
    "2**x": lambda x: mpmath.mpf(2) ** x, "sqrt(pi)*x": lambda x: mpmath.sqrt(mpmath.pi) * x,
    "1/3*x": lambda x: x / 3, "x - 2/3": lambda x: x - mpmath.mpf(2) / 3,
}  # fmt: skip


@pytest.fixture
def model_gate():
    """model_gate(sym): a gate with that model, until the test ends."""
    yield lambda sym: enter("of_model", "A model.", body=lambda x: x, sym=sym, transposed=None)
    _REGISTRY.pop("of_model", None)


@pytest.mark.parametrize("sym", CALLS)
def test_calls_of_models(model_gate, sym):
    x = np.array([0.3, 0.71])
    value, slope = dual(model_gate(sym), [x], 0)
    with mpmath.workdps(40):
        for k in range(2):
            at = mpmath.mpf(float(x[k]))
            assert abs(value[k] - CALLS[sym](at)) < 1e-36
            with mpmath.workdps(60):
                assert abs(slope[k] - mpmath.diff(CALLS[sym], at)) < 1e-28


def test_fractions_of_models_are_exact():
    assert run_model(parse_model("1/3"), {}) * 3 == 1


def test_beyond_the_domain_is_nan(model_gate):
    value, slope = dual(model_gate("asin(x)"), [np.array([2.0])], 0)
    assert mpmath.isnan(value[0]) and mpmath.isnan(slope[0])


@pytest.mark.parametrize("name", [n for n in ("atan2", "hypot") if n in registry()])
def test_no_slope_at_the_origin(name):
    gate = registry()[name]
    for along in (0, 1):
        _, slope = dual(gate, [np.zeros(1), np.zeros(1)], along)
        assert slope[0] == 0
