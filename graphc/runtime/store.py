"""The files of the cache: one for each entry, written whole, read whole, verified before use.

In:   a folder; keys of 32 bytes, and an `Entry` for each.
Out:  the entry that was written under a key, to the bit; else None.
Invariant: nothing but bytes is made from what a file holds, and none of them before a digest over
all of them, the key included, was found right. What is wrong is removed and counts as absent. Only
the user whose process this is may write to the folder, or it is `Unsafe` and not used.

    8 bytes   the form's name and version
    32        the key
    4, 4, 8   bytes of `needs`, `text` and `data`, which follow
    32        BLAKE2b of all of this, keyed with a secret if there is one

A file is named by its key. It is written under another name, which no other writer has, and
renamed when all of it is there; so readers see nothing half-written, and of two writers the later
one wins. There are no locks.

>>> key = bytes(range(32))
>>> raw = pack(key, Entry("half x", b"code", "+avx2"))
>>> unpack(raw, key)
Entry(text='half x', data=b'code', needs='+avx2')
>>> unpack(raw[:-1] + b"!", key)
Traceback (most recent call last):
graphc.runtime.store.Damaged: its digest is another
"""

from __future__ import annotations

import errno
import os
import re
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

try:  # where `hashlib` has it from, which loads OpenSSL, too: 3 ms
    from _blake2 import blake2b
except ImportError:
    from hashlib import blake2b

FORM = b"graphc\x00\x01"
_HEAD = struct.Struct("<8s32sIIQ")
KEY_BYTES = DIGEST_BYTES = 32
MOST_BYTES = 64 << 20  # of one file
LIMIT = 256 << 20  # of all files together, give or take one part in 64
KEPT = 0.75  # of the limit, when files have to go
FRESH = 3600.0  # seconds in which a file that is used stays as new as it is
ABANDONED = 3600.0  # seconds after which nobody finishes a file that was begun
_ENTRY = re.compile(r"([0-9a-f]{64})\.graphc")
_BEGUN = re.compile(r"\.[0-9]+-[0-9a-f]{16}\.tmp")
# Has this system owners, modes, and files named relative to an open folder?
SUPPORTED = (
    hasattr(os, "geteuid")
    and hasattr(os, "O_NOFOLLOW")
    and {os.open, os.stat, os.unlink, os.rename, os.rmdir} <= os.supports_dir_fd
)
_NO_FILE = (errno.ELOOP, errno.ENXIO)  # a link, and a socket or a pipe, where a file should be


class Damaged(Exception):
    """A file that is no entry; the message says why."""


class Unsafe(Exception):
    """A folder that others may write to, or that is not what it seems; the message says which."""


@dataclass(frozen=True)
class Entry:
    """What is kept: a text, machine code or nothing, and the features of a processor it needs."""

    text: str
    data: bytes = b""
    needs: str = ""


@dataclass(frozen=True)
class Found:
    """A file of the cache, for people: `problem` is empty where it is sound."""

    name: str
    size: int
    entry: Entry | None
    problem: str = ""


# -- one entry as bytes ----------------------------------------------------------------------------


def pack(key: bytes, entry: Entry, secret: bytes = b"") -> bytes:
    """An entry as the bytes of a file."""
    needs, text = entry.needs.encode(), entry.text.encode()
    head = _HEAD.pack(FORM, key, len(needs), len(text), len(entry.data))
    body = b"".join((head, needs, text, entry.data))
    return body + _digest(body, secret)


def unpack(raw: bytes, key: bytes, secret: bytes = b"") -> Entry:
    """The entry that the bytes of a file hold under this key; `Damaged` where they hold none."""
    if len(raw) < _HEAD.size + DIGEST_BYTES:
        raise Damaged("it is too short")
    form, own_key, needs, text, data = _HEAD.unpack_from(raw)
    if form != FORM:
        raise Damaged("it is of another form")
    if own_key != key:
        raise Damaged("it has another key")
    ends = _HEAD.size + needs, _HEAD.size + needs + text, _HEAD.size + needs + text + data
    if ends[2] + DIGEST_BYTES != len(raw):
        raise Damaged("its parts do not add up")
    if _digest(memoryview(raw)[: ends[2]], secret) != raw[ends[2] :]:
        raise Damaged("its digest is another")
    return Entry(
        str(raw[ends[0] : ends[1]], "utf-8"),
        raw[ends[1] : ends[2]],
        str(raw[_HEAD.size : ends[0]], "utf-8"),
    )


