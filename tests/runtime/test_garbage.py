"""runtime/garbage.py: the search for cycles waits for stages, and goes on as it was."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading

import pytest

from graphc.ir.graph import Builder
from graphc.ir.types import f64
from graphc.pipeline import Options, run_stages
from graphc.runtime.garbage import collected_later


@pytest.fixture(autouse=True)
def searching():
    before = gc.isenabled()
    gc.enable()
    yield
    gc.enable() if before else gc.disable()


def test_it_waits_inside_and_goes_on_after_an_error():
    with pytest.raises(ZeroDivisionError), collected_later():
        assert not gc.isenabled()
        raise ZeroDivisionError
    assert gc.isenabled()


def test_it_stays_off_where_the_user_turned_it_off():
    gc.disable()
    with collected_later():
        pass
    assert not gc.isenabled()


def test_it_waits_for_the_last_of_several_threads():
    entered, leave = threading.Event(), threading.Event()

    def other():
        with collected_later():
            entered.set()
            leave.wait(10)

    with collected_later():
        thread = threading.Thread(target=other)
        thread.start()
        assert entered.wait(10)
    assert not gc.isenabled()
    leave.set()
    thread.join()
    assert gc.isenabled()


def test_stages_wait_and_observers_do_not():
    b = Builder()
    x = b.input("x", f64["n"])
    seen = []
    run_stages(
        b.graph("f", {"y": x + x}), Options(), lambda *_: seen.append(gc.isenabled()), last="emit"
    )
    assert seen == [True] * 6


def test_it_goes_on_wherever_ctrl_c_comes():
    """At every line of it, before, inside and after the stage."""

    def trace(frame, event, argument):
        if "graphc" in frame.f_code.co_filename and event == "line":
            lines[0] += 1
            if lines[0] == stop:
                signal.raise_signal(signal.SIGINT)
        return trace

    before, ended = signal.signal(signal.SIGINT, signal.default_int_handler), 0
    try:
        for stop in range(1, 200):
            lines = [0]
            try:
                sys.settrace(trace)
                with collected_later():
                    pass
                sys.settrace(None)
                break
            except KeyboardInterrupt:
                sys.settrace(None)
                ended += 1
            assert gc.isenabled(), stop
    finally:
        sys.settrace(None)
        signal.signal(signal.SIGINT, before)
    assert ended > 20 and gc.isenabled()
    with collected_later():
        assert not gc.isenabled()
    assert gc.isenabled()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_fork_during_a_stage_of_another_thread_searches_on():
    entered, leave = threading.Event(), threading.Event()

    def other():
        with collected_later():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    assert entered.wait(10)
    child = os.fork()
    if child == 0:
        on = gc.isenabled()
        with collected_later():
            on = on and not gc.isenabled()
        os._exit(0 if on and gc.isenabled() else 1)
    leave.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
