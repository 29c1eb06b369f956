"""Transforms: on arrays, on traced values, nested; structures, names, errors."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import numpy as np
import pytest

import graphc
import graphc.numpy as gnp
from graphc.errors import DifferentiationError, DTypeError, SignatureError, TraceError
from tests.dsl.support import run, same

RNG = np.random.default_rng(5)
X = RNG.normal(size=4)


def cubes(x):
    """The sum of cubes."""
    return (x**3).sum()


def test_jit():
    f = graphc.jit(lambda x, y=2.0: x * y)
    same(f(X), X * 2)
    same(f(X, 3), X * 3)
    same(f(x=X, y=X), X * X)
    same(f(np.float32([1, 2]), 0.5), np.float32([0.5, 1.0]))
    assert isinstance(f(3.0), np.float64) and isinstance(f(np.float32(3), 2), np.float32)
    same(f(3, 2), np.int64(6))
    assert graphc.jit(f) is f


def test_keyword_only_arguments_are_told_from_positional_ones():
    f = graphc.jit(lambda x, y=2.0, *, z=1.0: x * y + z)
    same(f(X, z=X), 3 * X)
    same(f(X, X), X * X + 1.0)
    same(f(X, y=X), X * X + 1.0)


def test_names_docs_and_signatures_survive():
    for f in (graphc.jit(cubes), graphc.grad(cubes), graphc.value_and_grad(cubes)):
        assert f.__name__ == "cubes" and f.__doc__ == "The sum of cubes." and f.__wrapped__ is cubes
        assert str(inspect.signature(f)) == "(x)"


def test_keyword_only_and_variable_arguments():
    same(graphc.jit(lambda x, *, scale: x * scale)(X, scale=2.0), 2 * X)
    same(graphc.jit(lambda *xs: sum(xs))(X, X, X), 3 * X)
    same(graphc.jit(lambda x, **rest: x + rest["y"])(X, y=X), 2 * X)
    same(graphc.grad(lambda x, *, scale: (x * scale).sum())(X, scale=2.0), np.full(4, 2.0))


def test_static_arguments():
    f = graphc.jit(lambda x, name, g=np.sin: g(x) if name == "g" else x)
    same(f(X, "g"), np.sin(X))
    same(f(X, "x"), X)
    same(f(X, "g", np.cos), np.cos(X))


def test_value_and_grad():
    value, gradient = graphc.value_and_grad(cubes)(X)
    same(value, (X**3).sum())
    same(gradient, 3 * X**2)
    same(graphc.grad(cubes)(X.astype(np.float32)), (3 * X**2).astype(np.float32), 1e-5)
    same(graphc.grad(lambda x: x**2)(3.0), np.float64(6.0))


def test_argnums():
    f = lambda x, y, z: (x * y).sum() * z
    dx, dz = graphc.grad(f, argnums=(0, 2))(X, 2 * X, 3.0)
    same(dx, 6 * X)
    same(dz, (2 * X * X).sum())
    same(graphc.grad(f, argnums=1)(X, X, 2.0), 2 * X)
    same(graphc.grad(f, argnums=-1)(X, X, 2.0), (X * X).sum())
    same(graphc.grad(f, argnums=[1])(X, X, 2.0)[0], 2 * X)
    with pytest.raises(SignatureError, match="grad of .*: argnums 3, but 3 arguments were given"):
        graphc.grad(f, argnums=3)(X, X, 1.0)


def test_has_aux():
    f = lambda x: (cubes(x), {"x": 2 * x, "n": x.shape[0], "name": "aux"})
    (value, aux), gradient = graphc.value_and_grad(f, has_aux=True)(X)
    same(value, (X**3).sum())
    same(aux["x"], 2 * X)
    assert aux["n"] == 4 and aux["name"] == "aux"
    same(gradient, 3 * X**2)
    gradient, aux = graphc.grad(f, has_aux=True)(X)
    same(gradient, 3 * X**2)
    with pytest.raises(SignatureError, match=r"with has_aux the function returns \(value, aux\)"):
        graphc.grad(cubes, has_aux=True)(X)


@dataclass
class Params:
    w: np.ndarray
    layers: list


def test_gradients_have_the_structure_of_the_argument():
    p = Params(X, [{"a": 1.0}, (X, X)])
    gradient = graphc.grad(lambda p: (p.w * p.layers[0]["a"] + p.layers[1][0]).sum())(p)
    assert isinstance(gradient, Params)
    same(gradient.w, np.ones(4))
    same(gradient.layers[0]["a"], X.sum())
    same(gradient.layers[1][1], np.zeros(4))


def test_gradients_of_gradients():
    same(graphc.grad(graphc.grad(lambda x: x**3))(2.0), np.float64(12.0))
    same(graphc.grad(lambda x: (graphc.grad(cubes)(x) ** 2).sum())(X), 36 * X**3)
    third = graphc.grad(graphc.grad(graphc.grad(lambda x: np.exp(2 * x))))
    same(third(0.5), 8 * np.exp(1.0), 1e-10)


def test_inner_functions_see_outer_values():
    """The perturbations of two nested derivatives are kept apart."""
    same(graphc.grad(lambda x: x * graphc.grad(lambda y: x + y)(1.0))(2.0), np.float64(1.0))
    same(graphc.grad(lambda x: graphc.grad(lambda y: x * y * y)(x))(3.0), np.float64(12.0))
    same(
        graphc.grad(lambda x: (x * graphc.grad(lambda z: (x * z).sum())(np.ones(4))).sum())(X),
        2 * X,
    )


def test_transforms_compose_with_jit():
    same(graphc.jit(graphc.grad(graphc.jit(cubes)))(X), 3 * X**2)
    same(run(lambda x: graphc.value_and_grad(cubes)(x)[1], X), 3 * X**2)
    same(run(lambda x: graphc.grad(cubes)(x), X, symbolic=True), 3 * X**2)


def test_unused_arguments_have_zero_gradients():
    same(
        graphc.grad(lambda x, y: cubes(x), argnums=1)(X, np.float32([1, 2])),
        np.zeros(2, np.float32),
    )


def test_stop_gradient():
    same(graphc.grad(lambda x: (x * graphc.stop_gradient(x)).sum())(X), X)
    same(graphc.stop_gradient(X), X)


def test_gradients_through_casts_and_choices():
    same(graphc.grad(lambda x: x.astype(np.float32).sum())(X), np.ones(4))
    same(
        graphc.grad(lambda x: np.where(x > 0, np.sqrt(x), 0.0).sum())(np.array([4.0, 0.0])),
        np.array([0.25, 0.0]),
    )
    same(graphc.grad(lambda x: (x.astype(int) * 2.0).sum())(X), np.zeros(4))


def test_vjp():
    out, pull = graphc.vjp(lambda x, y: {"p": x * y, "s": x.sum()}, X, 2 * X)
    same(out["p"], 2 * X * X)
    dx, dy = pull({"p": np.ones(4), "s": 1.0})
    same(dx, 2 * X + 1)
    same(dy, X)
    same(run(lambda x: graphc.vjp(lambda y: y * y, x)[1](np.ones(4))[0], X), 2 * X)
    with pytest.raises(SignatureError, match="argument cotangent is a dict"):
        pull(1.0)
    with pytest.raises(
        DifferentiationError, match=r"the cotangent of f64\[4\] has the type f64\[3\]"
    ):
        pull({"p": np.ones(3), "s": 1.0})


def test_jvp():
    value, tangent = graphc.jvp(lambda x, y: x * y, (X, 2 * X), (np.ones(4), np.zeros(4)))
    same(value, 2 * X * X)
    same(tangent, 2 * X)
    same(graphc.jvp(lambda x: x.sum() * 0 + 2.0, (X,), (X,))[1], np.float64(0.0))
    same(run(lambda x: graphc.jvp(cubes, (x,), (np.ones(4),))[1], X), (3 * X**2).sum())
    with pytest.raises(DifferentiationError, match=r"the tangent of f64\[4\] has the type f64\[\]"):
        graphc.jvp(cubes, (X,), (1.0,))


def test_hvp():
    v = RNG.normal(size=4)
    same(graphc.hvp(cubes, (X,), (v,)), 6 * X * v)
    hx, hy = graphc.hvp(lambda x, y: (x * x * y).sum(), (X, X), (v, v))
    same(hx, 2 * X * v + 2 * X * v)
    same(hy, 2 * X * v)


NO_GRADIENT = [
    (
        lambda: graphc.grad(cubes)(np.arange(3)),
        r"grad of cubes: argument x is i64\[3\] at test_transform.py:\d+; a derivative exists",
    ),
    (lambda: graphc.grad(cubes)(np.array([True])), r"argument x is bool\[1\]"),
    (lambda: graphc.grad(lambda p: p["x"] * 1.0)({"x": 1.0, "i": 2}), r"argument p.i is i64\[\]"),
    (
        lambda: graphc.grad(lambda x: x * 2)(X),
        r"(?s)must return a float of rank 0, got f64\[4\].*test_transform.py",
    ),
    (
        lambda: graphc.grad(lambda x: (x > 0).sum())(X),
        r"must return a float of rank 0, got i64\[\]",
    ),
    (lambda: graphc.grad(lambda x: (x, x))(X), "the function must return one number, got a tuple"),
    (lambda: graphc.vjp(cubes, np.arange(3))[1](1.0), r"vjp of cubes: argument x is i64\[3\]"),
    (
        lambda: graphc.jvp(cubes, (np.arange(3),), (np.arange(3),)),
        r"jvp of cubes: argument x is i64\[3\]",
    ),
]


@pytest.mark.parametrize(("call", "message"), NO_GRADIENT)
def test_gradients_that_do_not_exist(call, message):
    with pytest.raises(DifferentiationError, match=message):
        call()


def test_wrong_calls():
    f = graphc.jit(cubes)
    with pytest.raises(SignatureError, match=r"cubes\(x\): missing a required argument: 'x'"):
        f()
    with pytest.raises(SignatureError, match="too many positional arguments"):
        f(X, X)
    with pytest.raises(SignatureError, match="unexpected keyword argument 'y'"):
        f(X, y=1)
    with pytest.raises(DTypeError, match="argument x: dtype int8 is not supported"):
        f(np.int8([1]))
    with pytest.raises(DTypeError, match="argument x.0: dtype complex128"):
        f([1j])
    with pytest.raises(SignatureError, match="a function is needed"):
        graphc.grad(3)


def test_errors_leave_the_function_usable():
    f = graphc.jit(lambda x, y: x + y)
    with pytest.raises(graphc.ShapeError):
        f(np.ones(3), np.ones(4))
    same(f(X, X), 2 * X)


def test_methods():
    class Model:
        def __init__(self, scale):
            self.scale = scale

        @graphc.jit
        def scaled(self, x):
            return x * self.scale

        @graphc.grad
        def slope(self, x):
            return cubes(x) * self.scale

    a, b = Model(2.0), Model(3.0)
    same(a.scaled(X), 2 * X)
    same(b.scaled(X), 3 * X)
    assert a.scaled is a.scaled
    same(b.slope(X), 9 * X**2)


def test_traces_are_made_once():
    count = []
    f = graphc.jit(lambda x: count.append(1) or x * 2)
    for _ in range(3):
        f(X)
        f(X.astype(np.float32))
    assert len(count) == 2
    for _ in range(3):
        graphc.grad(cubes)(X)
    assert graphc.grad(cubes) is graphc.grad(cubes)


def test_results_do_not_alias():
    same(graphc.jit(lambda x: (x, x[0]))(X)[0], X)
    out = graphc.jit(lambda x: x)(X)
    assert not np.shares_memory(out, X)


def test_threads_share_a_function():
    from concurrent.futures import ThreadPoolExecutor

    f = graphc.value_and_grad(cubes)
    with ThreadPoolExecutor(4) as pool:
        for i, (_, gradient) in enumerate(pool.map(f, [X * i for i in range(16)])):
            same(gradient, 3 * (X * i) ** 2)


def test_tracing_a_condition_in_a_gradient():
    with pytest.raises(TraceError, match="test_transform.py"):
        graphc.grad(lambda x: x if x > 0 else -x)(1.0)


def test_logistic_regression():
    features, labels = RNG.normal(size=(20, 3)), RNG.integers(0, 2, 20).astype(float)

    def loss(params, x, y):
        z = x @ params["w"] + params["b"]
        return gnp.mean(graphc.softplus(z) - y * z)

    p = {"w": np.zeros(3), "b": 0.0}
    step = graphc.value_and_grad(loss)
    first, g = step(p, features, labels)
    for _ in range(50):
        value, g = step(p, features, labels)
        p = {"w": p["w"] - 0.5 * g["w"], "b": p["b"] - 0.5 * g["b"]}
    assert value < first
    h = 1e-6
    e = np.array([h, 0, 0])
    numeric = (
        step({**p, "w": p["w"] + e}, features, labels)[0]
        - step({**p, "w": p["w"] - e}, features, labels)[0]
    ) / (2 * h)
    np.testing.assert_allclose(step(p, features, labels)[1]["w"][0], numeric, atol=1e-8)
