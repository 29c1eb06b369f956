"""Elementwise gates as a table, as Markdown, and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from statistics import geometric_mean

import numpy as np
from rich.table import Table

import graphc
from bench import functions
from bench.contestants.version import version
from bench.tables import console, machine, number, print_rows, write_json

FUNCTION_COLUMNS = (
    "function", "", "operations", "ns", "cycles", "peer", "ratio", "JAX", "without call",
    "with derivative: ns", "cycles", "JAX", "without call",
)  # fmt: skip


def function_row(r: functions.Result) -> list[str]:
    """A gate as the cells of `FUNCTION_COLUMNS`: times of an element, ratios of times."""
    derivative = r.derivative and r.derivative / functions.N * 1e9
    return [
        r.gate, r.dtype, str(r.operations), f"{r.value / functions.N * 1e9:.3f}", f"{r.cycles:.2f}",
        r.peer, number(r.numpy_ratio), number(r.jax_ratio), number(r.jax_net_ratio),
        number(derivative, 3), number(r.derivative_cycles), number(r.jax_derivative_ratio),
        number(r.jax_derivative_net_ratio),
    ]  # fmt: skip


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
        print_rows(FUNCTION_COLUMNS, rows)
        print()
        print("\n".join(summary))
        return
    show = console()
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
    show.print(table)
    for line in summary:
        show.print(line, highlight=False)


def function_machine() -> str:
    found = (version(name) for name in ("scipy", "jax"))
    names = [f"{name} {v}" for name, v in zip(("SciPy", "JAX"), found) if v]
    return f"{machine()}, {', '.join(names)}"


def write_functions_json(path: str, results: Sequence[functions.Result]) -> None:
    found = {
        "machine": function_machine(),
        "graphc": graphc.__version__,
        "elements": functions.N,
        "results": [
            {**asdict(r), **{name: getattr(r, name) for name in functions.RATIOS}} for r in results
        ],
    }
    write_json(path, found)
