"""What all tables share: the machine, numbers as text, Markdown, JSON."""

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import llvmlite
import numpy as np
from rich.console import Console

import graphc


def machine() -> str:
    """The processor and the versions that the figures belong to."""
    ours = f"graphc {graphc.__version__}, llvmlite {llvmlite.__version__}"
    theirs = f"NumPy {np.__version__}, Python {platform.python_version()}"
    return f"{_processor()}, {_cores()} cores; {ours}; {theirs}"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds >= 1e-3:
        return f"{seconds * 1e3:.2f} ms"
    return f"{seconds * 1e6:.{1 if seconds < 1e-4 else 0}f} us"


def amount(size: float | None) -> str:
    if size is None:
        return ""
    return f"{size / 1e6:.1f} MB" if abs(size) >= 1e6 else f"{size / 1e3:.1f} kB"


def number(x: float | None, digits: int = 2) -> str:
    return "" if x is None else f"{x:.{digits}f}"


def print_rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """As Markdown; the first column is text, and the second, too, where there are just two."""
    print(f"| {' | '.join(head)} |")
    print(f"| --- |{' ---: |' * (len(head) - 1) if len(head) > 2 else ' --- |'}")
    for cells in rows:
        print(f"| {' | '.join(cells)} |")


def console() -> Console:
    return Console(width=None if Console().is_terminal else 200)


def write_json(path: str, found: dict[str, object]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(found, indent=2) + "\n")