def _digest(body: bytes | memoryview, secret: bytes) -> bytes:
    return blake2b(body, digest_size=DIGEST_BYTES, key=secret).digest()


# -- the folder ------------------------------------------------------------------------------------


def _open_folder(path: str, create: bool) -> int:
    """A descriptor of the folder, whose owner and mode were looked at through it."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        folder = os.open(path, flags)
    except FileNotFoundError:
        if not create:
            raise
        _make(path)
        folder = os.open(path, flags)
    except NotADirectoryError:
        raise Unsafe(f"{path} is a link or a file, not a folder") from None
    try:
        found = os.fstat(folder)
        if found.st_uid != os.geteuid():
            raise Unsafe(f"{path} belongs to another user")
        if found.st_mode & 0o077:
            raise Unsafe(f"{path} is open to others (its mode is {found.st_mode & 0o777:o})")
    except BaseException:
        os.close(folder)
        raise
    return folder


def _make(path: str) -> None:
    """The folder, and those around it, for this user alone; but not in another user's folder."""
    missing = []
    while not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path)
    found = os.stat(path)
    if found.st_uid != os.geteuid() and not found.st_mode & stat.S_ISVTX:
        raise PermissionError(errno.EACCES, "belongs to another user", path)
    for name in reversed(missing):
        with suppress(FileExistsError):
            os.mkdir(name, 0o700)


def check_around(path: str) -> None:
    """No folder around this one may be written to by others, unless they can only add to it."""
    around = os.path.realpath(os.path.dirname(path))
    while True:
        with suppress(FileNotFoundError):
            mode = os.stat(around).st_mode
            if mode & 0o022 and not mode & stat.S_ISVTX:
                raise Unsafe(f"others may write to {around} (its mode is {mode & 0o777:o})")
        if around == os.path.dirname(around):
            return
        around = os.path.dirname(around)


class Store:
    """The entries in a folder. An OSError means that there is no cache just now."""

    def __init__(self, path: str, secret: bytes = b"", limit: int = LIMIT) -> None:
        self.path, self.secret, self.limit = path, secret, limit
        self._checked = False

    @contextmanager
    def _folder(self, create: bool = False) -> Iterator[int]:
        if not self._checked:
            check_around(self.path)
            self._checked = True
        folder = _open_folder(self.path, create)
        try:
            yield folder
        finally:
            os.close(folder)

    def read(self, key: bytes) -> Entry | None:
        """The entry under a key. A damaged one is removed."""
        name = f"{key.hex()}.graphc"
        try:
            with self._folder() as folder:
                try:
                    return unpack(_read(folder, name), key, self.secret)
                except (Damaged, UnicodeDecodeError):
                    _remove(folder, name)
                    return None
        except FileNotFoundError:
            return None

    def write(self, key: bytes, entry: Entry, durable: bool = True) -> bool:
        """Keep an entry; False where it is too large.

        One that is not `durable` may be cut off where the system dies, and is then a miss; but
        nobody waits for the disk.
        """
        raw = pack(key, entry, self.secret)
        if len(raw) > min(MOST_BYTES, self.limit):
            return False
        with self._folder(create=True) as folder:
            _write(folder, f"{key.hex()}.graphc", raw, durable)
            if self._is_turn(key, len(raw)):
                self._make_room(folder)
        return True

    def remove(self, key: bytes) -> None:
        """Forget an entry."""
        with self._folder() as folder:
            _remove(folder, f"{key.hex()}.graphc")

    def _is_turn(self, key: bytes, size: int) -> bool:
        """Look at all files about once for each 64th of the limit that is written.

        Keys are as good as drawn by chance, so nobody has to count.
        """
        return int.from_bytes(key[:4], "little") < (size * 64 << 32) // self.limit

    def _make_room(self, folder: int) -> None:
        """Files that were not used for longest go, and those that nobody finishes."""
        now = time.time()
        files = []
        for item, found in _files(folder):
            if _ENTRY.fullmatch(item.name):
                files.append((found.st_mtime, found.st_size, item.name))
            elif now - found.st_mtime > ABANDONED:
                _remove(folder, item.name)
        total = sum(size for _, size, _ in files)
        if total > self.limit:
            for _, size, name in sorted(files):
                if total <= KEPT * self.limit:
                    break
                _remove(folder, name)
                total -= size

    # -- for people --------------------------------------------------------------------------------

    def usage(self) -> tuple[int, int]:
        """How many entries there are, and their bytes."""
        try:
            with self._folder() as folder:
                sizes = [s.st_size for f, s in _files(folder) if _ENTRY.fullmatch(f.name)]
        except FileNotFoundError:
            return 0, 0
        return len(sizes), sum(sizes)

    def clear(self) -> tuple[int, int]:
        """Remove all files of the cache, and no others; how many, and their bytes."""
        count = total = 0
        try:
            with self._folder() as folder:
                for item, found in list(_files(folder)):
                    if _remove(folder, item.name):
                        count, total = count + 1, total + found.st_size
        except FileNotFoundError:
            pass
        return count, total

    def every(self) -> Iterator[Found]:
        """Every entry, read and verified, in the order of names. Nothing is removed."""
        try:
            with self._folder() as folder:
                files = [(f.name, s.st_size) for f, s in _files(folder)]
                for name, size in sorted(files):
                    match = _ENTRY.fullmatch(name)
                    if match:
                        yield self._found(folder, name, size, bytes.fromhex(match[1]))
        except FileNotFoundError:
            return

    def _found(self, folder: int, name: str, size: int, key: bytes) -> Found:
        try:
            return Found(name, size, unpack(_read(folder, name), key, self.secret))
        except (Damaged, UnicodeDecodeError) as error:
            return Found(name, size, None, str(error))
        except OSError as error:
            return Found(name, size, None, f"it cannot be read: {error.strerror}")


