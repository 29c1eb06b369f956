"""Results as a table, as Markdown, and as JSON."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from statistics import geometric_mean

import llvmlite
import numpy as np
from rich.console import Console
from rich.table import Table

import graphc
from bench import functions
from bench.run import Result

AgainstSum = tuple[float, float] | None
COLUMNS = (
    "workload", "bytes", "value", "NumPy", "ratio", "value+gradient", "NumPy", "ratio",
    "gradient/value", "of copy speed",
)  # fmt: skip
FUNCTION_COLUMNS = (
    "function", "", "operations", "ns", "cycles", "peer", "ratio", "JAX", "without call",
    "with derivative: ns", "cycles", "JAX", "without call",
)  # fmt: skip


def row(r: Result) -> list[str]:
    """A result as the cells of `COLUMNS`."""
    return [
        r.name, amount(r.bytes), duration(r.value), duration(r.numpy_value), f"{r.value_ratio:.2f}",
        duration(r.gradient), duration(r.numpy_gradient), f"{r.gradient_ratio:.2f}",
        f"{r.gradient_cost:.1f}", f"{r.copy_share:.0%}",
    ]  # fmt: skip


def duration(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f} us"


def amount(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"


def machine() -> str:
    """The processor and the versions that the figures belong to."""
    ours = f"graphc {graphc.__version__}, llvmlite {llvmlite.__version__}"
    theirs = f"NumPy {np.__version__}, Python {platform.python_version()}"
    return f"{_processor()}, {_cores()} cores; {ours}; {theirs}"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def summary(results: Sequence[Result], against_sum: AgainstSum) -> list[str]:
    value = geometric_mean(r.value_ratio for r in results)
    gradient = geometric_mean(r.gradient_ratio for r in results)
    lines = [
        "NumPy's time over graphc's, geometric mean: "
        f"value {value:.2f}, value and gradient {gradient:.2f}."
    ]
    if against_sum is not None:
        loss, total = against_sum
        lines.append(
            f"Value and gradient of logistic 100000x50 take {duration(loss)}, a compiled sum of X "
            f"alone {duration(total)}: ratio {loss / total:.2f}."
        )
    return lines


def print_table(results: Sequence[Result], against_sum: AgainstSum) -> None:
    console = Console(width=None if Console().is_terminal else 160)
    table = Table(*COLUMNS, title=machine(), title_style="", header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
        column.no_wrap = True
    for r in results:
        cells = row(r)
        for i, ratio in ((4, r.value_ratio), (7, r.gradient_ratio)):
            cells[i] = f"[{'green' if ratio >= 1 else 'red'}]{cells[i]}[/]"
        table.add_row(*cells)
    console.print(table)
    console.print("[bold]What limits value and gradient[/]")
    for r in results:
        console.print(f"  {r.name}: {r.limited_by}", highlight=False)
    console.print()
    for line in summary(results, against_sum):
        console.print(line, highlight=False)


def print_markdown(results: Sequence[Result], against_sum: AgainstSum) -> None:
    print(f"{machine()}.\n")
    _print_rows(COLUMNS, [row(r) for r in results])
    print()
    _print_rows(
        ("workload", "what limits value and gradient"), [[r.name, r.limited_by] for r in results]
    )
    print()
    print("\n".join(summary(results, against_sum)))


def _print_rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print(f"| {' | '.join(head)} |")
    print(f"| --- |{' ---: |' * (len(head) - 1) if len(head) > 2 else ' --- |'}")
    for cells in rows:
        print(f"| {' | '.join(cells)} |")


# -- functions ------------------------------------------------------------------------------------


def function_row(r: functions.Result) -> list[str]:
    """A gate as the cells of `FUNCTION_COLUMNS`: times of an element, ratios of times."""
    derivative = r.derivative and r.derivative / functions.N * 1e9
    return [
        r.gate, r.dtype, str(r.operations), f"{r.value / functions.N * 1e9:.3f}", f"{r.cycles:.2f}",
        r.peer, _number(r.numpy_ratio), _number(r.jax_ratio), _number(r.jax_net_ratio),
        _number(derivative, 3), _number(r.derivative_cycles), _number(r.jax_derivative_ratio),
        _number(r.jax_derivative_net_ratio),
    ]  # fmt: skip


def _number(x: float | None, digits: int = 2) -> str:
    return "" if x is None else f"{x:.{digits}f}"


def function_summary(results: Sequence[functions.Result]) -> list[str]:
    """What was measured, and geometric means of the ratios."""
    calls = [r.jax_call for r in results if r.jax_call]
    lines = [
        f"Times of an element of {functions.N:,} in cache, in one thread, at "
        f"{np.median([r.hertz for r in results]) / 1e9:.2f} GHz; ratios are the peer's time over "
        "graphc's."
    ]
    if calls:
        lines.append(
            f"A call of JAX costs {np.median(calls) * 1e6:.1f} us, what its negation takes longer "
            "than ours; its ratios are with that and without."
        )
    for dtype in dict.fromkeys(r.dtype for r in results):
        means = [
            f"{what} {geometric_mean(found):.2f}"
            for what, name in MEANS
            if (found := [v for r in results if r.dtype == dtype and (v := getattr(r, name))])
        ]
        lines.append(f"Geometric means, {dtype}: {', '.join(means)}.")
    return lines


MEANS = (
    ("NumPy and SciPy", "numpy_ratio"), ("JAX", "jax_ratio"), ("without its call", "jax_net_ratio"),
    ("JAX with derivative", "jax_derivative_ratio"),
    ("without its call", "jax_derivative_net_ratio"),
)  # fmt: skip


def print_functions(results: Sequence[functions.Result], markdown: bool) -> None:
    rows = [function_row(r) for r in results]
    title, summary = function_machine(), function_summary(results)
    if markdown:
        print(f"{title}.\n")
        _print_rows(FUNCTION_COLUMNS, rows)
        print()
        print("\n".join(summary))
        return
    console = Console(width=None if Console().is_terminal else 160)
    table = Table(*FUNCTION_COLUMNS, title=title, title_style="", header_style="bold")
    for i, column in enumerate(table.columns):
        column.justify = "left" if i in (0, 1, 5) else "right"
        column.no_wrap = i != 9
    for cells in rows:
        colored = [
            f"[{'green' if float(c) >= 1 else 'red'}]{c}[/]" if i in (6, 7, 8, 11, 12) and c else c
            for i, c in enumerate(cells)
        ]
        table.add_row(*colored)
    console.print(table)
    for line in summary:
        console.print(line, highlight=False)


def function_machine() -> str:
    found = (version(name) for name in ("scipy", "jax"))
    names = [f"{name} {v}" for name, v in zip(("SciPy", "JAX"), found) if v]
    return f"{machine()}, {', '.join(names)}"


def version(package: str) -> str:
    """Of an installed package; empty where there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def write_functions_json(path: str, results: Sequence[functions.Result]) -> None:
    found = {
        "machine": function_machine(),
        "graphc": graphc.__version__,
        "elements": functions.N,
        "results": [
            {**asdict(r), **{name: getattr(r, name) for name in functions.RATIOS}} for r in results
        ],
    }
    _write(path, found)


# -- JSON -----------------------------------------------------------------------------------------


def write_json(path: str, results: Sequence[Result], against_sum: AgainstSum) -> None:
    """Seconds, bytes and ratios, for programs."""
    found = {
        "machine": machine(),
        "graphc": graphc.__version__,
        "results": [_as_json(r) for r in results],
        "logistic_100000x50_over_sum": against_sum[0] / against_sum[1] if against_sum else None,
    }
    _write(path, found)


def _write(path: str, found: dict[str, object]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(found, indent=2) + "\n")


def _as_json(r: Result) -> dict[str, object]:
    ratios = ("value_ratio", "gradient_ratio", "gradient_cost", "copy_share")
    return {**asdict(r), **{name: getattr(r, name) for name in ratios}}
