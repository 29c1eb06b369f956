"""What a new process takes to its first result, with machine code from the cache on disk.

    python -m bench.compile_cached            fills a cache, then starts processes that find it
    python -m bench.compile_cached --child declared     one process, with the cache that the
    python -m bench.compile_cached --child plain        environment names

The workload is value and gradient of ten gates: of a declared graph (`graphc.compile`), or of plain
NumPy code (`graphc.value_and_grad`), whose derivative is part of the trace. A child prints one line
of JSON, in seconds: `numpy` and `graphc` for the imports (of graphc with all modules that a trace
and a call load later on), `llvm` for llvmlite, its first target machine and its JIT, which only a
process without a cache needs, `first` from the function to its result (trace, key, reading, loading
and the call), and `hits` and `misses`. The parent adds `process`, from the start of the process to
its end.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from bench.processes import BLAS_VARIABLES, ROOT

RUNS = 11
Times = dict[str, Any]


def child(way: str) -> Times:
    """Value and gradient, once, in this process."""
    clock = time.perf_counter
    began = clock()
    import numpy as np

    numpy = clock()
    import graphc
    import graphc.dsl.functions
    import graphc.runtime.compiled
    from graphc.gates.gate import registry

    if way == "plain":
        import graphc.passes.expand
        import graphc.transforms.adjoint  # noqa: F401
    registry()
    imported = clock()
    if os.environ["GRAPHC_CACHE_DIR"] == "off":
        from graphc.runtime.jit import Jit

        Jit.instance()
    started = clock()

    def loss(x: graphc.f64["n", 3], w: graphc.f64[3], b: graphc.f64):
        z = np.tanh(x @ w + b)
        return np.sum(np.exp(-z * z) * np.sin(z) + z)

    x, w = np.linspace(-1.0, 1.0, 30).reshape(10, 3), np.array([0.5, -1.0, 2.0])
    plain, declared = graphc.value_and_grad, graphc.graph
    ready = clock()
    if way == "plain":
        value, _ = plain(loss, (1, 2))(x, w, 0.5)
    else:
        value, _ = graphc.compile(declared(loss), wrt=("w", "b")).value_and_grad(x, w, 0.5)
    done = clock()
    info = graphc.cache_info()
    return {
        "numpy": numpy - began, "graphc": imported - numpy, "llvm": started - imported,
        "first": done - ready, "hits": info.hits, "misses": info.misses, "value": float(value),
    }  # fmt: skip


def started(way: str, folder: str) -> Times:
    """What a child took, whose cache is in this folder; "off" for none."""
    left_out = (*BLAS_VARIABLES, "PYTHONDONTWRITEBYTECODE")  # an installed package has its bytecode
    kept = {k: v for k, v in os.environ.items() if not k.startswith(left_out)}
    began = time.perf_counter()
    printed = subprocess.run(
        [sys.executable, "-m", "bench.compile_cached", "--child", way],
        env={**kept, "GRAPHC_CACHE_DIR": folder, "OMP_NUM_THREADS": "1"},
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return {**json.loads(printed), "process": time.perf_counter() - began}


def measured(way: str = "declared", runs: int = RUNS) -> dict[str, Times]:
    """Medians of so many processes: `none` without a cache, `hit` with one that has the kernel."""
    found: dict[str, list[Times]] = {"none": [], "hit": []}
    with tempfile.TemporaryDirectory() as folder:
        cache = os.path.join(folder, "cache")
        first = started(way, cache)
        for _ in range(runs):
            found["none"].append(started(way, "off"))
            found["hit"].append(started(way, cache))
    for times in found["hit"]:
        assert times["hits"] == 1 and not times["misses"] and times["value"] == first["value"]
    return {
        name: {key: statistics.median(t[key] for t in times) for key in times[0]}
        for name, times in found.items()
    }


if __name__ == "__main__":
    if "--child" in sys.argv:
        print(json.dumps(child(sys.argv[-1])))
    else:
        print(json.dumps({way: measured(way) for way in ("declared", "plain")}, indent=1))
