"""Long calls on the main thread, which Ctrl-C should end at once.

In:   a native call that only reads what the user holds, and writes to memory of its own.
Out:  what it gives; or KeyboardInterrupt, while it runs on to its end in the background.
Invariant: a call that is left behind keeps all of its memory alive, and nobody sees what it writes.

Python handles signals on the main thread alone, and not before native code returns. So a long call
is made by another thread, and the main one waits. Calls that write into the user's arrays are not
made this way.

>>> interruptibly(lambda: 6 * 7)
42
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wanted() -> bool:
    """Would a signal raise an exception here?"""
    return threading.current_thread() is threading.main_thread() and callable(
        signal.getsignal(signal.SIGINT)
    )


def interruptibly(call: Callable[[], T]) -> T:
    """Make a call in another thread, and wait for it."""
    done = threading.Event()
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001  raised again by who waits
            errors.append(error)
        finally:
            done.set()

    # A daemon: a call that was left behind does not keep the process from ending.
    threading.Thread(target=work, name="graphc-call", daemon=True).start()
    done.wait()
    if errors:
        raise errors[0]
    return results[0]
