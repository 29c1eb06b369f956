"""Every example runs as its reader would run it; what it claims, it asserts itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted(p.stem for p in (ROOT / "examples").glob("*.py"))


def run_example(name: str) -> str:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-W", "error", f"examples/{name}.py"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", [n for n in EXAMPLES if n != "digits"])
def test_example_runs_and_prints(name: str) -> None:
    assert run_example(name).strip()


def test_digits_learns_and_draws() -> None:
    pytest.importorskip("matplotlib")
    picture = ROOT / "examples" / "out" / "digits.png"
    picture.unlink(missing_ok=True)
    printed = run_example("digits")
    for part in ("Held-out images read correctly", "kernels", "bytes saved", "the ratio is"):
        assert part in printed
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert len(EXAMPLES) >= 7
