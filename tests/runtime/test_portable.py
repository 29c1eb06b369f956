"""The tests of calls once more, in a process where no call is native."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = ("entries", "bound", "outputs", "sizes", "hostile", "arguments")
SLOW = "not ten_thousand and not leaked and not while_they_run"


def test_all_goes_through_python():
    files = [f"tests/runtime/test_{name}.py" for name in FILES]
    options = ["-p", "tests.portable", "-p", "no:cacheprovider", "-k", SLOW]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rs", *options, *files],
        capture_output=True, text=True, cwd=ROOT, timeout=300,
        env={**os.environ, "PYTEST_ADDOPTS": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no native calls here" in done.stdout  # as nothing is native
