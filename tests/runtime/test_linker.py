"""The linker: an image does what LLVM makes of the same objects, or it says that it cannot be."""

import ctypes
import gc
import platform
import random
import subprocess
import sys

import numpy as np
import pytest

import graphc
from graphc.runtime import jit
from graphc.runtime.jit import Jit, code, object_image
from graphc.runtime.linker import Loaded, Unlinkable, is_image, link

HERE = sys.platform.startswith("linux") and platform.machine() == "x86_64"
pytestmark = pytest.mark.skipif(not HERE, reason="it knows ELF for x86-64 alone")

CALLER = """
@shared = external global [4 x i64]
@count = internal global i64 0
@large = internal global [3000 x i64] zeroinitializer
@filled = internal global [2 x i64] [i64 7, i64 9]
declare double @half(double)
declare i64 @pick(i64)

define double @run(double %x, i64 %i) {
  %h = call double @half(double %x)
  %p = call i64 @pick(i64 %i)
  %f = sitofp i64 %p to double
  %y = fadd double %h, %f
  %z = fmul double %y, 0x3FF199999999999A
  ret double %z
}
define i64 @next() {
  %c = load i64, ptr @count
  %d = add i64 %c, 1
  store i64 %d, ptr @count
  %at = getelementptr [3000 x i64], ptr @large, i64 0, i64 %d
  store i64 %d, ptr %at
  %last = getelementptr [3000 x i64], ptr @large, i64 0, i64 %c
  %l = load i64, ptr %last
  %f = load i64, ptr @filled
  %s = add i64 %l, %f
  ret i64 %s
}
define i64 @element(i64 %i) {
  %at = getelementptr [4 x i64], ptr @shared, i64 0, i64 %i
  %v = load i64, ptr %at
  ret i64 %v
}
define i64 @address() {
  %v = ptrtoint ptr @shared to i64
  %w = xor i64 %v, ptrtoint (ptr @shared to i64)
  ret i64 %v
}
"""
ROUTINES = """
@shared = constant [4 x i64] [i64 1, i64 10, i64 100, i64 1000]

define double @half(double %x) {
  %y = fmul double %x, 5.0e-1
  ret double %y
}
define i64 @pick(i64 %i) {
  switch i64 %i, label %other [ i64 0, label %a  i64 1, label %b  i64 2, label %c
    i64 3, label %d  i64 4, label %e  i64 5, label %f ]
a:
  ret i64 11
b:
  ret i64 22
c:
  ret i64 33
d:
  ret i64 44
e:
  ret i64 55
f:
  ret i64 66
other:
  ret i64 -1
}
"""
EXPORTS = ("run", "next", "element", "address", "shared")


@pytest.fixture(scope="module")
def objects():
    return object_image(CALLER), object_image(ROUTINES)


def answers(addresses):
    word, number = ctypes.c_int64, ctypes.c_double
    run = ctypes.CFUNCTYPE(number, number, word)(addresses["run"])
    step = ctypes.CFUNCTYPE(word)(addresses["next"])
    element = ctypes.CFUNCTYPE(word, word)(addresses["element"])
    address = ctypes.CFUNCTYPE(word)(addresses["address"])
    return (
        [run(3.0, i).hex() for i in range(-1, 8)],
        [step() for _ in range(2000)],
        [element(i) for i in range(4)],
        address() == addresses["shared"],
    )


def test_what_llvm_links(objects):
    library = Jit._llvm_linked(objects, EXPORTS)
    expected = answers({name: library.address(name) for name in EXPORTS})
    assert expected[2:] == ([1, 10, 100, 1000], True) and expected[1][:3] == [7, 8, 9]
    for order in (objects, objects[::-1]):
        image = link(order, EXPORTS)
        loaded = Loaded(image)
        assert is_image(image) and answers(loaded) == expected
        assert answers(Loaded(image)) == expected  # with variables of its own


def test_kernels_are_linked_here(monkeypatch):
    """Sums, products of matrices, gathers, branches: nothing in them is left to LLVM's linker."""
    monkeypatch.setattr(Jit, "_llvm_linked", None)
    monkeypatch.setenv("GRAPHC_CACHE_DIR", "off")

    def loss(x, w, i):
        y = graphc.tanh(x @ w)[i]
        return (graphc.lgamma(abs(y) + 1.0) * graphc.where(y > 0.1, y, graphc.sin(y))).sum()

    x, w = np.linspace(-1.0, 1.0, 800).reshape(40, 20), np.linspace(0.0, 1.0, 600).reshape(20, 30)
    value, (dx, dw) = graphc.value_and_grad(loss, (0, 1))(x, w, np.array([3, 1, 3]))
    assert np.isfinite(value) and dx.shape == x.shape and dw.any()


