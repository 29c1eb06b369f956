"""NumPy's validation sets: rows of argument and result, computed elsewhere, in the installed wheel.

In:   a gate's name, a dtype, a subject, the gate's budget.
Out:  how many rows there are, and those beyond the budget.
Invariant: the expected column is a rounded result, right to 0.125 units in the last place; the
file's own column of tolerances is not looked at.
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from graphc.selftest.measure import errors
from graphc.selftest.subjects import NUMPY, Subject

Array = np.ndarray
RIGHT_TO = 0.125


def folder() -> Path:
    return Path(np.__file__).parent / "_core" / "tests" / "data"


@cache
def rows(name: str, dtype: Any) -> tuple[Array, Array] | None:
    """Arguments and expected results of a gate; None where NumPy has no file for it."""
    path = folder() / f"umath-validation-set-{NUMPY.get(name, name)}.csv"
    if not path.exists():
        return None
    integer = np.uint64 if dtype == np.float64 else np.uint32
    with path.open(newline="") as file:
        found = [
            (int(row[1], 16), int(row[2], 16))
            for row in csv.reader(line for line in file if line.startswith("np."))
            if row[0] == f"np.{np.dtype(dtype).name}"
        ]
    columns = np.array(found, integer).reshape(-1, 2)
    return tuple(np.ascontiguousarray(columns[:, i]).view(dtype) for i in (0, 1))


def beyond(name: str, dtype: Any, subject: Subject, budget: float) -> tuple[int, list[str]]:
    """The number of rows, and the rows whose error is beyond the budget, as text."""
    found = rows(name, np.dtype(dtype).type)
    if found is None or not found[0].size:
        return 0, []
    x, expected = found
    got = subject.run(x)[0]
    assert got is not None
    error = errors(got, expected.astype(np.longdouble), np.dtype(dtype))
    error[np.isinf(expected) & (abs(got) == np.finfo(dtype).max)] = 1.0  # infinity's neighbour
    bad = error > budget + RIGHT_TO
    return x.size, [
        f"{name}({x[k]!s}) = {got[k]!s}, not {expected[k]!s}" for k in np.flatnonzero(bad)
    ]
