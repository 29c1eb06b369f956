"""How many threads a call may use, and the threads themselves.

In:   a count, from `compile(threads=...)`, `set_threads` or GRAPHC_THREADS, in this order; else 1.
Out:  the address of a pool's structure, which native code reads; 0 for one thread.
Invariant: results have the same bits for every count. No thread exists before a call that may use
several, none is left when the interpreter shuts down, and a forked child begins without any.

Counts are at most the processors that this process may use: its affinity, and the quota of its
control group, rounded down. Workers wait in native code and never need the GIL; they are started on
the first call that may use them and then kept.

>>> get_threads()
1
>>> limited(10_000) <= limited("all")
True
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from graphc.errors import SignatureError

if TYPE_CHECKING:
    from pathlib import Path

Count = int | str  # at least 1, or "all"
LEAST_WORK = 20_000  # nanoseconds: less work than this is never shared
SINGLE = (0, 1)  # no pool, one thread

_GROUPS, _MOUNT = "/proc/self/cgroup", "/sys/fs/cgroup"


# -- how many --------------------------------------------------------------------------------------


def processors() -> int:
    """The processors that this process may use; at least 1."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    from pathlib import Path

    quota = group_quota(Path(_GROUPS), Path(_MOUNT))
    return count if quota is None else max(1, min(count, int(quota)))


def group_quota(groups: Path, mount: Path) -> float | None:
    """The processors that the control groups of this process allow, if they limit them.

    `groups` lists the groups, one in a line, `number:controllers:/path`; `mount` is where their
    files are. A group's parents limit it, too. Inside of a container a path may not be there: then
    the limits of the container are at the mount itself.
    """
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return None
    quotas = [q for line in lines for q in _quotas(line, mount)]
    return min(quotas, default=None)


def _quotas(line: str, mount: Path) -> Iterator[float]:
    _, _, rest = line.partition(":")
    controllers, _, path = rest.partition(":")
    if not controllers:
        read, root = _quota_v2, mount
    elif "cpu" in controllers.split(","):
        read, root = _quota_v1, mount / "cpu"
    else:
        return
    inner = root / path.strip("/")
    for folder in (inner, *inner.parents):
        found = read(folder)
        if found is not None:
            yield found
        if folder == root:
            return


def _quota_v2(folder: Path) -> float | None:
    """`cpu.max` is "quota period", in microseconds; or "max period"."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(folder: Path) -> float | None:
    """The quota is -1 where there is none."""
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
        return quota / period if quota > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


def checked(count: Count) -> Count:
    """A count as it was given, or an error."""
    if count == "all" or (isinstance(count, int) and not isinstance(count, bool) and count >= 1):
        return count
    raise SignatureError(f'threads must be a number from 1 on, or "all"; got {count!r}')


def limited(count: Count) -> int:
    """A count of threads, at most what `processors` allows."""
    most = processors()
    return most if isinstance(count, str) else min(count, most)


def allowed(count: Count | None) -> int | None:
    """How many threads a function may use by its own; None where it has no opinion."""
    return None if count is None else limited(checked(count))


def _from_environment() -> int:
    text = os.environ.get("GRAPHC_THREADS", "").strip()
    if not text:
        return 1
    try:
        return limited(checked(text if text == "all" else int(text)))
    except (ValueError, SignatureError):
        raise SignatureError(
            f'GRAPHC_THREADS must be a number from 1 on, or "all"; it is {text!r}'
        ) from None


_default: int | None = None  # what `set_threads` or the environment said, once asked for


def set_threads(count: Count) -> None:
    """How many threads calls may use from now on, where `compile(threads=...)` says nothing.

    A number from 1 on, or "all". It is limited to the processors that this process may use. Results
    do not depend on it, to the last bit.
    """
    global _default
    _default = limited(checked(count))
    for callback in _on_change:
        callback()


_on_change: list[Callable[[], None]] = []


def on_change(callback: Callable[[], None]) -> None:
    """Call this whenever the default changes: what native code knows by heart is old then."""
    _on_change.append(callback)


def get_threads() -> int:
    """How many threads calls may use: see `set_threads`."""
    global _default
    if _default is None:
        _default = _from_environment()
    return _default


# -- the pool --------------------------------------------------------------------------------------


class _Pool:
    """Workers, started when they are first needed; one in a process."""

    def __init__(self) -> None:
        from graphc.runtime.workers import Shared

        self.lock = threading.Lock()
        self.shared = Shared()
        self.workers: list[threading.Thread] = []
        self.closed = False
        self.structures: dict[tuple[int, int], tuple[object, int]] = {}
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)
        _at_shutdown(self._stop)

    def _forget(self) -> None:
        """A forked child has none of the threads, and perhaps a lock that one of them held."""
        global _making
        self.lock = _making = threading.Lock()
        self.workers = []
        self.shared.reset()

    def _stop(self) -> None:
        """Before the interpreter goes: all workers leave native code and end."""
        with self.lock:
            self.closed = True
            self.shared.stop()
            workers, self.workers = self.workers, []
        for worker in workers:
            worker.join()

    def structure(self, threads: int, least: int) -> int:
        """The address of the structure for so many threads, of which the first is the caller's."""
        if len(self.workers) < threads - 1 and not self.closed:
            self._start(threads - 1)
        found = self.structures.get((threads, least))
        if found is None:
            with self.lock:
                found = self.structures.setdefault(
                    (threads, least), self.shared.pool(threads, least)
                )
        return found[1]

    def _start(self, count: int) -> None:
        with self.lock:
            while len(self.workers) < count and not self.closed:
                name = f"graphc-{len(self.workers) + 1}"
                # A daemon, so that the interpreter never waits for it by itself: `_stop` does.
                worker = threading.Thread(target=self._work, name=name, daemon=True)
                try:
                    worker.start()
                except RuntimeError:  # no more threads here: fewer have to do
                    return
                self.workers.append(worker)
                self.shared.set_workers(len(self.workers))

    def _work(self) -> None:
        _leave_signals_to_others()
        self.shared.work()


def _at_shutdown(stop: Callable[[], None]) -> None:
    """Before `threading` looks for threads that still run; `atexit` would be too late for some."""
    register = getattr(threading, "_register_atexit", None)
    if register is None:
        import atexit

        register = atexit.register
    register(stop)


def _leave_signals_to_others() -> None:
    """Signals to the process are for the threads of its user; faults stay with who makes them."""
    import signal

    if hasattr(signal, "pthread_sigmask"):
        faults = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT}
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - faults)


_pool: _Pool | None = None
_making = threading.Lock()


def pool(count: int | None = None) -> tuple[int, int]:
    """The address of a pool's structure, and its threads, for a limited count or the default.

    (0, 1) where one thread does it all. Structures are never freed. In a forked child an address
    from before the fork works on, with one thread until this is called again.
    """
    threads = get_threads() if count is None else count
    if threads == 1:
        return SINGLE
    made = _pool or _make()
    return SINGLE if made is None else (made.structure(threads, LEAST_WORK), threads)


def _make() -> _Pool | None:
    global _pool
    from graphc.runtime.workers import available

    with _making:
        if _pool is None and available():
            try:
                _pool = _Pool()
            except RuntimeError:  # the interpreter is shutting down
                return None
    return _pool


__all__ = [
    "LEAST_WORK", "allowed", "get_threads", "group_quota", "limited", "on_change", "pool",
    "processors", "set_threads",
]  # fmt: skip
