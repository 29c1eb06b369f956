"""The cache on disk: a hit gives what a miss gave, to the bit, and nothing is found that does not
fit.
"""

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import graphc
from graphc.codegen import target
from graphc.errors import IndexOutOfBounds, ShapeError
from graphc.runtime import cache, compiled, fingerprint, jit, kernel, routines
from graphc.runtime.store import Entry, Store
from tests.models import EVERY, example, leaves, same_bits

PACKAGE = Path(graphc.__file__).parent


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def counts():
    info = graphc.cache_info()
    return info.hits, info.misses


# -- the same with and without ---------------------------------------------------------------------

TABLE = np.linspace(-2.0, 2.0, 200)


class Cube(graphc.Gate):
    def forward(self, x):
        return x * x * x

    def backward(self, ct, x):
        return ct * 3.0 * x * x


@graphc.graph
def energy(x: graphc.f64["n", 3], k: graphc.f64):
    apart = x[1:] - x[:-1]
    return graphc.where(apart > 0, graphc.log(apart), 0.0).sum() + k * (apart**4).sum()


@graphc.graph
def step(w: graphc.f64["n"], g: graphc.f64["n"]):
    return w - 0.1 * g


@graphc.graph
def total(x: graphc.f64["n"]):
    return graphc.sin(x).sum()


@graphc.graph
def best(x: graphc.f32["n", "m"]):
    return {"where": graphc.argmax(x, axis=0), "most": x.max(axis=0)}


def of_model(name):
    declared, wrt = EVERY[name]
    arguments = [example(name, n) for n in (1, 7, 70)]
    k = graphc.compile(declared, wrt)
    return [k.value_and_grad(*a) if wrt else k(*a) for a in arguments]


def halves():
    k = graphc.compile(energy, wrt=("x", "k"))
    y, saved = k.forward(np.arange(12.0).reshape(4, 3) ** 2, 0.5)
    return [y, k.backward(saved, 2.0), saved.nbytes, str(saved)]


def donated():
    k = graphc.compile(step, donate="w")
    w = np.arange(5.0)
    after = k(w, np.ones(5))
    return [after, np.shares_memory(after, w)]


def out():
    k = graphc.compile(energy, wrt="x")
    x, into = np.arange(12.0).reshape(4, 3) ** 2, np.empty((4, 3))
    bound = k.bind(x, 0.5)
    return [k.value_and_grad(x, 0.5, out=(None, into)), into, bound(), bound()]


def threads():
    x = np.linspace(0.0, 9.0, 200_000)
    return [graphc.compile(total, wrt="x", threads=n).value_and_grad(x) for n in (1, 2)]


def captured():
    f = graphc.value_and_grad(lambda x: (graphc.numpy.tanh(x * TABLE) ** 2).sum())
    return [f(np.linspace(0.0, 1.0, 200)), f(np.ones(200))]


def sizes():
    f = graphc.jit(lambda x: (x[:, None] * x).sum(axis=0))
    return [f(np.arange(float(n))) for n in (5, 6, 0, 1, 64)]


def calls():
    f = graphc.jit(lambda p: {"y": p["x"] + p["n"]})
    return [f({"x": np.arange(4.0) + i, "n": i}) for i in range(6)]


def nested():
    f = graphc.grad(graphc.grad(lambda x: graphc.numpy.sin(x) * graphc.numpy.exp(x)))
    return [f(1.0), f(0.5)]


def user_gate():
    return [graphc.grad(Cube())(2.0), graphc.jit(lambda x: Cube()(x) + 1.0)(np.arange(3.0))]


def choices():
    k = graphc.compile(best)
    x = np.float32([[1, 5, 2], [4, np.nan, 2]])
    return [k(x), k(x[:1]), k(x[:, :0])]


CASES = {
    **{f"model {name}": lambda name=name: of_model(name) for name in EVERY},
    **{f.__name__: f for f in (
        halves, donated, out, threads, captured, sizes, calls, nested, user_gate, choices,
    )},
}  # fmt: skip


def bare(results):
    return [x for x in results if not isinstance(x, str)], [x for x in results if type(x) is str]


