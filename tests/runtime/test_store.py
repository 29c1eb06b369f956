"""The cache's files: what was not written so is found out before use, whoever wrote it, whatever
happened meanwhile.
"""

import errno
import os
import pickle
import random
import resource
import signal
import socket
import stat
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from graphc.runtime import store
from graphc.runtime.store import Damaged, Entry, Store, Unsafe, check_around, pack, unpack

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
ENTRY = Entry("half x", b"\x7fELF code", "avx2,fma")
ROOT = Path(store.__file__).parents[2]


@pytest.fixture
def kept(tmp_path):
    """A store with two entries."""
    made = Store(str(tmp_path / "graphc"))
    assert made.write(KEY, ENTRY) and made.write(OTHER, Entry("other", b"another"))
    return made


def path_of(kept, key=KEY):
    return Path(kept.path) / f"{key.hex()}.graphc"


def names(kept):
    return sorted(os.listdir(kept.path))


# -- one entry -------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", [b"", b"secret"])
def test_every_flipped_byte_and_every_truncation_is_found(secret):
    raw = pack(KEY, ENTRY, secret)
    assert unpack(raw, KEY, secret) == ENTRY
    for at in range(len(raw)):
        for flip in (0x01, 0x80, 0xFF):
            with pytest.raises(Damaged):
                unpack(raw[:at] + bytes([raw[at] ^ flip]) + raw[at + 1 :], KEY, secret)
        with pytest.raises(Damaged):
            unpack(raw[:at], KEY, secret)
        with pytest.raises(Damaged):
            unpack(raw[:at] + raw[at + 1 :], KEY, secret)
    for more in (b"\x00", raw):
        with pytest.raises(Damaged):
            unpack(raw + more, KEY, secret)


def test_random_bytes_are_no_entry():
    rng = random.Random(0)
    raw = pack(KEY, ENTRY)
    for _ in range(2000):
        length = rng.randrange(2 * len(raw))
        with pytest.raises(Damaged):
            unpack(raw[: rng.randrange(len(raw))] + rng.randbytes(length), KEY)


def test_only_who_has_the_secret_signs():
    for wrote, reads in ((b"", b"secret"), (b"secret", b""), (b"secret", b"Secret")):
        with pytest.raises(Damaged, match="digest"):
            unpack(pack(KEY, ENTRY, wrote), KEY, reads)


# -- files -----------------------------------------------------------------------------------------


def test_what_is_written_is_read(kept):
    assert kept.read(KEY) == ENTRY
    assert kept.read(OTHER) == Entry("other", b"another")
    assert kept.read(bytes(32)) is None
    assert stat.S_IMODE(os.stat(kept.path).st_mode) == 0o700
    assert stat.S_IMODE(path_of(kept).stat().st_mode) == 0o600
    assert names(kept) == sorted([path_of(kept).name, path_of(kept, OTHER).name])
    assert kept.usage() == (2, sum(p.stat().st_size for p in Path(kept.path).iterdir()))
    kept.remove(KEY)
    assert kept.read(KEY) is None and kept.usage()[0] == 1


def test_damage_is_removed(kept):
    raw = path_of(kept).read_bytes()
    for at in range(0, len(raw), 3):
        path_of(kept).write_bytes(raw[:at] + bytes([raw[at] ^ 4]) + raw[at + 1 :])
        assert kept.read(KEY) is None
        assert names(kept) == [path_of(kept, OTHER).name]
        assert kept.read(KEY) is None
        kept.write(KEY, ENTRY)
        assert kept.read(KEY) == ENTRY


class Touched(Exception):
    """What an attacker's pickle would run."""

    def __reduce__(self):
        return os.mkdir, (str(self.args[0]),)


def listening(path):
    with socket.socket(socket.AF_UNIX) as s:
        before = os.getcwd()
        os.chdir(path.parent)  # paths of sockets are short
        try:
            s.bind(path.name)
        finally:
            os.chdir(before)


def in_place_of(path, make):
    path.unlink()
    make()


def header(*lengths):
    raw = store._HEAD.pack(store.FORM, KEY, *lengths)
    return raw + ENTRY.text.encode() + b"x" * 64