# -- files in an open folder -----------------------------------------------------------------------


def _files(folder: int) -> Iterator[tuple[os.DirEntry[str], os.stat_result]]:
    """The files whose names only the cache gives; some may go meanwhile."""
    with os.scandir(folder) as items:
        for item in items:
            if _ENTRY.fullmatch(item.name) or _BEGUN.fullmatch(item.name):
                with suppress(FileNotFoundError):
                    yield item, item.stat(follow_symlinks=False)


def _read(folder: int, name: str) -> bytes:
    """All of a plain file of this user's that no other may change."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        file = os.open(name, flags, dir_fd=folder)
    except OSError as error:
        if error.errno in _NO_FILE:
            raise Damaged("it is no plain file") from None
        raise
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise Damaged("it is no plain file")
        if found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise Damaged("others may write to it")
        if found.st_size > MOST_BYTES:
            raise Damaged("it is too long")
        raw = _read_all(file, found.st_size)
        if time.time() - found.st_mtime > FRESH:
            with suppress(OSError):
                os.utime(file)  # the last to be used are the last to go
        return raw
    finally:
        os.close(file)


def _read_all(file: int, size: int) -> bytes:
    raw = os.read(file, size)
    while len(raw) < size:
        more = os.read(file, size - len(raw))
        if not more:
            raise Damaged("it became shorter")
        raw += more
    return raw


def _write(folder: int, name: str, raw: bytes, durable: bool) -> None:
    """A file under this name, in one step."""
    temporary = f".{os.getpid()}-{os.urandom(8).hex()}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(temporary, flags, 0o600, dir_fd=folder)
    try:
        try:
            rest = memoryview(raw)
            while rest:
                rest = rest[os.write(file, rest) :]
            if durable:
                os.fsync(file)
        finally:
            os.close(file)
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        _remove(folder, temporary)
        raise


def _remove(folder: int, name: str) -> bool:
    """Whatever has that name, if it can be removed."""
    try:
        os.unlink(name, dir_fd=folder)
    except (IsADirectoryError, PermissionError):
        with suppress(OSError):
            os.rmdir(name, dir_fd=folder)
            return True
        return False
    except OSError:
        return False
    return True


__all__ = [
    "SUPPORTED", "Damaged", "Entry", "Found", "Store", "Unsafe", "blake2b", "check_around", "pack",
    "unpack",
]  # fmt: skip
