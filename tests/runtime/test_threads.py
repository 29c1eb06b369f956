"""Threads: the same bits for any number of them, and no trouble with those of Python."""

import ctypes
import os
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

import graphc
import graphc.numpy as gnp
from graphc.codegen import parallel as emitted
from graphc.errors import IndexOutOfBounds, SignatureError
from graphc.ir.reference import run_graph
from graphc.lower import parallel
from graphc.lower.parallel import PARTS_PER_THREAD
from graphc.runtime import threads, workers
from graphc.runtime.jit import Jit
from tests.random_checks import same

COUNTS = (1, 2, 3, 8)


@pytest.fixture(autouse=True)
def eight_processors(monkeypatch):
    """As many threads as are asked for; afterwards one, as before."""
    monkeypatch.setattr(threads, "processors", lambda: 8)
    before = threads.get_threads()
    yield
    threads.set_threads(before)


@pytest.fixture
def any_work(monkeypatch):
    """Work is shared, however little it is."""
    monkeypatch.setattr(parallel, "LEAST", 0)
    monkeypatch.setattr(threads, "LEAST_WORK", 0)


def kernels_of(kernel):
    """A kernel for each count, of the same code."""
    return [replace(kernel, threads=count) for count in COUNTS]


# -- the same bits ---------------------------------------------------------------------------------


def softmax_loss(x, w):
    z = x - x.max(axis=1, keepdims=True)
    return (gnp.log(gnp.exp(z).sum(axis=1)) * 2.0).sum() + (x * w).sum()


def layer_norm(x, w):
    d = x - x.mean(axis=1, keepdims=True)
    return d / gnp.sqrt((d * d).mean(axis=1, keepdims=True) + 1e-5) * w


def pairwise(x, w):
    d = x[:, None, :] - x[None, :, :]
    return gnp.exp(-(d * d).sum(axis=2)).sum(axis=1)


FUNCTIONS = {
    "elementwise": lambda x, w: gnp.tanh(x) * 2.0 + x,
    "sum": lambda x, w: (x * x).sum(),
    "columns": lambda x, w: (x * x).sum(axis=0),
    "rows": lambda x, w: (x * x).sum(axis=1),
    "product": lambda x, w: (1.0 + x * 0.01).prod(axis=0),
    "products": lambda x, w: (1.0 + x * 0.001).prod(),
    "largest": lambda x, w: (x.max(axis=0), x.min(), x.argmax(axis=0), x.argmin(axis=1)),
    "bools": lambda x, w: ((x > 2.0).any(axis=0), (x > -9.0).all(), (x > 0.0).any(axis=1)),
    "integers": lambda x, w: ((x * 10.0).astype(np.int64).sum(axis=0), (x > 0.0).sum()),
    "some": lambda x, w: (x[:, 0] * x[:, -1]).sum(),
    "reversed": lambda x, w: (x[::-1] * x).sum(axis=0),
    "gathered": lambda x, w: x[(gnp.arange(x.shape[0]) * 7) % x.shape[0]].sum(axis=1),
    "several": lambda x, w: ((x @ w).sum(), (x * w).sum(axis=0), gnp.sin(x).sum(axis=1)),
    "softmax": lambda x, w: graphc.softmax(x, axis=1),
    "running": lambda x, w: (
        gnp.cumsum(x, axis=0),
        gnp.cumprod(x, axis=1),
        gnp.cumsum(x * w).sum(),
    ),
    "layer norm": layer_norm,
    "pairwise": pairwise,
}
LOSSES = {
    "energy": lambda x, w: (x * x).sum(),
    "logistic": lambda x, w: gnp.logaddexp(0.0, x @ w).sum(),
    "softmax": softmax_loss,
    "layer norm": lambda x, w: gnp.sin(layer_norm(x, w)).sum(),
    "pairwise": lambda x, w: gnp.sin(pairwise(x, w)).sum(),
    "columns": lambda x, w: gnp.sin((x * w).sum(axis=0)).sum(),
    "running": lambda x, w: gnp.sin(gnp.cumprod(1.0 + x * w * 0.1, axis=1)).sum(),
}
EMPTY = {"largest", "softmax", "gathered"}  # these need a row
SIZES = (0, 1, 3, 63, 64, 65, 255, 256, 257, 777, 2049)


