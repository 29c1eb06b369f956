"""Manifests: their text says everything, and text of unknown origin is a manifest or an error."""

import random

import numpy as np
import pytest

import graphc
from graphc.errors import FormatError
from graphc.ir.types import evaluate
from graphc.lower.plan import arena_for
from graphc.runtime.manifest import MOST_DEPTH, MOST_SIZE, MOST_TEXT, parse_manifest


@graphc.graph
def loss(x: graphc.f64["n", "m"], w: graphc.f64["m"], at: graphc.i64[3]):
    z = x[:, 1:] @ w[1:]
    return {"loss": graphc.tanh(z).sum(), "most": x.max(axis=0), "some": w[at], "x": x}


@graphc.graph
def step(w: graphc.f32["n"], g: graphc.f32["n"]):
    return w - np.float32(0.1) * g


@graphc.graph
def energy(x: graphc.f64["n"]):
    return (graphc.exp(x) * x).sum()


KERNELS = {
    "several outputs": lambda: graphc.compile(loss).value_kernel,
    "a donated input": lambda: graphc.compile(step, donate="w").value_kernel,
    "a gradient": lambda: graphc.compile(energy, wrt="x").gradient_kernel,
    "a backward half": lambda: graphc.compile(energy, wrt="x")._halves[1],
}


@pytest.mark.parametrize("name", KERNELS)
def test_it_says_what_the_program_says(name):
    kernel = KERNELS[name]()
    manifest, program = kernel.manifest, kernel.program
    assert parse_manifest(str(manifest)) == manifest
    assert [ty for _, ty in manifest.inputs] == [b.type for b in program.of_role("input")]
    assert [ty for _, ty, _ in manifest.outputs] == [b.type for b in program.of_role("output")]
    assert manifest.sizes == program.sizes
    sizes = {s: 40 + i for i, s in enumerate(manifest.sizes)}
    for threads in (1, 2, 7):
        expected = evaluate(arena_for(program, threads), sizes)
        assert manifest.arena_bytes(sizes, threads) == expected


def test_what_is_rare_is_there():
    manifest = KERNELS["several outputs"]().manifest
    assert len(manifest.choices) == 1
    assert [what for _, _, what in manifest.outputs] == ["sum", "max", "take", "x"]
    assert KERNELS["a donated input"]().manifest.donors == ((0, 0),)


GOOD = """manifest f
input x f64[n,floordiv(n+1,2)]
output y f32[n] x
sizes n
arena 64*n private 0 partials 8
work 2*n
donor 0 0
choice n 3"""
nested = "floordiv(" * (MOST_DEPTH + 1) + "n" + ",2)" * (MOST_DEPTH + 1)


def replaced(line, by):
    assert line in GOOD
    return GOOD.replace(line, by)


BAD = {
    "nothing": "",
    "no name": replaced("manifest f", "manifest"),
    "another beginning": replaced("manifest f", "certificate f"),
    "a name that is none": replaced("manifest f", "manifest f;g"),
    "an input without a type": replaced("input x f64[n,floordiv(n+1,2)]", "input x"),
    "an unknown dtype": replaced("f64[n,", "f16[n,"),
    "an output without its gate": replaced("f32[n] x", "f32[n]"),
    "no outputs": replaced("output y f32[n] x\n", "").replace("donor 0 0\n", ""),
    "no sizes": replaced("sizes n\n", ""),
    "two arenas": replaced("work 2*n", "arena 1 private 0 partials 0\nwork 2*n"),
    "a negative size": replaced("f32[n]", "f32[-3]"),
    "a huge type": replaced("f32[n]", "f32[9999999999,9999999999]"),
    "a huge number": replaced("work 2*n", "work " + "9" * (MOST_SIZE + 1)),
    "a donor that is not there": replaced("donor 0 0", "donor 0 1"),
    "a negative donor": replaced("donor 0 0", "donor -1 0"),
    "more": GOOD + "\nimport os",
    "an empty line": GOOD + "\n",
    "sizes in sizes": replaced("work 2*n", "work " + nested),
    "sizes in sizes of a type": replaced("f32[n]", f"f32[{nested}]"),
    "an unclosed size": replaced("work 2*n", "work max(n"),
    "too much": GOOD + "\ninput z f64[]" * (MOST_TEXT // 13),
}  # fmt: skip


def test_the_good_text():
    assert str(parse_manifest(GOOD)) == GOOD


@pytest.mark.parametrize("case", BAD)
def test_bad_text(case):
    with pytest.raises(FormatError):
        parse_manifest(BAD[case])


def test_changed_text_is_a_manifest_or_an_error():
    """Whatever one character becomes, nothing else is raised, and what is read is what stands
    there.
    """
    rng = random.Random(0)
    read = 0
    for _ in range(4000):
        at, c = rng.randrange(len(GOOD)), rng.choice(" \n0123456789-+*(),[]abfinwx_\x00\u0660")
        text = GOOD[:at] + c + GOOD[at + rng.randrange(2) :]
        try:
            manifest = parse_manifest(text)
        except FormatError:
            continue
        read += 1
        assert parse_manifest(str(manifest)) == manifest
    assert 100 < read < 3000
