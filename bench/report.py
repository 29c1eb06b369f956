"""Workloads as a table, as Markdown, and as JSON."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from bench.cases.case import ELSEWHERE, PRODUCTS
from bench.contestants import named
from bench.results import Best, Row, Run, scaling, summary
from bench.tables import amount, console, duration, number, print_rows, write_json

COLUMNS = (
    "workload", "graphc", "best peer", "", "ratio", "bound", "best bound", "ratio", "NumPy / ours",
    "ours / Numba", "gradient / value", "1 / 2 threads",
)  # fmt: skip
MEMORY = ("workload", "arguments and results", "graphc", "NumPy", "best peer", "")


def cells(r: Row) -> list[str]:
    """A row as the cells of `COLUMNS`."""
    best, bound = r.best(), r.best(("bound",))
    threads = number(r.thread_gain) + (" (other bits)" if r.same_bits is False else "")
    return [
        r.name, duration(r.ours), duration(best and best.seconds), title(best),
        number(r.peer_ratio), duration(r.time("graphc", "bound")),
        duration(bound and bound.seconds), number(r.bound_ratio), number(r.numpy_ratio),
        number(r.numba_share), number(r.gradient_cost, 1), threads,
    ]  # fmt: skip


def title(best: Best | None) -> str:
    if best is None:
        return ""
    return named(best.contestant).title + (", ahead" if best.way == "ahead" else "")


def memory_cells(r: Row) -> list[str]:
    best = r.best()
    return [
        r.name, amount(r.bytes), amount(r.memory.get("graphc")), amount(r.memory.get("numpy")),
        amount(best and r.memory.get(best.contestant)), title(best),
    ]  # fmt: skip


def limit_text(r: Row) -> str:
    share = "" if r.limit_share is None else f" [{r.limit_share:.0%}]"
    errors = [r.prediction_error, *r.errors_elsewhere]
    within = ", ".join(f"{error:.0%}" for error in errors if error is not None)
    guess = f" (predicted within {within})" if within else ""
    return f"{r.limit}{share}{guess}"


def summary_lines(run: Run) -> list[str]:
    """What all rows come to, in words."""
    found = summary(run.rows)
    sentences = (
        ("peer_ratio", "The best peer's time over graphc's, geometric mean: {}"),
        ("peer_ratio_least", "at the least {}"),
        ("products_ratio", "where matrix products bind, {}"),
        ("products_ratio_least", "at the least {}"),
        ("bound_ratio", "with bound buffers on both sides, {}"),
        ("numpy_ratio", "NumPy's over graphc's, {}"),
        ("numba_share", "graphc's over loops by hand in Numba, {}"),
    )
    parts = [text.format(number(found[name])) for name, text in sentences if found[name]]
    lines = [f"{'; '.join(parts)}."]
    if found["gradient_cost"]:
        lines.append(
            f"A gradient with its value costs {found['gradient_cost']:.1f} values (median)."
        )
    if found["thread_gain"]:
        apart = "" if run.ceiling is None else f"; with nothing shared, {run.ceiling:.2f}"
        gain = f"{found['thread_gain']:.2f}{apart}"
        lines.append(f"One thread's time over two's, where computing binds: {gain}.")
    if found["prediction_error"] is not None:
        lines.append(f"The cost model is {found['prediction_error']:.0%} off (median).")
    if found["error_elsewhere"] is not None:
        sizes = " and ".join(f"{factor:g}" for factor in ELSEWHERE)
        error = f"{found['error_elsewhere']:.0%} off"
        lines.append(f"At sizes that no row has, {sizes} times as large, it is {error} (median).")
    if run.many_charges is not None:
        lines.append(
            f"The pairwise energy of 20,000 charges takes {amount(run.many_charges)} of memory."
        )
    for name, factor in scaling(run.rows).items():
        lines.append(
            f"{name}: an element at 1e6 takes {factor:.2f} times what it takes at 1e4, or what "
            "copying its bytes takes, if that is longer."
        )
    return lines


def absences(run: Run) -> list[str]:
    """Who took no part, where, and why."""
    lines = [f"{named(name).title} took no part: {why}" for name, why in run.absent.items()]
    where: dict[tuple[str, str], list[str]] = {}
    for r in run.rows:
        for name, why in r.without.items():
            where.setdefault((name, why), []).append(r.name)
        for name, notes in r.notes.items():
            for note in notes:
                where.setdefault((name, note), []).append(r.name)
    lines += [f"{named(name).title}: {why}: {', '.join(at)}" for (name, why), at in where.items()]
    return lines


def print_table(run: Run) -> None:
    show = console()
    table = Table(*COLUMNS, title=heading(run), title_style="", header_style="bold")
    for i, column in enumerate(table.columns):
        column.justify = "left" if i in (0, 3) else "right"
        column.no_wrap = True
    for r in ordered(run.rows):
        row = cells(r)
        for i, ratio in ((4, r.peer_ratio), (7, r.bound_ratio), (8, r.numpy_ratio)):
            if ratio is not None:
                row[i] = f"[{'green' if ratio >= 1 else 'red'}]{row[i]}[/]"
        table.add_row(*row, end_section=r.group == PRODUCTS)
    show.print(table)
    if any(r.memory for r in run.rows):
        sizes = Table(*MEMORY, title="Memory at the peak", title_style="", header_style="bold")
        for r in ordered(run.rows):
            sizes.add_row(*memory_cells(r))
        show.print(sizes)
    show.print("[bold]What limits value and gradient[/]")
    for r in ordered(run.rows):
        show.print(f"  {r.name}: {limit_text(r)}", highlight=False, markup=False)
    for line in ("", *summary_lines(run), *absences(run)):
        show.print(line, highlight=False, markup=False)


def print_markdown(run: Run) -> None:
    print(PAGE.format(heading=heading(run)))
    print_rows(COLUMNS, [cells(r) for r in ordered(run.rows)])
    print()
    print("\n\n".join(summary_lines(run)))
    print("\n## What limits each\n")
    print_rows(
        ("workload", "what its time is spent on, and how much of it that explains"),
        [[r.name, limit_text(r)] for r in ordered(run.rows)],
    )
    if any(r.memory for r in run.rows):
        print("\n## Memory at the peak\n")
        print_rows(MEMORY, [memory_cells(r) for r in ordered(run.rows)])
    print("\n## Who is missing where\n")
    for line in absences(run):
        print(f"- {line}")


PAGE = """# Benchmarks

