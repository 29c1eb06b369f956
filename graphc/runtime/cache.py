"""The cache on disk: machine code of earlier processes, found by what it was made from.

In:   a traced graph and options, or the name of routines that serve the whole process.
Out:  a manifest and objects, as they were when this installation of graphc made them on a
      processor like this one; or None, and nothing is an error.
Invariant: with and without the cache results have the same bits and errors the same text. Nothing
is read or written in another user's name, nor in a folder where others may write.

The folder is GRAPHC_CACHE_DIR, else graphc/ in XDG_CACHE_HOME, else ~/.cache/graphc;
GRAPHC_CACHE_DIR=off turns the cache off. Where GRAPHC_CACHE_KEY names a file that only its owner
can read, entries are signed with what is in it. Whoever may write to the folder as this user could
put code there that runs here; so could they anywhere else in the user's home.

>>> cache_info().reason
'GRAPHC_CACHE_DIR is off'
"""

from __future__ import annotations

import ctypes
import os
import stat
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from graphc.codegen.target import host
from graphc.errors import CompileError, FormatError
from graphc.runtime.compiling import once
from graphc.runtime.fingerprint import (
    DIGEST_BYTES,
    PACKAGE,
    Changed,
    Unknown,
    graph_bytes,
    is_settled,
    machine_facts,
    machine_text,
    options_bytes,
    source_digest,
    source_names,
    source_stamp,
)
from graphc.runtime.manifest import Manifest, parse_manifest
from graphc.runtime.store import KEY_BYTES, SUPPORTED, Entry, Store, Unsafe, blake2b, check_around

if TYPE_CHECKING:
    from graphc.ir.graph import Graph
    from graphc.pipeline import Options

OFF = "off"
LEAST_SECRET = 16  # bytes
_AT_SECURE = 23  # in the auxiliary vector: this program has rights that its caller has not
_VARIABLES = ("GRAPHC_CACHE_DIR", "XDG_CACHE_HOME", "HOME", "GRAPHC_CACHE_KEY")


class CacheWarning(UserWarning):
    """The cache on disk is not used, since others may write to its folder, or to its key."""


# -- keys ------------------------------------------------------------------------------------------


def kernel_key(graph: Graph, options: Options, part: str = "") -> bytes | None:
    """The key of a kernel, and of which part, where a graph has several; None: nothing is kept."""
    compiler = _disk().compiler
    if compiler is None:
        return None
    try:
        made_from = options_bytes(options), part.encode(), graph_bytes(graph)
    except Unknown:
        return None
    return _key(b"kernel", compiler, *made_from)


def routines_key(name: str) -> bytes | None:
    """The key of routines: of a name that graphc's own source explains, or of their whole text."""
    compiler = _disk().compiler
    return None if compiler is None else _key(b"routines", compiler, name.encode())


def _key(*parts: bytes) -> bytes:
    found = blake2b(digest_size=KEY_BYTES)
    for part in parts:
        found.update(len(part).to_bytes(8, "little"))
        found.update(part)
    return found.digest()


# -- what is kept ----------------------------------------------------------------------------------


def load_kernel(key: bytes) -> tuple[Manifest, tuple[bytes, ...]] | None:
    """The manifest and the objects that were kept under a key."""
    disk = _disk()
    entry = disk.load(key)
    if entry is not None:
        try:
            found = parse_manifest(entry.text), _apart(entry.data)
        except FormatError:
            disk.refuse(key)
        else:
            disk.hits += 1
            return found
    disk.misses += 1
    return None


def keep_kernel(key: bytes, manifest: Manifest, images: Sequence[bytes]) -> None:
    """Keep a kernel, if its manifest's text says all of it."""
    text = str(manifest)
    try:
        if parse_manifest(text) != manifest:
            return
    except FormatError:
        return
    _disk().keep(key, text, _together(images))


def _together(images: Sequence[bytes]) -> bytes:
    """Objects in one piece: each behind its length."""
    return b"".join(part for i in images for part in (len(i).to_bytes(8, "little"), i))


def _apart(data: bytes) -> tuple[bytes, ...]:
    images, at = [], 0
    while at < len(data):
        start = at + 8
        at = start + int.from_bytes(data[at:start], "little")
        if at > len(data):
            raise FormatError("an object is not all there")
        images.append(data[start:at])
    if not images:
        raise FormatError("there is no object")
    return tuple(images)


def load_routines(key: bytes) -> bytes | None:
    entry = _disk().load(key)
    return None if entry is None else entry.data


def keep_routines(key: bytes, name: str, image: bytes) -> None:
    """Many small ones, as a rule, so nobody waits for the disk."""
    _disk().keep(key, f"routines {name}", image, durable=False)


def refuse_kernel(key: bytes) -> None:
    """What was found is of no use: it counts as not found, and goes."""
    disk = _disk()
    disk.hits, disk.misses = disk.hits - 1, disk.misses + 1
    disk.refuse(key)


def refuse_routines(key: bytes) -> None:
    _disk().refuse(key)


@dataclass(frozen=True)
class CacheInfo:
    """The cache on disk, and what it did for this process."""

    directory: str
    reason: str  # why nothing is kept; empty where the cache is used
    hits: int  # kernels that this process found,
    misses: int  # and those that it had to compile
    entries: int
    bytes: int
    limit: int  # of bytes


def cache_info() -> CacheInfo:
    """What the cache on disk holds, and did for this process."""
    return _disk().info()


def disk_store() -> Store:
    """The files themselves, for people; a CompileError where there are none to look at."""
    disk = _disk()
    if disk.store is None:
        raise CompileError(f"nothing is kept on disk: {disk.reason}")
    return disk.store


# -- where -----------------------------------------------------------------------------------------


