"""What `import graphc` loads, which names it has, and what its source does without."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import graphc
import graphc.numpy
from graphc.dsl.functions import EXPORTS

PACKAGE = Path(graphc.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
HEAVY = {"llvmlite", "sympy", "networkx", "scipy", "mpmath", "rich"}


@pytest.mark.parametrize(
    "code",
    [
        "import graphc",
        "import graphc, graphc.numpy; graphc.jit; graphc.grad; graphc.f64",
        "import graphc\n@graphc.graph\ndef f(x: graphc.f64): return graphc.tanh(x)\nf.graph",
    ],
)
def test_the_import_is_light(code):
    said = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert not HEAVY & set(said.split())


def test_every_function_is_public():
    assert set(EXPORTS) <= set(graphc.__all__)
    assert set(graphc.numpy.__all__) & set(EXPORTS) == set(EXPORTS) - {
        "digamma", "erf", "erfc", "erfinv", "gelu", "lgamma", "log_ndtr", "log_sigmoid",
        "log_softmax", "logsumexp", "ndtr", "relu", "rsqrt", "sigmoid", "silu", "softmax",
        "softplus", "stop_gradient", "trigamma", "xlog1py", "xlogy",
    }  # fmt: skip


def test_names_are_there():
    for name in graphc.__all__:
        if name not in ("check", "load", "compile"):
            assert getattr(graphc, name) is not None
    assert set(graphc.__all__) <= set(dir(graphc))
    assert not hasattr(graphc, "nothing")


def test_no_module_collects_what_nobody_placed():
    names = {path.stem for path in SOURCES} | {path.parent.name for path in SOURCES}
    assert not names & {"utils", "util", "common", "core", "helpers", "helper", "misc"}


UNSAFE_MODULES = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle"}
UNSAFE_CALLS = {"eval", "exec", "os.system", "os.popen", "subprocess.getoutput"}


def unsafe(tree: ast.AST):
    """What runs text or bytes as code, or text as a command of a shell."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names):
                yield from (n.name for n in names if n.name.split(".")[0] in UNSAFE_MODULES)
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in UNSAFE_MODULES:
                yield module
            case ast.Call(func, _, keywords):
                if ast.unparse(func).removeprefix("builtins.") in UNSAFE_CALLS:
                    yield ast.unparse(func)
                yield from ("shell" for k in keywords if k.arg == "shell")


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_the_source(path):
    text = path.read_text(encoding="utf-8")
    assert not list(unsafe(ast.parse(text)))
    unfinished = re.findall(r"\b(?:TODO|FIXME|XXX|HACK|NotImplementedError)\b", text)
    assert not unfinished


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "import marshal as m",
        "from pickle import loads",
        "eval('1')",
        "builtins.exec(x)",
        "os.system('ls')",
        "subprocess.run('ls', shell=True)",
    ],
)
def test_unsafe_source_is_found(text):
    assert list(unsafe(ast.parse(text)))
