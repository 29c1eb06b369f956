"""The same bits at every place and for every processor; `graphc.selftest` does this at length."""

import numpy as np
import pytest

from graphc.gates.gate import registry
from graphc.ir.types import f64
from graphc.selftest.placement import (
    Case,
    Tally,
    at_offset,
    cases,
    check_instruction_sets,
    check_placements,
    differ,
    main,
)

CASES = cases()
PLACEMENTS = 200_000


def test_the_cases_are_all_gates_of_floats():
    held = {c.gate.name for c in CASES}
    floats = {
        g.name
        for g in registry().values()
        if g.kind == "elementwise" and g.accepts not in ("int", "bool", "bits")
    }
    assert held == floats and len(CASES) == 2 * len(floats)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_bits_depend_on_the_operands_alone(case):
    tally = Tally()
    check_placements(case, PLACEMENTS // len(CASES), tally)
    assert set(tally.compared) == {"window", "transposed", "view", "thread"}
    assert tally.differing == 0, tally.first[0]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_bits_are_those_of_the_interpreter_on_every_processor(case):
    tally = Tally()
    check_instruction_sets(Case(case.gate, case.dtype, 1000), tally, alone=False)
    assert tally.differing == 0, tally.first[0]


def test_points_are_tame_and_wild():
    case = Case(registry()["exp"], f64)
    x, ct = case.points
    tame, wild = np.split(x, 2)
    low, high = case.gate.domain
    assert ((low <= tame) & (tame <= high)).all() and 0.0 in ct and 1.0 in ct
    subnormal = (wild != 0) & (abs(wild) < 2.0**-1022)
    for kind in (np.isnan(wild), np.isposinf(wild), np.isneginf(wild), subnormal, wild == 0):
        assert kind.any()
    assert np.unique(np.frexp(wild[np.isfinite(wild)])[1]).size > 300


# -- the checks see what they look for -------------------------------------------------------------


def test_arrays_lie_where_they_are_said_to():
    x = np.arange(7.0)
    for offset in range(0, 64, 8):
        placed = at_offset(x, offset)
        assert placed.ctypes.data % 64 == offset and placed.tolist() == x.tolist()


def test_nans_are_alike_and_zeros_are_not():
    a = np.array([np.nan, 0.0, 1.0])
    b = np.array([-np.nan, -0.0, 1.0])
    assert differ(a, b).tolist() == [False, True, False]
    assert differ(np.array([True, False]), np.array([True, True])).tolist() == [False, True]


def test_a_last_bit_is_seen():
    case, tally = Case(registry()["tanh"], f64), Tally()
    value, derivative = case.wanted
    derivative[3] = np.nextafter(derivative[3], 2.0)
    check_placements(case, 20_000, tally)
    assert tally.differing > 0
    assert {d.output for d in tally.first} == {1}
    assert {d.operands[0] for d in tally.first} == {case.points[0][3].item().hex()}


def test_the_report_counts_and_names(capsys):
    assert main(2_000, full=False, only="tanh_partial") == 0
    text = capsys.readouterr().out
    assert "2 gates in f64 and f32" in text and text.rstrip().endswith("compared, 0 differ")
