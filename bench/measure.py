"""Measure: each workload by each contestant, in turns, medians, after all agree with NumPy."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from bench.cases.case import Case, nbytes
from bench.cases.physics import MANY_CHARGES
from bench.contestants import Contestant, named
from bench.processes import Process
from bench.results import Row

Thunk = Callable[[], Any]

PATIENCE = 60.0  # seconds a contestant may take to be ready
TURN = 8e-3  # seconds of calls, each time it is a contestant's turn
ROUNDS = 5  # at least
SLOW = 10.0  # who takes this many times longer than the fastest, and more than a turn,
FEW = 2  # gets no more rounds than this
ALONE = "tanh wave 1e4 f64"  # computes in its caches and shares nothing
SPAN = 0.1  # seconds of it, where several processes compute at once


class Field:
    """All contestants that are here, each in its process."""

    def __init__(self, contestants: Sequence[Contestant], threads: int, log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
        self.threads, self.log = threads, log
        self.processes = {c.name: Process(c, threads, log) for c in contestants}
        self.versions: dict[str, str] = {}
        self.absent: dict[str, str] = {}

    def start(self) -> None:
        for name, answer in self._ask_all({"do": "start"}).items():
            if "versions" in answer:
                self.versions[name] = answer["versions"]
            else:
                self.absent[name] = reason(answer)
                self.processes.pop(name).stop()

    def stop(self) -> None:
        for process in self.processes.values():
            process.stop()

    def row(self, case: Case, seconds: float, memory: bool = False) -> Row:
        """All that there is to measure of a workload."""
        entered = self._ask_all({"do": "enter", "case": case.name})
        ready = {name: found for name, found in entered.items() if "ways" in found}
        turns = [
            Turn(name, way, found["once"])
            for name, answer in ready.items()
            for way, found in answer["ways"].items()
        ]
        times, lost = self._take_turns(turns, seconds)
        args = case.arguments()
        row = Row(
            name=case.name,
            group=case.group,
            bytes=nbytes(args, [args[i] for i in case.positions]),
            seconds=times,
            ready={name: found["seconds"] for name, found in ready.items()},
            errors={n: max(w["error"] for w in f["ways"].values()) for n, f in ready.items()},
            without={n: reason(found) for n, found in entered.items() if n not in ready} | lost,
            notes={name: found["notes"] for name, found in ready.items() if found["notes"]},
            same_bits=self._same_bits(ready),
        )
        row = replace(row, **self._limit(row), elsewhere=self._elsewhere(row))
        return replace(row, memory=self._memory(row)) if memory else row

    def _ask_all(self, request: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Answers of all, two at a time, as what they are asked takes long and is not timed."""
        with ThreadPoolExecutor(2) as pool:
            answers = pool.map(lambda p: p.ask(request, PATIENCE), self.processes.values())
            return dict(zip(self.processes, answers))

    def _take_turns(
        self, turns: Sequence["Turn"], seconds: float
    ) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
        """Medians of all, and who got lost on the way."""
        lost: dict[str, str] = {}
        fastest = min((t.once for t in turns), default=0.0)
        end, count = time.monotonic() + seconds, 0
        while time.monotonic() < end or count < ROUNDS:
            for turn in in_turn(turns, count):
                if turn.name in lost or (count >= FEW and turn.is_slow(fastest)):
                    continue
                request = {"do": "time", "way": turn.way, "calls": turn.calls}
                answer = self.processes[turn.name].ask(request)
                if "seconds" in answer:
                    turn.samples.append(answer["seconds"])
                else:
                    lost[turn.name] = reason(answer)
            count += 1
        times: dict[str, dict[str, float]] = {}
        for turn in turns:
            if turn.name not in lost:
                times.setdefault(turn.name, {})[turn.way] = median(turn.samples)
        return times, lost

    def _same_bits(self, ready: Mapping[str, Any]) -> bool | None:
        """Whether one thread and all give the same bits; None where there are not both."""
        if not {"graphc", "graphc-1"} <= {n for n, r in ready.items() if "gradient" in r["ways"]}:
            return None
        request = {"do": "digest", "way": "gradient"}
        one, all_ = (self.processes[n].ask(request).get("digest") for n in ("graphc-1", "graphc"))
        return one == all_ if one and all_ else None

    def _limit(self, row: Row) -> dict[str, Any]:
        if row.ours is None:
            return {}
        request = {"do": "limit", "case": row.name, "seconds": row.ours}
        answer = self.processes["graphc"].ask(request, PATIENCE)
        return answer if "limit" in answer else {"limit": reason(answer)}

    def _elsewhere(self, row: Row) -> dict[str, Any]:
        if row.ours is None:
            return {}
        request = {"do": "elsewhere", "case": row.name}
        return self.processes["graphc"].ask(request, PATIENCE).get("elsewhere", {})

    def ceiling(self) -> float | None:
        """How many times what one process computes as many processes do as there are threads.

        At best: whether the system has them on processors of their own at once is up to it.
        """
        if self.threads == 1 or "graphc-1" not in self.processes:
            return None
        mine, others = self.processes["graphc-1"], range(1, self.threads)
        crowd = [mine, *(Process(mine.contestant, self.threads, self.log) for _ in others)]
        try:
            entered = [p.ask({"do": "enter", "case": ALONE}) for p in crowd]
            once = min(answer["ways"]["gradient"]["once"] for answer in entered)
            request = {"do": "time", "way": "gradient", "calls": int(SPAN / once)}
            with ThreadPoolExecutor(self.threads) as pool:
                alone, together = [], []
                for _ in range(ROUNDS):
                    alone.append(mine.ask(request)["seconds"])
                    answers = pool.map(lambda p: p.ask(request), crowd)
                    together.append(max(a["seconds"] for a in answers))
        finally:
            for process in crowd[1:]:
                process.stop()
        return self.threads * min(alone) / min(together)

    def many_charges(self) -> float | None:
        """Bytes that the pairwise energy of 20,000 charges takes in graphc."""
        return peak_memory(named("graphc"), MANY_CHARGES.name, self.threads, self.log)

    def _memory(self, row: Row) -> dict[str, float]:
        """Of graphc, NumPy and the fastest peer, each in a process that does nothing else."""
        best = row.best()
        wanted = ["graphc", "numpy", *([best.contestant] if best else [])]
        return {
            name: found
            for name in wanted
            if (found := peak_memory(named(name), row.name, self.threads, self.log)) is not None
        }


