"""What compiling costs: `python -m bench --compile`.

The time from a new function to its first value and gradient, in a process that has compiled an
unrelated one; for graphc, what is kept, given back, and how it grows, too. Everything runs in
processes of their own, one after the other, at most a minute each.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table

from bench.contestants import CACHES
from bench.growth import SHAPES
from bench.processes import BLAS_VARIABLES, ROOT
from bench.tables import console, duration, machine, print_rows, write_json

PATIENCE = 60  # seconds
PEERS = ("jax", "torch", "pytensor", "casadi")
NAMES = {
    "graphc": "graphc",
    "jax": "JAX",
    "torch": "PyTorch",
    "pytensor": "PyTensor",
    "casadi": "CasADi",
}
LARGE, SMALL = 20_000, 500


@dataclass(frozen=True)
class Row:
    """Functions of one kind and size; `target` in seconds."""

    name: str
    kind: str
    count: int
    target: float | None
    peers: bool = True


ROWS = (
    Row("10 gates on vectors", "vectors", 10, 0.020),
    Row("500 gates on vectors", "vectors", SMALL, 0.150),
    Row("20,000 gates on vectors", "vectors", LARGE, None, peers=False),
    Row("10 gates on scalars", "scalars", 10, 0.020),
    Row("500 gates on scalars", "scalars", SMALL, 0.150),
    Row("20,000 gates on scalars", "scalars", LARGE, None, peers=False),
    Row("a sum of 1,000 different terms", "terms", 1000, 1.0),
)


@dataclass
class Found:
    """Seconds by row and contestant, None where one did not end in time; and graphc's growth."""

    machine: str
    seconds: dict[str, dict[str, float | None]] = field(default_factory=dict)
    growth: dict[str, Any] = field(default_factory=dict)
    cached: Any = None


def run(options: Any) -> None:
    chosen = PEERS if options.peers is None else tuple(filter(None, options.peers.split(",")))
    contestants = ("graphc", *(p for p in chosen if p in PEERS))
    found = Found(machine())
    path = options.json or "bench/out/compile.json"
    for row in ROWS:
        if options.only.lower() not in row.name:
            continue
        for name in contestants if row.peers else ("graphc",):
            said = ask("bench.compilers", name, row.kind, str(row.count))
            found.seconds.setdefault(row.name, {})[name] = said["median"] if said else None
        write_json(path, asdict(found))
    if not options.only:
        for task in ("imports", "readme", "kept", "given_back", *(f"slope {s}" for s in SHAPES)):
            found.growth[task] = ask("bench.growth", task)
        if (ROOT / "bench" / "compile_cached.py").exists():
            found.cached = ask("bench.compile_cached")
        write_json(path, asdict(found))
    show(found, contestants, options.markdown)


def ask(module: str, *arguments: str) -> Any:
    """What a module prints as JSON; None where it fails, is not there, or takes too long."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(BLAS_VARIABLES)}
    folder = {"GRAPHC_CACHE_DIR": "off"} if module != "bench.compile_cached" else {}
    environment = {**kept, **CACHES, **folder, "PYTHONPATH": str(ROOT)}
    # Caches of machine code would make a second run a different one.
    environment |= {"TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            capture_output=True, check=True, timeout=PATIENCE, env=environment, cwd=ROOT,
        )  # fmt: skip
        return json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError):
        return None


def show(found: Found, contestants: Sequence[str], markdown: bool) -> None:
    header = ("to the first value and gradient", "target", *(NAMES[c] for c in contestants))
    rows = list(_times(found, contestants))
    growth = list(_growth(found))
    if markdown:
        print_rows(header, rows)
        print()
        if growth:
            print_rows(("graphc", "target", "measured"), growth)
        return
    for title, names, body in (("", header, rows), ("", ("graphc", "target", "measured"), growth)):
        table = Table(title=title or None, caption=found.machine if body is growth else None)
        for name in names:
            table.add_column(name, justify="left" if name == names[0] else "right")
        for line in body:
            table.add_row(*line)
        if body:
            console().print(table)


def _times(found: Found, contestants: Sequence[str]) -> Iterable[tuple[str, ...]]:
    for row in ROWS:
        if row.name not in found.seconds:
            continue
        said = found.seconds[row.name]
        cells = []
        for name in contestants:
            cells.append("" if name not in said else duration(said[name]) or f"> {PATIENCE} s")
        yield (row.name, duration(row.target), *cells)


def _growth(found: Found) -> Iterable[tuple[str, str, str]]:
    for kind in ("vectors", "scalars"):
        small, large = (
            found.seconds.get(f"{n} gates on {kind}", {}).get("graphc") for n in ("500", "20,000")
        )
        if small and large:
            ratio = (large / LARGE) / (small / SMALL)
            yield f"a gate of 20,000 on {kind}, to one of 500", "3", f"{ratio:.2f}"
    growth = found.growth
    for name, seconds in (growth.get("readme") or {}).items():
        yield f"README: {name}", "100 ms" if name.startswith("pair") else "20 ms", duration(seconds)
    if growth.get("kept") is not None:
        yield (
            "kept for each node, machine code included",
            "2,000 bytes",
            f"{growth['kept']:.0f} bytes",
        )
    if growth.get("given_back") is not None:
        yield (
            "left behind by a cycle of compiling and deleting",
            "0",
            f"{growth['given_back']:.0f} bytes",
        )
    if growth.get("imports") is not None:
        yield "import graphc, after import numpy", "80 ms", duration(growth["imports"])
    for shape in SHAPES:
        said = growth.get(f"slope {shape}")
        if said:
            text = f"{said['exponent']:.2f}; {said['nodes']:.1f}; {said['seconds']:.1f} s"
            yield f"{shape}: exponent of time 1e4 to 1e5; nodes with gradient; 1e5", "1.15; 5", text
    if found.cached is not None:
        yield "from the disk cache, in a new process", "", json.dumps(found.cached)


__all__ = ["ROWS", "run", "show"]
