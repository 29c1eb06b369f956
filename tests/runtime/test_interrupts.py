"""Ctrl-C during long calls: the main thread is back at once, and all goes on as if nothing was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import graphc
from graphc.runtime import interrupts

N = 3000


@graphc.graph
def pairwise(x: graphc.f64["n"]):
    """A call of seconds that needs little memory."""
    return np.exp(-np.abs(np.sin(x[:, None] - x[None, :]))).sum()


@pytest.fixture(autouse=True)
def heeded():
    """SIGINT raises; a shell's commands in the background begin with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def after():
    """Send SIGINT to this process some seconds from now."""
    timers = []

    def send(seconds):
        timers.append(threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)))
        timers[-1].start()

    yield send
    for t in timers:
        t.join()


def test_a_long_call(after):
    k = graphc.compile(pairwise)
    x = np.linspace(0.0, 1.0, N)
    expected = k(x)
    times = []
    for _ in range(5):  # the first links what native calls need
        start = time.perf_counter()
        k(x)
        times.append(time.perf_counter() - start)
    n = int(N * (3.0 / min(times)) ** 0.5)  # about three seconds
    large = np.linspace(0.0, 1.0, n)
    assert k.kernel.layout((large.shape,)).is_very_long
    for call in (k, graphc.jit(lambda x: pairwise(x))):
        call(x)
        after(0.3)
        start = time.perf_counter()
        with pytest.raises(KeyboardInterrupt):
            call(large)
        assert time.perf_counter() - start < 1.5
        assert call(x) == expected


def test_matrix_products_of_some_milliseconds_are_no_long_calls():
    """Of 512 x 512 numbers; they are not worth another thread."""

    @graphc.graph
    def square(a: graphc.f64["n", "n"]):
        return a @ a

    k = graphc.compile(square)
    assert not k.kernel.layout(((512, 512),)).is_very_long
    assert k.kernel.layout(((2048, 2048),)).is_very_long


def test_short_calls_are_left_alone(monkeypatch):
    monkeypatch.setattr(interrupts, "interruptibly", None)
    k = graphc.compile(pairwise)
    assert not k.kernel.layout(((100,),)).is_very_long
    k(np.ones(100))


def test_calls_of_milliseconds_are_left_alone():
    """Another thread took as long as the call."""
    k = graphc.compile(pairwise)
    assert not k.kernel.layout(((2000,),)).is_very_long


def test_errors_come_back():
    def fail():
        raise graphc.ShapeError("no")

    with pytest.raises(graphc.ShapeError, match="no"):
        interrupts.interruptibly(fail)
    assert interrupts.wanted()
    seen = []
    worker = threading.Thread(target=lambda: seen.append(interrupts.wanted()))
    worker.start()
    worker.join()
    assert seen == [False]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert not interrupts.wanted()
    finally:
        signal.signal(signal.SIGINT, before)


# -- while LLVM works ------------------------------------------------------------------------------


def test_interrupts_wait_for_the_end_of_a_block():
    """Even one after the other, and in a block within a block; then the handler is back."""
    from graphc.runtime.compiling import whole

    handler = signal.getsignal(signal.SIGINT)
    reached = []
    with pytest.raises(KeyboardInterrupt):
        with whole():
            with whole():
                signal.raise_signal(signal.SIGINT)
                reached.append("inner")
            signal.raise_signal(signal.SIGINT)
            reached.append("outer")
        reached.append("after")
    assert reached == ["inner", "outer"]
    assert signal.getsignal(signal.SIGINT) == handler


def test_a_failure_in_a_block_is_the_failure():
    from graphc.runtime.compiling import whole

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError), whole():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) == handler


def test_what_a_block_uses_dies_in_it():
    """The frame that Ctrl-C finds would keep LLVM's objects until the garbage collector comes."""
    import weakref

    from graphc.runtime.compiling import whole

    class Module:
        pass

    def compiled():
        module = Module()
        kept.append(weakref.ref(module))
        signal.raise_signal(signal.SIGINT)

    kept = []
    with pytest.raises(KeyboardInterrupt) as caught:
        with whole():
            compiled()
            assert kept[0]() is None
    assert caught.value.__traceback__ is not None and kept[0]() is None


def test_code_that_is_given_back_is_not_interrupted(capsys):
    """llvmlite frees an object twice where Ctrl-C comes between freeing it and saying so; and what
    is raised at the end of an object is lost."""
    from graphc.runtime.jit import Library

    class Tracker:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)
            closed.append(True)

    closed = []
    library = Library(Tracker(), 0)
    with pytest.raises(KeyboardInterrupt):
        del library
        assert closed == [True]
        time.sleep(10.0)
    assert capsys.readouterr().err == ""


def test_an_interrupt_waits_for_the_end_of_an_end(capsys):
    """However long that takes: a thread that waits for a processor is no quicker than this."""
    from graphc.runtime.compiling import whole

    class Slow:
        def __del__(self):
            with whole(longer=True):
                signal.raise_signal(signal.SIGINT)
            time.sleep(0.1)
            ended.append(True)

    ended = []
    slow = Slow()
    with pytest.raises(KeyboardInterrupt):
        del slow
        assert ended == [True]
        time.sleep(10.0)
    assert capsys.readouterr().err == ""


IMPORTS = """
import signal, sys
import numpy as np
import graphc

signal.signal(signal.SIGINT, signal.default_int_handler)


class Interrupting:
    '''Ctrl-C while a module is looked for.'''

    def find_spec(self, name, path=None, target=None):
        if name == NAME:
            sys.meta_path.remove(self)
            signal.raise_signal(signal.SIGINT)


sys.meta_path.insert(0, Interrupting())
assert NAME not in sys.modules


@graphc.graph
def double(x: graphc.f64["n"]):
    return 2.0 * x


k = graphc.compile(double)
try:
    k(np.ones(3))
except KeyboardInterrupt:
    assert hasattr(sys.modules[NAME], "__file__")
else:
    raise AssertionError("the interrupt is lost")
assert np.array_equal(k(np.ones(3)), np.full(3, 2.0))
"""


@pytest.mark.parametrize(
    "name", ("graphc.lower.fuse", "graphc.lower.loops", "graphc.codegen.kernels")
)
def test_ctrl_c_waits_for_the_end_of_a_stages_imports(name):
    """In the middle of a class it may be another error, or end the process at its exit."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS.replace("NAME", repr(name))],
        env={**os.environ, "GRAPHC_CACHE_DIR": "off"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