class Disk:
    """The store that the environment names, or why there is none."""

    def __init__(self, environment: tuple[str, ...]) -> None:
        self.hits = self.misses = 0
        self.store: Store | None = None
        self.reason = self._isa = ""
        try:
            self.store = Store(_folder(environment), _secret(environment[3]))
        except (OSError, Unsafe) as error:
            self._stop(f"GRAPHC_CACHE_KEY: {error}", warn=True)
        except _Off as error:
            self._stop(str(error))

    def _stop(self, reason: str, warn: bool = False) -> None:
        self.store, self.reason = None, reason
        if warn:
            warnings.warn(f"nothing is kept on disk: {reason}", CacheWarning, stacklevel=2)

    @once
    def compiler(self) -> bytes | None:
        """A digest of what makes code here: graphc's source, LLVM, and the processor."""
        if self.store is None:
            return None
        try:
            return _key(*self._made_with(), np.__version__.encode())
        except OSError as error:
            self._stop(f"graphc's source cannot be read: {error}")
        except Changed as error:
            self._stop(f"graphc's source has changed since it was imported: {error}")
        return None

    def _made_with(self) -> tuple[bytes, bytes]:
        """The digest of graphc's source, and the text of this machine, remembered for as long as no
        file changes and the system runs.
        """
        facts = machine_facts()
        key = _key(b"source", os.fsencode(PACKAGE), facts or b"")
        entry = self._read(key)
        if entry is not None:
            machine, *names = entry.text.split("\n")[1:] or [""]
            with suppress(FileNotFoundError):
                if source_stamp(names) == entry.data[DIGEST_BYTES:]:
                    self._isa = machine.rpartition(" ")[2]
                    return entry.data[:DIGEST_BYTES], (machine or machine_text()).encode()
        names, machine = source_names(), machine_text()
        stamp, found = source_stamp(names), source_digest(names)
        if source_stamp(names) != stamp:
            raise Changed("while it was read")
        if is_settled(names):
            text = "\n".join(("source", machine if facts else "", *names))
            self._write(key, Entry(text, found + stamp))
        return found, machine.encode()

    def _features(self) -> str:
        """Those of this processor, as remembered, or as LLVM says."""
        return self._isa or host().isa

    def load(self, key: bytes) -> Entry | None:
        """An entry that this processor can run."""
        entry = self._read(key)
        if entry is None or set(entry.needs.split(",")) <= set(self._features().split(",")):
            return entry
        return None

    def keep(self, key: bytes, text: str, image: bytes, durable: bool = True) -> None:
        self._write(key, Entry(text, image, self._features()), durable)

    def refuse(self, key: bytes) -> None:
        if self.store is not None:
            with suppress(OSError, Unsafe):
                self.store.remove(key)

    def _read(self, key: bytes) -> Entry | None:
        if self.store is None:
            return None
        try:
            return self.store.read(key)
        except Unsafe as error:
            self._stop(str(error), warn=True)
        except OSError:  # no cache just now
            pass
        return None

    def _write(self, key: bytes, entry: Entry, durable: bool = True) -> None:
        if self.store is None:
            return
        try:
            self.store.write(key, entry, durable)
        except Unsafe as error:
            self._stop(str(error), warn=True)
        except OSError:  # a full disk, or one that is read-only
            pass

    def info(self) -> CacheInfo:
        """An unsafe folder is looked at, too: that is how it is found."""
        entries = total = 0
        store, reason = self.store, ""
        if store is not None:
            try:
                entries, total = store.usage()
            except Unsafe as error:
                self._stop(str(error), warn=True)
            except OSError as error:
                reason = f"{store.path} cannot be read: {error.strerror}"
        where, limit = ("", 0) if store is None else (store.path, store.limit)
        reason = reason or self.reason
        return CacheInfo(where, reason, self.hits, self.misses, entries, total, limit)


class _Off(Exception):
    """There is no cache; the message says why."""


def _disk() -> Disk:
    return _disk_for(tuple([os.environ.get(name, "") for name in _VARIABLES]))


@lru_cache(maxsize=8)
def _disk_for(environment: tuple[str, ...]) -> Disk:
    return Disk(environment)


def _folder(environment: tuple[str, ...]) -> str:
    folder, xdg, _, _ = environment
    if folder.lower() == OFF:
        raise _Off("GRAPHC_CACHE_DIR is off")
    if not SUPPORTED:
        raise _Off("files have no owners on this system")
    if _has_more_rights():
        raise _Off("this program has rights that its caller has not")
    if not folder:
        folder = os.path.join(xdg if os.path.isabs(xdg) else "~/.cache", "graphc")
    path = os.path.expanduser(folder)
    if path.startswith("~"):
        raise _Off("there is no home folder")
    return os.path.abspath(path)


def _has_more_rights() -> bool:
    """Was this program given another user's rights? Then the environment is not its own."""
    if os.getuid() != os.geteuid() or os.getgid() != os.getegid():
        return True
    try:
        return bool(ctypes.pythonapi.getauxval(ctypes.c_ulong(_AT_SECURE)))
    except AttributeError:
        return False


def _secret(name: str) -> bytes:
    """What entries are signed with: nothing, or what is in a file that only this user can read."""
    if not name:
        return b""
    path = os.path.abspath(os.path.expanduser(name))
    check_around(path)
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise Unsafe(f"{path} is no plain file of this user")
        if found.st_mode & 0o077:
            raise Unsafe(f"{path} is open to others (its mode is {found.st_mode & 0o777:o})")
        raw = os.read(file, 1 << 16)
    finally:
        os.close(file)
    if len(raw) < LEAST_SECRET:
        raise Unsafe(f"{path} has fewer than {LEAST_SECRET} bytes")
    return blake2b(raw, digest_size=32, person=b"graphc").digest()
