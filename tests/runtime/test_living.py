"""Sets of objects that nothing of Python's leaves: in a callback, Ctrl-C is lost."""

import weakref

import numpy as np

import graphc
from graphc.runtime import bound, entries
from graphc.runtime.living import FEW, Living


class Thing:
    pass


def test_dead_objects_are_forgotten():
    things, kept = Living(), [Thing() for _ in range(3)]
    for _ in range(100 * FEW):
        things.add(Thing())
    for thing in (*kept, *kept):
        things.add(thing)
    assert {id(t) for t in things} == {id(t) for t in kept}
    assert len(things._references) <= 2 * FEW
    many = [Thing() for _ in range(10 * FEW)]
    for thing in many:
        things.add(thing)
    assert len(list(things)) == len(kept) + len(many)


def test_no_callback_waits_for_functions_or_bound_calls():
    f = graphc.value_and_grad(lambda x: (x * x).sum())
    x = np.ones(3)
    for _ in range(3):
        f(x)
    k = graphc.compile(_squares).bind(x)
    for thing, known in ((f, entries._entries), (k, bound._all)):
        references = [r for r in known._references.values() if r() is thing]
        assert len(references) == 1 or not thing.is_native
        assert all(r.__callback__ is None for r in weakref.getweakrefs(thing))


@graphc.graph
def _squares(x: graphc.f64["n"]):  # noqa: F821
    return x * x
