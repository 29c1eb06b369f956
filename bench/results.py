"""What was measured of a workload, and the ratios that follow from it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from statistics import geometric_mean, median
from typing import Any

from bench.cases.case import PRODUCTS
from bench.contestants import CONTESTANTS, OURS

JUDGED = tuple(c.name for c in CONTESTANTS if c.judged and c.name not in OURS)
PLAIN = ("gradient", "ahead")  # ways of a peer that a plain call of ours is held against


@dataclass(frozen=True)
class Best:
    contestant: str
    way: str
    seconds: float


@dataclass(frozen=True)
class Row:
    """Of one workload: median seconds of a call, by contestant and way, and what else there is."""

    name: str
    group: str
    bytes: int  # of the arguments and the gradients
    seconds: Mapping[str, Mapping[str, float]]
    ready: Mapping[str, float] = field(default_factory=dict)  # seconds until the first call is over
    errors: Mapping[str, float] = field(default_factory=dict)  # from NumPy's result, the worst way
    without: Mapping[str, str] = field(default_factory=dict)  # who has no figure, and why
    notes: Mapping[str, list[str]] = field(default_factory=dict)
    same_bits: bool | None = None  # from one thread and from all
    copy: float | None = None  # seconds in which as many bytes are copied
    limit: str = ""
    limit_share: float | None = None  # of the time, that the limit explains
    predicted: float | None = None  # by the cost model
    # What it predicts at other sizes, and what was measured there.
    elsewhere: Mapping[str, Sequence[float]] = field(default_factory=dict)
    memory: Mapping[str, float] = field(default_factory=dict)  # bytes at the peak

    def time(self, contestant: str, way: str = "gradient") -> float | None:
        return self.seconds.get(contestant, {}).get(way)

    @property
    def ours(self) -> float | None:
        return self.time("graphc")

    def best(self, ways: Sequence[str] = PLAIN) -> Best | None:
        """The fastest peer in one of these ways."""
        found = [
            Best(name, way, seconds)
            for name in JUDGED
            for way, seconds in self.seconds.get(name, {}).items()
            if way in ways
        ]
        return min(found, key=lambda b: b.seconds, default=None)

    @property
    def peer_ratio(self) -> float | None:
        """The best peer's time over ours, plain calls."""
        best = self.best()
        return ratio(best and best.seconds, self.ours)

    @property
    def bound_ratio(self) -> float | None:
        """The best peer with bound buffers over ours with bound buffers."""
        best = self.best(("bound",))
        return ratio(best and best.seconds, self.time("graphc", "bound"))

    @property
    def numpy_ratio(self) -> float | None:
        return ratio(self.time("numpy"), self.ours)

    @property
    def numba_share(self) -> float | None:
        """Our time with bound buffers over that of loops by hand, serial or parallel."""
        loops = min(self.seconds.get("numba", {}).values(), default=None)
        return ratio(self.time("graphc", "bound") or self.ours, loops)

    @property
    def gradient_cost(self) -> float | None:
        """What value and gradient together cost, in values."""
        return ratio(self.ours, self.time("graphc", "value"))

    @property
    def thread_gain(self) -> float | None:
        return ratio(self.time("graphc-1"), self.ours)

    @property
    def prediction_error(self) -> float | None:
        found = ratio(self.predicted, self.ours)
        return None if found is None else abs(found - 1.0)

    @property
    def errors_elsewhere(self) -> list[float]:
        """Of predictions at other sizes."""
        return [abs(guess / seconds - 1.0) for guess, seconds in self.elsewhere.values()]

    def as_json(self) -> dict[str, Any]:
        best, bound = self.best(), self.best(("bound",))
        return {
            **asdict(self),
            "best": best and asdict(best),
            "best_bound": bound and asdict(bound),
            **{name: getattr(self, name) for name in RATIOS},
        }


@dataclass
class Run:
    """All that a run of the benchmarks has found so far."""

    machine: str
    threads: int
    versions: dict[str, str] = field(default_factory=dict)  # of those who take part
    absent: dict[str, str] = field(default_factory=dict)  # who does not, and why
    rows: list[Row] = field(default_factory=list)
    many_charges: float | None = None  # bytes of the pairwise energy of 20,000 charges
    ceiling: float | None = None  # what as many processes as threads compute, over what one does

    def as_json(self) -> dict[str, Any]:
        return {
            **{name: getattr(self, name) for name in RUN},
            "rows": [row.as_json() for row in self.rows],
            "summary": summary(self.rows),
            "scaling": scaling(self.rows),
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Run":
        names = [f.name for f in fields(Row)]
        rows = [Row(**{name: row[name] for name in names}) for row in found["rows"]]
        return cls(**{name: found[name] for name in RUN}, rows=rows)


RUN = ("machine", "threads", "versions", "absent", "many_charges", "ceiling")
RATIOS = (
    "peer_ratio", "bound_ratio", "numpy_ratio", "numba_share", "gradient_cost", "thread_gain",
    "prediction_error",
)  # fmt: skip


def ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b else None


def mean(values: Iterable[float | None]) -> float | None:
    """The geometric mean of those that there are."""
    found = [v for v in values if v]
    return geometric_mean(found) if found else None


def middle(values: Iterable[float | None]) -> float | None:
    """The median of those that there are."""
    found = [v for v in values if v is not None]
    return median(found) if found else None


def summary(rows: Sequence[Row]) -> dict[str, float | None]:
    """The figures that stand for all rows; those that matrix products bind are judged apart."""
    judged = [r for r in rows if r.group != PRODUCTS]
    apart = [r for r in rows if r.group == PRODUCTS]
    return {
        "peer_ratio": mean(r.peer_ratio for r in judged),
        "peer_ratio_least": min((r.peer_ratio for r in judged if r.peer_ratio), default=None),
        "products_ratio": mean(r.peer_ratio for r in apart),
        "products_ratio_least": min((r.peer_ratio for r in apart if r.peer_ratio), default=None),
        "bound_ratio": mean(r.bound_ratio for r in rows),
        "numpy_ratio": mean(r.numpy_ratio for r in judged),
        "numba_share": mean(r.numba_share for r in rows),
        "gradient_cost": middle(r.gradient_cost for r in rows),
        "thread_gain": mean(r.thread_gain for r in rows if r.name in COMPUTE_BOUND),
        "prediction_error": middle(r.prediction_error for r in rows),
        "error_elsewhere": middle(error for r in rows for error in r.errors_elsewhere),
    }


def compute_bound() -> frozenset[str]:
    from bench.cases import CASES

    return frozenset(case.name for case in CASES if case.compute_bound)


COMPUTE_BOUND = compute_bound()


def scaling(rows: Sequence[Row]) -> dict[str, float]:
    """Of rows at 1e4 and 1e6: time of an element at 1e6, over the larger of that at 1e4 and of
    copying as many bytes as an element has."""
    named = {r.name: r for r in rows}
    found = {}
    for name, large in named.items():
        small = named.get(name.replace("1e6", "1e4"))
        if small is large or small is None or not (small.ours and large.ours and large.copy):
            continue
        found[name.replace(" 1e6", "")] = large.ours / max(100.0 * small.ours, large.copy)
    return found
