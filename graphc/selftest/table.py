"""What a self-test found, for the terminal, as JSON, and as a table in docs/numerics.md.

In:   reports.
Out:  text. The page's table stands between the markers of the name `measured`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graphc.selftest.exact import exact_of
from graphc.selftest.run import GAP, Output, Report

BEGIN, END = "<!-- table:measured -->\n", "<!-- /table -->"
HEADING = """
## Measured errors

The worst error of each function and of its derivatives, in units of the last place, as
`python -m graphc.selftest --ulp` finds it, with the argument where it stands. float32 is tried at
every pattern (every 193rd in a short run) and judged by float64; float64 is tried at all exponents
and around breakpoints and judged by long double; mpmath judges the worst of both. Where a function
crosses zero by cancellation, the unit is that of its largest addend. Peers get the same arguments;
the largest errors of JAX are of subnormal numbers, which it takes for 0.

"""


def ulps(x: float) -> str:
    return "inf" if math.isinf(x) else f"{x:.3f}" if x < 1000 else f"{x:.2g}"


def worst_derivative(report: Report) -> Output | None:
    slopes = [o for o in report.outputs if o.name != "value"]
    return max(slopes, key=lambda o: o.worst, default=None)


def value_of(report: Report) -> Output | None:
    return next((o for o in report.outputs if o.name == "value"), None)


def by_gate(reports: Sequence[Report]) -> dict[str, dict[str, Report]]:
    gates: dict[str, dict[str, Report]] = {}
    for r in reports:
        gates.setdefault(r.gate, {})[r.dtype] = r
    return gates


# -- the terminal ----------------------------------------------------------------------------------


def show(reports: Sequence[Report], console: Any, peers: bool = False) -> None:
    """One row for each gate and dtype, then what is wrong, a line each."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("gate", "", "value", "at", "budget", "derivative", "at", "budget"):
        table.add_column(head, justify="right" if head in ("value", "derivative") else "left")
    if peers:
        table.add_column("numpy, jax")
    table.add_column("seconds", justify="right")
    table.add_column("")
    for r in reports:
        value, slope = value_of(r), worst_derivative(r)
        cells = [r.gate, r.dtype, *_cells(value), *_cells(slope)]
        if peers:
            cells.append("; ".join(filter(None, (_peer_text(value), _peer_text(slope)))))
        table.add_row(*cells, f"{r.seconds:.1f}", "" if r.ok else "[bold red]FAILS[/]")
    console.print(table)
    for line in complaints(reports):
        console.print(line, style="red", markup=False, highlight=False, soft_wrap=True)
    for line in notes(reports):
        console.print(line, style="dim", markup=False, highlight=False, soft_wrap=True)


def _cells(o: Output | None) -> tuple[str, str, str]:
    if o is None:
        return "", "", ""
    place = (
        ""
        if not o.worst
        else o.place
        if o.name == "value"
        else f"{o.name}: {o.place}"
        if "," in o.place
        else o.place
    )
    return ulps(o.worst), place, "-" if o.budget is None else f"{o.budget:g}"


def _peer_text(o: Output | None) -> str:
    return "" if o is None else " ".join(f"{k} {ulps(v)}" for k, (v, _) in o.peers.items())


def complaints(reports: Sequence[Report]) -> list[str]:
    """Everything that fails, one line each."""
    lines = []
    for r in reports:
        at = f"{r.gate} {r.dtype}"
        lines += [
            f"{at}: {o.name if o.name == 'value' else f'derivative by {o.name}'} is off by "
            f"{ulps(o.worst)} ULP at {o.place}; the budget is {o.budget:g}"
            for o in r.outputs
            if not o.ok
        ]
        lines += [f"{at}: {fault}" for fault in r.faults]
        lines += [
            f"{at}: {len(r.beyond)} of {r.rows} rows of NumPy's validation set, such as {b}"
            for b in r.beyond[:1]
        ]
    return lines


def notes(reports: Sequence[Report]) -> list[str]:
    """Where the judges disagree, and what is not judged."""
    lines = [
        f"{r.gate} {r.dtype} {o.name}: the two judges differ by {ulps(o.gap)} ULP; mpmath decides"
        for r in reports
        for o in r.outputs
        if o.gap > GAP
    ]
    for name in dict.fromkeys(r.gate for r in reports):
        exact = exact_of(name)
        if exact is not None and exact.why:
            lines.append(f"{name}: derivatives are not judged where {exact.why}")
    return lines


# -- files -----------------------------------------------------------------------------------------


def as_json(reports: Sequence[Report]) -> str:
    rows = [{**dataclasses.asdict(r), "ok": r.ok} for r in reports]
    return json.dumps(_finite(rows), indent=1) + "\n"


def _finite(x: Any) -> Any:
    """JSON has no infinity: it stands as text."""
    if isinstance(x, float) and not math.isfinite(x):
        return str(x)
    if isinstance(x, dict):
        return {k: _finite(v) for k, v in x.items()}
    return [_finite(v) for v in x] if isinstance(x, (list, tuple)) else x


def markdown(reports: Sequence[Report]) -> str:
    """A row for each gate: float64 value and derivative, float32 value and derivative, peers."""
    peers = any(o.peers for r in reports for o in r.outputs)
    head = ["gate", "f64", "f64 derivative", "f32", "f32 derivative"]
    head += ["NumPy or SciPy, f64 / f32", "JAX, f64 / f32", "JAX derivative"] if peers else []
    lines = [_row(head), _row(["---", *["---:"] * (len(head) - 1)])]
    for name, of in by_gate(reports).items():
        cells = [f"`{name}`"]
        for dtype in ("f64", "f32"):
            r = of.get(dtype)
            for o in (None, None) if r is None else (value_of(r), worst_derivative(r)):
                cells.append("" if o is None else _at(o))
        if peers:
            cells += [
                _peers(of, value_of, ("numpy", "scipy")),
                _peers(of, value_of, ("jax",)),
                _peers(of, worst_derivative, ("jax",)),
            ]
        lines.append(_row(cells))
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _at(o: Output) -> str:
    return f"{ulps(o.worst)} at {_short(o.place)}" if o.worst > 0 else "0"


def _short(place: str) -> str:
    return ", ".join(f"{float(p):.6g}" for p in place.split(", "))


def _peers(of: dict[str, Report], output: Any, names: Sequence[str]) -> str:
    found = []
    for dtype in ("f64", "f32"):
        o = output(of[dtype]) if dtype in of else None
        errors = [o.peers[n][0] for n in names if n in o.peers] if o is not None else []
        found.append(ulps(errors[0]) if errors else "")
    return " / ".join(found) if any(found) else ""


def write_page(path: Path, reports: Sequence[Report]) -> None:
    """Put the table between the page's markers; add the section where there is none."""
    text = path.read_text(encoding="utf-8")
    if BEGIN not in text:
        text = f"{text.rstrip()}\n{HEADING}{BEGIN}{END}\n"
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}{markdown(reports)}{END}{after}", encoding="utf-8")
