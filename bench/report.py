"""Results as a table, as Markdown, and as JSON."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import geometric_mean

import llvmlite
import numpy as np
from rich.console import Console
from rich.table import Table

import graphc
from bench.run import Result

AgainstSum = tuple[float, float] | None
COLUMNS = (
    "workload", "bytes", "value", "NumPy", "ratio", "value+gradient", "NumPy", "ratio",
    "gradient/value", "of copy speed",
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


def write_json(path: str, results: Sequence[Result], against_sum: AgainstSum) -> None:
    """Seconds, bytes and ratios, for programs."""
    found = {
        "machine": machine(),
        "graphc": graphc.__version__,
        "results": [_as_json(r) for r in results],
        "logistic_100000x50_over_sum": against_sum[0] / against_sum[1] if against_sum else None,
    }
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(found, indent=2) + "\n")


def _as_json(r: Result) -> dict[str, object]:
    ratios = ("value_ratio", "gradient_ratio", "gradient_cost", "copy_share")
    return {**asdict(r), **{name: getattr(r, name) for name in ratios}}
