"""Many threads, forks, Ctrl-C and ends of the process, all at awkward moments.

Every run does some of each; with `-m long`, 8 threads make 100,000 calls each, there are 200 forks,
500 ends and 1000 interrupts.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

import graphc
from graphc.runtime import threads

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def counts(some: int, many: int):
    """A test with a few rounds, and with many behind the marker `long`."""
    return pytest.mark.parametrize(
        "count", [some, pytest.param(many, marks=pytest.mark.long)], ids=["some", "many"]
    )


def energy(x, y):
    return (np.tanh(x) * y).sum() + (x * x).sum()


@graphc.graph
def declared(x: graphc.f64["n"], y: graphc.f64["n"]):
    return (np.tanh(x) * y).sum() + (x * x).sum()


def of_dict(p):
    return (p["w"] * p["w"]).sum() * p["b"]


def bits(result):
    return [np.asarray(x).tobytes() for x in graphc.dsl.tree.flatten(result)[0]]


def in_threads(count, work):
    """Run `work(number)` in several threads, which begin together; the errors of all."""
    barrier, errors = threading.Barrier(count), []

    def run(number):
        try:
            barrier.wait()
            work(number)
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    return errors


@counts(2_000, 100_000)
def test_threads_call_while_all_is_compiled_first(count):
    """The same functions in all threads, of several sizes; and others, compiled meanwhile."""
    data = [np.random.default_rng(n).normal(size=(2, n)) for n in (3, 10, 10, 64, 0, 1, 200)]

    def functions():
        both = graphc.compile(declared, wrt=("x", "y"))
        return (
            graphc.value_and_grad(lambda x, y: energy(x, y), argnums=(0, 1)),
            both, both.value_and_grad, graphc.jit(lambda x, y: energy(x, y)),
            graphc.grad(lambda x, y: of_dict({"w": x, "b": y[:1].sum()})),
        )  # fmt: skip

    expected = [[bits(f(x, y)) for x, y in data] for f in functions()]
    shared = functions()

    def work(number):
        rng = np.random.default_rng(number)
        choices = rng.integers(len(data), size=count)
        for i, at in enumerate(choices):
            which = i % len(shared)
            assert bits(shared[which](*data[at])) == expected[which][at]
            if i % (count // 4) == number:
                fresh = functions()[number % len(shared)]
                assert bits(fresh(*data[at])) == expected[number % len(shared)][at]

    assert in_threads(8, work) == []
    assert len(shared[0].variants) <= 3  # compiled once each, however many ask for it


def test_one_compilation_however_many_ask(monkeypatch):
    from graphc.runtime import compiled as compiled_module

    made = []
    compile_graph = compiled_module.compile_graph
    monkeypatch.setattr(
        compiled_module, "compile_graph", lambda *a, **k: made.append(1) or compile_graph(*a, **k)
    )
    k, x = graphc.compile(declared, wrt=("x", "y")), np.ones(5)
    assert in_threads(8, lambda number: (k(x, x), k.value_and_grad(x, x))) == []
    assert len(made) == 2


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@counts(15, 200)
def test_forks_while_others_compile_and_compute(count, monkeypatch):
    """A child calls what there is, and compiles; its parent's locks are none of its business."""
    monkeypatch.setattr(threads, "processors", lambda: 4)
    monkeypatch.setattr(threads, "_default", 3)
    x = np.linspace(-1.0, 1.0, 50_000)
    k, small = graphc.compile(declared, wrt=("x", "y")), np.linspace(0.0, 1.0, 7)
    f = graphc.jit(lambda x, y: energy(x, y))
    expected = [bits(k.value_and_grad(x, x)), bits(f(small, small))]
    stop, errors = threading.Event(), []

    def compiles():
        while not stop.is_set():
            g = graphc.value_and_grad(lambda x, y: energy(x, y) * 2.0)
            if bits(g(small, small))[0] != np.float64(2 * f(small, small)).tobytes():
                errors.append("compiled")

    def computes():
        while not stop.is_set():
            if bits(k.value_and_grad(x, x)) != expected[0]:
                errors.append("computed")

    others = [threading.Thread(target=t) for t in (compiles, compiles, computes)]
    for t in others:
        t.start()
    try:
        for i in range(count):
            child = os.fork()
            if not child:
                code = 1
                try:
                    right = bits(k.value_and_grad(x, x)) == expected[0]
                    right &= bits(f(small, small)) == expected[1]
                    if i % 3 == 0:
                        new = graphc.jit(lambda x, y: energy(x, y))
                        right &= bits(new(small, small)) == expected[1]
                    if i % 3 == 1:
                        right &= bits(graphc.compile(declared)(small, small)) == expected[1]
                    code = 0 if right else 2
                finally:
                    os._exit(code)
            assert _status(child) == 0
    finally:
        stop.set()
        for t in others:
            t.join()
    assert errors == []