@pytest.mark.parametrize("case", CASES)
def test_the_same_bits(case, disk, monkeypatch):
    """Without the cache, on a miss and on a hit, on which no stage runs."""
    with monkeypatch.context() as off:
        off.setenv("GRAPHC_CACHE_DIR", "off")
        expected = bare(CASES[case]())
    missed = bare(CASES[case]())
    hits, misses = counts()
    assert misses > 0

    def no_stages(*arguments, **more):
        raise AssertionError("a stage runs")

    for module in (kernel, compiled):
        monkeypatch.setattr(module, "run_stages", no_stages)
    monkeypatch.setattr(jit, "images", no_stages)
    found = bare(CASES[case]())
    assert counts() == (2 * hits + misses, misses)
    for results in (missed, found):
        assert same_bits(results[0], expected[0]) and results[1] == expected[1]
    assert leaves(expected[0])


def test_what_is_asked_later(disk):
    """A kernel that was found has its graph and program, its plan, prediction and prose."""
    graphc.compile(total).predict(n=9)  # which compiles what measures this machine
    before = counts()
    texts = []
    for _ in range(2):
        k = graphc.compile(energy, wrt=("x", "k"))
        k.forward(np.ones((2, 3)), 1.0)
        texts.append(
            (k.explain(), str(k.plan), str(k.gradient_kernel.graph), dict(k.stages),
             str(k.predict(n=100)), k.pointer().slots, k.pointer().arena_bytes(n=9))
        )  # fmt: skip
    assert texts[0] == texts[1] and counts() == (before[0] + 3, before[1] + 3)


def test_an_index_out_of_bounds(disk):
    for _ in range(2):
        k = graphc.compile(EVERY["gather"][0])
        table, index = np.ones((4, 2), np.float32), np.int32([0, 4])
        with pytest.raises(IndexOutOfBounds, match="index 4 is out of bounds for .* of size 4"):
            k(table, index)
    assert counts() == (1, 1)


def test_places_are_those_of_this_process(disk):
    """Two functions with one graph: the error names the line of the one that was called."""

    def first(x):
        return graphc.argmax(x, axis=0)

    def second(x):

        return graphc.argmax(x, axis=0)

    second.__name__ = "first"
    places = []
    for function in (first, second, first):
        function.__annotations__ = {"x": graphc.f64["n", "m"]}
        k = graphc.compile(function)
        assert k(np.ones((2, 3))).tolist() == [0, 0, 0]
        with pytest.raises(ShapeError, match="is empty: there is nothing to choose from") as error:
            k(np.ones((0, 3)))
        places.append(int(re.search(r"max at test_cache.py:(\d+)", str(error.value))[1]))
    line = first.__code__.co_firstlineno
    assert places == [line + 1, line + 5, line + 1] and counts() == (2, 1)


def test_observers_and_checks_see_every_stage(disk, monkeypatch):
    graph = energy.graph
    kernel.compile_graph(graph)
    seen = []
    kernel.compile_graph(graph, observer=lambda stage, item: seen.append(stage))
    assert seen == ["trace", "adjoint", "simplify", "fuse", "plan", "emit", "jit"]
    monkeypatch.setenv("GRAPHC_VERIFY", "1")
    kernel.compile_graph(graph)
    compiled.compile(energy, wrt="x").forward(np.ones((2, 3)), 1.0)
    assert counts() == (0, 1)


def test_routines_are_kept(disk, monkeypatch):
    def linked():
        return routines.linked("a test's", lambda: text, ("half",), passes=False)

    text = "define i64 @half(i64 %x) {\n %y = ashr i64 %x, 1\n ret i64 %y\n}"
    first = linked()
    monkeypatch.setattr(routines, "object_image", None)
    assert first.address("half") != linked().address("half") != 0


def wave(x: graphc.f64["n"]):
    return np.sin(np.tanh(x)).sum()


def twice_the_wave(x: graphc.f64["n"]):
    return 2.0 * wave(x)


def test_routines_of_kernels_are_kept(disk, monkeypatch):
    """A new kernel in a new process compiles nothing but its own code."""
    made, whole = [], jit.object_image

    def counted(text, *rest):
        made.append(text)
        return whole(text, *rest)

    monkeypatch.setattr(jit, "object_image", counted)
    jit._routine.cache_clear()
    first = graphc.compile(graphc.graph(wave), "x").value_and_grad(np.arange(4.0))
    assert len(made) > 2
    made.clear()
    jit._routine.cache_clear()
    second = graphc.compile(graphc.graph(twice_the_wave), "x").value_and_grad(np.arange(4.0))
    assert len(made) == 1 and same_bits(second[0], 2.0 * first[0])


