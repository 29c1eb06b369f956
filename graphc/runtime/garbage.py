"""Python's search for unreachable cycles waits while graphs are compiled.

In:   the stages of a compilation, on any thread.
Out:  `collected_later`, around each of them.
Invariant: whether Python searches at all is the caller's choice, and is as it was as soon as no
stage runs on any thread.

A stage makes many objects that live, and next to no cycles. To look through all of them again and
again takes an eighth of its time.

>>> with collected_later():
...     gc.isenabled()
False
>>> gc.isenabled()
True
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from graphc.runtime.compiling import whole


class _Waiting:
    """How many stages run, and whether the search goes on after the last of them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.stages = 0
        self.resumes = False

    def begin(self) -> None:
        with self.lock:
            if self.stages == 0:
                self.resumes = gc.isenabled()
                gc.disable()
            self.stages += 1

    def end(self) -> None:
        with self.lock:
            self.stages -= 1
            if self.stages == 0 and self.resumes:
                gc.enable()


_waiting = _Waiting()


@contextmanager
def collected_later() -> Iterator[None]:
    """The search waits for the end of what is done inside, however that ends."""
    waiting, running = _waiting, False
    try:
        try:
            with whole():
                waiting.begin()
                running = True
            yield
        finally:
            with whole():
                if running:
                    waiting.end()
                running = False
    finally:
        if running:  # Ctrl-C came before it would wait
            waiting.end()


def _after_fork() -> None:
    """Stages that ran on other threads do not run in the child."""
    global _waiting
    if _waiting.stages and _waiting.resumes:
        gc.enable()
    _waiting = _Waiting()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

__all__ = ["collected_later"]
