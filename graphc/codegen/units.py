"""units: the text of one module as a kernel's own text and those of the routines that it calls.

In:   LLVM text in which `Module` has marked the routines: bodies of gates, tiles of products, steps of trees.
Out:  texts of modules, each complete; linked together they are what the one module is.
Invariant: a routine's text depends on nothing else in the module, so equal routines of two kernels are equal texts.

>>> from graphc.codegen.llvm import ROUTINE, TAIL
>>> own, *routines = units(f'''define i32 @run() {{
...   %x = call i32 @gc.seven()
...   ret i32 %x
... }}
... {ROUTINE}
... define internal i32 @gc.seven() {{
...   ret i32 7
... }}
... {TAIL}
... declare double @llvm.fabs.f64(double)
... attributes #0 = {{ nounwind }}''')
>>> print(*routines)
define i32 @gc.seven() {
  ret i32 7
}
attributes #0 = { nounwind }
>>> print(own.splitlines()[-2])
declare i32 @gc.seven()
"""

from __future__ import annotations

import re

from graphc.codegen.llvm import ROUTINE, TAIL

_NAME = re.compile(r"@([\w.$]+)")
_HEAD = re.compile(r"(?:internal )?(.*)@([\w.$]+)\((.*)\)(?: #\d+)? \{")  # behind `define`
_PARAMETER = re.compile(r" %\w+(?=,|$)")


def units(text: str) -> list[str]:
    """The module's own text, then those of its routines; a text without marks is one unit."""
    body, mark, tail = text.partition(f"{TAIL}\n")
    own, *routines = body.split(f"{ROUTINE}\n")
    if not mark or not routines:
        return [text]
    declared, ends = {}, []  # for all units: by name, and lines that each of them ends with
    for line in tail.splitlines():
        if line.startswith("declare "):
            declared[_NAME.findall(line)[0]] = line
        else:
            ends.append(line)
    defined: list[set[str]] = []
    for unit in (own, *routines):
        heads = [_HEAD.match(line) for line in _lines(unit, "define ")]
        defined.append({head[2] for head in heads if head})
        for head in heads:
            assert head, unit
            declared[head[2]] = f"declare {head[1]}@{head[2]}({_PARAMETER.sub('', head[3])})"
    tables = {line[: line.index(" ")]: f"@{line}" for line in _lines(own, "@")}
    whole = []
    for unit, here in zip((own, *routines), defined, strict=True):
        asked = [n for n in dict.fromkeys(_NAME.findall(unit)) if n not in here]
        above = [] if unit is own else [tables[n] for n in asked if n in tables]
        below = [declared[n] for n in asked if n in declared]
        seen = unit if unit is own else unit.replace("define internal ", "define ")
        whole.append("\n".join([*above, seen.rstrip("\n"), *below, *ends]))
    return whole


def _lines(text: str, start: str) -> list[str]:
    """What follows such a start of a line, up to its end."""
    return [part.partition("\n")[0] for part in f"\n{text}".split(f"\n{start}")[1:]]
