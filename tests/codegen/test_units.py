"""A module in units: linked together they are the module, and equal routines are equal texts."""

import ctypes
import re

import numpy as np
import pytest

from graphc.codegen.llvm import ROUTINE, TAIL
from graphc.codegen.slots import ENTRY
from graphc.codegen.units import units
from graphc.pipeline import run_stages
from graphc.runtime import jit
from graphc.runtime.compiled import compile
from graphc.runtime.kernel import Kernel
from tests.models import EVERY


def emitted(declared, wrt=()):
    k = compile(declared, wrt)
    options = k._gradient_options() if wrt else k.options
    return run_stages(k.traced.graph, options, last="emit")


def defined(text):
    return re.findall(r"^define [^@]*@([\w.$]+)\(", text, re.MULTILINE)


@pytest.mark.parametrize("name", EVERY)
def test_every_function_is_in_one_unit(name):
    text = emitted(*EVERY[name])
    made = units(text)
    assert sorted(f for unit in made for f in defined(unit)) == sorted(defined(text))
    assert len(made) == 1 + text.count(ROUTINE)
    assert ENTRY in defined(made[0])
    for unit in made:  # complete: LLVM takes it, and gives it an object
        assert jit.object_image(unit)


def test_units_give_the_same_bits():
    import graphc

    @graphc.graph
    def wave(x: graphc.f64["n"]):
        return (np.tanh(x) * np.sin(x)).sum() + np.log(x * x + 1.0).sum()

    k = compile(wave, "x")
    seen = {}
    options = k._gradient_options()
    text = run_stages(k.traced.graph, options, seen.__setitem__, last="emit")
    assert len(units(text)) > 2
    whole, apart = (jit.object_image(text),), jit.images(text)
    x = np.array([0.5, -1.0, 1e9, np.inf, -1e-300, 0.0, 700.0, np.nan, 3.0])
    results = [
        Kernel.of(seen["simplify"], seen["plan"], jit.Jit.link_objects(images, (ENTRY,))).run([x])
        for images in (whole, apart)
    ]
    for a, b in zip(*results, strict=True):
        assert a.tobytes() == b.tobytes()


def test_routines_are_compiled_once(monkeypatch):
    import graphc

    def one(x: graphc.f64["n"]):
        return (np.sin(x) * 2.0).sum()

    def other(x: graphc.f64["n", 3]):
        return np.sin(x * x) + 1.0

    _, *first = units(emitted(graphc.graph(one)))
    text = emitted(graphc.graph(other))
    own, *second = units(text)
    assert any("gc.rare.sin_huge" in routine for routine in {*first} & {*second})
    jit.images(text)
    compiled = []
    made = jit.object_image
    monkeypatch.setattr(jit, "object_image", lambda text: compiled.append(text) or made(text))
    jit.images(text)
    assert compiled == [own]


def test_a_text_without_marks_is_one_unit():
    text = "define void @f() {\n ret void\n}"
    assert units(text) == [text]


def test_tables_side_by_side():
    text = "\n".join([
        "@gc.table.a = internal constant [1 x i64] [i64 5]",
        "@gc.table.b = internal constant [1 x i64] [i64 7]",
        "define i64 @run() {\n  %x = call i64 @gc.second()\n  ret i64 %x\n}",
        ROUTINE,
        "define internal i64 @gc.second() {\n  %x = load i64, ptr @gc.table.b\n  ret i64 %x\n}",
        TAIL,
        "",
    ])  # fmt: skip
    own, routine = units(text)
    assert routine.startswith("@gc.table.b = ") and "@gc.table.a" not in routine
    library = jit.Jit.link(text, ("run",))
    assert ctypes.CFUNCTYPE(ctypes.c_int64)(library.address("run"))() == 7
