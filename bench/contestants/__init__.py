"""Who takes part: name -> module, setting, environment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

OUT = Path(__file__).resolve().parent.parent / "out"
CACHES = {  # of machine code: a second run is ready sooner
    "TORCHINDUCTOR_CACHE_DIR": str(OUT / "inductor"),
    "PYTENSOR_FLAGS": f"base_compiledir={OUT / 'pytensor'}",
    "NUMBA_CACHE_DIR": str(OUT / "numba"),
    "GRAPHC_CACHE_DIR": str(OUT / "graphc"),
}


@dataclass(frozen=True)
class Contestant:
    name: str  # as on the command line
    title: str  # as in tables
    module: str
    setting: str = ""
    environment: Mapping[str, str] = field(default_factory=lambda: CACHES)
    judged: bool = True  # False: a limit to look at, not a peer


CONTESTANTS = (
    Contestant("graphc", "graphc", "graphc"),
    Contestant("graphc-1", "graphc, one thread", "graphc", "one thread", judged=False),
    Contestant("numpy", "NumPy", "numpy"),
    Contestant("jax", "JAX", "jax", "async"),
    Contestant("jax-sync", "JAX, synchronous", "jax", "sync"),
    Contestant("torch", "PyTorch eager", "torch", "eager"),
    Contestant("torch-compile", "PyTorch compiled", "torch", "compile"),
    Contestant("torch-func", "PyTorch func", "torch", "func"),
    Contestant("autograd", "autograd", "autograd"),
    Contestant("pytensor", "PyTensor", "pytensor"),
    Contestant("casadi", "CasADi", "casadi"),
    Contestant("numba", "Numba, by hand", "numba", judged=False),
)
OURS = ("graphc", "graphc-1", "numpy")  # always there
PEERS = tuple(c for c in CONTESTANTS if c.name not in OURS)


def named(name: str) -> Contestant:
    return next(c for c in CONTESTANTS if c.name == name)


def chosen(peers: str | None) -> list[Contestant]:
    """Ours, NumPy, and the peers named: by name, or by module for all of its settings."""
    if peers is None:
        return list(CONTESTANTS)
    wanted = {name.strip() for name in peers.split(",")} - {"", "none"}
    unknown = wanted - {c.name for c in PEERS} - {c.module for c in PEERS}
    if unknown:
        known = ", ".join(c.name for c in PEERS)
        raise SystemExit(f"no peer {', '.join(sorted(unknown))}; there are {known}")
    return [c for c in CONTESTANTS if c.name in OURS or {c.name, c.module} & wanted]