def _status(child, seconds=60):
    """The exit status of a child, which has to come to its end."""
    import time

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status
        time.sleep(0.002)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return "it hangs"


# -- ends of the process ---------------------------------------------------------------------------

# One process makes kernels and forks a child for each script, which goes on as the main module and
# comes to its end as any program does.
FORKING = """
import atexit, gc, os, random, sys, threading, time, types, warnings, weakref
warnings.simplefilter("ignore", DeprecationWarning)
import numpy as np
import graphc
from graphc.runtime import pool, threads
threads.processors = lambda: 4

@graphc.graph
def total(x: graphc.f64["n"]):
    return (np.sin(x) * x).sum()

@graphc.graph
def doubled(x: graphc.f64["n"]):
    return 2.0 * x

free = graphc.value_and_grad(lambda p: (p["w"] * p["w"]).sum() * p["b"])
k, d = graphc.compile(total, wrt="x"), graphc.compile(doubled)
x, small, p = np.arange(1e5), np.arange(9.0), {"w": np.ones(5), "b": 2.0}
for _ in range(3):
    k(x), k.value_and_grad(small), d(x), free(p)

parts = PARTS
seeds, failures = range(COUNT), []
for seed in seeds:
    sys.stdout.flush()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(write, 2)
        break
    os.close(write)
    with os.fdopen(read, "rb") as said:
        text = said.read().decode()
    status = os.waitpid(child, 0)[1]
    if status or text:
        failures.append((seed, status, text[-2000:]))
if child:
    for f in failures:
        print(*f)
    print(len(failures), "of", len(seeds))
    sys.exit(bool(failures))
rng = random.Random(seed)
for text in rng.sample(parts, rng.randint(1, 5)):
    exec(text)
if rng.random() < 0.2:
    sys.exit(0)
"""

PARTS = [
    "kept = [k, d, k.value_and_grad, k(x)]",
    "pooled = d(np.ones(100_000)); view = pooled[5:]; del pooled",
    "step = k.bind(small); step()",
    "step = k.bind(x, what='value'); step(); arrays = step.inputs",
    "graphc.set_threads(3); k(x)",
    "fresh = graphc.jit(lambda x: x * 3.0); fresh(small)",
    "atexit.register(lambda: k(x))",
    "atexit.register(lambda: graphc.jit(lambda x: x + 1.0)(small))",
    "atexit.register(lambda: graphc.set_threads(2) or k(x))",
    "atexit.register(gc.collect)",
    """
class Last:
    def __init__(self, f): self.f = f
    def __del__(self): self.f(small)
last = Last(k)
again = Last(graphc.jit(lambda x: x * 2.0))
""",
    """
class Knot:
    def __del__(self): k(x), d(small)
knot = Knot(); knot.self = knot; knot.kernel = k
""",
    """
def compute(k=k, x=x):
    while True:
        k(x)
for _ in range(2):
    threading.Thread(target=compute, daemon=True).start()
""",
    """
def compute_small(k=k.value_and_grad, x=small):
    while True:
        k(x)
threading.Thread(target=compute_small, daemon=True).start()
time.sleep(rng.random() * 0.01)
""",
    """
def compile_more(small=small, graphc=graphc):
    while True:
        graphc.jit(lambda x: x * x + 1.0)(small)
threading.Thread(target=compile_more, daemon=True).start()
time.sleep(rng.random() * 0.05)
""",
    "threading.Thread(target=lambda: [k(x) for _ in range(20)]).start()",
    "threading.Thread(target=lambda: (time.sleep(0.02), d(x), k(small))).start()",
    """
module = types.ModuleType("teardown_kernels"); sys.modules["teardown_kernels"] = module
module.k, module.x, module.d = graphc.compile(total), x, d
module.results = [d(x) for _ in range(3)]
""",
    "weakref.finalize(k, print, end='')",
    "weakref.finalize(d, lambda: np.ones(3))",
    "gc.disable()",
    "arena = graphc.compile(doubled); arena(x); pool.clear(); pool.set_limit(0)",
    """
def suspended():
    with np.errstate(all="ignore"):
        while True:
            yield k(small)
generator = suspended(); next(generator)
""",
    "pointer = k.pointer(); address = int(pointer)",
    "free.clear(); free(p)",
    "sys.modules['graphc_alias'] = graphc; sys.modules['graphc'] = None",
    """
if os.fork() == 0:
    k(x); os._exit(0)
os.wait()
""",
    "try:\n    k(x, x)\nexcept graphc.GraphcError as error:\n    kept_error = error",
]


