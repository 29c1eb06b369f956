"""The gradient certificate: what is right passes, what is wrong by 1e-3 does not, and large inputs
are sampled.
"""

import numpy as np
import pytest

import graphc
from graphc.aot import certificate
from graphc.aot.certificate import Worst, check_random
from graphc.errors import DifferentiationError, SignatureError
from tests.models import EVERY, example


@pytest.mark.parametrize("case", sorted(EVERY))
def test_models_are_certified(case):
    graph, _ = EVERY[case]
    found = graphc.check(graph, *example(case, 6))
    assert found.ok and found.value.ulp < 4 and found.gradient.ulp < 16, found
    assert found.gradient.count == found.components <= certificate.MOST_COMPONENTS


def test_values_are_held_against_more_digits_than_a_double_has():
    found = graphc.check(lambda x: np.log(x).sum(), np.array([2.0, 3.0]))
    assert 0 < found.value.ulp < 1 and found.digits == 40
    assert len(found.value.exact) > 18


def scaled_gate(factor):
    class Cube(graphc.Gate):
        def forward(self, x):
            return x * x * x

        def backward(self, dz, x):
            return dz * x * x * (3.0 * factor)

    return Cube()


@pytest.mark.parametrize("factor", [1.001, 0.999, 1 + 1e-6, -1.0, 0.0])
def test_a_wrong_derivative_is_found(factor):
    x = np.array([0.5, -1.5, 2.0])
    assert graphc.check(lambda x: scaled_gate(1.0)(x).sum(), x).ok
    found = graphc.check(lambda x: scaled_gate(factor)(x).sum(), x)
    assert not found.ok and found.value.ulp < 2
    assert "DISAGREES" in str(found) and "x[2]" in found.gradient.where
    assert found.gradient.relative == pytest.approx(abs(factor - 1), rel=1e-6)


def test_a_wrong_derivative_is_found_among_many_components():
    x = np.linspace(1, 2, 400)
    found = graphc.check(lambda x: scaled_gate(1.001)(x).sum(), x)
    assert not found.ok and found.components == 64 and found.total == 400
    assert found.directional.scaled > 1e-8
    one = np.zeros(400)
    one[17] = 1.0  # a single wrong component that no sample meets

    def hidden(x):
        return (x * x).sum() + (scaled_gate(2.0)(x) * one).sum()

    missed = graphc.check(hidden, x)
    assert missed.gradient.scaled < 1e-12 and not missed.ok and "directions" in str(missed)


def test_large_inputs_are_sampled_and_the_work_is_bounded(monkeypatch):
    monkeypatch.setattr(certificate, "MOST_WORK", 1000)
    graph, _ = EVERY["logistic"]
    found = check_random(graph, sizes={"n": 200})
    assert found.ok and found.components == certificate.FEWEST_COMPONENTS and found.total == 1005
    assert found.directional.count == certificate.DIRECTIONS


def test_a_seed_repeats_and_is_shown():
    graph, _ = EVERY["network"]
    one, same, other = (check_random(graph, seed=s) for s in (3, 3, 4))
    assert str(one) == str(same) != str(other) and "seed 3" in str(one)
    assert all(np.array_equal(one.inputs[k], same.inputs[k]) for k in one.inputs)
    assert set(one.inputs) == {"x", "labels", "p.w", "p.b"}


def test_wrt_says_which_gradients():
    graph, _ = EVERY["logistic"]
    arguments = example("logistic")
    assert graphc.check(graph, *arguments, wrt="w").total == 4
    assert graphc.check(graph, *arguments, wrt=("w", "b")).total == 5
    assert graphc.check(graphc.compile(graph, wrt="b"), *arguments).total == 1
    assert graphc.check(graphc.compile(graph), *arguments).total == 7 * 4 + 7 + 4 + 1
    with pytest.raises(
        SignatureError, match="logistic has no parameter 'q'; its inputs are X, y, w, b"
    ):
        graphc.check(graph, *arguments, wrt="q")
    with pytest.raises(DifferentiationError, match="only float inputs have derivatives"):
        graphc.check(EVERY["gather"][0], *example("gather"), wrt="index")
    with pytest.raises(DifferentiationError, match="has no float result"):
        graphc.check(lambda x: x > 0, np.ones(2))
    with pytest.raises(SignatureError, match="logistic has no size 'q'; it has n"):
        check_random(graph, sizes={"q": 2})


def test_several_results_are_weighted_with_random_cotangents():
    def several(x, p):
        return {"a": x * p["k"], "b": [np.sin(x), (x > 0.5)], "c": p["k"] * 2.0}

    found = graphc.check(several, np.array([0.25, 0.75]), p={"k": 3.0})
    assert found.ok and found.total == 3 and found.value.count == 7


@pytest.mark.parametrize(
    "function, x",
    [
        (lambda x: np.log1p(x).sum(), [1e-300, -1e-18, 5e-324, 1e10]),
        (lambda x: np.expm1(x).sum(), [1e-300, -1e-18, 700.0]),
        (lambda x: graphc.softplus(x).sum(), [-745.0, -700.0, -30.0, 0.0, 800.0]),
        (lambda x: graphc.sigmoid(x).sum(), [-700.0, -40.0, 40.0, 700.0]),
        (lambda x: np.tanh(x).sum(), [1e-200, 20.0, -20.0, 300.0]),
        (lambda x: np.sin(x).sum() + np.cos(x).sum(), [1e22, 3.14159, 1e-9]),
        (lambda x: (x**3.0).sum() + (2.0**x).sum(), [0.0, 0.5, 2.0]),
        (
            lambda x: graphc.relu(x).sum() + np.clip(x, -1.0, 1.0).sum() + np.abs(x).sum(),
            [-1.0, 0.0, 1.0, 2.0],
        ),
        (lambda x: np.max(x) + np.min(x) + np.prod(x), [2.0, 2.0, -1.0, -1.0, 0.0]),
        (lambda x: graphc.logsumexp(x) + graphc.softmax(x)[0], [700.0, 710.0, -3.0]),
        (lambda x: np.exp(x).sum(), [0.0, 710.0]),
    ],
)
def test_the_edges_agree(function, x):
    """Small arguments do not cancel, ties and kinks are as documented, and overflow is overflow on
    both sides.
    """
    found = graphc.check(function, np.array(x))
    assert found.ok and found.value.ulp <= 4, found


def test_single_precision_has_its_own_tolerance():
    x = np.array([0.3, 0.7], np.float32)
    found = graphc.check(lambda x: np.exp(x).sum(), x)
    assert found.ok and found.tolerance == pytest.approx(3.45e-4, rel=1e-2) and found.value.ulp < 2
    assert not graphc.check(lambda x: scaled_gate(1.001)(x).sum(), x).ok


def test_logarithms_get_positive_inputs():
    @graphc.graph
    def entropy(p: graphc.f64["n"]):
        return -(p * np.log(p)).sum()

    found = check_random(entropy)
    assert found.ok and found.value.finite and (found.inputs["p"] > 0).all()


def test_the_text_says_where():
    assert str(Worst()) == "nothing to compare"
    assert str(Worst(count=1)) == "1 number, and exact"
    assert (
        str(Worst(3, 2.0, 1e-16, 1e-16, "w[1]", 0.5, "0.25"))
        == "3 numbers; worst 2 ULP, 1e-16 relative, at w[1]: 0.5, exactly 0.25"
    )
    graph, _ = EVERY["gather"]
    text = str(graphc.check(graph, *example("gather")))
    assert text.startswith(
        "gather agrees with 40 digits (seed 0; table float32[4, 2], index int32[7])\n"
        "  value        3 numbers; "
    )