Made by `python -m bench --memory --markdown > docs/benchmarks.md`, on {heading}.

Value and gradient, or a step of training, of the same function in every library; all results are
checked against NumPy's, with the gradient by hand, before anything is timed. Each contestant runs
in a process of its own, with two threads and arrays of its own, and they take turns; so do the ways
to call one. Times are medians of a call, after calls of 5 ms. The best peer is the fastest of JAX
(awaited; of ten calls dispatched ahead; with synchronous dispatch), PyTorch (eager, compiled,
func), autograd, PyTensor and CasADi. `bound` is a call on buffers fixed beforehand, which CasADi
has, too. Loops and gradients by hand in Numba, without fastmath, are no peer but a limit. A ratio
above 1 means that graphc is faster, except for `ours / Numba`. Rows whose time is that of matrix
products come last and are summed up apart.
"""


def heading(run: Run) -> str:
    """The machine and the versions of all who took part."""
    ours = ("graphc", "numpy")  # named with the machine
    peers = dict.fromkeys(v for n, v in run.versions.items() if named(n).module not in ours)
    return f"{run.machine}; {', '.join(peers)}" if peers else run.machine


def ordered(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda r: r.group == PRODUCTS)


def save(path: str, run: Run) -> None:
    """Seconds, bytes, ratios and who was away, for programs."""
    write_json(path, run.as_json())


def load(path: str) -> Run:
    """What was saved."""
    return Run.from_json(json.loads(Path(path).read_text()))
