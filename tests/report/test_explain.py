"""explain and diff: short, true to the plan, and the same every time."""

import re

import numpy as np
import pytest

import graphc
from graphc.errors import FormatError
from graphc.report.diff import SAME, diff_stages
from graphc.report.explain import LINES, WIDTH, explain, instructions
from tests.models import EVERY, example


def compiled(case):
    graph, wrt = EVERY[case]
    return graphc.compile(graph, wrt)


@graphc.graph
def large(x: graphc.f64["n", "m"], i: graphc.i64["k"], w: graphc.f64["m", "m"]):
    """Many kernels, of every kind."""
    total = x.sum() * 0.0
    for step in range(12):
        x = graphc.tanh(x @ w - x.mean(axis=0))
        total = total + x[i].sum() + x.T[::-1].max() + step
    return total + np.concatenate([x, x]).reshape(-1).sum()


# -- explain ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", sorted(EVERY))
def test_a_page_for_every_model(case):
    text = compiled(case).explain()
    lines = text.split("\n")
    assert len(lines) <= LINES and max(map(len, lines)) <= WIDTH
    assert lines[0].startswith(f"{EVERY[case][0].__name__}(")
    assert "Kernels, and the gates fused in each" in lines
    assert text == compiled(case).explain()


def test_a_large_graph_still_fits():
    lines = explain(graphc.compile(large, wrt=("x", "w"))).split("\n")
    assert len(lines) <= LINES and max(map(len, lines)) <= WIDTH
    assert any(line.startswith("Not fused: ") for line in lines), "the last part is there, too"
    assert re.search(r"^  and \d+ more$", "\n".join(lines), re.MULTILINE)


def test_logistic_regression_in_prose():
    kernels = compiled("logistic")
    text = kernels.explain()
    assert "logistic(X: f64[n,4], y: f64[n], w: f64[4], b: f64[]), with gradients by w, b" in text
    assert "Sweeps over each input (farther apart than 256 kB): X 1, y 1, w 1, b 1" in text
    assert "softplus" in text and "softplus_partial" in text and "models.py:" in text
    assert "one loop over n" in text and "complete only after the loop that makes it" in text
    assert f"{instructions(kernels.stages['emit']):,} LLVM instructions" in text.replace("\n", " ")


def test_the_bytes_are_those_of_the_plan_and_of_a_run():
    kernels = compiled("logistic")
    text = explain(kernels, {"n": 200}).replace("\n", " ")
    assert f"at n = 200: {kernels.plan.bytes_moved(n=200):,};" in text
    least = 8 * (200 * 4 + 200 + 4 + 1) + 8 * (1 + 4 + 1)
    assert f"once takes {least:,}:" in text
    assert f"Temporaries take {kernels.plan.arena_bytes(n=200):,} bytes" in text
    X, y, w, b = example("logistic", 200)
    _, saved = kernels.forward(X, y, w, b)
    assert (
        f"{saved.nbytes:,} bytes; all Jacobians, stored dense, would take {saved.dense_nbytes:,}"
        in text
    )


def test_reasons_that_keep_kernels_apart():
    text = explain(graphc.compile(large)).replace("\n      ", " ")
    for reason in ("the loops have different sizes", "complete only after"):
        assert reason in text

    @graphc.graph
    def product(a: graphc.f64[64, 64], b: graphc.f64[64, 64]):
        return graphc.exp(graphc.sin(a) @ b)

    text = explain(graphc.compile(product)).replace("\n      ", " ")
    assert "1 matrix product" in text and "a matrix product runs as one call" in text

    @graphc.graph
    def simple(x: graphc.f64["n"]):
        return graphc.exp(x) * 2.0

    text = explain(graphc.compile(simple))
    assert "no value goes from one kernel to another through memory" in text
    assert "Saved by" not in text


# -- diff ------------------------------------------------------------------------------------------


def lines_of(a, b, case="logistic"):
    texts = compiled(case).stages
    return diff_stages(texts[a], texts[b]).split("\n")


def test_a_stage_does_not_differ_from_itself():
    for case in EVERY:
        texts = compiled(case).stages
        assert all(
            diff_stages(texts[s], texts[s]) == SAME for s in ("trace", "simplify", "fuse", "plan")
        )
    assert lines_of("trace", "adjoint", "neuron") == [SAME]


def test_the_adjoint_only_adds():
    *lines, counts = lines_of("trace", "adjoint")
    added = [line for line in lines if line.startswith("+ %")]
    assert added and all("adjoint" in line or "constant" in line for line in added)
    assert [line for line in lines if line.startswith("-")] == ["- return out=%13"]
    assert counts.startswith("0 nodes gone, ") and "made by: adjoint " in counts


def test_rules_are_named():
    *lines, counts = lines_of("adjoint", "simplify")
    made = [line for line in lines if " rule " in line]
    assert made and "rule " in counts
    texts = compiled("logistic").stages
    kept = set(texts["adjoint"].split("\n"))
    assert all(
        line.replace("- ", "  ", 1) in kept or line.startswith("- return")
        for line in lines
        if line.startswith("- ")
    )


def test_new_values_carry_a_prime_and_kept_ones_their_first_number():
    before = (
        "graph f(x: f64[], y: f64[])\n  %2 = neg %x : f64[]\n  %3 = add %2, %y : f64[]\nreturn z=%3"
    )
    after = (
        "graph f(x: f64[], y: f64[])\n  %2 = sub %y, %x : f64[]   m.py:4 rule neg-add\nreturn z=%2"
    )
    assert diff_stages(before, after).split("\n") == [
        "- %2 = neg %x : f64[]",
        "- %3 = add %2, %y : f64[]",
        "+ %2' = sub %y, %x : f64[]   m.py:4 rule neg-add",
        "- return z=%3",
        "+ return z=%2'",
        "2 nodes gone, 1 new, 0 kept; made by: rule neg-add 1",
    ]


def test_programs_are_compared_by_line():
    lines = lines_of("fuse", "plan")
    assert any(line.startswith("+ arena ") for line in lines)
    assert all(line[:2] in ("+ ", "- ") for line in lines)


def test_two_languages_are_not_compared():
    texts = compiled("logistic").stages
    with pytest.raises(FormatError, match="a graph and a program are two languages"):
        diff_stages(texts["simplify"], texts["fuse"])
    with pytest.raises(FormatError):
        diff_stages(texts["trace"], "")
