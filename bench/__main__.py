"""`python -m bench`: graphc against NumPy, as a table and as JSON.

    python -m bench                        all workloads, about a minute
    python -m bench --only logistic        those with this in their name
    python -m bench --markdown             the table of the README
    python -m bench --functions            each elementwise gate, against SciPy and JAX, too

Variables that tie the hands of NumPy's BLAS (OPENBLAS_NUM_THREADS=1 and the like) are removed
before NumPy is loaded: it competes with all its threads, graphc with one.
"""

import argparse
import os
import sys

BLAS_VARIABLES = ("OPENBLAS_", "GOTO_", "OMP_", "MKL_", "BLIS_", "VECLIB_", "NVPL_")


def without_blas_variables() -> None:
    """Start again without them, if there are any."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(BLAS_VARIABLES)}
    if len(kept) < len(os.environ):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], kept)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="graphc against NumPy")
    parser.add_argument("--only", metavar="NAME", default="", help="workloads whose name has NAME")
    parser.add_argument("--functions", action="store_true", help="elementwise gates, in cache")
    parser.add_argument(
        "--seconds", type=float, help="to measure each workload for (2), or each function (0.5)"
    )
    parser.add_argument(
        "--json", metavar="PATH", help="default: bench/out/results.json or functions.json there"
    )
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--list", action="store_true", help="print the workloads and stop")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    without_blas_variables()
    (functions if options.functions else workloads)(options)


def functions(options: argparse.Namespace) -> None:
    from bench import functions, report

    chosen = [g for g in functions.gates() if options.only.lower() in g.name]
    if options.list:
        print("\n".join(g.name for g in chosen))
        return
    if not chosen:
        sys.exit(f"no gate has {options.only!r} in its name; --functions --list shows them")
    results = functions.run_all(chosen, options.seconds or 0.5)
    report.write_functions_json(options.json or "bench/out/functions.json", results)
    report.print_functions(results, options.markdown)


def workloads(options: argparse.Namespace) -> None:
    from bench import report, run
    from bench.cases import CASES

    cases = [c for c in CASES if options.only.lower() in c.name.lower()]
    if options.list:
        print("\n".join(c.name for c in cases))
        return
    if not cases:
        sys.exit(f"no workload has {options.only!r} in its name; --list shows them")
    seconds = options.seconds or 2.0
    results = run.run_all(cases, seconds)
    against_sum = run.against_sum(seconds) if not options.only else None
    report.write_json(options.json or "bench/out/results.json", results, against_sum)
    (report.print_markdown if options.markdown else report.print_table)(results, against_sum)


if __name__ == "__main__":
    main()
