"""The tables in docs/numerics.md, made from the gate registry.

python docs/make_tables.py            writes them anew
python docs/make_tables.py --check    fails if they are not what the registry gives
"""

import sys
from pathlib import Path

from graphc.gates.elementwise import Elementwise
from graphc.gates.gate import registry

PAGE = Path(__file__).parent / "numerics.md"


def ulp_table() -> str:
    """Gates of floats by budget; the exact ones, which round the true result once, share a line."""
    gates = [g for g in registry().values() if isinstance(g, Elementwise) and g.ulp is not None]
    rounded = [g for g in gates if g.ulp == 0.5]
    lines = ["| gate | ULP | what it is |", "| --- | ---: | --- |"]
    lines += [f"| `{g.name}` | {g.ulp:g} | {cell(g.doc)} |" for g in gates if g.ulp != 0.5]
    names = ", ".join(f"`{g.name}`" for g in rounded)
    lines.append(f"| {names} | 0.5 | The true result, rounded once, or exact. |")
    return "\n".join(lines)


def cell(text: str) -> str:
    return text.replace("|", r"\|")


def jacobian_table() -> str:
    """Gates by the structure of their Jacobian."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for g in registry().values():
        kinds.setdefault((g.kind, str(g.structure)), []).append(g.name)
    lines = ["| kind | Jacobian | gates |", "| --- | --- | --- |"]
    for (kind, structure), names in kinds.items():
        lines.append(f"| {kind} | {structure} | {', '.join(f'`{n}`' for n in names)} |")
    return "\n".join(lines)


TABLES = {"ulp": ulp_table, "jacobians": jacobian_table}


def with_tables(text: str) -> str:
    """The page with every table between its two markers made anew."""
    for name, make in TABLES.items():
        before, begin, rest = text.partition(f"<!-- table:{name} -->\n")
        _, end, after = rest.partition("<!-- /table -->")
        assert begin and end, f"{PAGE} has no place for the table {name}"
        text = f"{before}{begin}{make()}\n{end}{after}"
    return text


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    made = with_tables(text)
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(made, encoding="utf-8")
    elif made != text:
        sys.exit(f"{PAGE} is not what the registry gives: run python docs/make_tables.py")


if __name__ == "__main__":
    main()
