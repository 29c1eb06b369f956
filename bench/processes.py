"""Contestants' processes, as the parent sees them: started, asked, frozen while others run.

Threads of idle libraries may spin for a while, so a process is stopped (SIGSTOP) unless it has been
asked something. One that does not answer in time is killed, and started anew for the next workload.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.contestants import Contestant

ROOT = Path(__file__).resolve().parent.parent
BLAS_VARIABLES = ("OPENBLAS_", "GOTO_", "OMP_", "MKL_", "BLIS_", "VECLIB_", "NVPL_")


class Late(Exception):  # noqa: N818  an answer that did not come in time
    pass


def environment(contestant: Contestant, threads: int) -> dict[str, str]:
    """Without variables that tie the hands of a BLAS, with the same count of threads for all."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(BLAS_VARIABLES)}
    count = str(threads)
    limits = {
        name: count
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS",
                     "NUMBA_NUM_THREADS", "GRAPHC_THREADS")
    }  # fmt: skip
    path = os.pathsep.join(filter(None, (str(ROOT), kept.get("PYTHONPATH"))))
    return {**kept, **limits, "PYTHONPATH": path, **contestant.environment}


def python_of(contestant: Contestant) -> str:
    """Its own interpreter, BENCH_NUMBA_PYTHON and the like, or ours."""
    return os.environ.get(f"BENCH_{contestant.module.upper()}_PYTHON") or sys.executable


class Process:
    """A contestant, asked by `ask`; frozen between questions."""

    def __init__(self, contestant: Contestant, threads: int, log: Path | None = None) -> None:
        self.contestant, self.threads, self._log = contestant, threads, log
        self._process: subprocess.Popen[bytes] | None = None
        self._pending = b""

    def start(self, limit: float = 120.0) -> dict[str, Any]:
        """Start it; what it is, or why it cannot take part."""
        cpus = sorted(os.sched_getaffinity(0))[: self.threads]
        command = [
            python_of(self.contestant), "-m", "bench.worker", self.contestant.name,
            str(self.threads),
        ]  # fmt: skip
        with open(self._log or os.devnull, "ab") as log:
            self._process = subprocess.Popen(
                command, env=environment(self.contestant, self.threads), cwd=ROOT,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                preexec_fn=lambda: os.sched_setaffinity(0, cpus),
            )  # fmt: skip
        self._pending = b""
        return self.ask({"do": "start"}, limit)

    def ask(self, request: Mapping[str, Any], limit: float = 60.0) -> dict[str, Any]:
        """The answer; one that fails or does not come ends the process."""
        if self._process is None:
            started = self.start()
            if "versions" not in started:
                return started
        process = self._process
        assert process is not None and process.stdin is not None
        process.send_signal(signal.SIGCONT)
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            answer: dict[str, Any] = json.loads(self._line(process, time.monotonic() + limit))
        except Late:
            self.stop()
            return {"failed": f"no answer in {limit:.0f} s"}
        except (OSError, EOFError, ValueError):
            code = process.poll()
            self.stop()
            return {"failed": f"its process ended ({code})"}
        process.send_signal(signal.SIGSTOP)
        return answer

    def _line(self, process: subprocess.Popen[bytes], end: float) -> bytes:
        assert process.stdout is not None
        while b"\n" not in self._pending:
            left = end - time.monotonic()
            if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                raise Late
            found = os.read(process.stdout.fileno(), 1 << 16)
            if not found:
                raise EOFError
            self._pending += found
        line, self._pending = self._pending.split(b"\n", 1)
        return line

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._process = None
