"""library: a compiled graph -> an object, a C header, and a shared library that needs nothing.

In:   a `Compiled`.
Out:  NAME.o, NAME.h and, where there is a linker driver (cc, gcc or clang), NAME.so; NAME.ll and
      NAME.s on request.
Invariant: one artefact serves every size, gives the bits of the JIT with `deterministic=True`, has
no undefined symbol and exports four names; files are written whole or not at all.

>>> import tempfile, numpy as np, graphc
>>> @graphc.graph
... def scaled(x: graphc.f64["n"], k: graphc.f64):
...     return k * x
>>> with tempfile.TemporaryDirectory() as folder:
...     built = build(graphc.compile(scaled), folder)
...     sorted(p.suffix for p in built.paths)[:2]
['.h', '.o']
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphc.aot.files import check_replaceable, replacing, write
from graphc.aot.interface import Interface, header, interface_of, to_json
from graphc.aot.loaded import Loaded, load
from graphc.errors import CompileError
from graphc.lower.loops import Program
from graphc.pipeline import Options, run_stages

if TYPE_CHECKING:
    from graphc.runtime.compiled import Compiled

DRIVERS = ("cc", "gcc", "clang")
ISAS = ("v3", "host")
EXTRA = ("ll", "s")
LARGEST_CAPTURE = 16 << 20  # bytes of arrays that a function brings along and a library must hold
_ELF = ("-Wl,-Bsymbolic", "-Wl,-z,noexecstack", "-Wl,--build-id=none")


@dataclass(frozen=True)
class Image:
    """A library before it is a file."""

    interface: Interface
    text: str  # LLVM
    isa: str

    def object(self) -> bytes:
        from graphc.runtime.jit import object_image

        return object_image(self.text, _machine(self.isa))

    def assembly(self) -> str:
        from graphc.runtime.jit import assembly

        return assembly(self.text, _machine(self.isa))


@dataclass(frozen=True)
class Built:
    """The files of a library. Without a linker driver `shared` is None, and `note` says so."""

    object: Path
    header: Path
    shared: Path | None
    extra: tuple[Path, ...]
    note: str

    @property
    def paths(self) -> tuple[Path, ...]:
        return (self.object, self.header, *([self.shared] if self.shared else []), *self.extra)


def image(compiled: Compiled, name: str | None = None, isa: str = "v3") -> Image:
    """The code of a library: for x86-64-v3 (AVX2 and FMA), or for the processor of this host."""
    if isa not in ISAS:
        raise CompileError(f"isa={isa!r} is not known: use {' or '.join(map(repr, ISAS))}")
    interface = interface_of(compiled, name)
    text = _text(compiled, interface, isa)
    return Image(interface, text, isa)


def _text(compiled: Compiled, interface: Interface, isa: str) -> str:
    from graphc.codegen.c_abi import emit_library

    captured = _captured(compiled)
    options = replace(compiled.options, wrt=(), deterministic=True)
    leaves = tuple(leaf for _, below in interface.wrt for leaf in below)
    value = _program(compiled, options)
    gradient = _program(compiled, replace(options, wrt=leaves, seeds="one")) if leaves else None
    plans = f"{value}\n{gradient}\n{isa}"
    made_of = hashlib.sha256(plans.encode()).hexdigest()[:16]
    return emit_library(interface, value, gradient, captured, to_json(interface, made_of), isa)


def _program(compiled: Compiled, options: Options) -> Program:
    return run_stages(compiled.traced.graph, options, last="plan")


def _captured(compiled: Compiled) -> dict[str, Any]:
    traced = compiled.traced
    hidden = traced.graph.inputs[len(traced.arguments) :]
    if sum(x.nbytes for x in traced.captured) > LARGEST_CAPTURE:
        names = ", ".join(f"{n['name']} {n.type}" for n in hidden)
        raise CompileError(
            f"{compiled.__name__} captures {names}, more than the {LARGEST_CAPTURE >> 20} MiB "
            "that a library may hold: make such arrays parameters"
        )
    return {n["name"]: x for n, x in zip(hidden, traced.captured, strict=True)}


def _machine(isa: str) -> Any:
    from graphc.codegen import target as targets
    from graphc.runtime.jit import machine

    target = targets.of(isa)
    return machine(target.cpu, target.features, jit=False)


# -- files -----------------------------------------------------------------------------------------


def build(
    compiled: Any,
    directory: str | os.PathLike[str],
    *,
    name: str | None = None,
    wrt: str | Sequence[str] = (),
    emit: Collection[str] = (),
    isa: str = "v3",
) -> Built:
    """Write NAME.o, NAME.h and NAME.so into a folder, which is made if need be.

    compiled: a `Compiled`, or a declared graph, which is compiled with `wrt`.
    name: what to export, in place of the graph's own name.
    emit: "ll" and "s" for the LLVM text and the assembly, too.
    isa: "v3" for every x86-64 processor with AVX2 and FMA, "host" for this one.
    """
    unknown = [e for e in emit if e not in EXTRA]
    if unknown:
        raise CompileError(f"emit={unknown[0]!r} is not known: use {' or '.join(map(repr, EXTRA))}")
    made = image(_compiled(compiled, wrt), name, isa)
    folder = Path(directory)
    _make(folder)
    base = folder / made.interface.name
    for suffix in (".o", ".h", ".so"):
        check_replaceable(base.with_suffix(suffix))
    object_ = write(base.with_suffix(".o"), made.object())
    head = write(base.with_suffix(".h"), header(made.interface).encode())
    texts = {"ll": lambda: made.text, "s": made.assembly}
    extra = tuple(write(base.with_suffix(f".{e}"), texts[e]().encode()) for e in EXTRA if e in emit)
    shared, note = _shared(object_, base.with_suffix(".so"))
    return Built(object_, head, shared, extra, note)


def save(compiled: Compiled, path: str | os.PathLike[str], *, isa: str = "v3") -> Path:
    """Write a shared library (or, for a path that ends in .o, an object) with its header next to
    it.

    The library exports the graph's own name; `graphc.load(path)` calls it from Python.
    """
    target = Path(path)
    if target.suffix not in (".so", ".o"):
        raise CompileError(f"{target}: a compiled graph is saved as .so or .o")
    made = image(compiled, None, isa)
    check_replaceable(target)
    write(target.with_suffix(".h"), header(made.interface).encode())
    if target.suffix == ".o":
        return write(target, made.object())
    if driver() is None:  # keep the object for a linker elsewhere
        _, note = _shared(write(target.with_suffix(".o"), made.object()), target)
        raise CompileError(f"{target} cannot be made: {note}")
    with tempfile.TemporaryDirectory(prefix="graphc-") as folder:
        shared, note = _shared(write(Path(folder) / "graph.o", made.object()), target)
    if shared is None:
        raise CompileError(f"{target} cannot be made: {note}")
    return shared


def _compiled(compiled: Any, wrt: str | Sequence[str]) -> Compiled:
    from graphc.runtime.compiled import Compiled, compile

    return compiled if isinstance(compiled, Compiled) else compile(compiled, wrt)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CompileError(f"cannot make the folder {folder}: {error.strerror}") from error


def driver() -> str | None:
    """The path of the system's linker driver."""
    return next((found for d in DRIVERS if (found := shutil.which(d))), None)


def _shared(object_: Path, path: Path) -> tuple[Path | None, str]:
    """Link; the path, or None and why there is none."""
    linker = driver()
    if linker is None:
        return (
            None,
            f"no linker driver ({', '.join(DRIVERS)}) is on the PATH; "
            f"link {object_} where there is one",
        )
    flags = (*_ELF, "-Xlinker", f"-soname={path.name}") if sys.platform.startswith("linux") else ()
    try:
        with replacing(path) as temporary:
            command = [
                linker,
                "-shared",
                "-nostdlib",
                *flags,
                "-o",
                str(temporary.absolute()),
                str(object_.absolute()),
            ]
            subprocess.run(command, capture_output=True, text=True, check=True)
    except (subprocess.CalledProcessError, OSError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().split("\n")[0]
        return None, f"{linker} failed: {said}; the object is {object_}"
    return path, ""


__all__ = ["Built", "Image", "Loaded", "build", "driver", "header", "image", "load", "save"]