@needs_fork
@counts(30, 500)
def test_ends_of_the_process(count):
    """Exit code 0, and nothing on the standard error, whatever is alive or under way."""
    text = FORKING.replace("PARTS", repr(PARTS)).replace("COUNT", str(count))
    environment = {k: v for k, v in os.environ.items() if k != "GRAPHC_THREADS"}
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", text],
        capture_output=True, text=True, timeout=600, env=environment,
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr == "", done.stdout + done.stderr
    assert done.stdout.startswith("0 of")


# -- Ctrl-C ----------------------------------------------------------------------------------------

INTERRUPTS = """
import gc, os, random, signal, sys, time
import numpy as np
import graphc

def energy(x, y):
    return (np.tanh(x) * y).sum() + (x * x).sum()

@graphc.graph
def pairs(x: graphc.f64["n"]):
    return np.exp(-abs(np.sin(x[:, None] - x[None, :]))).sum()

def same(a, b):
    leaves = [graphc.dsl.tree.flatten(t)[0] for t in (a, b)]
    return all(np.asarray(p).tobytes() == np.asarray(q).tobytes() for p, q in zip(*leaves))

signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGALRM, lambda *a: signal.raise_signal(signal.SIGINT))
rng = random.Random(5)
xs = [np.linspace(-1.0, 1.0, n) for n in (3, 3, 10, 50_000, 4000)]
f = graphc.value_and_grad(lambda x, y: energy(x, y), argnums=(0, 1))
expected = [f(x, x) for x in xs]
k = graphc.compile(pairs)
long = k(xs[-1])
step = k.bind(xs[2])
bound = step().copy()

def small(shared=[None]):
    if shared[0] is None or rng.random() < 0.02:
        shared[0] = graphc.value_and_grad(lambda x, y: energy(x, y), argnums=(0, 1))
    i = rng.randrange(len(xs))
    assert same(shared[0](xs[i], xs[i]), expected[i])
    if rng.random() < 0.05:
        shared[0]._forget_records()

def large():
    assert k(xs[-1]) == long

def fixed():
    assert step() == bound

seen = 0
late = []
for i in range(COUNT):
    work = (small, small, large, fixed)[i % 4]
    try:
        due = rng.random() * (0.05 if work is small else 0.02) + 1e-4
        due += time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, max(due - time.perf_counter(), 1e-5))
        while True:
            work()
    except KeyboardInterrupt:
        late.append(time.perf_counter() - due)
        seen += 1
assert seen == COUNT
for i, x in enumerate(xs):
    assert same(f(x, x), expected[i])
late.sort()
print("%.1f ms at most, %.1f ms at 99%%" % (late[-1] * 1e3, late[int(0.99 * len(late))] * 1e3))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="signals are others here")
@counts(60, 1000)
def test_interrupts_at_any_time(count):
    """A KeyboardInterrupt each time, during calls, compilations and their bookkeeping."""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", INTERRUPTS.replace("COUNT", str(count))],
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    print(done.stdout)


def test_ctrl_c_leaves_locks_open():
    """A compilation that is interrupted in the middle is none, and the next one works."""
    script = """
        import gc, sys
        import numpy as np
        import graphc
        sys.unraisablehook = lambda args: None  # generators that were left in the middle
        lines = [0]
        def trace(frame, event, arg):
            if "graphc" in frame.f_code.co_filename:
                lines[0] += 1
                if lines[0] == stop:
                    sys.settrace(None)
                    raise KeyboardInterrupt
            return trace
        done = 0
        for stop in [*range(1, 3000, 149), *range(4000, 200_000, 9973)]:
            f = graphc.jit(lambda x: np.sin(x) * x)
            x = np.ones(3)
            gc.collect()  # the function before: at its end, what is raised is lost
            try:
                lines[0] = 0
                sys.settrace(trace)
                for _ in range(4):
                    f(x)
                sys.settrace(None)
                break
            except KeyboardInterrupt:
                done += 1
            finally:
                sys.settrace(None)
            for n in (3, 3, 4, 4, 5):
                assert np.array_equal(f(np.ones(n)), np.full(n, np.sin(1.0) * 1.0))
        assert done > 20
        """
    finished = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(script)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert (finished.returncode, finished.stderr) == (0, ""), finished.stderr
