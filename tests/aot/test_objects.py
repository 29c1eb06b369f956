"""Objects of every elementwise gate and its gradient need nothing from elsewhere."""

import re
import shutil
import struct
import subprocess
import sys
from functools import cache

import pytest

import graphc
from graphc.aot import library
from graphc.codegen.c_abi import merged
from graphc.errors import DTypeError
from graphc.gates.gate import registry
from graphc.ir.types import DTYPES, bool_
from graphc.runtime.jit import object_image
from graphc.selftest.placement import Case

ELF = sys.platform.startswith("linux")
DTYPE_NAMES = sorted(d.name for d in DTYPES.values())
GATES = [g for g in registry().values() if g.kind == "elementwise"]


def operand_dtypes(gate, dtype):
    """The operands' dtypes if the gate is defined on this one, else None."""
    dtypes = (*([bool_] if gate.choice else []), *[dtype] * (len(gate.params) - gate.choice))
    try:
        gate.result_dtype(dtypes)
    except DTypeError:
        return None
    return dtypes


def compiled(gate, dtype):
    """The sum of a gate on a vector, and its gradients; a bool or an integer as it is."""
    dtypes = operand_dtypes(gate, dtype)
    if dtypes is None:
        return None
    graph = graphc.Graph(f"{gate.name}_{dtype}")
    operands = [graph.input(p, ty["n"]) for p, ty in zip(gate.params, dtypes, strict=True)]
    y = gate(*operands, **({"dtype": graphc.f32} if gate.attrs else {}))
    wrt = Case(gate, dtype).wrt if dtype.is_float else ()
    graph.output("out", y.sum() if wrt else y)
    return graphc.compile(graph, wrt)


@cache
def image_of(dtype_name, isa):
    """One object with the values and the gradients of all gates."""
    texts, names = [], []
    for gate in GATES:
        function = compiled(gate, DTYPES[dtype_name])
        if function is not None:
            made = library.image(function, isa=isa)
            names.append(made.interface.name)
            texts.append(re.sub(r"@gc\.", f"@gc.{names[-1]}.", made.text))
            if function.wrt:
                names.append(f"{names[-1]}_value_and_grad")
    return object_image(merged(texts), library._machine(isa)), names


def symbols(image):
    """Names in an ELF object's table, and whether each is defined."""
    assert image[:6] == b"\x7fELF\x02\x01"  # 64 bits, little-endian
    start, width, count = (
        *struct.unpack_from("<Q", image, 0x28),
        *struct.unpack_from("<HH", image, 0x3A),
    )
    sections = [struct.unpack_from("<IIQQQQIIQQ", image, start + i * width) for i in range(count)]
    found = {}
    for _, kind, _, _, offset, size, link, *_ in sections:
        if kind != 2:  # SHT_SYMTAB
            continue
        strings = sections[link][4]
        for at in range(offset, offset + size, 24):
            name, kind, _, section = struct.unpack_from("<IBBH", image, at)
            text = image[strings + name : image.index(b"\0", strings + name)].decode()
            if text and kind & 15 != 4:  # STT_FILE
                found[text] = section != 0
    return found


@pytest.mark.skipif(not ELF, reason="objects are not ELF")
@pytest.mark.parametrize("isa", library.ISAS)
@pytest.mark.parametrize("dtype", DTYPE_NAMES)
def test_no_symbol_is_undefined(dtype, isa):
    image, names = image_of(dtype, isa)
    found = symbols(image)
    assert [name for name, defined in found.items() if not defined] == []
    assert names and set(names) <= set(found)


@pytest.mark.skipif(shutil.which("nm") is None, reason="no nm")
@pytest.mark.parametrize("isa", library.ISAS)
@pytest.mark.parametrize("dtype", DTYPE_NAMES)
def test_nm_says_so_too(dtype, isa, tmp_path):
    path = tmp_path / "gates.o"
    path.write_bytes(image_of(dtype, isa)[0])
    listed = subprocess.run(
        ["nm", "--undefined-only", str(path)], capture_output=True, text=True, check=True
    )
    assert listed.stdout == ""


@pytest.mark.skipif(not ELF, reason="objects are not ELF")
def test_an_undefined_symbol_is_seen():
    text = """
declare double @sin(double)
define double @twice(double %x) {
  %y = call double @sin(double %x)
  ret double %y
}
"""
    assert symbols(object_image(text)) == {"sin": False, "twice": True}
