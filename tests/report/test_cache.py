"""graphc cache: what it says, what it removes, and its exit codes."""

import os
from pathlib import Path

import numpy as np
import pytest

import graphc
from graphc.cli import main
from graphc.runtime.store import Entry, Store
from tests.models import by_hand


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def command(capsys):
    def run(*arguments):
        try:
            code = main(["cache", *arguments])
        except SystemExit as stop:  # argparse
            code = stop.code
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def filled(folder):
    graphc.compile(by_hand)(np.ones(3), np.ones(3))
    return folder


def test_info(command, filled):
    count, size = Store(str(filled)).usage()
    code, out, err = command("info")
    assert code == 0 and err == "" and count >= 1
    head, row, used = (line.split() for line in out.splitlines())
    assert head == ["folder", "entries", "bytes", "at", "most"] and used == ["used"]
    assert row == [str(filled), f"{count:,}", f"{size:,}", "268,435,456"]


def test_info_before_anything_was_kept(command, folder):
    code, out, _ = command("info")
    assert code == 0 and out.splitlines()[1].split()[1:3] == ["0", "0"] and not folder.exists()


def test_clear(command, filled):
    (filled / "notes.txt").write_text("not the cache's")
    count, size = Store(str(filled)).usage()
    said = f"removed {count:,} files of {size:,} bytes from {filled}\n"
    assert command("clear") == (0, said, "")
    assert os.listdir(filled) == ["notes.txt"]
    assert command("clear") == (0, f"removed 0 files of 0 bytes from {filled}\n", "")


def test_verify(command, filled):
    count, _ = Store(str(filled)).usage()
    assert command("verify") == (0, f"0 of {count} entries are damaged\n", "")
    first, second = bytes(32), bytes([1]) * 32
    store = Store(str(filled))
    store.write(first, Entry("manifest", b"code"))
    store.write(second, Entry("routines x", b"code"))
    damaged = filled / f"{second.hex()}.graphc"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    code, out, err = command("verify")
    assert code == 1 and err == "" and len(out.splitlines()) == 4
    assert f"2 of {count + 2} entries are damaged" in out
    assert f"{second.hex()}.graphc" in out and "its digest is another" in out
    assert f"{first.hex()}.graphc" in out and "not a manifest" in out
    assert damaged.exists()  # it only looks


@pytest.mark.parametrize("action", ["clear", "verify"])
def test_no_cache_is_an_error_of_one_line(command, monkeypatch, action):
    monkeypatch.setenv("GRAPHC_CACHE_DIR", "off")
    code, out, err = command(action)
    assert code == 2 and out == "" and err.count("\n") == 1
    assert err.startswith("graphc: ") and "GRAPHC_CACHE_DIR is off" in err
    assert command("info") == (0, "not used: GRAPHC_CACHE_DIR is off\n", "")


@pytest.mark.parametrize("action", ["clear", "verify"])
def test_an_unsafe_folder_is_left_as_it_is(command, filled, action):
    os.chmod(filled, 0o777)
    before = os.listdir(filled)
    code, out, err = command(action)
    assert code == 2 and out == "" and err.count("\n") == 1 and "open to others" in err
    assert os.listdir(filled) == before


def test_a_folder_that_cannot_be_read(command, folder, monkeypatch):
    folder.mkdir(mode=0o700)

    def fails(*arguments, **more):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", fails)
    for action in ("clear", "verify"):
        code, out, err = command(action)
        assert code == 2 and out == "" and err.count("\n") == 1 and "Permission denied" in err


def test_what_is_no_action(command):
    for arguments in ((), ("burn",)):
        code, out, err = command(*arguments)
        assert code == 2 and out == "" and err.count("\n") == 1 and "graphc cache --help" in err


def test_it_is_listed(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "cache" in capsys.readouterr().out
    assert Path(graphc.__file__).parent.joinpath("report", "cache.py").is_file()
