"""The workloads, by family."""

from bench.cases import clusters, elementwise, networks, paths, physics, regression
from bench.cases.case import Case

CASES: tuple[Case, ...] = tuple(
    sorted(
        (
            case
            for family in (elementwise, paths, regression, clusters, networks, physics)
            for case in family.CASES
        ),
        key=lambda case: ("rows", "tiny", "products").index(case.group),
    )
)


def named(name: str) -> Case:
    return next(case for case in (*CASES, physics.MANY_CHARGES) if case.name == name)
