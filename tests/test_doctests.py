"""The examples in docstrings run: a stage card says what the code does, not what it once did."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest

import graphc
from graphc import pipeline
from graphc.pipeline import NAMES

PACKAGE = Path(graphc.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
)


def examples_of(name: str) -> list[doctest.DocTest]:
    module = importlib.import_module(name)
    found = doctest.DocTestFinder(exclude_empty=True).find(module, name)
    return [test for test in found if test.examples]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    runner, said = doctest.DocTestRunner(verbose=False), []
    for test in examples_of(name):
        runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)


def test_every_stage_has_an_example():
    """The table of the pipeline's docstring names the module of each stage."""
    rows = re.findall(r"^ +(\w+) .* graphc/(\S+)\.py$", pipeline.__doc__, re.MULTILINE)
    assert tuple(stage for stage, _ in rows) == NAMES
    for _, path in rows:
        module = f"graphc.{path.replace('/', '.')}"
        assert [t for t in examples_of(module) if t.name == module], f"{module} has no example"
