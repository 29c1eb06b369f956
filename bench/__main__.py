"""`python -m bench`: graphc against NumPy, as a table and as JSON.

    python -m bench                        all workloads, about a minute
    python -m bench --only logistic        those with this in their name
    python -m bench --markdown             the table of the README

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
    parser.add_argument("--seconds", type=float, default=2.0, help="to measure each workload for")
    parser.add_argument("--json", metavar="PATH", default="bench/out/results.json")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--list", action="store_true", help="print the workloads and stop")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    without_blas_variables()
    from bench import report, run
    from bench.cases import CASES

    cases = [c for c in CASES if options.only.lower() in c.name.lower()]
    if options.list:
        print("\n".join(c.name for c in cases))
        return
    if not cases:
        sys.exit(f"no workload has {options.only!r} in its name; --list shows them")
    results = run.run_all(cases, options.seconds)
    against_sum = run.against_sum(options.seconds) if not options.only else None
    report.write_json(options.json, results, against_sum)
    (report.print_markdown if options.markdown else report.print_table)(results, against_sum)


if __name__ == "__main__":
    main()
