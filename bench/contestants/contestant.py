"""What a contestant is to its process: an entry for each workload, with ways to run it.

A module of this package is one contestant, or several with settings of their own. Its `enter(case,
args, setting)` prepares a workload once, whatever that takes, and gives the ways to call it, which
are then checked against NumPy and timed. `gradient` is value and gradient in a plain call, on
arrays of the contestant's own; `bound` the same on buffers fixed beforehand; `ahead` a call of
several that are under way at once; `value` the value alone.
"""

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Thunk = Callable[[], Any]


@dataclass(frozen=True)
class Way:
    """`run` makes `calls` calls; `fetch` makes [value, *gradients] in NumPy of what it gave."""

    run: Thunk
    fetch: Callable[[Any], list[Any]]
    calls: int = 1


@dataclass(frozen=True)
class Entry:
    ways: Mapping[str, Way]
    notes: list[str] = field(default_factory=list)  # what a reader of the table should know


class Absent(Exception):  # noqa: N818  not an error: this contestant has no such entry
    """Why there is no entry, in one line."""


def done_within(seconds: float, command: Sequence[str]) -> bool:
    """Run a command; if it takes longer, end it with all processes that it has started.

    The compiler that gcc runs would go on without it, on a core that others are measured on.
    """
    with subprocess.Popen(command, start_new_session=True) as process:
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return False
    if code:
        raise subprocess.CalledProcessError(code, list(command))
    return True