ATTACKS = {  # each gets the entry's path, another entry's, and a folder of its own
    "a pickle": lambda p, q, own: p.write_bytes(pickle.dumps(Touched(own / "touched"))),
    "a pickle with a header": lambda p, q, own: p.write_bytes(
        header(8, 8, 8) + pickle.dumps(Touched(own / "touched"))
    ),
    "source": lambda p, q, own: p.write_text(f"import os\nos.mkdir({str(own / 'touched')!r})"),
    "another entry": lambda p, q, own: p.write_bytes(q.read_bytes()),
    "another payload": lambda p, q, own: p.write_bytes(
        p.read_bytes()[: store._HEAD.size] + q.read_bytes()[store._HEAD.size :]
    ),
    "another key inside": lambda p, q, own: p.write_bytes(pack(OTHER, ENTRY)),
    "an older form": lambda p, q, own: p.write_bytes(
        pack(KEY, ENTRY).replace(store.FORM, b"graphc\x00\x00")
    ),
    "a signature": lambda p, q, own: p.write_bytes(pack(KEY, ENTRY, b"attacker")),
    "nothing": lambda p, q, own: p.write_bytes(b""),
    "huge lengths": lambda p, q, own: p.write_bytes(header(2**32 - 1, 2**32 - 1, 2**64 - 1)),
    "lengths that wrap": lambda p, q, own: p.write_bytes(header(6, 0, 2**64 - 6)),
    "a huge file": lambda p, q, own: os.truncate(p, 1 << 40),
    "a link": lambda p, q, own: in_place_of(p, lambda: p.symlink_to(q)),
    "a link to itself": lambda p, q, own: in_place_of(p, lambda: p.symlink_to(p)),
    "a pipe": lambda p, q, own: in_place_of(p, lambda: os.mkfifo(p)),
    "a socket": lambda p, q, own: in_place_of(p, lambda: listening(p)),
    "a folder": lambda p, q, own: in_place_of(p, p.mkdir),
    "open to others": lambda p, q, own: os.chmod(p, 0o666),
    "text that is none": lambda p, q, own: p.write_bytes(
        pack(KEY, ENTRY, b"").replace(b"half x", b"half \xff")
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attack(kept, tmp_path, name):
    own = tmp_path / "own"
    own.mkdir()
    ATTACKS[name](path_of(kept), path_of(kept, OTHER), own)
    (bad,) = [found for found in kept.every() if found.problem]
    assert bad.name == path_of(kept).name and bad.entry is None
    assert kept.read(KEY) is None
    assert not path_of(kept).exists() and not path_of(kept).is_symlink()
    assert kept.write(KEY, ENTRY) and kept.read(KEY) == ENTRY
    assert kept.read(OTHER) == Entry("other", b"another")
    assert not list(own.iterdir())


def test_a_folder_that_cannot_be_removed(kept):
    path_of(kept).unlink()
    path_of(kept).mkdir()
    (path_of(kept) / "file").write_text("not ours")
    assert kept.read(KEY) is None
    with pytest.raises(OSError):
        kept.write(KEY, ENTRY)
    assert names(kept) == sorted([path_of(kept).name, path_of(kept, OTHER).name])


def test_a_text_that_is_no_text(kept):
    """Even under the right digest."""
    raw = bytearray(pack(KEY, ENTRY))
    at = raw.index(b"half x")
    raw[at] = 0xFF
    raw[-32:] = store._digest(bytes(raw[:-32]), b"")
    path_of(kept).write_bytes(raw)
    assert kept.read(KEY) is None and not path_of(kept).exists()


# -- whose folder ----------------------------------------------------------------------------------


def test_an_open_folder(kept):
    for mode in (0o701, 0o710, 0o770, 0o707, 0o755, 0o777):
        os.chmod(kept.path, mode)
        for use in (kept.usage, lambda: kept.read(KEY), lambda: kept.write(KEY, ENTRY)):
            with pytest.raises(Unsafe, match=f"{mode:o}"):
                use()
    os.chmod(kept.path, 0o700)
    assert kept.read(KEY) == ENTRY


def test_another_users(kept, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(Unsafe, match="another user"):
        kept.read(KEY)


def test_an_entry_of_another_user(kept, monkeypatch):
    real = os.fstat
    own = os.stat(kept.path).st_ino

    def fstat(file):
        found = real(file)
        if found.st_ino == own:
            return found
        return os.stat_result([*found[:4], found.st_uid + 1, *found[5:]])

    monkeypatch.setattr(os, "fstat", fstat)
    assert kept.read(KEY) is None and not path_of(kept).exists()


@pytest.mark.parametrize("what", ["link", "file"])
def test_no_folder(tmp_path, kept, what):
    at = tmp_path / what
    at.symlink_to(kept.path) if what == "link" else at.write_text("")
    with pytest.raises(Unsafe, match="a link or a file"):
        Store(str(at)).read(KEY)
    with pytest.raises(Unsafe):
        Store(str(at)).write(KEY, ENTRY)


def test_folders_around(tmp_path):
    for mode, safe in (
        (0o777, False),
        (0o775, False),
        (0o757, False),
        (0o1777, True),
        (0o755, True),
    ):
        around = tmp_path / f"{mode:o}"
        around.mkdir()
        os.chmod(around, mode)
        made = Store(str(around / "in" / "graphc"))
        if safe:
            assert made.write(KEY, ENTRY) and made.read(KEY) == ENTRY
            assert stat.S_IMODE((around / "in").stat().st_mode) == 0o700
        else:
            with pytest.raises(Unsafe, match=f"{mode:o}"):
                made.read(KEY)
            with pytest.raises(Unsafe, match=f"{mode:o}"):
                made.write(KEY, ENTRY)
            assert not list(around.iterdir())


def test_folders_around_behind_a_link(tmp_path):
    behind = tmp_path / "open" / "graphc"
    behind.mkdir(parents=True)
    os.chmod(tmp_path / "open", 0o777)
    (tmp_path / "link").symlink_to(tmp_path / "open")
    with pytest.raises(Unsafe, match="open"):
        check_around(str(tmp_path / "link" / "graphc"))


def test_nothing_is_made_in_another_users_folder(tmp_path, monkeypatch):
    made = Store(str(tmp_path / "deep" / "graphc"))
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(PermissionError):
        made.write(KEY, ENTRY)
    assert not list(tmp_path.iterdir())


def test_the_mask_for_new_files_does_not_matter(tmp_path):
    before = os.umask(0)
    try:
        made = Store(str(tmp_path / "a" / "b"))
        assert made.write(KEY, ENTRY) and made.read(KEY) == ENTRY
    finally:
        os.umask(before)


# -- disks that fail -------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT])
def test_a_full_or_broken_disk(kept, monkeypatch, call, number):
    """The entry that is there stays, and nothing is left behind."""
    real = getattr(os, call)

    def fails(*arguments, **more):
        if call != "open" or arguments[1] & os.O_CREAT:
            raise OSError(number, os.strerror(number))
        return real(*arguments, **more)

    before = names(kept)
    with monkeypatch.context() as patched:
        patched.setattr(os, call, fails)
        with pytest.raises(OSError, match=os.strerror(number)):
            kept.write(KEY, Entry("new"))
    assert names(kept) == before and kept.read(KEY) == ENTRY


def test_a_disk_that_is_full_in_the_middle(kept):
    """A real limit of the system's, in a child."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
            try:
                kept.write(KEY, Entry("new", bytes(100_000)))
            except OSError as error:
                status = 0 if error.errno == errno.EFBIG else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert len(names(kept)) == 2 and kept.read(KEY) == ENTRY


def test_a_folder_that_may_only_be_read(kept):
    """As a user to whom modes apply."""
    os.chmod(kept.path, 0o500)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if os.geteuid() == 0:
                for path in (kept.path, path_of(kept)):
                    os.chown(path, 65534, 65534)
                folder = os.open(kept.path, os.O_RDONLY)
                os.setgroups([])
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
                store._open_folder = lambda path, create: os.dup(folder)
                store.check_around = lambda path: None
            read = kept.read(KEY) == ENTRY
            try:
                kept.write(KEY, ENTRY)
            except PermissionError:
                status = 0 if read else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    os.chmod(kept.path, 0o700)


def test_a_folder_that_vanishes(kept):
    for path in Path(kept.path).iterdir():
        path.unlink()
    os.rmdir(kept.path)
    assert kept.read(KEY) is None and kept.usage() == (0, 0) and list(kept.every()) == []
    assert kept.clear() == (0, 0)
    assert kept.write(KEY, ENTRY) and kept.read(KEY) == ENTRY


# -- how much --------------------------------------------------------------------------------------


def numbered(i):
    return i.to_bytes(4, "big") * 8


def test_those_used_longest_ago_go(tmp_path):
    made = Store(str(tmp_path / "graphc"), limit=1_000_000)
    for i in range(100):
        assert made.write(numbered(i), Entry("", bytes(20_000)))
        os.utime(path_of(made, numbered(i)), (i + 1, i + 1))
        if i >= 2:
            assert made.read(numbered(1)) is not None  # which makes it the newest
    count, total = made.usage()
    assert total <= 1_000_000 and count >= 30
    left = {i for i in range(100) if path_of(made, numbered(i)).exists()}
    assert 1 in left and left - {1} == set(range(100 - len(left) + 1, 100))


def test_the_limit_holds_for_small_entries(tmp_path, monkeypatch):
    """Files are looked at once for each 64th of the limit that is written, on average."""
    monkeypatch.setattr(os, "fsync", lambda file: None)  # which takes most of the time
    made, rng = Store(str(tmp_path / "graphc"), limit=400_000), random.Random(0)
    looked, most = 0, 0
    real = made._make_room

    def look(folder):
        nonlocal looked
        looked += 1
        real(folder)

    made._make_room = look
    for i in range(800):
        made.write(rng.randbytes(32), Entry("", bytes(600)))
        if i % 50 == 0:
            most = max(most, made.usage()[1])
    written = 800 * 710
    assert 0.6 < looked * (400_000 / 64) / written < 1.4
    assert most <= 1.1 * 400_000


def test_what_is_too_large_is_not_kept(tmp_path):
    made = Store(str(tmp_path / "graphc"), limit=1000)
    assert not made.write(KEY, Entry("", bytes(1000)))
    assert made.read(KEY) is None


def test_what_nobody_finishes_goes(kept):
    old, new = Path(kept.path) / f".7-{'ab' * 8}.tmp", Path(kept.path) / f".8-{'cd' * 8}.tmp"
    foreign = Path(kept.path) / "notes.tmp"
    for path in (old, new, foreign):
        path.write_bytes(b"half")
    for path in (old, foreign):
        os.utime(path, (time.time() - 2 * store.ABANDONED,) * 2)
    with kept._folder() as folder:
        kept._make_room(folder)
    assert not old.exists() and new.exists() and foreign.exists()
    assert kept.clear() == (
        3,
        4 + sum(map(len, (pack(KEY, ENTRY), pack(OTHER, Entry("other", b"another"))))),
    )
    assert [p.name for p in Path(kept.path).iterdir()] == ["notes.tmp"]


def test_use_makes_new_at_most_once_an_hour(kept):
    long_ago = time.time() - 3 * store.FRESH
    os.utime(path_of(kept), (long_ago, long_ago))
    kept.read(KEY)
    used = path_of(kept).stat().st_mtime_ns
    assert used > (time.time() - 60) * 1e9
    kept.read(KEY)
    assert path_of(kept).stat().st_mtime_ns == used


# -- several processes -----------------------------------------------------------------------------

PROCESSES = """
import os, random, sys
from contextlib import suppress
from graphc.runtime.store import Entry, Store

path, seed, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
store, rng = Store(path, limit=300_000), random.Random(seed)

def key(i):
    return bytes([i]) * 32

def entry(i):
    return Entry(f"entry {i}", bytes([i]) * (1 + 977 * i), "avx2")

hits = 0
for _ in range(rounds):
    i = rng.randrange(40)
    what = rng.random()
    if what < 0.5:
        found = store.read(key(i))
        assert found is None or found == entry(i), i
        hits += found is not None
    elif what < 0.9:
        with suppress(FileNotFoundError):  # another's `clear` took the file that was begun
            store.write(key(i), entry(i))
    elif what < 0.98:
        store.remove(key(i))
    elif what < 0.995:
        assert not [f for f in store.every() if f.problem and "cannot be read" not in f.problem]
    else:
        store.clear()
assert hits
"""


@contextmanager
def python(code, *arguments):
    """A child whose errors are shown if it fails."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as child:
        yield child
        _, said = child.communicate(timeout=300)
        assert child.returncode == 0, said


def test_sixteen_processes(tmp_path):
    """They read, write and remove the same entries; nobody reads anything but what was written."""
    with ExitStack() as children:
        for seed in range(16):
            children.enter_context(python(PROCESSES, tmp_path / "graphc", seed, 120))
    made = Store(str(tmp_path / "graphc"))
    assert not [f for f in made.every() if f.problem]
    assert all(store._ENTRY.fullmatch(name) for name in names(made))


KILLED = """
import os, random, signal, sys, time
from graphc.runtime.store import Entry, Store

store, rng, kills = Store(sys.argv[1]), random.Random(0), int(sys.argv[2])

def key(i):
    return bytes([i]) * 32

def entry(i):
    return Entry(f"entry {i}", bytes([i]) * (200_000 + i))

def write_on(tell):
    i = os.getpid() % 7
    while True:
        store.write(key(i), entry(i))
        os.write(tell, b".")
        i = (i + 1) % 7

found = 0
for _ in range(kills):
    listen, tell = os.pipe()
    child = os.fork()
    if child == 0:
        write_on(tell)
    os.read(listen, 1)  # it is under way
    time.sleep(rng.random() * 0.004)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(listen)
    os.close(tell)
    for i in range(7):
        read = store.read(key(i))
        assert read is None or read == entry(i), i
        found += read is not None
begun = sum(name.endswith(".tmp") for name in os.listdir(sys.argv[1]))
assert found > kills and begun > 0, (found, begun)
assert not [f for f in store.every() if f.problem]
"""


@pytest.mark.parametrize(
    "kills", [60, pytest.param(1000, marks=pytest.mark.long)], ids=["60", "1000"]
)
def test_killed_writers(tmp_path, kills):
    """At any instant: no half entry is ever read, nobody waits for the dead, their files go."""
    with python(KILLED, tmp_path / "graphc", kills):
        pass
    made = Store(str(tmp_path / "graphc"))
    for path in Path(made.path).iterdir():
        os.utime(path, (1, 1))
    with made._folder() as folder:
        made._make_room(folder)
    assert all(store._ENTRY.fullmatch(name) for name in names(made))
