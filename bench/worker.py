"""One contestant in a process of its own: `python -m bench.worker NAME THREADS`.

It reads a request a line on its standard input and answers each by a line on its standard output,
both JSON; all that libraries print goes to the standard error. Requests:

    {"do": "start"}                                  -> versions, or why it cannot take part
    {"do": "enter", "case": NAME}                    -> ways, seconds it took, the error of each way
    {"do": "time", "way": NAME, "calls": N}          -> seconds of one call
    {"do": "memory", "case": NAME}                   -> bytes at the peak of calls, over the start
    {"do": "limit", "case": NAME, "seconds": S}      -> what limits it; of graphc alone
    {"do": "elsewhere", "case": NAME}                -> predicted and measured at other sizes
    {"do": "digest", "way": NAME}                    -> a hash of the bits of the results
"""

import ctypes
import gc
import hashlib
import importlib
import json
import os
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench import contestants
from bench.cases import named
from bench.cases.case import Case
from bench.contestants.contestant import Absent, Entry, Way

# Seconds of calls before those that count: so long it takes until the system has spread a process's
# threads over processors, and these run wide vectors at full speed.
WARM = 5e-3
TURN = 8e-3  # seconds of calls that count, and how often, where a worker times by itself
TURNS = 7
LONG = 0.05  # seconds of a call that is not repeated to see how long it takes


class Worker:
    """The state between requests: the workload that is entered."""

    def __init__(self, contestant: contestants.Contestant, threads: int) -> None:
        self.contestant, self.threads = contestant, threads
        self.module: Any = None
        self.entry: Entry | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return getattr(self, request.pop("do"))(**request)
        except Absent as why:
            return {"absent": str(why)}
        except Exception as error:
            traceback.print_exc()
            text = str(error).strip().splitlines() or [""]
            return {"failed": f"{type(error).__name__}: {text[0][:200]}"}

    def start(self) -> dict[str, Any]:
        keep_memory()
        self.module = importlib.import_module(f"bench.contestants.{self.contestant.module}")
        return {"versions": self.module.start(self.threads, self.contestant.setting)}

    def enter(self, case: str) -> dict[str, Any]:
        self.entry = None
        chosen = named(case)
        args = chosen.arguments()
        began = time.perf_counter()
        self.entry = self.module.enter(chosen, args, self.contestant.setting)
        seconds = time.perf_counter() - began
        theirs = {"value": [chosen.value(*args)], "": chosen.expected(args)}
        errors = {
            name: error(way, theirs["value" if name == "value" else ""])
            for name, way in self.entry.ways.items()
        }
        found = {"seconds": seconds, "ways": {}, "notes": self.entry.notes}
        for name, worst in errors.items():
            if worst <= chosen.rtol:
                found["ways"][name] = {"error": worst, "once": self.once(name)}
            else:
                found["notes"].append(f"{name} is {worst:.1e} from NumPy")
        if not found["ways"]:
            raise AssertionError("; ".join(found["notes"]))
        return found

    def once(self, way: str) -> float:
        """About what a call takes: the best of three, where that is soon known."""
        first = self.time(way, 1)["seconds"]
        return first if first > LONG else min(first, *(self.time(way, 1)["seconds"] for _ in "ab"))

    def elsewhere(self, case: str) -> dict[str, Any]:
        """Seconds of value and gradient at sizes that no row has; of graphc alone."""
        chosen = named(case)
        found = {}
        for n in chosen.other_sizes:
            args = chosen.arguments(n)
            predicted = self.module.predicted(chosen, args)
            self.entry = self.module.enter(chosen, args, self.contestant.setting)
            calls = max(1, int(TURN / max(self.once("gradient"), 1e-7)))
            times = [self.time("gradient", calls)["seconds"] for _ in range(TURNS)]
            found[str(n)] = [predicted, median(times)]
        return {"elsewhere": found}

    def time(self, way: str, calls: int) -> dict[str, Any]:
        chosen = self.entry.ways[way]
        run, clock = chosen.run, time.perf_counter
        end = clock() + WARM
        run()
        while clock() < end:
            run()
        began = clock()
        times = max(1, calls // chosen.calls)
        for _ in range(times):
            run()
        return {"seconds": (clock() - began) / times / chosen.calls}

    def digest(self, way: str) -> dict[str, Any]:
        chosen = self.entry.ways[way]
        found = hashlib.sha256()
        for array in chosen.fetch(chosen.run()):
            found.update(np.ascontiguousarray(array).tobytes())
        return {"digest": found.hexdigest()}

    def memory(self, case: str) -> dict[str, Any]:
        """The peak of some calls over what there was before the arguments were made.

        Of a process that has done nothing else than the same workload at a small size, so that
        compilers and libraries have been loaded, and no other workload has left anything.
        """
        chosen = named(case)
        self._call(chosen, chosen.arguments(chosen.small), 1)
        before = settled()
        peak = self._call(chosen, chosen.arguments(), 3)
        return {"memory": max(peak - before, 0)}

    def _call(self, case: Case, args: Any, calls: int) -> int:
        """Bytes at the peak of some calls, after a first one."""
        entry = self.module.enter(replace(case, n=len(args[0])), args, self.contestant.setting)
        way = entry.ways.get("gradient") or next(iter(entry.ways.values()))
        way.run()
        settled()
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
        for _ in range(calls):
            way.run()
        return status("VmHWM")

    def limit(self, case: str, seconds: float) -> dict[str, Any]:
        return self.module.limit(named(case), seconds)


def settled() -> int:
    """Bytes resident, after all that is free has been given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return status("VmRSS")


def status(name: str) -> int:
    """A line of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))


def keep_memory() -> None:
    """Let the C library keep freed memory, as it does in programs that have run for a while.

    glibc maps fresh pages for large arrays until it has seen one freed; before that, contestants
    mainly measure the kernel clearing pages.
    """
    np.ones(31 * 2**20, np.uint8)


def error(way: Way, theirs: list[Any]) -> float:
    """The largest difference from NumPy, relative to the largest element of each result."""
    ours = way.fetch(way.run())
    return float(np.max([apart(a, b) for a, b in zip(ours, theirs, strict=True)]))  # NaN is kept


def apart(a: Any, b: Any) -> float:
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape:
        raise AssertionError(f"a result has the shape {a.shape}, NumPy's {b.shape}")
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-300))


def main() -> None:
    name, threads = sys.argv[1], int(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not mix with answers
    worker = Worker(contestants.named(name), threads)
    for line in sys.stdin:
        print(json.dumps(worker.answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
