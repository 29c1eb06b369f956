"""jit: LLVM text -> machine code in this process, given back when its owner dies.

In:   the text of an LLVM module and the names it exports.
Out:  a `Library` with the addresses of those names, alive as long as the `Library` is.
Invariant: one context per compilation, one lock around LLVM, and nothing of LLVM runs after the
interpreter starts to shut down. Ctrl-C waits for LLVM's end.

>>> text = "define double @half(double %x) { %y = fmul double %x, 5.0e-1\\n ret double %y }"
>>> library = Jit.link(text, ("half",))
>>> import ctypes
>>> ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(library.address("half"))(3.0)
1.5
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from graphc.codegen.llvm import PIECE
from graphc.codegen.units import units
from graphc.runtime import cache
from graphc.runtime.compiling import LOCK, whole
from graphc.runtime.linker import Loaded, Unlinkable, is_image, link

_ROUTINES = 256  # whose objects a process keeps: some 5 kB each
# Passes that take a fifth to two fifths of LLVM's time, for next to nothing: loop strength
# reduction, as addresses in kernels are a base and an index; and the scheduler of machine
# instructions, as processors have their own. Each is what leaves it out, and what takes that back.
_LEFT_OUT = {
    "-disable-lsr=true": "-disable-lsr=false",
    "-enable-misched=false": "-enable-misched=true",
}
# In long bodies, which run in pieces, these take a tenth of LLVM's time, and the code is as fast
# without. Elsewhere it is 1% slower.
_LEFT_OUT_OF_PIECES = {
    "-disable-cgp=true": "-disable-cgp=false",
    "-disable-machine-cse=true": "-disable-machine-cse=false",
    "-disable-copyprop=true": "-disable-copyprop=false",
    "-disable-machine-sink=true": "-disable-machine-sink=false",
}
HAVE_THESE = (22,)  # versions of LLVM
_LIBRARIES_PER_INSTANCE = 48  # one long-lived LLJIT keeps about 9 kB a library, so it is replaced


class Library:
    """Machine code that lives as long as this object."""

    def __init__(self, tracker: Any, text_bytes: int) -> None:
        self._tracker = tracker
        self.text_bytes = text_bytes

    def address(self, symbol: str) -> int:
        return self._tracker[symbol]

    def __del__(self, whole: Any = whole, is_ending: Any = sys.is_finalizing) -> None:
        if not is_ending():
            with whole(longer=True):
                self._tracker = None


class Jit:
    """The process's LLJIT, replaced every few dozen libraries."""

    _instance: Any = None
    _linked = 0
    _count = 0

    @classmethod
    def link(cls, text: str, exports: tuple[str, ...]) -> Library:
        return cls.linked(text, exports)[0]

    @classmethod
    def linked(cls, text: str, exports: tuple[str, ...]) -> tuple[Library, tuple[bytes, ...]]:
        """The functions of a module, and what `load` makes them of."""
        made = code(images(text), exports)
        try:
            return cls.load(made, exports), made
        except RuntimeError:
            if len(made) == 1:
                raise
        _forget_routines(text)  # LLVM does not take what was kept
        made = code(images(text), exports)
        return cls.load(made, exports), made

    @classmethod
    def instance(cls) -> Any:
        """The LLJIT that the next library goes to."""
        import llvmlite.binding as llvm

        with LOCK, whole():
            if cls._instance is None or cls._linked >= _LIBRARIES_PER_INSTANCE:
                cls._instance = llvm.create_lljit_compiler(host_machine())
                cls._linked = 0
            return cls._instance

    @classmethod
    def link_objects(cls, images: Sequence[bytes], exports: tuple[str, ...]) -> Library:
        return cls.load(code(images, exports), exports)

    @classmethod
    def load(cls, code: Sequence[bytes], exports: tuple[str, ...]) -> Library:
        """Objects, which LLVM links; or one image that is linked."""
        if len(code) == 1 and is_image(code[0]):
            return Library(Loaded(code[0]), len(code[0]))
        return cls._llvm_linked(code, exports)

    @classmethod
    def _llvm_linked(cls, images: Sequence[bytes], exports: tuple[str, ...]) -> Library:
        import llvmlite.binding as llvm

        with LOCK, whole():
            instance = cls.instance()
            cls._linked += 1
            cls._count += 1
            builder = llvm.JITLibraryBuilder()
            for image in images:
                builder = builder.add_object_img(image)
            for symbol in exports:
                builder = builder.export_symbol(symbol)
            return Library(builder.link(instance, f"gc_{cls._count}"), sum(map(len, images)))


