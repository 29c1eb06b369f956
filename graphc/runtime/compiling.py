"""One thread compiles at a time, a process forks between compilations, and Ctrl-C waits for LLVM.

In:   `LOCK`, held by whoever compiles; `once`, for what is compiled when it is first asked for;
      `whole`, for what Ctrl-C must not end in the middle.
Out:  each thing compiled once, however many threads ask for it.
Invariant: a forked child finds no lock held by a thread that it does not have, and LLVM in order: a
fork waits for the end of what another thread compiles, for a while at least.

>>> class Circle:
...     def __init__(self, r):
...         self.r = r
...     @once
...     def area(self):
...         return 3 * self.r**2
>>> c = Circle(2)
>>> c.area, "area" in c.__dict__
(12, True)
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import CodeType
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")

LOCK = threading.RLock()
PATIENCE = 60.0  # seconds that a fork waits,
LONGER = 0.002  # between two looks of Ctrl-C whether an object's end is over


class once(Generic[T]):  # noqa: N801  a decorator
    """`functools.cached_property` with `LOCK`.

    That of Python 3.10 and 3.11 has a lock that a fork knows nothing of; later ones have none.
    """

    def __init__(self, function: Callable[[Any], T]) -> None:
        self._function = function
        self._name = function.__name__
        self.__doc__ = function.__doc__

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> once[T]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> T: ...
    def __get__(self, instance: object | None, owner: type | None = None) -> once[T] | T:
        if instance is None:
            return self
        known = instance.__dict__
        if self._name not in known:
            with LOCK:
                if self._name not in known:
                    known[self._name] = self._function(instance)
        return known[self._name]


class whole:  # noqa: N801  a context
    """What Ctrl-C does waits until the end of the block.

    An object of llvmlite that is interrupted while it gives its memory back may do so again. In the
    method that ends an object, whose exceptions are lost, it waits `longer`: for the method's end.
    """

    def __init__(self, longer: bool = False) -> None:
        self._longer = longer
        self._handler: Callable[..., Any] | None = None
        self._waiting: list[int] = []

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():  # no other runs handlers
            handler = signal.getsignal(signal.SIGINT)
            if callable(handler):
                with suppress(ValueError):  # not in the main interpreter: it has no handlers
                    signal.signal(signal.SIGINT, self._wait)
                    self._handler = handler

    def _wait(self, signum: int, _: object) -> None:
        """The frame is not kept: it would let what is in it die later, in no such block."""
        self._waiting.append(signum)

    def __exit__(self, *failure: object) -> None:
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)
            if self._waiting and self._longer:
                with suppress(RuntimeError):  # the process is ending
                    threading.Timer(LONGER, _interrupt_after, [sys._getframe(1).f_code]).start()
            elif self._waiting:
                self._handler(self._waiting[0], sys._getframe(1))


def _interrupt_after(code: CodeType) -> None:
    """Ctrl-C for the main thread, which may take any time to reach the end of this code."""
    while _runs(threading.main_thread().ident, code):
        time.sleep(LONGER)
    _thread.interrupt_main()


def _runs(thread: int | None, code: CodeType) -> bool:
    frame = sys._current_frames().get(thread or 0)
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame is not None


def _llvm_lock() -> Any:
    """The lock that llvmlite holds around each call, also to give back code; if it is there."""
    ffi = sys.modules.get("llvmlite.binding.ffi")
    return getattr(getattr(getattr(ffi, "lib", None), "_lock", None), "_lock", None)


_held: list[Any] = []  # by the thread that forks


def _before_fork() -> None:
    for lock in (LOCK, _llvm_lock()):
        if lock is not None and lock.acquire(timeout=PATIENCE):
            _held.append(lock)


def _after_fork() -> None:
    while _held:
        _held.pop().release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )
