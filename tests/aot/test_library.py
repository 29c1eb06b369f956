"""Libraries: the bits of the JIT, four exported names, nothing undefined, and names that are safe
in C.
"""

import dataclasses
import os
import shutil
import subprocess
from typing import NamedTuple

import numpy as np
import pytest

import graphc
from graphc.aot import library
from graphc.aot.interface import from_json, header, interface_of, to_json
from graphc.aot.library import build, driver, save
from graphc.aot.names import KEYWORDS, LIBRARY, exported_name, field_name
from graphc.errors import (
    CompileError,
    DifferentiationError,
    FormatError,
    IndexOutOfBounds,
    SignatureError,
)
from tests.models import EVERY, example, leaves, same_bits

CASES = sorted(EVERY)
needs_driver = pytest.mark.skipif(driver() is None, reason="no linker driver")
needs_nm = pytest.mark.skipif(
    driver() is None or shutil.which("nm") is None, reason="no linker driver or no nm"
)
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only"]


def compiled(case, **options):
    graph, wrt = EVERY[case]
    return graphc.compile(graph, wrt, deterministic=True, **options)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    return {case: build(compiled(case), folder, emit=("ll", "s")) for case in CASES}


# -- bits ------------------------------------------------------------------------------------------


@needs_driver
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("n", [1, 7, 8, 33, 1000])
def test_a_loaded_library_gives_the_bits_of_the_jit(built, case, n):
    kernels, loaded = compiled(case), graphc.load(built[case].shared)
    arguments = example(case, n)
    assert same_bits(loaded(*arguments), kernels(*arguments))
    if kernels.wrt:
        assert same_bits(loaded.value_and_grad(*arguments), kernels.value_and_grad(*arguments))


@needs_driver
@pytest.mark.parametrize("case", ["neuron", "by_hand"])
def test_a_batch_of_nothing(built, case):
    arguments = example(case, 0)
    assert same_bits(graphc.load(built[case].shared)(*arguments), compiled(case)(*arguments))


@needs_driver
def test_code_for_this_host_gives_the_same_bits(tmp_path):
    kernels, arguments = compiled("logistic"), example("logistic", 100)
    made = build(kernels, tmp_path, isa="host")
    assert same_bits(
        graphc.load(made.shared).value_and_grad(*arguments), kernels.value_and_grad(*arguments)
    )


@needs_driver
def test_save_and_load(tmp_path):
    kernels, arguments = compiled("network"), example("network")
    path = kernels.save(tmp_path / "anything at all.so")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["anything at all.h", "anything at all.so"]
    loaded = graphc.load(path)
    assert repr(loaded).endswith("network(x, labels, p)>") and loaded.wrt == ("p",)
    value, (gradient,) = loaded.value_and_grad(*arguments)
    assert list(gradient) == ["w", "b"] and isinstance(value, np.float64)


@needs_driver
def test_an_older_library_of_the_same_path_does_not_linger(tmp_path):
    def scaled(k):
        @graphc.graph
        def model(x: graphc.f64["n"]):
            return x * k

        return graphc.compile(model)

    x = np.arange(3.0)
    old = graphc.load(save(scaled(2.0), tmp_path / "m.so"))
    new = graphc.load(save(scaled(3.0), tmp_path / "m.so"))
    assert new(x).tolist() == [0.0, 3.0, 6.0]
    assert old(x).tolist() == [0.0, 2.0, 4.0]


@needs_driver
def test_structures_come_back(tmp_path):
    class Pair(NamedTuple):  # of Python 3.10 takes text, or classes alone
        a: "graphc.f64[2]"
        b: "graphc.f64"

    @dataclasses.dataclass
    class State:
        x: graphc.f64[2]
        y: graphc.f64

    @graphc.graph
    def nested(pair: Pair, state: State, both: (graphc.f64, graphc.f64)):
        return {"sum": (pair.a * state.x).sum() * both[0], "list": [pair.b, state.y * both[1]]}

    @graphc.graph
    def one(both: (graphc.f64, graphc.f64[2])):
        return both[0] * both[1].sum()

    loaded = graphc.load(save(graphc.compile(nested), tmp_path / "nested.so"))
    got = loaded({"a": np.ones(2), "b": 2.0}, {"x": np.array([1.0, 2.0]), "y": 3.0}, (2.0, 5.0))
    assert got == {"sum": 6.0, "list": [2.0, 15.0]}
    loaded = graphc.load(save(graphc.compile(one, wrt="both"), tmp_path / "one.so"))
    value, (first, second) = loaded.value_and_grad((2.0, np.array([1.0, 2.0])))
    assert (value, first, second.tolist()) == (6.0, 3.0, [2.0, 2.0])


# -- errors at the call ----------------------------------------------------------------------------


@needs_driver
def test_calls_of_a_library_are_checked(built):
    loaded = graphc.load(built["gather"].shared)
    table = np.ones((4, 2), np.float32)
    with pytest.raises(IndexOutOfBounds, match="gather: an index is out of bounds"):
        loaded(table, np.array([0, 4], np.int32))
    with pytest.raises(SignatureError, match="missing a required argument"):
        loaded(table)
    with pytest.raises(graphc.ShapeError, match="argument table"):
        loaded(np.ones((4, 3), np.float32), np.zeros(1, np.int32))
    with pytest.raises(DifferentiationError, match="saved without gradients"):
        loaded.value_and_grad(table, np.zeros(1, np.int32))


@pytest.mark.parametrize(
    "content, message",
    [
        (b"\x7fELF and more", "is not a library that graphc made"),
        (b'{"graphc_abi":1}\0', "description cannot be read"),
        (b'{"graphc_abi":99}\0', "version 99 of graphc's interface"),
        (b'{"graphc_abi":[[[[\0', "description cannot be read"),
        (
            b'{"graphc_abi":1,"name":"f","fields":[],"parameters":[],"wrt":[],"single":true,"in_tree":0,"out_tree":0}\0',
            "cannot be loaded",
        ),
    ],
)
def test_what_is_no_library_is_refused(tmp_path, content, message):
    path = tmp_path / "x.so"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=message):
        graphc.load(path)
    with pytest.raises(FormatError, match="cannot be read"):
        graphc.load(tmp_path / "missing.so")


@pytest.mark.parametrize("case", CASES)
def test_descriptions_parse_back(case):
    interface = interface_of(compiled(case))
    again = from_json(to_json(interface, "test"))
    assert to_json(again, "test") == to_json(interface, "test")
    assert again.fields == interface.fields


# -- symbols and headers ---------------------------------------------------------------------------


def symbols(*arguments):
    return subprocess.run(
        ["nm", *map(str, arguments)], capture_output=True, text=True, check=True
    ).stdout.split("\n")


@needs_nm
@pytest.mark.parametrize("case", CASES)
def test_nothing_is_undefined_and_only_the_interface_is_exported(built, case):
    name = compiled(case).__name__
    expected = {name, f"{name}_workspace", f"{name}_graphc_info"}
    expected |= {f"{name}_value_and_grad"} if EVERY[case][1] else set()
    for path, flags in ((built[case].object, ("-g",)), (built[case].shared, ("-D",))):
        assert not "".join(symbols("-u", path)).strip()
        exported = {
            line.split()[-1] for line in symbols(*flags, "--defined-only", path) if line.strip()
        }
        assert exported == expected, path


UNARY = (
    np.sin, np.cos, np.tanh, np.exp, np.expm1, np.log, np.log1p, np.sqrt, np.abs, np.sign, np.floor,
    np.ceil,
    np.rint, np.square, np.reciprocal, graphc.sigmoid, graphc.softplus, graphc.relu,
)  # fmt: skip


@graphc.graph
def everything(
    x: graphc.f64["n", "m"], z: graphc.f32["n"], i: graphc.i64["k"], w: graphc.f64["m", 40]
):
    total = sum(f(x).sum() + f(z).sum() for f in UNARY) + (x**2.5).sum() + np.prod(x, axis=0).sum()
    total = total + x[:, ::-1].T[i].max() + x.reshape(-1)[i].sum() + np.concatenate([x, x]).var()
    total = (
        total
        + np.pad(x, 1).sum()
        + (graphc.softmax(x @ w, axis=0) @ w.T).sum()
        + (i // 3 + i % 3).sum()
    )
    total = total + np.argmax(x, axis=1).sum() + x.astype(graphc.i32).sum() + np.isnan(x).sum()
    total = total + np.cumsum(x, axis=1).var() + np.cumprod(x, axis=0).sum() + np.cumsum(z).max()
    return total + np.where(x > 0.5, x, 0.0).any()


@needs_nm
def test_no_gate_calls_the_c_library(tmp_path):
    rng = np.random.default_rng(5)
    arguments = (
        rng.uniform(0.1, 1, (35, 9)), rng.uniform(0.1, 1, 35).astype("f4"), rng.integers(0, 9, 4),
        rng.normal(size=(9, 40)),
    )  # fmt: skip
    kernels = graphc.compile(everything, ("x", "z", "w"), deterministic=True)
    made = build(kernels, tmp_path)
    assert not "".join(symbols("-u", made.object)).strip()
    assert same_bits(
        graphc.load(made.shared).value_and_grad(*arguments), kernels.value_and_grad(*arguments)
    )


@needs_driver
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("language", [("c", "c99"), ("c", "c11"), ("c++", "c++17")])
def test_headers_compile_without_a_warning(built, case, language):
    kind, standard = language
    source = f'#include "{built[case].header}"\n' * 2 + "int main(void) { return 0; }\n"
    command = [driver(), *WARNINGS, f"-std={standard}", "-x", kind, "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True)
    if kind == "c++" and done.returncode and "cc1plus" in done.stderr:
        pytest.skip("no C++ compiler")
    assert done.returncode == 0, done.stderr


@needs_driver
def test_two_libraries_live_in_one_program(built, tmp_path):
    source = tmp_path / "both.c"
    source.write_text(
        f'#include "{built["neuron"].header}"\n#include "{built["logistic"].header}"\n'
        "int main(void) { logistic_args l = {0}; neuron_args n = {0};\n"
        "return logistic(&l) != LOGISTIC_INVALID || neuron(0) != NEURON_INVALID ||\n"
        "       logistic_workspace(0) != 0 ||\n"
        "(n.n = -1, neuron(&n)) != NEURON_INVALID; }\n"
    )
    program = tmp_path / "both"
    objects = [str(built[case].object) for case in ("neuron", "logistic")]
    subprocess.run(
        [driver(), "-Wall", "-Werror", str(source), *objects, "-o", str(program)], check=True
    )
    assert subprocess.run([program]).returncode == 0


def test_a_library_is_reproducible(tmp_path):
    first, second = (build(compiled("network"), tmp_path / part, emit=("ll", "s")) for part in "ab")
    for a, b in zip(first.paths, second.paths, strict=True):
        assert a.read_bytes() == b.read_bytes(), a.name


@needs_driver
@pytest.mark.parametrize("shift", [0, 1, 8, 63])
def test_the_workspace_may_start_anywhere(built, monkeypatch, shift):
    """The entry aligns inside of the bytes that NAME_workspace asks for, and touches no others."""
    loaded, kernels, arguments = (
        graphc.load(built["network"].shared),
        compiled("network"),
        example("network", 20),
    )
    entries = dict(loaded._entries)
    margin, blocks = 4096, []

    def run(slots):
        size = entries["_workspace"](slots)
        block = np.full(size + 2 * margin, 0xA5, np.uint8)
        start = -block.ctypes.data % 64 + shift + 1024
        slots[-1] = block.ctypes.data + start
        status = entries["_value_and_grad"](slots)
        blocks.append((block[:start], block[start : start + size], block[start + size :]))
        return status

    monkeypatch.setitem(loaded._entries, "_value_and_grad", run)
    assert same_bits(loaded.value_and_grad(*arguments), kernels.value_and_grad(*arguments))
    ((before, inside, after),) = blocks
    assert (before == 0xA5).all() and (after == 0xA5).all() and (inside != 0xA5).any()


# -- names -----------------------------------------------------------------------------------------

BAD_NAMES = [
    "", "1x", "_x", "__x", "a-b", "a b", "a\nb", "a\0b", 'a"b', "a;b", "é", "\u202efoo", "x" * 64,
    "x" * 1_000_000,
    "int", "class", "NULL", "int64_t", "exp", "malloc", "printf", "main", "sinf", "memcpy", "*/",
    "../x",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda n: ascii(n[:12]))
def test_names_that_c_cannot_have_are_refused(tmp_path, name):
    with pytest.raises(CompileError) as caught:
        exported_name(name)
    assert len(str(caught.value)) < 300
    if name:  # an empty one stands for the graph's own
        with pytest.raises(CompileError):
            build(compiled("neuron"), tmp_path / "out", name=name)
    assert not (tmp_path / "out").exists()


def test_every_keyword_and_function_is_refused_and_good_names_are_not():
    for name in sorted(KEYWORDS | LIBRARY):
        with pytest.raises(CompileError, match="cannot be exported"):
            exported_name(name)
    for name in ("neuron", "Loss2", "x" * 63, "grad_f", "log_density"):
        assert exported_name(name) == name
    assert field_name("params.layers.0.w", "input") == "params_layers_0_w"
    assert field_name("exp", "input") == "exp"  # a field may have a function's name


def test_fields_that_collide_are_named():
    @graphc.graph
    def collide(p: {"w": graphc.f64}, p_w: graphc.f64):
        return p["w"] * p_w

    @graphc.graph
    def keyword(double: graphc.f64):
        return double

    @graphc.graph
    def reserved(workspace: graphc.f64["n"], n: graphc.f64):
        return workspace * n

    for graph, message in (
        (collide, "the input p.w and the input p_w would both be the field 'p_w'"),
        (keyword, "'double' cannot be the name of an input in C"),
        (reserved, "the size n and the input n would both be the field 'n'"),
    ):
        with pytest.raises(CompileError, match=message):
            interface_of(graphc.compile(graph))


def test_a_header_has_nothing_but_identifiers_and_numbers():
    text = header(interface_of(compiled("network")))
    assert "labels" in text and "    const double *p_w;" in text and text.isascii()
    assert "    double *grad_p_b;" in text and "/* input: i64[n] */" in text


def test_captured_arrays_live_in_the_library(monkeypatch, built):
    assert "captured" not in built["lookup"].header.read_text()
    monkeypatch.setattr(library, "LARGEST_CAPTURE", 100)
    with pytest.raises(
        CompileError,
        match="captures captured_0 f64.2,48., more than .* make such arrays parameters",
    ):
        library.image(compiled("lookup"))


# -- files -----------------------------------------------------------------------------------------


def test_links_folders_and_devices_are_not_replaced(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "neuron.o").symlink_to(victim)
    with pytest.raises(CompileError, match="is a symbolic link and is left as it is"):
        build(compiled("neuron"), tmp_path)
    (tmp_path / "neuron.o").unlink()
    (tmp_path / "neuron.so").mkdir()
    with pytest.raises(CompileError, match="is a folder"):
        build(compiled("neuron"), tmp_path)
    os.mkfifo(tmp_path / "pipe.so")
    with pytest.raises(CompileError, match="no regular file"):
        save(compiled("neuron"), tmp_path / "pipe.so")
    assert victim.read_text() == "precious"
    assert not (tmp_path / "neuron.h").exists()


def test_bad_places_are_errors(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CompileError, match="cannot make the folder"):
        build(compiled("neuron"), tmp_path / "file" / "below")
    with pytest.raises(CompileError, match="cannot write .*No such file or directory"):
        save(compiled("neuron"), tmp_path / "missing" / "x.so")
    with pytest.raises(CompileError, match="is saved as .so or .o"):
        save(compiled("neuron"), tmp_path / "x.dll")
    with pytest.raises(CompileError, match="emit='bc' is not known"):
        build(compiled("neuron"), tmp_path, emit=("bc",))
    with pytest.raises(CompileError, match="isa='avx9' is not known"):
        build(compiled("neuron"), tmp_path, isa="avx9")


def test_without_a_linker_the_object_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(library.shutil, "which", lambda name: None)
    made = build(compiled("neuron"), tmp_path)
    assert made.shared is None and "no linker driver (cc, gcc, clang) is on the PATH" in made.note
    assert (
        made.object.read_bytes()[:4] in (b"\x7fELF", b"\xcf\xfa\xed\xfe") and made.header.exists()
    )
    with pytest.raises(CompileError, match="cannot be made: no linker driver"):
        save(compiled("neuron"), tmp_path / "saved.so")
    assert (tmp_path / "saved.o").exists() and not (tmp_path / "saved.so").exists()


def test_a_linker_that_fails_is_quoted(tmp_path, monkeypatch):
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\necho 'no such target' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(library, "driver", lambda: str(broken))
    made = build(compiled("neuron"), tmp_path)
    assert made.shared is None and "failed: no such target" in made.note
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".graphc-")]


def test_declared_graphs_build_at_once(tmp_path):
    graph, wrt = EVERY["logistic"]
    made = build(graph, tmp_path, wrt=wrt, name="loss")
    assert made.object.name == "loss.o" and "loss_value_and_grad" in made.header.read_text()
    assert len(leaves(example("logistic"))) == 4