def made(function, dtype, columns, wrt=()):
    """A kernel of a function of a matrix, whose rows are symbolic, and a vector."""

    def declared(x, w):
        return function(x, w)

    declared.__annotations__ = {"x": dtype["n", columns], "w": dtype[columns]}
    compiled = graphc.compile(declared, wrt=wrt)
    return compiled.gradient_kernel if wrt else compiled.value_kernel


def data(dtype, n, columns):
    rng = np.random.default_rng(n + columns)
    return [rng.normal(size=s).astype(dtype.numpy) for s in ((n, columns), columns)]


def check(kernel, dtype, columns, sizes):
    for n in sizes:
        arguments = data(dtype, n, columns)
        expected = run_graph(kernel.graph, arguments, {"n": n})
        for count, k in zip(COUNTS, kernels_of(kernel)):
            for a, b in zip(k.run(arguments), expected, strict=True):
                assert same(a, b), (n, columns, count)


@pytest.mark.parametrize("columns", [1, 5, 20])
@pytest.mark.parametrize("dtype", [graphc.f64, graphc.f32], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_values(any_work, name, dtype, columns):
    """Every count gives the bits of the reference interpreter."""
    sizes = [n for n in SIZES if (n or name not in EMPTY) and (n < 300 or name != "pairwise")]
    check(made(FUNCTIONS[name], dtype, columns), dtype, columns, sizes)


@pytest.mark.parametrize("dtype", [graphc.f64, graphc.f32], ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_gradients(any_work, name, dtype):
    sizes = [n for n in SIZES if (n or name not in EMPTY) and (n < 300 or name != "pairwise")]
    for columns in (3, 17):
        check(made(LOSSES[name], dtype, columns, ("x", "w")), dtype, columns, sizes)


def test_known_sizes(any_work):
    """A static graph is the same."""

    @graphc.graph
    def total(x: graphc.f64[1000, 7]):
        return (x * x).sum(axis=0), gnp.cos(x).sum()

    kernel = graphc.compile(total).value_kernel
    assert " parallel" in str(kernel.program)
    x = np.random.default_rng(0).normal(size=(1000, 7))
    expected = run_graph(kernel.graph, [x], {})
    for k in kernels_of(kernel):
        assert all(map(same, k.run([x]), expected))


def test_wide_rows(any_work):
    """Iterations of loops of rows, one by one, and the sums of arrays of a symbolic size."""

    @graphc.graph
    def sums(x: graphc.f64["n", "m"]):
        return (x * x).sum(axis=0), gnp.exp(x).sum(axis=1), gnp.sin(x).sum()

    kernel = graphc.compile(sums).value_kernel
    for n, m in ((1, 1), (2, 700), (5, 3), (9, 65), (70, 64), (301, 33), (40, 0)):
        x = np.random.default_rng(n).normal(size=(n, m))
        expected = run_graph(kernel.graph, [x], {"n": n, "m": m})
        for k in kernels_of(kernel):
            assert all(map(same, k.run([x]), expected)), (n, m, k.threads)


def test_a_part_that_is_no_subtree_is_found(any_work, monkeypatch):
    """These tests see sums that are cut in other places."""
    monkeypatch.setattr(emitted, "unit", lambda loop: 2)
    kernel = made(FUNCTIONS["columns"], graphc.f64, 20)
    with pytest.raises(AssertionError):
        check(kernel, graphc.f64, 20, (100,))


def test_a_lost_part_is_found(any_work, monkeypatch):
    """These tests do share the work: without the sums of parts, results are others."""
    monkeypatch.setattr(emitted.ParallelLoop, "_fold", lambda *arguments: None)
    kernel = made(FUNCTIONS["columns"], graphc.f64, 5)
    with pytest.raises(AssertionError):
        check(kernel, graphc.f64, 5, (777, 2049))


def test_wrong_indices_are_the_same_for_all(any_work):
    """The first wrong index in the order of the rows is reported, whoever comes upon it first."""

    @graphc.graph
    def picked(x: graphc.f64["m"], at: graphc.i64["n"]):
        return x[at] * 2.0

    kernel = graphc.compile(picked).value_kernel
    x, at = np.arange(50.0), np.arange(3000) % 50
    expected = x[at] * 2.0
    for k in kernels_of(kernel):
        assert np.array_equal(k.run([x, at])[0], expected)
    for wrong in ([2999], [64, 2900], [1500, 1501, 2500]):
        bad = at.copy()
        bad[wrong] = 100 + np.array(wrong)
        for k in kernels_of(kernel):
            for _ in range(5):
                with pytest.raises(IndexOutOfBounds, match=f"index {100 + wrong[0]} is out"):
                    k.run([x, bad])


def test_scatters_follow_in_order(any_work):
    """The sums and the first wrong index of one thread, whoever scatters when."""

    @graphc.graph
    def grouped(x: graphc.f64["n"], group: graphc.i64["n"], level: graphc.f64[9]):
        return graphc.softplus(x * level[group] + graphc.sin(x)).sum()

    rng = np.random.default_rng(0)
    kernels = kernels_of(graphc.compile(grouped, wrt=("level",)).gradient_kernel)
    for n in (1, 100, 5000, 100_000):
        x, level = rng.normal(size=n), rng.normal(size=9)
        group = rng.integers(0, 9, n)
        results = [k.run([x, group, level]) for k in kernels]
        for found in results[1:]:
            assert [a.tobytes() for a in found] == [a.tobytes() for a in results[0]]
        for wrong in (rng.integers(0, n, 1), rng.integers(0, n, 20)):
            spoilt = group.copy()
            spoilt[wrong] = 100 + np.arange(len(wrong))
            first = spoilt[spoilt >= 100][0]
            for k in kernels:
                with pytest.raises(IndexOutOfBounds, match=f"index {first} is out"):
                    k.run([x, spoilt, level])


def test_modes_of_floating_point_hold_in_every_thread(any_work):
    """A caller who has tiny numbers flushed to zero gets the same from every thread."""
    if not workers._X86:
        pytest.skip("asks for a register of x86")
    text = """define void @mode(i32 %m) {
  %at = alloca i32
  store i32 %m, ptr %at
  call void @llvm.x86.sse.ldmxcsr(ptr %at)
  ret void
}
declare void @llvm.x86.sse.ldmxcsr(ptr)"""
    library = Jit.link(text, ("mode",))
    set_mode = ctypes.CFUNCTYPE(None, ctypes.c_uint32)(library.address("mode"))
    kernel = made(lambda x, w: x * 0.5, graphc.f64, 1)
    arguments = [np.full((4000, 1), 2.5e-308), np.ones(1)]
    try:
        set_mode(0x1F80 | 0x8040)  # as at the start of a process, and both kinds of flushing
        flushed = [k.run(arguments)[0] for k in kernels_of(kernel)]
    finally:
        set_mode(0x1F80)
    assert not any(map(np.any, flushed))
    assert all(k.run(arguments)[0].all() for k in kernels_of(kernel))


# -- how much is shared ----------------------------------------------------------------------------


def native(structure, field, result, *arguments):
    address = ctypes.c_uint64.from_address(structure + field).value
    return ctypes.CFUNCTYPE(result, *arguments)(address)


def test_portions():
    """Powers of two that cover all units, in no more parts than there may be; small work is one."""
    pool, count = threads.pool(3)
    number = ctypes.c_int64
    portion = native(pool, workers.POOL_PORTION, number, ctypes.c_void_p, number, number)
    for units in (0, 1, 2, 3, 7, 8, 100, 1023, 1024, 1025, 10**9):
        assert portion(pool, units, threads.LEAST_WORK - 1) == max(units, 1)
        taken = portion(pool, units, 10**9)
        assert taken.bit_count() == 1
        assert -(-units // taken) <= PARTS_PER_THREAD * count
        assert taken == 1 or -(-units // (taken // 2)) > PARTS_PER_THREAD * count
        for work in (0, threads.LEAST_WORK - 1, threads.LEAST_WORK, 10**5, 10**9):
            expected = parallel.portion(units, work, count, threads.LEAST_WORK)
            assert portion(pool, units, work) == expected
    few = portion(pool, 10**6, threads.LEAST_WORK)
    assert 2 <= -(-(10**6) // few) <= 5


def test_native_code_agrees_about_a_pool():
    words = (emitted.RUN, emitted.THREADS, emitted.PORTION, emitted.FOLD)
    assert [8 * word for word in (*words, emitted.IN_ORDER, emitted.PAUSE)] == [
        workers.POOL_PARALLEL,
        workers.POOL_THREADS,
        workers.POOL_PORTION,
        workers.POOL_FOLD,
        workers.POOL_IN_ORDER,
        workers.POOL_PAUSE,
    ]


def test_every_part_runs_once_and_no_two_with_one_number():
    """Parts that count themselves, for many jobs of many sizes."""
    text = """define i32 @part(ptr %context, i64 %index, i64 %worker) {
  %at = getelementptr i64, ptr %context, i64 %index
  %old = atomicrmw add ptr %at, i64 1 monotonic
  %numbers = getelementptr i64, ptr %context, i64 100
  %mine = getelementptr i64, ptr %numbers, i64 %worker
  %before = atomicrmw add ptr %mine, i64 1 monotonic
  %busy = icmp ne i64 %before, 0
  %after = atomicrmw sub ptr %mine, i64 1 monotonic
  %status = zext i1 %busy to i32
  ret i32 %status
}"""
    library = Jit.link(text, ("part",))
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    pool, _ = threads.pool(8)
    kinds = (pointer, pointer, pointer, number)
    run = native(pool, workers.POOL_PARALLEL, ctypes.c_int32, *kinds)
    for parts in (*range(1, 20), 64) * 20:
        context = (ctypes.c_int64 * 110)()
        assert run(pool, library.address("part"), context, parts) == 0
        assert list(context) == [1] * parts + [0] * (110 - parts)


def test_each_thread_begins_with_parts_of_its_own():
    """Of two parts that wait for each other, the caller makes the first; in order, either one."""
    text = """define i32 @part(ptr %context, i64 %index, i64 %worker) {
start:
  %at = getelementptr i64, ptr %context, i64 %index
  %number = add i64 %worker, 1
  %before = sub i64 1, %index
  %other = getelementptr i64, ptr %context, i64 %before
  store atomic i64 %number, ptr %at release, align 8
  br label %look
look:
  %begun = load atomic i64, ptr %other acquire, align 8
  %alone = icmp eq i64 %begun, 0
  br i1 %alone, label %look, label %end
end:
  ret i32 0
}"""
    library = Jit.link(text, ("part",))
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    pool, _ = threads.pool(8)
    kinds = (pointer, pointer, pointer, number)
    for kind, expected in (
        (workers.POOL_PARALLEL, {(1, 2)}),
        (workers.POOL_IN_ORDER, {(1, 2), (2, 1)}),
    ):
        run = native(pool, kind, ctypes.c_int32, *kinds)
        for _ in range(100):
            context = (ctypes.c_int64 * 2)()
            assert run(pool, library.address("part"), context, 2) == 0
            assert tuple(context) in expected


# -- counts ----------------------------------------------------------------------------------------


def test_counts(monkeypatch):
    for given, found in ((1, 1), (3, 3), (8, 8), (100, 8), ("all", 8)):
        graphc.set_threads(given)
        assert graphc.get_threads() == found
        assert threads.allowed(given) == found
    assert threads.allowed(None) is None
    for wrong in (0, -1, 1.5, True, None, "four"):
        with pytest.raises(SignatureError, match="threads must be"):
            graphc.set_threads(wrong)


@pytest.mark.parametrize(("text", "count"), [("", 1), ("3", 3), ("all", 8), (" 2 ", 2)])
def test_the_environment(monkeypatch, text, count):
    monkeypatch.setattr(threads, "_default", None)
    monkeypatch.setenv("GRAPHC_THREADS", text)
    assert threads.get_threads() == count


@pytest.mark.parametrize("text", ["0", "-2", "many", "1.5"])
def test_a_wrong_environment(monkeypatch, text):
    monkeypatch.setattr(threads, "_default", None)
    monkeypatch.setenv("GRAPHC_THREADS", text)
    with pytest.raises(SignatureError, match=f"GRAPHC_THREADS must be .* '{text}'"):
        threads.get_threads()
    monkeypatch.setenv("GRAPHC_THREADS", "")
    assert threads.get_threads() == 1


def test_compile_and_jit_have_a_say():
    def total(x: graphc.f64["n"]):
        return (x * x).sum()

    x = np.arange(9.0)
    assert graphc.compile(total, threads=3).value_kernel.threads == 3
    assert graphc.compile(total, threads="all").value_kernel.threads == 8
    assert graphc.compile(total).value_kernel.threads is None
    assert graphc.compile(total, "x", threads=2).gradient_kernel.threads == 2
    assert float(graphc.jit(total, threads=2)(x)) == float(graphc.jit(total)(x)) == 204.0
    assert float(graphc.jit(graphc.grad(total), threads=2)(x)[8]) == 16.0
    with pytest.raises(SignatureError, match="threads must be"):
        graphc.compile(total, threads=0)


def files(folder, **contents):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


@pytest.mark.parametrize(
    ("inner", "outer", "quota"),
    [("max 100000", "max 100000", None), ("150000 100000", "max 100000", 1.5),
     ("max 100000", "400000 100000", 4.0), ("300000 100000", "200000 100000", 2.0),
     ("nonsense", "50000 100000", 0.5)],
)  # fmt: skip
def test_quotas_of_control_groups(tmp_path, inner, outer, quota):
    mount, groups = tmp_path / "cgroup", tmp_path / "groups"
    groups.write_text("0::/user/job\n")
    files(mount / "user" / "job", cpu__max=inner)
    files(mount, cpu__max=outer)
    assert threads.group_quota(groups, mount) == quota


def test_quotas_of_older_control_groups(tmp_path):
    mount, groups = tmp_path / "cgroup", tmp_path / "groups"
    groups.write_text("4:memory:/job\n3:cpu,cpuacct:/job\n")
    files(mount / "cpu" / "job", **{"cpu.cfs_quota_us": "250000", "cpu.cfs_period_us": "100000"})
    files(mount / "cpu", **{"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"})
    assert threads.group_quota(groups, mount) == 2.5
    groups.write_text("3:cpu,cpuacct:/a/path/outside\n")  # of the container
    assert threads.group_quota(groups, mount) is None
    assert threads.group_quota(tmp_path / "nothing", mount) is None


# -- threads of Python -----------------------------------------------------------------------------


def test_callers_at_once(any_work):
    """Eight Python threads, each with its own data, while others change the number of threads."""
    kernel = made(LOSSES["logistic"], graphc.f64, 20, ("w",))
    stop = threading.Event()

    def change():
        while not stop.wait(0.001):
            for count in COUNTS:
                threads.set_threads(count)

    def call(seed):
        x, w = np.random.default_rng(seed).normal(size=(1500, 20)), np.ones(20) * 0.1
        expected = replace(kernel, threads=1).run([x, w])
        return all(
            all(map(same, k.run([x, w]), expected))
            for _ in range(40)
            for k in (kernel, *kernels_of(kernel))
        )

    changer = threading.Thread(target=change)
    changer.start()
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(16)))
    stop.set()
    changer.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forks(any_work):
    """A child has no workers, calls as before, and starts its own; while the parent computes on."""
    kernel = made(FUNCTIONS["columns"], graphc.f64, 5)
    x, w = data(graphc.f64, 2049, 5)
    (expected,) = replace(kernel, threads=1).run([x, w])
    three = replace(kernel, threads=3)
    stop = threading.Event()

    def compute():
        while not stop.is_set():
            assert same(three.run([x, w])[0], expected)

    other = threading.Thread(target=compute)
    other.start()
    for _ in range(30):
        child = os.fork()
        if child == 0:
            right = [same(k.run([x, w])[0], expected) for k in kernels_of(kernel) * 3]
            alive = sum(t.name.startswith("graphc-") for t in threading.enumerate())
            os._exit(0 if all(right) and alive == 7 else 1)
        signal_or_status = os.waitpid(child, 0)[1]
        assert signal_or_status == 0
    stop.set()
    other.join()


def test_no_thread_before_it_is_asked_for():
    script(
        """
        x = np.arange(1e6)
        graphc.compile(total)(x)
        assert threading.active_count() == 1
        threads.set_threads(2)
        assert threading.active_count() == 1
        graphc.compile(total)(x)
        assert threading.active_count() == 2
        """
    )


def test_affinity():
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("no affinities here")
    script(
        """
        import os
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        threads.processors = processors
        graphc.set_threads("all")
        assert graphc.get_threads() == 1
        graphc.set_threads(4)
        assert graphc.get_threads() == 1
        """
    )


ENDS = {
    "plainly": "graphc.compile(total)(x)",
    "with an exception": "graphc.compile(total)(x); sys.exit(0)",
    "at exit": "atexit.register(lambda: graphc.compile(total)(x)); graphc.compile(total)(x)",
    "only at exit": "atexit.register(lambda: graphc.compile(total)(x))",
    "in a finaliser": """
        k = graphc.compile(total)
        k(x)
        class Last:
            def __del__(self):
                k(x)
        last = Last()
        """,
    "while a daemon computes": """
        k = graphc.compile(total)
        def compute():
            while True:
                k(x)
        for _ in range(2):
            threading.Thread(target=compute, daemon=True).start()
        time.sleep(0.1)
        """,
    "while a thread computes": """
        k = graphc.compile(total)
        threading.Thread(target=lambda: [k(x) for _ in range(200)]).start()
        """,
    "in a thread": """
        k = graphc.compile(total)
        threading.Thread(target=lambda: (time.sleep(0.1), k(x))).start()
        """,
    "after a fork": """
        graphc.compile(total)(x)
        if hasattr(os, "fork"):
            child = os.fork()
            graphc.compile(total)(x)
            if child:
                assert os.waitpid(child, 0)[1] == 0
        """,
}


@pytest.mark.parametrize("how", ENDS)
def test_interpreters_end(how):
    """Whatever is under way, the process ends, and with success."""
    script("threads.set_threads(3)\nx = np.arange(1e5)\n" + textwrap.dedent(ENDS[how]))


def test_interrupts():
    """SIGINT while workers compute is a KeyboardInterrupt after the call, and work goes on."""
    if sys.platform == "win32":
        pytest.skip("signals are others here")
    script(
        f"""
        import signal
        threads.set_threads(3)
        k = graphc.compile(total)
        x = np.arange(1e6)
        expected = k(x)
        interrupts = 0
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
        signal.signal(signal.SIGALRM, lambda *a: signal.raise_signal({int(signal.SIGINT)}))
        for _ in range(20):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.02)
                while True:
                    assert k(x) == expected
            except KeyboardInterrupt:
                interrupts += 1
        assert interrupts == 20
        """
    )


PREAMBLE = """
import atexit, os, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)
import numpy as np
import graphc
from graphc.runtime import threads
processors, threads.processors = threads.processors, lambda: 8

def total(x: graphc.f64["n"]):
    return (graphc.numpy.sin(x) * x).sum()
"""


def script(text):
    """Run in a process of its own, which has to end by itself and say nothing."""
    environment = {k: v for k, v in os.environ.items() if k != "GRAPHC_THREADS"}
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", PREAMBLE + textwrap.dedent(text)],
        capture_output=True, text=True, timeout=120, env=environment,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
