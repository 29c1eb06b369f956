"""The DSL's tests interpret graphs: what they hold is what is traced, whatever compiles it."""

from __future__ import annotations

import pytest

from graphc.dsl import public, transform
from graphc.ir.reference import run_graph


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    monkeypatch.setattr(
        transform, "kernel_for", lambda graph, threads: lambda arrays: run_graph(graph, arrays)
    )
    for cache in (transform._made, transform._jitted, public._jitted, public._jitted_gate):
        cache.cache_clear()
    yield
    for cache in (transform._made, transform._jitted, public._jitted, public._jitted_gate):
        cache.cache_clear()
