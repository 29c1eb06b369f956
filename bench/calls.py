"""What a call costs where there is next to nothing to compute: `python -m bench --calls`.

Ratios are to `np.add(x, y)` on arrays of as many elements, in turns with it in the same process; of
bound buffers, to CasADi's generated C, each as a ratio to `np.add` again. Contestants run one after
the other, each in a process of its own (bench/callers.py).
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from rich.table import Table

from bench.callers import ADD, CALLERS, MANY, SIZES, N
from bench.contestants import CACHES
from bench.processes import BLAS_VARIABLES, ROOT
from bench.tables import console, machine, number, print_rows, write_json

PATIENCE = 180  # seconds, for imports and compilations
CASADI = "CasADi"  # as a target: what its generated C takes on bound buffers


@dataclass(frozen=True)
class Row:
    """A kind of call: a statement, of so many calls, and what it may take at most."""

    name: str
    statement: str
    target: float | str | None
    count: int = 1
    needs: tuple[str, ...] = ("f",)


ROWS = (
    Row("two arrays, both gradients", "f(x, y)", 1.0),
    Row("the same, not annotated", "free(x, y)", 1.0, needs=("free",)),
    Row("its value alone", "value(x, y)", 1.0, needs=("value",)),
    Row("six parameters in a dict", "g(p)", 2.5, needs=("g",)),
    Row("bound buffers", "bound()", CASADI, needs=("bound",)),
    Row("a strided array", "f(strided, y)", 1.5, needs=("strided",)),
    Row("Fortran order", "matrix(fortran)", 1.5, needs=("matrix",)),
    Row("rank 0", "scalars(zero, zero)", 1.5, needs=("scalars",)),
    Row("Python floats", "scalars(1.5, 2.5)", 1.5, needs=("scalars",)),
    Row("arrays to be filled", "f(x, y, out=filled)", 1.5, needs=("filled",)),
    Row("keywords", "f(x=x, y=y)", 1.5, needs=("bound", "free")),
    Row(f"{len(SIZES)} sizes in turn", "for a, b in pairs: f(a, b)", 1.5, len(SIZES), ("many",)),
    Row("sizes that always change", "for a, b in many: f(a, b)", 1.5, len(MANY), ("many",)),
)


@dataclass
class Results:
    """Ratios to `np.add` of each contestant, by row."""

    ratios: dict[str, dict[str, float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)  # graphc's
    add: float = 0.0
    slow_calls: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def target(self, row: Row) -> float | None:
        if row.target == CASADI:
            return self.ratios.get("casadi", {}).get(row.name)
        return row.target if isinstance(row.target, float) else None


def run_all(peers: Sequence[str]) -> Results:
    results = Results()
    for name in ("graphc", *peers):
        answer = asked(name)
        if "rows" not in answer:
            results.absent[name] = str(answer.get("absent"))
            continue
        rows = answer["rows"]
        results.ratios[name] = {row: ratio for row, (_, ratio) in rows.items() if row != ADD}
        results.versions[name] = answer.get("version", "")
        if name == "graphc":
            results.seconds = {row: seconds for row, (seconds, _) in rows.items()}
            results.add, results.slow_calls = results.seconds.pop(ADD), answer["slow_calls"]
    return results


def asked(name: str) -> dict:
    """What a contestant's process has measured."""
    rows = {r.name: (r.statement, r.count, r.needs) for r in ROWS}
    python = os.environ.get(f"BENCH_{name.upper()}_PYTHON") or sys.executable
    kept = {k: v for k, v in os.environ.items() if not k.startswith(BLAS_VARIABLES)}
    path = os.pathsep.join(filter(None, (str(ROOT), kept.get("PYTHONPATH"))))
    environment = {**kept, **CACHES, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [python, "-m", "bench.callers", name, json.dumps(rows)]
    try:
        done = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE
        )
        return json.loads(done.stdout.splitlines()[-1])
    except (subprocess.TimeoutExpired, IndexError, json.JSONDecodeError) as error:
        return {"absent": f"{type(error).__name__}"}


PEERS = tuple(name for name in CALLERS if name != "graphc")


def cells(results: Results, row: Row) -> list[str]:
    ours, target = results.ratios["graphc"].get(row.name), results.target(row)
    return [
        row.name, number(results.seconds.get(row.name, 0.0) * 1e9, 0), number(ours),
        number(target),
        *(number(results.ratios.get(p, {}).get(row.name)) for p in PEERS if p in results.ratios),
    ]  # fmt: skip


def columns(results: Results) -> list[str]:
    peers = [p for p in PEERS if p in results.ratios]
    return ["call", "ns", "ratio", "at most", *peers]


def note(results: Results) -> str:
    text = (
        f"Ratios are to `np.add(x, y)` on {N} elements, {results.add * 1e9:.0f} ns here, in "
        f"turns with each; calls of graphc that Python had to serve: {results.slow_calls}."
    )
    missing = [f"{name} ({why})" for name, why in results.absent.items()]
    return f"{text} Absent: {', '.join(missing)}." if missing else text


def show(results: Results, markdown: bool) -> None:
    rows = [cells(results, row) for row in ROWS]
    if markdown:
        print(f"{machine()}.\n")
        print_rows(columns(results), rows)
        print(f"\n{note(results)}")
        return
    table = Table(*columns(results), title=machine(), title_style="", header_style="bold")
    for i, column in enumerate(table.columns):
        column.justify = "left" if i == 0 else "right"
    for row, line in zip(ROWS, rows, strict=True):
        target = results.target(row)
        ours = results.ratios["graphc"].get(row.name)
        if target and ours:
            line[2] = f"[{'green' if ours <= target else 'red'}]{line[2]}[/]"
        table.add_row(*line)
    console().print(table)
    console().print(note(results), highlight=False)


def save(path: str, results: Results) -> None:
    write_json(path, {"machine": machine(), **asdict(results)})
