"""What a new process takes to its first result, with machine code from the cache on disk.

    python -m bench.compile_cached            fills a cache, then starts processes that find it
    python -m bench.compile_cached --child    one process, with the cache that the environment names

A child prints one line of JSON, in seconds: `numpy` and `graphc` for the imports (of graphc with
all modules that a trace and a call load later on), `llvm` for llvmlite and its first target
machine, `first` from the function to its result (trace, key, reading, linking and the call), and
`hits` and `misses`. `process` is from the start of the process to its end, which the parent adds.
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


def child() -> Times:
    """Value and gradient of ten gates, once, in this process."""
    clock = time.perf_counter
    began = clock()
    import numpy as np

    numpy = clock()
    import graphc
    import graphc.dsl.functions
    import graphc.passes.expand
    import graphc.runtime.kernel
    import graphc.transforms.adjoint
    from graphc.gates.gate import registry

    value_and_grad = graphc.value_and_grad
    registry()
    imported = clock()
    from graphc.runtime.jit import host_machine

    host_machine()
    started = clock()

    def loss(x, w, b):
        z = np.tanh(x @ w + b)
        return np.sum(np.exp(-z * z) * np.sin(z) + z)

    function = value_and_grad(loss, (1, 2))
    x, w = np.linspace(-1.0, 1.0, 30).reshape(10, 3), np.array([0.5, -1.0, 2.0])
    ready = clock()
    value, _ = function(x, w, 0.5)
    done = clock()
    info = graphc.cache_info()
    return {
        "numpy": numpy - began, "graphc": imported - numpy, "llvm": started - imported,
        "first": done - ready, "hits": info.hits, "misses": info.misses, "value": float(value),
    }  # fmt: skip


def started(folder: str) -> Times:
    """What a child took, whose cache is in this folder; "off" for none."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(BLAS_VARIABLES)}
    began = time.perf_counter()
    printed = subprocess.run(
        [sys.executable, "-m", "bench.compile_cached", "--child"],
        env={**kept, "GRAPHC_CACHE_DIR": folder, "OMP_NUM_THREADS": "1"},
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return {**json.loads(printed), "process": time.perf_counter() - began}


def measured(runs: int = RUNS) -> dict[str, Times]:
    """Medians of so many processes: `none` without a cache, `hit` with one that has the kernel."""
    with tempfile.TemporaryDirectory() as folder:
        first = started(os.path.join(folder, "cache"))
        time.sleep(2.5)  # a source file that was just written is not trusted to stay so
        started(os.path.join(folder, "cache"))
        found = {"none": [], "hit": []}
        for _ in range(runs):
            found["none"].append(started("off"))
            found["hit"].append(started(os.path.join(folder, "cache")))
    assert all(t["hits"] and not t["misses"] and t["value"] == first["value"] for t in found["hit"])
    return {
        name: {key: statistics.median(t[key] for t in times) for key in times[0]}
        for name, times in found.items()
    }


if __name__ == "__main__":
    print(json.dumps(child() if "--child" in sys.argv else measured()))