@functools.cache
def host_machine() -> Any:
    """The target machine of this processor."""
    from graphc.codegen.target import host

    return machine(host().cpu, host().features, jit=True)


def machine(cpu: str, features: str, jit: bool, pic: bool = True, opt: int = 2) -> Any:
    import llvmlite.binding as llvm

    with LOCK, whole():
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        target = llvm.Target.from_triple(llvm.get_process_triple())
        return target.create_target_machine(
            cpu=cpu,
            features=features,
            opt=opt,
            reloc="pic" if pic else "default",
            codemodel="default",
            jit=jit,
        )


def _parse(text: str, target_machine: Any) -> Any:
    import llvmlite.binding as llvm

    module = llvm.parse_assembly(text, llvm.create_context())
    module.triple = target_machine.triple
    module.data_layout = str(target_machine.target_data)
    module.verify()
    return module


def code(objects: Sequence[bytes], exports: tuple[str, ...]) -> tuple[bytes, ...]:
    """What `load` makes a library of most quickly: one image, or objects if they cannot be one."""
    try:
        return (link(objects, exports),)
    except Unlinkable:
        return tuple(objects)


def images(text: str) -> tuple[bytes, ...]:
    """The objects of a module: of its own code, and of routines, which a process compiles once."""
    own, *routines = units(text)
    return (object_image(own), *map(_routine, routines))


@functools.lru_cache(maxsize=_ROUTINES)
def _routine(text: str) -> bytes:
    """What an earlier process made of this text, or this one does."""
    key = cache.routines_key(text)
    found = None if key is None else cache.load_routines(key)
    if found is not None:
        return found
    made = object_image(text)
    if key is not None:
        cache.keep_routines(key, "of kernels", made)
    return made


def _forget_routines(text: str) -> None:
    """Those of a module, to be compiled anew."""
    for key in map(cache.routines_key, units(text)[1:]):
        if key is not None:
            cache.refuse_routines(key)
    _routine.cache_clear()


@contextmanager
def _fewer_passes(text: str) -> Iterator[None]:
    """LLVM without some. Its options are the process's, in which others may use LLVM, too."""
    import llvmlite.binding as llvm

    left_out = _LEFT_OUT | _LEFT_OUT_OF_PIECES if PIECE in text else _LEFT_OUT
    if llvm.llvm_version_info[0] not in HAVE_THESE:  # an unknown option would end the process
        left_out = {}
    try:
        for option in left_out:
            llvm.set_option("graphc", option)
        yield
    finally:
        for option in left_out.values():
            llvm.set_option("graphc", option)


def object_image(text: str, target_machine: Any = None) -> bytes:
    """The relocatable object of a module."""
    with LOCK, whole(), _fewer_passes(text):
        target_machine = target_machine or host_machine()
        return target_machine.emit_object(_parse(text, target_machine))


def routines_image(text: str, quick: bool = False) -> bytes:
    """The object of code whose variables live in memory, as from codegen/native.py: passes move
    them. `quick` makes slower code in a tenth of the time.
    """
    with LOCK, whole(), _fewer_passes(text):
        return _routines_image(text, quick)


def _routines_image(text: str, quick: bool) -> bytes:
    import llvmlite.binding as llvm

    from graphc.codegen.target import host

    target_machine = machine(host().cpu, host().features, jit=True, opt=0 if quick else 1)
    module = _parse(text, target_machine)
    builder = llvm.create_pass_builder(target_machine, llvm.create_pipeline_tuning_options(1))
    passes = llvm.create_new_module_pass_manager()
    passes.add_always_inliner_pass()
    passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    passes.run(module, builder)
    return target_machine.emit_object(module)


def assembly(text: str, target_machine: Any = None) -> str:
    """The assembly of a module."""
    with LOCK, whole(), _fewer_passes(text):
        target_machine = target_machine or host_machine()
        return target_machine.emit_assembly(_parse(text, target_machine))
