"""Every example runs as its reader would run it; what it claims, it asserts itself."""

from __future__ import annotations

import doctest
import os
import re
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


@pytest.mark.parametrize("page", ["README.md", "docs/numerics.md"])
def test_sessions_on_a_page_give_what_it_says(page: str) -> None:
    failed, tried = doctest.testfile(str(ROOT / page), module_relative=False)
    assert tried and not failed


def test_tables_in_the_docs_are_the_registrys() -> None:
    command = [sys.executable, "docs/make_tables.py", "--check"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", ["README.md", "docs/architecture.md", "docs/numerics.md"])
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (path.parent / link).exists()] == []