def test_routines_that_do_not_fit_are_made_anew(disk, monkeypatch):
    """LLVM refuses what was kept of them: then they are compiled, and kept again."""
    jit._routine.cache_clear()
    expected = graphc.compile(graphc.graph(wave))(np.arange(4.0))
    good, forged = {}, b"\x7fELF\x02\x01\x01" + bytes(57)
    for found in Store(str(disk)).every():
        if found.entry.text == "routines of kernels":
            good[found.name] = found.entry.data
            rewritten(disk / found.name, data=forged)
        elif found.entry.text.startswith("manifest"):
            (disk / found.name).unlink()
    jit._routine.cache_clear()
    assert same_bits(graphc.compile(graphc.graph(wave))(np.arange(4.0)), expected)
    kept = {f.name: f.entry.data for f in Store(str(disk)).every()}
    assert good and good.items() <= kept.items()


# -- damage, attacks and failures ------------------------------------------------------------------


def made_and_found():
    """A result, and how it came about."""
    before = counts()
    result = graphc.compile(total)(np.arange(4.0))
    after = counts()
    return result, (after[0] - before[0], after[1] - before[1])


def entry_of(folder):
    """The kernel's file, among those of routines and sources."""
    (found,) = [f for f in Store(str(folder)).every() if f.entry.text.startswith("manifest")]
    return folder / found.name, found.entry


def rewritten(path, **changes):
    """An entry changed by somebody who knows the form: all of its digests are right."""
    key = bytes.fromhex(path.stem)
    made = Store(str(path.parent))
    made.write(key, replace(made.read(key), **changes))


def test_every_third_byte(disk):
    result, _ = made_and_found()
    path, _ = entry_of(disk)
    raw = path.read_bytes()
    key = bytes.fromhex(path.stem)
    for at in range(0, len(raw), 3):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 0x10]) + raw[at + 1 :])
        assert cache.load_kernel(key) is None and not path.exists()
    for length in range(0, len(raw), 97):
        path.write_bytes(raw[:length])
        assert cache.load_kernel(key) is None and not path.exists()
    assert made_and_found() == (result, (0, 1))
    assert made_and_found() == (result, (1, 0)) and path.read_bytes() == raw


