"""Files, written whole or not at all, and never through a link.

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     path = write(Path(folder) / "a.txt", b"all of it")
...     path.read_bytes()
b'all of it'
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graphc.errors import CompileError


def write(path: Path, data: bytes) -> Path:
    """Put a file in place in one step."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)
    return path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file in the same folder that becomes `path` when all went well."""
    check_replaceable(path)
    try:
        handle, name = tempfile.mkstemp(prefix=".graphc-", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise CompileError(f"cannot write {path}: {error.strerror}") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, (0o777 if path.suffix == ".so" else 0o666) & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def check_replaceable(path: Path) -> None:
    """Only a regular file may be replaced: no link, folder, pipe or device."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise CompileError(f"cannot write {path}: {error.strerror}") from error
    if not stat.S_ISREG(mode):
        kind = (
            "a symbolic link"
            if stat.S_ISLNK(mode)
            else "a folder"
            if stat.S_ISDIR(mode)
            else "no regular file"
        )
        raise CompileError(
            f"{path} is {kind} and is left as it is: remove it, or choose another path"
        )


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
