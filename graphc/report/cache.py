"""The cache on disk, for people: what it holds, whether all of it is sound, and an end of it.

In:   the folder that the environment names.
Out:  tables and lines; files are removed by `clear` alone.
Invariant: what stands in the folder and is not the cache's is left as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from graphc.errors import CompileError, FormatError
from graphc.runtime.cache import cache_info, disk_store
from graphc.runtime.manifest import parse_manifest
from graphc.runtime.store import Found, Store, Unsafe


@dataclass(frozen=True)
class Answer:
    """What a command says: a table, a line, and whether all is well."""

    text: str
    head: tuple[str, ...] = ()
    rows: Sequence[tuple[str, ...]] = ()
    code: int = 0


def info() -> Answer:
    """Where the cache is, and what it holds."""
    found = cache_info()
    text = f"not used: {found.reason}" if found.reason else "used"
    if not found.directory:
        return Answer(text)
    counts = (f"{found.entries:,}", f"{found.bytes:,}", f"{found.limit:,}")
    return Answer(text, ("folder", "entries", "bytes", "at most"), [(found.directory, *counts)])


def clear() -> Answer:
    """Remove every entry."""
    with _opened() as store:
        count, size = store.clear()
        return Answer(f"removed {count:,} files of {size:,} bytes from {store.path}")


def verify() -> Answer:
    """Read every entry; lists those that are not sound."""
    with _opened() as store:
        problems = [(found, _problem(found)) for found in store.every()]
    bad = [(f.name, f"{f.size:,}", problem) for f, problem in problems if problem]
    text = f"{len(bad):,} of {len(problems):,} entries are damaged"
    return Answer(text, ("file", "bytes", "what is wrong"), bad, int(bool(bad)))


def _problem(found: Found) -> str:
    if found.entry is not None and found.entry.text.startswith("manifest"):
        try:
            parse_manifest(found.entry.text)
        except FormatError as error:
            return str(error)
    return found.problem


@contextmanager
def _opened() -> Iterator[Store]:
    """The files; a CompileError where they cannot be looked at."""
    store = disk_store()
    try:
        yield store
    except Unsafe as error:
        raise CompileError(f"the cache is not used: {error}") from error
    except OSError as error:
        raise CompileError(f"{store.path} cannot be used: {error.strerror}") from error


ACTIONS = {"info": info, "clear": clear, "verify": verify}
