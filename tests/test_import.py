"""What `import graphc` loads, and which names it has."""

from __future__ import annotations

import subprocess
import sys

import graphc
import graphc.numpy
from graphc.dsl.functions import EXPORTS


def test_the_import_is_light():
    code = "import graphc, graphc.numpy, sys; graphc.jit; graphc.grad; graphc.f64; print([m for m in sys.modules if '.' not in m])"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert not any(
        f"'{m}'" in loaded for m in ("llvmlite", "sympy", "networkx", "scipy", "mpmath", "rich")
    )


def test_every_function_is_public():
    assert set(EXPORTS) <= set(graphc.__all__)
    assert set(graphc.numpy.__all__) & set(EXPORTS) == set(EXPORTS) - {
        "log_softmax", "logsumexp", "relu", "sigmoid", "softmax", "softplus", "stop_gradient",
    }  # fmt: skip


def test_names_are_there():
    for name in graphc.__all__:
        if name not in ("check", "load", "compile"):
            assert getattr(graphc, name) is not None
    assert set(graphc.__all__) <= set(dir(graphc))
    assert not hasattr(graphc, "nothing")
