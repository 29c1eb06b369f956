"""Every rule is proven, every rule fires, and rules that are wrong are found out."""

import pytest

from graphc.gates.elementwise import abs_, le, logical_not, lt, maximum, mul0, where
from graphc.gates.movement import transpose
from graphc.passes.rewrite import Rule
from graphc.passes.rules import RULES
from graphc.passes.simplify import simplify
from tests.passes.examples import EXAMPLES
from tests.passes.prover import CONSTANTS, INTS, dtypes_of, prove_examples, prove_scalar, sides

NAMES = [rule.name for rule in RULES]
SCALAR = [rule for rule in RULES if rule.is_scalar]
OTHER = [rule for rule in RULES if not rule.is_scalar]


def test_names_are_unique():
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("rule", SCALAR, ids=lambda r: r.name)
def test_scalar_rule_is_proven(rule):
    assert prove_scalar(rule) is None


@pytest.mark.parametrize("rule", OTHER, ids=lambda r: r.name)
def test_other_rule_is_proven(rule):
    assert rule.name in EXAMPLES, f"{rule.name} needs examples in tests/passes/examples.py"
    assert prove_examples(rule, EXAMPLES[rule.name]()) is None


def test_each_example_has_a_rule():
    assert set(EXAMPLES) <= set(NAMES)


@pytest.mark.parametrize("rule", SCALAR, ids=lambda r: r.name)
def test_scalar_rule_fires(rule):
    fired = {}
    for dtype in dtypes_of(rule):
        for c in CONSTANTS if dtype.is_float else INTS:
            graph = sides(rule, dtype, (bool(c) if dtype.is_bool else c,) * 2)
            if graph is not None:
                simplify(graph, fired=fired)
    assert fired.get(rule.name), f"{rule.name} never fires: another rule is always there first"


@pytest.mark.parametrize("rule", OTHER, ids=lambda r: r.name)
def test_other_rule_fires(rule):
    fired = {}
    for graph in EXAMPLES[rule.name]():
        simplify(graph, fired=fired)
        if fired.get(rule.name):
            return
    pytest.fail(f"{rule.name} never fires: another rule is always there first")


UNSOUND = (
    Rule("add-zero", lambda x: x + 0.0, lambda x: x, dtype="float"),
    Rule("mul-zero", lambda x: x * 0.0, lambda x: x.constant(0), dtype="float"),
    Rule("sub-self", lambda x: x - x, lambda x: x.constant(0), dtype="float"),
    Rule("div-self", lambda x: x / x, lambda x: x.constant(1), dtype="float"),
    Rule("zero-sub", lambda x: 0.0 - x, lambda x: -x, dtype="float"),
    Rule("neg-sub", lambda x, y: -(x - y), lambda x, y: y - x, dtype="float"),
    Rule("div-constant", lambda x, c: x / c, lambda x, c: x * (1 / c.splat() if c.splat() else 0.0),
    dtype="float"),
    Rule("associative", lambda x, y, z: (x + y) + z, lambda x, y, z: x + (y + z), dtype="float"),
    Rule("not-lt", lambda x, y: logical_not(lt(x, y)), lambda x, y: le(y, x), dtype="float"),
    Rule("mul0-constant", lambda x, c: mul0(x, c), lambda x, c: x * c, dtype="float",
    where=lambda c: c.splat() == 2),
    Rule("mul0-any", lambda x, y: mul0(x, y), lambda x, y: x * y, dtype="float"),
    Rule("abs", lambda x: maximum(x, -x), lambda x: where(lt(x, x.constant(0)), -x, x),
    dtype="float"),
    Rule("halves", lambda x, y: (x + y) - y, lambda x, y: x, dtype="float"),
    Rule("int-square", lambda x: x * x, lambda x: abs_(x * x), dtype="int"),
    Rule("int-abs", lambda x: maximum(x, -x), lambda x: where(lt(x, x.constant(0)), x, -x),
    dtype="int"),
    Rule("where-swapped", lambda p, x, y: where(logical_not(p), x, y), lambda p, x,
    y: where(p, x, y)),
)  # fmt: skip


@pytest.mark.parametrize("rule", UNSOUND, ids=lambda r: r.name)
def test_unsound_rule_is_found(rule):
    assert prove_scalar(rule) is not None


def test_unsound_movement_is_found():
    swapped = Rule(
        "transpose-transpose", lambda x, a, b: transpose(transpose(x, perm=a), perm=b),
        lambda x, a, b: x.transposed([b[i] for i in a]), where=lambda x, a,
        b: [x.shape[a[i]] for i in b] == [x.shape[b[i]] for i in a],
    )  # fmt: skip
    assert prove_examples(swapped, EXAMPLES["transpose-transpose"]()) is not None


def test_a_rule_that_never_holds_is_not_proven():
    assert (
        prove_scalar(
            Rule("never", lambda x: x * 1.0, lambda x: x, dtype="float", where=lambda x: False)
        )
        is not None
    )
