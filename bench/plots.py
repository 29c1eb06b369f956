"""Pictures of what was measured, as SVG: small, and readable on light and on dark pages."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.cases.case import PRODUCTS
from bench.contestants import CONTESTANTS
from bench.report import ordered
from bench.results import PLAIN, Row, ratio

GREY = "#808890"  # of text and lines: between black and white, so that both backgrounds do
OURS, LIMIT = "#e8590c", "#868e96"
COLOURS = {
    "numpy": "#1c7ed6", "jax": "#9c36b5", "jax-sync": "#be4bdb", "torch": "#e03131",
    "torch-compile": "#f08c00", "torch-func": "#fa5252", "autograd": "#0ca678",
    "pytensor": "#66a80f", "casadi": "#1098ad", "numba": LIMIT,
}  # fmt: skip
SETTINGS = {
    "svg.fonttype": "none", "svg.hashsalt": "graphc", "font.size": 9, "text.color": GREY,
    "axes.edgecolor": GREY, "axes.labelcolor": GREY, "xtick.color": GREY, "ytick.color": GREY,
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.transparent": True,
}  # fmt: skip


def draw(folder: str, rows: Sequence[Row]) -> list[Path]:
    """All pictures, into a folder; their paths."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    Path(folder).mkdir(parents=True, exist_ok=True)
    paths = []
    with matplotlib.rc_context(SETTINGS):
        for name, picture in (("bench", times), ("bench-memory", memory)):
            figure = picture(pyplot, ordered(rows))
            if figure is None:
                continue
            paths.append(Path(folder) / f"{name}.svg")
            figure.savefig(paths[-1], bbox_inches="tight", metadata={"Date": None})
            pyplot.close(figure)
    return paths


def times(pyplot: Any, rows: Sequence[Row]) -> Any:
    """For each workload, everyone's time over graphc's, on a logarithmic axis."""
    rows = [r for r in rows if r.ours]
    if not rows:
        return None
    figure, axes = pyplot.subplots(figsize=(8, 0.24 * len(rows) + 1.2))
    places = list(range(len(rows)))[::-1]
    for contestant in CONTESTANTS:
        name = contestant.name
        points = [(x, y) for r, y in zip(rows, places) if (x := compared(r, name))]
        if name in COLOURS and points:
            axes.plot(
                [x for x, _ in points], [y for _, y in points], linestyle="",
                marker="|" if name == "numba" else "o", markersize=8 if name == "numba" else 4.5,
                color=COLOURS[name], label=contestant.title, alpha=0.9,
            )  # fmt: skip
    axes.axvline(1.0, color=OURS, linewidth=1.5, label="graphc")
    _finish(axes, rows, places, "time of value and gradient, in those of graphc")
    return figure


def compared(r: Row, name: str) -> float | None:
    """A contestant's time over ours: plain calls, but for loops by hand, which have buffers."""
    if name == "numba":
        return ratio(1.0, r.numba_share)
    plain = [seconds for way, seconds in r.seconds.get(name, {}).items() if way in PLAIN]
    return ratio(min(plain, default=None), r.ours)


def memory(pyplot: Any, rows: Sequence[Row]) -> Any:
    """For each workload, bytes at the peak over those of arguments and results."""
    rows = [r for r in rows if r.memory and r.bytes > 1e6]
    if not rows:
        return None
    figure, axes = pyplot.subplots(figsize=(8, 0.24 * len(rows) + 1.2))
    places = list(range(len(rows)))[::-1]
    titles = {"numpy": "NumPy", "peer": "fastest peer", "graphc": "graphc"}
    colours = {"numpy": COLOURS["numpy"], "peer": COLOURS["jax"], "graphc": OURS}
    for name, title in titles.items():
        points = [(_memory(r, name), y) for r, y in zip(rows, places)]
        axes.plot(
            [x / r.bytes for (x, _), r in zip(points, rows) if x],
            [y for x, y in points if x], "o", markersize=4.5, color=colours[name], label=title,
        )  # fmt: skip
    _finish(axes, rows, places, "bytes at the peak, in those of arguments and gradients")
    return figure


def _memory(r: Row, name: str) -> float | None:
    best = r.best()
    return r.memory.get(name if name != "peer" else best.contestant if best else "")


def _finish(axes: Any, rows: Sequence[Row], places: Sequence[int], label: str) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axes.set_yticks(places, [r.name for r in rows])
    axes.set_ylim(-0.7, len(rows) - 0.3)
    products = sum(r.group == PRODUCTS for r in rows)
    if 0 < products < len(rows):
        axes.axhline(products - 0.5, color=GREY, linewidth=0.5, linestyle=":")
    axes.grid(axis="x", color=GREY, alpha=0.25, linewidth=0.5)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.set_xlabel(label)
    axes.legend(
        loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=4, frameon=False, labelcolor=GREY
    )