FORGED = {
    "no manifest": {"text": "half x"},
    "a bomb": {"text": "manifest f\nwork " + "max(" * 100_000},
    "a pickle": {"text": "cos\nsystem\n(S'touch touched'\ntR."},
    "no code": {"data": b""},
    "other code": {"data": b"import os; os.mkdir('touched')"},
    "half of the code": {"data": bytes([64, *bytes(7)]) + b"\x7fELF\x02\x01\x01" + bytes(57)},
    "a wrong length": {"data": bytes([65, *bytes(7)]) + b"\x7fELF\x02\x01\x01" + bytes(57)},
    "half of a length": {"data": bytes([64, 0, 0])},
    "another processor's": {"needs": "avx2,fma,magic"},
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_entries(disk, name, monkeypatch, tmp_path):
    """Even with right digests, what does not fit is as good as absent."""
    monkeypatch.chdir(tmp_path)
    result, _ = made_and_found()
    path, entry = entry_of(disk)
    rewritten(path, **FORGED[name])
    assert made_and_found() == (result, (0, 1))
    assert entry_of(disk) == (path, entry)
    assert made_and_found() == (result, (1, 0))
    assert [p.name for p in tmp_path.iterdir()] == ["cache"]


AUDITED = """
import os, sys
import numpy as np
import graphc
from graphc.runtime import cache
from tests.runtime import test_cache, test_store
from tests.runtime.test_store import ATTACKS
from pathlib import Path

folder, own = Path(os.environ["GRAPHC_CACHE_DIR"]), Path(sys.argv[1])
graphc.compile(test_cache.total)(np.arange(4.0))
graphc.compile(test_cache.step)(np.arange(4.0), np.ones(4))
path, other = [
    folder / f.name for f in cache.disk_store().every() if f.entry.text.startswith("manifest")
]
raw, key = path.read_bytes(), bytes.fromhex(path.stem)
assert cache.load_kernel(key) is not None
test_store.KEY = key
watched, seen = False, []
FORBIDDEN = ("exec", "compile", "import", "pickle", "marshal", "os.system", "subprocess", "code.")

def hook(event, arguments):
    if watched and event.startswith(FORBIDDEN):
        seen.append(event)

sys.addaudithook(hook)
loaded = 0
for name, attack in ATTACKS.items():
    path.write_bytes(raw)
    os.chmod(path, 0o600)
    attack(path, other, own)
    watched = True
    found = cache.load_kernel(key)
    watched = False
    assert found is None, name
    assert not seen, (name, seen)
    assert not path.is_symlink() and not path.exists(), name
path.write_bytes(raw)
os.chmod(path, 0o600)
watched = True
assert cache.load_kernel(key) is not None
watched = False
assert not seen and not list(own.iterdir()) and len(ATTACKS) >= 12
"""


def python(code, *arguments, **environment):
    """A child that has to succeed; what it prints."""
    paths = os.pathsep.join(filter(None, (str(PACKAGE.parent), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": paths, **environment}
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_is_executed(disk, tmp_path):
    """While files that an attacker wrote are read, no text, pickle or module becomes code."""
    own = tmp_path / "own"
    own.mkdir()
    python(AUDITED, own, GRAPHC_CACHE_DIR=str(disk))


def test_an_unsafe_folder_is_one_warning(disk):
    disk.mkdir(mode=0o777)
    os.chmod(disk, 0o777)
    with pytest.warns(
        graphc.CacheWarning, match="nothing is kept on disk: .* is open to others"
    ) as said:
        first = graphc.compile(total)(np.arange(4.0))
        assert graphc.compile(total)(np.arange(4.0)) == first
        assert "open to others" in graphc.cache_info().reason
    assert len(said) == 1 and not list(disk.iterdir())


@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace", "mkdir"])
def test_a_disk_that_fails_is_no_error(disk, monkeypatch, call):
    real = getattr(os, call)

    def fails(*arguments, **more):
        if call != "open" or arguments[1] & os.O_CREAT:
            raise OSError(errno.ENOSPC, "no space")
        return real(*arguments, **more)

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fails)
        result, how = made_and_found()
        assert how == (0, 1) and made_and_found() == (result, (0, 1))
    assert not disk.exists() or not list(disk.iterdir())
    assert made_and_found() == (result, (0, 1))
    assert made_and_found() == (result, (1, 0))


def test_a_disk_that_cannot_be_read_is_no_error(disk, monkeypatch):
    result, _ = made_and_found()
    with monkeypatch.context() as patched:
        patched.setattr(os, "read", lambda *a: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
        assert made_and_found() == (result, (0, 1))
    assert made_and_found() == (result, (1, 0))


def test_a_folder_that_is_removed_meanwhile(disk):
    result, _ = made_and_found()
    shutil.rmtree(disk)
    assert made_and_found() == (result, (0, 1))
    assert made_and_found() == (result, (1, 0))


# -- keys ------------------------------------------------------------------------------------------


def key(**options):
    declared = options.pop("declared", energy)
    return cache.kernel_key(declared.graph, graphc.pipeline.Options(**options))


def test_other_options_are_other_keys(disk):
    from graphc.pipeline import Options

    graph = energy.graph
    every = [
        Options(), Options(wrt=("x",)), Options(wrt=("k",)), Options(wrt=("x", "k")),
        Options(wrt=("k", "x")), Options(donate=("x",)), Options(seeds="input"),
        Options(deterministic=True), Options(skip=frozenset({"fuse"})),
        Options(skip=frozenset({"fuse", "rules"})), Options(isa="v3"),
    ]  # fmt: skip
    keys = [cache.kernel_key(graph, o) for o in every]
    keys += [cache.kernel_key(graph, Options(), part) for part in ("forward", "backward")]
    assert None not in keys and len(set(keys)) == len(keys)
    assert cache.kernel_key(graph, Options(threads=2)) == keys[0]
    assert cache.kernel_key(graph, Options(skip=frozenset({"rules", "fuse"}))) == keys[9]


def test_what_compiles_is_part_of_the_key(disk, monkeypatch):
    """A new version of LLVM, llvmlite or NumPy, another processor: all are misses."""
    import llvmlite

    result, _ = made_and_found()
    host = target.host()
    lacking = replace(host, features=host.features.replace("+fma,", "-fma,"))
    assert lacking != host
    changes = [
        (llvmlite, "__version__", "99.0"),
        (np, "__version__", "99.0"),
        (target, "host", lambda: replace(host, cpu="znver9")),
        (target, "host", lambda: lacking),
        (cache, "source_digest", lambda names: bytes(32)),
    ]

    def as_in_another_process():
        cache._disk_for.cache_clear()
        fingerprint.machine_text.cache_clear()

    (memo,) = [f.name for f in Store(str(disk)).every() if f.entry.text.startswith("source")]
    for module, name, value in changes:
        (disk / memo).unlink(missing_ok=True)
        with monkeypatch.context() as patched:
            patched.setattr(module, name, value)
            as_in_another_process()
            assert made_and_found() == (result, (0, 1)), name
        (disk / memo).unlink()
        as_in_another_process()
        assert made_and_found() == (result, (1, 0)), name


def test_what_only_tunes_is_no_part_of_the_key():
    host = target.host()
    tuned = replace(host, features=f"{host.features},+prefer-no-gather,+fast-hops,-slow-shld")
    assert tuned.isa == host.isa and "prefer" not in host.isa and "avx2" in host.isa.split(",")
    fewer = replace(host, features=host.features.replace("+avx2", "-avx2"))
    assert "avx2" not in fewer.isa.split(",")


def test_an_entry_that_needs_more_is_not_loaded(disk, monkeypatch):
    """The same key, but the file says that its code needs what this processor has not."""
    made_and_found()
    path, entry = entry_of(disk)
    assert set(entry.needs.split(",")) == set(target.host().isa.split(","))
    found = bytes.fromhex(path.stem)
    assert cache.load_kernel(found) is not None
    host = target.host()
    monkeypatch.setattr(
        cache, "host", lambda: replace(host, features=host.features.replace("+fma,", "-fma,"))
    )
    assert cache.load_kernel(found) is None


def test_gates_of_others_are_not_kept(disk, monkeypatch):
    """Their meaning is in files that are no part of the key."""
    monkeypatch.setattr(fingerprint, "PACKAGE", "/elsewhere")
    fingerprint._is_own.cache_clear()
    try:
        assert cache.kernel_key(total.graph, kernel.Options()) is None
        assert made_and_found()[1] == (0, 0)
    finally:
        fingerprint._is_own.cache_clear()


def test_sources_that_changed_after_the_import(disk, monkeypatch):
    """What runs is older than what the files say: nothing is read or written."""
    monkeypatch.setattr(graphc, "_IMPORTED", graphc._IMPORTED - 10**18)
    assert made_and_found()[1] == (0, 0)
    assert "changed since it was imported" in graphc.cache_info().reason and not disk.exists()


UPGRADED = """
import sys
import numpy as np
import graphc

@graphc.graph
def total(x: graphc.f64["n"]):
    return graphc.sin(x).sum()

assert graphc.__file__.startswith(sys.argv[1])
assert graphc.compile(total)(np.arange(4.0)) == float(sys.argv[2])
info = graphc.cache_info()
assert not info.reason, info.reason
print(info.hits, info.misses)
"""


def test_an_upgrade(disk, tmp_path):
    """Another source of what compiles is a miss; of what only traces, a hit: the graph tells."""
    copy = tmp_path / "site" / "graphc"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "selftest"))
    expected = float(graphc.compile(total)(np.arange(4.0)))

    def run():
        said = python(
            UPGRADED, tmp_path, expected, PYTHONPATH=str(copy.parent), GRAPHC_CACHE_DIR=str(disk)
        )
        return tuple(map(int, said.split()))

    def add(file, text):
        (copy / file).write_text((copy / file).read_text() + text)

    assert run() == (1, 0)  # made by this installation, whose source is the same
    add("passes/rules.py", "# another\n")
    assert run() == (0, 1)
    assert run() == (1, 0)
    add("dsl/tensor.py", "# another\n")
    assert run() == (1, 0)
    (copy / "lower" / "more.py").write_text("")
    assert run() == (0, 1)


SEEDED = """
import hashlib
import numpy as np
import graphc
from graphc.runtime import cache, jit
from graphc.pipeline import run_stages
from tests.models import EVERY

for declared, wrt in EVERY.values():
    k = graphc.compile(declared, wrt)
    options = k._gradient_options() if wrt else k.options
    image = b"".join(jit.images(run_stages(k.traced.graph, options, last="emit")))
    print(cache.kernel_key(k.traced.graph, options).hex(), hashlib.sha256(image).hexdigest())
"""


@pytest.mark.parametrize(
    "seeds", [3, pytest.param(50, marks=pytest.mark.long)], ids=["3 seeds", "50 seeds"]
)
def test_one_key_has_one_object(disk, seeds):
    """Whatever the seed of hashes is; and other graphs have other keys."""
    said = [
        python(SEEDED, PYTHONHASHSEED=str(seed), GRAPHC_CACHE_DIR=str(disk))
        for seed in range(seeds)
    ]
    assert len(set(said)) == 1
    assert len({line.split()[0] for line in said[0].splitlines()}) == len(EVERY)


LEAN = """
import sys
import numpy as np
import graphc

@graphc.graph
def energy(x: graphc.f64["n", 3], k: graphc.f64):
    return (graphc.tanh(x[1:] - x[:-1]) * k).sum()

k = graphc.compile(energy, wrt="x")
x = np.arange(12.0).reshape(4, 3)
k.value_and_grad(x, 0.5)
y, saved = k.forward(x, 0.5)
k.backward(saved)
print(graphc.cache_info().hits, *sys.modules)
"""


def test_a_hit_loads_no_compiler(disk):
    """Neither stages nor what cuts a graph in two: their imports take longer than all else."""
    for hits in ("0", "3"):
        found, *modules = python(LEAN, GRAPHC_CACHE_DIR=str(disk)).split()
        assert found == hits
    heavy = ("graphc.lower", "graphc.passes", "graphc.transforms", "graphc.report", "networkx")
    heavy += ("graphc.codegen.kernels", "graphc.codegen.writer", "graphc.ir.reference")
    assert not [m for m in modules if m.startswith(heavy)] and "graphc.gates.gate" in modules


@pytest.mark.skipif(fingerprint.machine_facts() is None, reason="the system does not tell")
def test_a_hit_loads_no_llvm(disk):
    """What LLVM said of the processor is remembered for as long as the system runs."""
    for hits in ("0", "3"):
        found, *modules = python(LEAN, GRAPHC_CACHE_DIR=str(disk)).split()
        assert found == hits
        assert (hits == "0") == ("llvmlite.binding" in modules)


@pytest.mark.skipif(fingerprint.machine_facts() is None, reason="the system does not tell")
@pytest.mark.parametrize("of", ["_boot", "answers"])
def test_another_run_of_the_system_asks_llvm_anew(disk, of, monkeypatch):
    """Another processor, too, which an emulator may be."""

    def asked():
        cache._disk_for.cache_clear()
        fingerprint.machine_text.cache_clear()
        key = cache.kernel_key(total.graph, kernel.Options())
        return key, fingerprint.machine_text.cache_info().misses

    first, known = asked(), asked()
    assert first == (known[0], 1) and known[1] == 0
    said = getattr(fingerprint, of)()
    monkeypatch.setattr(fingerprint, of, lambda: bytes(len(said)))
    assert asked() == first and asked() == known

    def untold():
        raise OSError

    monkeypatch.setattr(fingerprint, of, untold if of == "_boot" else lambda: None)
    assert asked() == asked() == first


TOGETHER = """
import sys
import numpy as np
import graphc
from tests.runtime.test_cache import energy

k = graphc.compile(energy, wrt="x")
y, saved = k.forward(np.arange(12.0).reshape(4, 3) ** 2, 0.5)
print(y.hex(), k.backward(saved).tobytes().hex())
"""


def test_processes_that_compile_the_same_at_once(disk):
    environment = {
        **os.environ, "GRAPHC_CACHE_DIR": str(disk), "PYTHONPATH": str(PACKAGE.parent),
    }  # fmt: skip
    children = [
        subprocess.Popen(
            [sys.executable, "-c", TOGETHER], env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    said = {child.communicate(timeout=120)[0] for child in children}
    assert all(child.returncode == 0 for child in children)
    assert len(said) == 1 and said != {""}
    assert {python(TOGETHER, GRAPHC_CACHE_DIR=str(disk))} == said
    assert not [f for f in Store(str(disk)).every() if f.problem]


# -- where -----------------------------------------------------------------------------------------


def test_where_it_is(tmp_path, monkeypatch):
    for name in cache._VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    assert graphc.cache_info().directory == str(tmp_path / "home" / ".cache" / "graphc")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert graphc.cache_info().directory == str(tmp_path / "xdg" / "graphc")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which the convention says to ignore
    assert graphc.cache_info().directory == str(tmp_path / "home" / ".cache" / "graphc")
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "own"))
    assert graphc.cache_info().directory == str(tmp_path / "own")
    monkeypatch.setenv("GRAPHC_CACHE_DIR", "~/mine")
    assert graphc.cache_info().directory == str(tmp_path / "home" / "mine")
    monkeypatch.setenv("GRAPHC_CACHE_DIR", "Off")
    assert graphc.cache_info() == graphc.cache_info().__class__(
        "", "GRAPHC_CACHE_DIR is off", 0, 0, 0, 0, 0
    )


def test_programs_with_more_rights_have_none(tmp_path, monkeypatch):
    """Their environment is their caller's."""
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "mine"))
    monkeypatch.setattr(os, "getgid", lambda: os.getegid() + 1)
    assert "rights that its caller has not" in graphc.cache_info().reason
    assert made_and_found()[1] == (0, 0) and not (tmp_path / "mine").exists()