class Turn:
    """A way of a contestant, and what was measured of it."""

    def __init__(self, name: str, way: str, once: float) -> None:
        self.name, self.way, self.once = name, way, once
        self.calls = max(1, int(TURN / max(once, 1e-7)))
        self.samples: list[float] = []

    def is_slow(self, fastest: float) -> bool:
        return self.once > SLOW * fastest and self.once > TURN


def in_turn(turns: Sequence[Turn], count: int) -> list[Turn]:
    """A round's turns: contestant by contestant, each of whose ways comes first in turn."""
    ways: dict[str, list[Turn]] = {}
    for turn in turns:
        ways.setdefault(turn.name, []).append(turn)
    return [own[(i + count) % len(own)] for own in ways.values() for i in range(len(own))]


def peak_memory(contestant: Contestant, case: str, threads: int, log: Path) -> float | None:
    """Bytes; None where it could not be measured."""
    process = Process(contestant, threads, log)
    try:
        answer = process.start()
        if "versions" in answer:
            answer = process.ask({"do": "memory", "case": case}, PATIENCE)
        return answer.get("memory")
    finally:
        process.stop()


def reason(answer: Mapping[str, Any]) -> str:
    return str(answer.get("absent") or answer.get("failed"))


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    console = Console(stderr=True)
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as progress:
        task = progress.add_task("")
        yield lambda name: progress.update(task, description=name)


def medians(thunks: Sequence[Thunk], seconds: float) -> list[float]:
    """The median seconds of each call, measured in turns, in this process."""
    repeats = [max(1, int(1e-3 / _once(f, 1))) for f in thunks]
    samples: list[list[float]] = [[] for _ in thunks]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(samples[0]) < 5:
        for f, repeat, kept in zip(thunks, repeats, samples):
            kept.append(_once(f, repeat))
    return [median(kept) for kept in samples]


def _once(f: Thunk, repeat: int) -> float:
    f()
    began = time.perf_counter()
    for _ in range(repeat):
        f()
    return (time.perf_counter() - began) / repeat
