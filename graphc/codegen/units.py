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
_HEAD = re.compile(r"^define (?:internal )?(.*)@([\w.$]+)\((.*)\)(?: #\d+)? \{$", re.MULTILINE)
_GLOBAL = re.compile(r"^@([\w.$]+) = .*$", re.MULTILINE)
_PARAMETER = re.compile(r" %\w+(?=,|$)")


def units(text: str) -> list[str]:
    """The module's own text, then those of its routines; a text without marks is one unit."""
    body, mark, tail = text.partition(f"{TAIL}\n")
    if not mark:
        return [text]
    own, *routines = body.split(f"{ROUTINE}\n")
    shared, ends = {}, []
    for line in tail.splitlines():
        declared = _NAME.search(line) if line.startswith("declare ") else None
        if declared:
            shared[declared[1]] = line
        else:
            ends.append(line)
    if not routines:
        return [text]
    tables = {m[1]: m[0] for m in _GLOBAL.finditer(own)}
    made = [_HEAD.findall(unit) for unit in (own, *routines)]
    for result, name, params in (head for heads in made for head in heads):
        shared[name] = f"declare {result}@{name}({_PARAMETER.sub('', params)})"
    whole = []
    for unit, heads in zip((own, *routines), made, strict=True):
        here = {name for _, name, _ in heads}
        asked = [n for n in dict.fromkeys(_NAME.findall(unit)) if n not in here]
        above = [] if unit is own else [tables[n] for n in asked if n in tables]
        below = [shared[n] for n in asked if n in shared]
        seen = unit if unit is own else unit.replace("define internal ", "define ")
        whole.append("\n".join([*above, seen.rstrip("\n"), *below, *ends]))
    return whole