def test_signed_entries(disk, tmp_path, monkeypatch):
    secret = tmp_path / "secret"
    secret.write_bytes(os.urandom(32))
    os.chmod(secret, 0o600)
    result, _ = made_and_found()
    monkeypatch.setenv("GRAPHC_CACHE_KEY", str(secret))
    assert made_and_found() == (result, (0, 1))  # what was not signed does not count
    assert made_and_found() == (result, (1, 0))
    path = next(disk / f.name for f in cache.disk_store().every() if f.entry.data)
    Store(str(disk)).write(bytes.fromhex(path.stem), Entry("manifest f", b"code"))
    assert [f.problem for f in cache.disk_store().every() if f.problem] == ["its digest is another"]


@pytest.mark.parametrize(
    "wrong", ["absent", "short", "open to others", "a folder", "a link", "in an open folder"]
)
def test_secrets_that_are_none(disk, tmp_path, monkeypatch, wrong):
    secret = tmp_path / "folder" / "secret"
    secret.parent.mkdir()
    if wrong == "a folder":
        secret.mkdir()
    elif wrong == "a link":
        (tmp_path / "other").write_bytes(bytes(32))
        secret.symlink_to(tmp_path / "other")
    elif wrong != "absent":
        secret.write_bytes(bytes(15 if wrong == "short" else 32))
    if wrong != "absent":
        os.chmod(secret, 0o644 if wrong == "open to others" else 0o700)
    if wrong == "in an open folder":
        os.chmod(secret.parent, 0o777)
    monkeypatch.setenv("GRAPHC_CACHE_KEY", str(secret))
    with pytest.warns(graphc.CacheWarning, match="GRAPHC_CACHE_KEY: "):
        assert made_and_found()[1] == (0, 0)
    assert graphc.cache_info().reason.startswith("GRAPHC_CACHE_KEY: ") and not disk.exists()


def test_forks_share_it(disk):
    """No lock is held across a fork, and a child finds what its parent kept."""
    result, _ = made_and_found()
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os._exit(made_and_found() != (result, (1, 0)))
    assert os.waitpid(child, 0)[1] == 0


def test_the_tests_leave_the_users_cache_alone():
    assert os.environ["GRAPHC_CACHE_DIR"] == "off"
    assert jit.Jit.link("define void @f() {\n ret void\n}", ("f",)).address("f")
    assert graphc.cache_info().reason == "GRAPHC_CACHE_DIR is off"
