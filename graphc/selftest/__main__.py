"""`python -m graphc.selftest`: exit code 1 if a gate is not what it promises.

--ulp          the errors of all gates, held against their budgets (the default)
--placement    the same bits at any place in an array, and with every instruction set
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from graphc.errors import GraphcError


def main(arguments: Sequence[str] | None = None) -> int:
    from rich.console import Console

    from graphc.selftest.run import Effort, Report, gates_to_judge, measure_all
    from graphc.selftest.table import as_json, complaints, show, write_page

    options = _parser().parse_args(arguments)
    if options.placement:
        from graphc.selftest import placement

        return placement.main(options.placement, options.full, " ".join(options.gates))
    others = {"interpreter": options.interpreter, "peers": options.peers}
    effort = Effort.full(**others) if options.full else Effort(**others)
    if options.points:
        effort = dataclasses.replace(effort, points=options.points, slow_points=options.points)
    if options.stride:
        effort = dataclasses.replace(effort, stride=options.stride, slow_stride=options.stride)
    if options.csv and not options.ulp:
        effort = dataclasses.replace(effort, points=1000, slow_points=1000, stride=193 * 4999,
                                     slow_stride=193 * 4999, sample=0, lanes=False)  # fmt: skip
    try:
        names = gates_to_judge(options.gates)
    except GraphcError as error:
        print(f"graphc.selftest: {error}", file=sys.stderr)
        return 2
    console = Console(width=None if sys.stdout.isatty() else 200)
    started = time.perf_counter()
    total = len(names) * len(options.dtypes)
    count = 0

    def done(report: Report) -> None:
        nonlocal count
        count += 1
        if sys.stderr.isatty():
            print(f"\r{count}/{total} {report.gate} {report.dtype}\033[K", end="", file=sys.stderr)

    reports = measure_all(names, options.dtypes, effort, options.jobs, done)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    show(reports, console, options.peers)
    if options.json:
        options.json.write_text(as_json(reports), encoding="utf-8")
    if options.write:
        write_page(options.write, reports)
    failed = [r for r in reports if not r.ok]
    rows = sum(r.rows for r in reports)
    console.print(
        f"{len(names)} gates, {total - len(failed)} of {total} reports within their budgets, "
        f"{len(complaints(reports))} complaints, {rows:,} rows of NumPy's validation sets, "
        f"{time.perf_counter() - started:.0f} s"
    )
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m graphc.selftest", description="Measures the error of every gate."
    )
    what = parser.add_argument_group("what to measure")
    what.add_argument("--ulp", action="store_true", help="errors of all gates (the default)")
    what.add_argument(
        "--placement", type=int, nargs="?", const=10_000_000, metavar="N",
        help="the same bits at N places, and with every instruction set",
    )  # fmt: skip
    what.add_argument("--csv", action="store_true", help="NumPy's validation sets alone")
    what.add_argument("--gates", nargs="+", default=(), metavar="NAME", help="these gates alone")
    what.add_argument("--dtypes", nargs="+", default=("f64", "f32"), choices=("f64", "f32"))
    what.add_argument(
        "--full", action="store_true", help="all 2^32 patterns of f32, 10^8 points of f64"
    )
    what.add_argument("--points", type=int, metavar="N", help="arguments of f64, and pairs")
    what.add_argument("--stride", type=int, metavar="N", help="of the patterns of f32")
    what.add_argument(
        "--interpreter", action="store_true", help="the reference interpreter, not machine code"
    )
    what.add_argument("--peers", action="store_true", help="NumPy, SciPy and JAX, too")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes (default: 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the reports there")
    parser.add_argument(
        "--write", type=Path, metavar="PAGE", help="write the table into docs/numerics.md"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