def test_what_is_not_known_is_left_to_llvm(objects, monkeypatch):
    seen = []
    monkeypatch.setattr(Jit, "_llvm_linked", lambda *given: seen.append(given))
    Jit.link_objects(objects[:1], ("run",))
    assert seen == [(objects[:1], ("run",))]
    assert code(objects[:1], ("run",)) == objects[:1]


def test_what_is_not_known(objects):
    caller, routines = objects
    thread_local = "@t = thread_local global i64 0\ndefine ptr @f() {\n ret ptr @t\n}"
    pointers = "@f = global ptr @g\ndefine void @g() {\n ret void\n}"
    weak = "define weak void @f() {\n ret void\n}"
    for given, exports in (
        ([caller], ("run",)),  # it needs what nobody has
        ([caller, routines, routines], ("run",)),
        ([caller, routines], ("walk",)),
        ([object_image(thread_local)], ("f",)),
        ([object_image(pointers)], ("f",)),  # an address in a variable
        ([object_image(weak)], ("f",)),
        ([b""], ()),
        ([b"\xcf\xfa\xed\xfe" + bytes(200)], ()),
        ([routines[:18] + b"\xb7\x00" + routines[20:]], ("half",)),  # AArch64
    ):
        with pytest.raises(Unlinkable):
            link(given, exports)


def test_damaged_objects(objects):
    """They link or they do not; nothing else happens."""
    rng = random.Random(1)
    for _ in range(2000):
        raw = bytearray(objects[1])
        for _ in range(rng.choice((1, 1, 3))):
            raw[rng.randrange(len(raw))] = rng.choice((0, 1, 0x7F, 0xFF, rng.randrange(256)))
        given = bytes(raw[: rng.choice((len(raw), rng.randrange(len(raw))))])
        try:
            assert is_image(link([given], ("half",)))
        except Unlinkable:
            pass


def test_damaged_images(objects):
    image = link(objects, EXPORTS)
    head = image[:200]
    for wrong in (
        b"", image[:20], image[:-1], image + b"\0", b"x" + image[1:],
        image[:8] + b"\xff\xff\xff\xff" + image[12:],
        image[:12] + bytes(4) + image[16:],
        image.replace(b"run ", b"run", 1) + b" ",
    ):  # fmt: skip
        with pytest.raises(Unlinkable):
            Loaded(wrong)
    assert image.startswith(head)


def maps():
    with open("/proc/self/maps", encoding="utf-8") as file:
        lines = [line.split() for line in file]
    return [([int(x, 16) for x in at.split("-")], mode) for at, mode, *_ in lines]


def test_memory_is_writable_or_executable(objects):
    loaded = Loaded(link(objects, EXPORTS))
    modes = {
        name: mode
        for name in ("run", "shared")
        for (start, end), mode in maps()
        if start <= loaded[name] < end
    }
    assert modes == {"run": "r-xp", "shared": "r--p"}


def test_memory_is_given_back(objects):
    image = link(objects, EXPORTS)
    gc.collect()
    before = len(maps())
    for _ in range(100):
        kept = [Loaded(image) for _ in range(10)]
    assert len(maps()) > before
    del kept
    assert len(maps()) <= before + 2
    library = Jit.load((image,), EXPORTS)
    assert library.text_bytes == len(image) and library.address("run")
    del library
    assert len(maps()) <= before + 2


def test_a_module_of_one_object_and_of_several_is_one_image():
    made = Jit.linked("define i64 @seven() {\n ret i64 7\n}", ("seven",))[1]
    assert len(made) == 1 and is_image(made[0]) and jit.Jit.load(made, ("seven",)).address("seven")


LATE = """
import builtins, ctypes, sys, types
from graphc.runtime.jit import Jit

owner = sys.modules["owner"] = types.ModuleType("owner")
owner.library = Jit.link("define i64 @seven() {\\n ret i64 7\\n}", ("seven",))

class Late:
    function = ctypes.CFUNCTYPE(ctypes.c_int64)(owner.library.address("seven"))
    def __del__(self, show=print):
        show(self.function(), flush=True)

builtins.late = Late()
del owner
"""


def test_code_outlives_its_owner_at_the_end_of_the_process():
    said = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, check=True)
    assert said.stdout == "7\n" and not said.stderr
