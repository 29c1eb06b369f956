"""runtime/jit.py: LLVM compiles kernels without some passes, and others find it as it was."""

from __future__ import annotations

import llvmlite.binding as llvm
import pytest

from graphc.ir.graph import Builder
from graphc.ir.types import f64
from graphc.pipeline import Options, run_stages
from graphc.runtime import jit


@pytest.fixture(scope="module")
def text():
    b = Builder()
    x, y = b.input("x", f64["n", 3]), b.input("y", f64["n", 3])
    total = b.apply("tanh", x * y).sum(1).sum(0)
    return run_stages(b.graph("f", {"total": total}), Options(), last="emit")


def by_others(text):
    machine = jit.host_machine()
    return machine.emit_object(jit._parse(text, machine))


def test_the_options_of_this_llvm_are_known():
    """Another version may lack one of them, and ends the process: look, then enter it."""
    assert llvm.llvm_version_info[0] in jit.HAVE_THESE


def test_others_have_all_passes(text):
    before = by_others(text)
    assert jit.object_image(text) != before
    assert by_others(text) == before


def test_pieces_of_long_bodies_do_without_more(monkeypatch):
    b = Builder()
    x = y = b.input("x", f64["n"])
    for i in range(700):
        y = y * x + float(i)
    text = run_stages(b.graph("long", {"y": y}), Options(), last="emit")
    before, found = by_others(text), jit.object_image(text)
    assert by_others(text) == before
    monkeypatch.setattr(jit, "_LEFT_OUT_OF_PIECES", {})
    assert found != jit.object_image(text)


def test_they_have_all_passes_after_an_error(text):
    before = by_others(text)
    with pytest.raises(RuntimeError):
        jit.object_image("define i32 @f() { ret i64 0 }")
    assert by_others(text) == before


def test_an_unknown_llvm_runs_all_passes(text, monkeypatch):
    before = by_others(text)
    monkeypatch.setattr(jit, "HAVE_THESE", ())
    assert jit.object_image(text) == before
