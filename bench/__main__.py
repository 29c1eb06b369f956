"""`python -m bench`: graphc against NumPy and the best of the field, as a table, JSON and plots.

    python -m bench                        all workloads, all contestants, some ten minutes
    python -m bench --only logistic        those with this in their name
    python -m bench --peers jax,casadi     these peers alone; `--peers none` for NumPy alone
    python -m bench --markdown             the table of the README
    python -m bench --memory               bytes at the peak of each, too
    python -m bench --plots docs           pictures of what was measured
    python -m bench --show results.json    what a run has written, again: as a table, --plots, ...
    python -m bench --functions            each elementwise gate, against SciPy and JAX
    python -m bench --calls                what a call costs, against np.add and the field
    python -m bench --compile              what compiling costs, in time and memory

Each contestant runs in a process of its own, with two threads, and they take turns. Peers that are
not installed are left out, with a note; `pip install 'graphc[bench]'` brings them. A contestant may
have an interpreter of its own: BENCH_NUMBA_PYTHON, BENCH_PYTENSOR_PYTHON and so on; Numba's needs
NumPy alone beside it.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench.processes import BLAS_VARIABLES

if TYPE_CHECKING:
    from bench.results import Run


def without_blas_variables() -> None:
    """Start again without variables that tie the hands of NumPy's BLAS, if there are any."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(BLAS_VARIABLES)}
    if len(kept) < len(os.environ):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], kept)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="graphc against NumPy and the best of the field"
    )
    parser.add_argument("--only", metavar="NAME", default="", help="workloads whose name has NAME")
    parser.add_argument("--peers", metavar="A,B", help="default: all that are installed")
    parser.add_argument("--threads", type=int, default=2, help="of each contestant (2)")
    parser.add_argument("--memory", action="store_true", help="bytes at the peak, too")
    parser.add_argument("--functions", action="store_true", help="elementwise gates, in cache")
    parser.add_argument("--calls", action="store_true", help="calls on arrays of 10 elements")
    parser.add_argument("--compile", action="store_true", help="time and memory of compilations")
    parser.add_argument(
        "--seconds", type=float, help="to measure each workload for (4), or each function (0.5)"
    )
    parser.add_argument(
        "--json", metavar="PATH", help="default: bench/out/results.json or functions.json there"
    )
    parser.add_argument(
        "--show", metavar="PATH", help="measure nothing: show what a run has written as JSON"
    )
    parser.add_argument("--plots", metavar="DIR", help="draw what was measured, as SVG")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--list", action="store_true", help="print the workloads and stop")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    without_blas_variables()
    if options.compile:
        from bench import compile

        compile.run(options)
        return
    (functions if options.functions else calls if options.calls else workloads)(options)


def functions(options: argparse.Namespace) -> None:
    from bench import functions, functions_report

    chosen = [g for g in functions.gates() if options.only.lower() in g.name]
    if options.list:
        print("\n".join(g.name for g in chosen))
        return
    if not chosen:
        sys.exit(f"no gate has {options.only!r} in its name; --functions --list shows them")
    results = functions.run_all(chosen, options.seconds or 0.5)
    functions_report.write_functions_json(options.json or "bench/out/functions.json", results)
    functions_report.print_functions(results, options.markdown)


def calls(options: argparse.Namespace) -> None:
    from bench import calls

    wanted = calls.PEERS if options.peers is None else options.peers.split(",")
    results = calls.run_all([p for p in calls.PEERS if p in wanted])
    calls.save(options.json or "bench/out/calls.json", results)
    calls.show(results, options.markdown)


def workloads(options: argparse.Namespace) -> None:
    from bench import contestants, report
    from bench.cases import CASES
    from bench.cases.physics import MANY_CHARGES
    from bench.measure import Field, progress
    from bench.results import Run
    from bench.tables import machine

    if options.show:
        present(report.load(options.show), options)
        return
    cases = [c for c in CASES if options.only.lower() in c.name.lower()]
    if options.list:
        print("\n".join(c.name for c in cases))
        return
    if not cases:
        sys.exit(f"no workload has {options.only!r} in its name; --list shows them")
    run = Run(machine(), options.threads)
    field = Field(contestants.chosen(options.peers), options.threads, Path("bench/out/log.txt"))
    path = options.json or "bench/out/results.json"
    try:
        with progress() as show:
            show("starting")
            field.start()
            run.versions, run.absent = field.versions, field.absent
            show("threads that share nothing")
            run.ceiling = field.ceiling()
            for case in cases:
                show(case.name)
                run.rows.append(field.row(case, options.seconds or 4.0, options.memory))
                report.save(path, run)
            if options.memory:
                show(MANY_CHARGES.name)
                run.many_charges = field.many_charges()
                report.save(path, run)
    finally:
        field.stop()
    present(run, options)


def present(run: "Run", options: argparse.Namespace) -> None:
    from bench import plots, report

    (report.print_markdown if options.markdown else report.print_table)(run)
    if options.plots:
        plots.draw(options.plots, run.rows)


if __name__ == "__main__":
    main()
