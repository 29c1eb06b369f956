"""The C interface of a compiled graph: its fields, its header, and its description as JSON.

In:   a `Compiled` and the name to export.
Out:  an `Interface`: what `NAME_args` has in it, the text of `NAME.h`, and all that `graphc.load`
      needs.
Invariant: every field is 8 bytes, a pointer or an int64, so `NAME_args` is an array of 64-bit
slots; the header is made of checked identifiers and integers alone.

>>> from graphc.dsl.declare import graph
>>> from graphc.ir.types import f64
>>> from graphc.runtime.compiled import compile
>>> @graph
... def energy(x: f64["n"], k: f64):
...     return k * (x * x).sum()
>>> [f"{f.ctype}{f.name}" for f in interface_of(compile(energy)).fields]
['int64_t n', 'const double *x', 'const double *k', 'double *out', 'void *workspace']
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphc.aot.names import check_distinct, exported_name, field_name
from graphc.dsl.tree import LEAF, Structure
from graphc.errors import FormatError
from graphc.ir.types import TensorType, parse_type

if TYPE_CHECKING:
    from graphc.runtime.compiled import Compiled

ABI = 1
OK, INDEX, INVALID = 0, 1, 2  # what a call returns
CTYPES = {"f64": "double", "f32": "float", "i64": "int64_t", "i32": "int32_t", "bool": "uint8_t"}


@dataclass(frozen=True)
class Field:
    """A field of `NAME_args`; `of` is the name that the graph has for it."""

    name: str
    role: str  # "size", "input", "output", "gradient", "workspace"
    of: str
    type: TensorType | None = None

    @property
    def ctype(self) -> str:
        if self.role == "size":
            return "int64_t "
        if self.type is None:
            return "void *"
        return f"{'const ' if self.role == 'input' else ''}{CTYPES[self.type.dtype.name]} *"

    @property
    def comment(self) -> str:
        if self.role == "size":
            return "a size, at least 0"
        if self.type is None:
            return "scratch memory"
        return f"{self.role}: {self.type}"


@dataclass(frozen=True)
class Interface:
    """What a library of one graph offers."""

    name: str
    fields: tuple[Field, ...]
    parameters: tuple[str, ...]
    wrt: tuple[tuple[str, tuple[str, ...]], ...]  # a parameter, and the inputs below it
    single: bool  # `wrt` was one name, and its gradient comes back without a tuple
    in_tree: Structure
    out_tree: Structure

    def of_role(self, *roles: str) -> tuple[Field, ...]:
        return tuple(f for f in self.fields if f.role in roles)

    @property
    def differentiates(self) -> bool:
        return bool(self.wrt)


def interface_of(compiled: Compiled, name: str | None = None) -> Interface:
    """The interface of a compiled graph, under its own or another name."""
    traced = compiled.traced
    name = exported_name(name or compiled.__name__)
    types = {n["name"]: n.type for n in traced.arguments}
    wrt = tuple(
        (w, tuple(leaves)) for w, leaves in zip(compiled.wrt, compiled._leaves, strict=True)
    )
    fields = [Field(field_name(s, "size"), "size", s) for s in traced.graph.sizes]
    fields += [Field(field_name(n, "input"), "input", n, ty) for n, ty in types.items()]
    fields += [
        Field(field_name(n, "output"), "output", n, node.type) for n, node in traced.graph.outputs
    ]
    for leaf in (leaf for _, leaves in wrt for leaf in leaves):
        fields.append(
            Field(field_name(f"grad_{leaf}", "output"), "gradient", f"grad_{leaf}", types[leaf])
        )
    fields.append(Field("workspace", "workspace", "workspace"))
    check_distinct((f.name, f"the {f.role} {f.of}") for f in fields)
    parameters = tuple(compiled.__signature__.parameters)
    return Interface(
        name, tuple(fields), parameters, wrt, compiled._single, traced.in_tree, traced.out_tree
    )


# -- the header ------------------------------------------------------------------------------------


def header(interface: Interface) -> str:
    """The text of NAME.h."""
    name, guard = interface.name, f"GRAPHC_{interface.name.upper()}_H"
    width = max(len(f.ctype + f.name) for f in interface.fields) + 1
    fields = [f"    {f'{f.ctype}{f.name};':<{width}}  /* {f.comment} */" for f in interface.fields]
    return "\n".join(
        [
            _HEAD.format(
                name=name, guard=guard, upper=name.upper(), ok=OK, index=INDEX, invalid=INVALID
            ),
            f"typedef struct {name}_args {{",
            *fields,
            f"}} {name}_args;",
            _FUNCTIONS.format(name=name),
            *([_GRADIENT.format(name=name)] if interface.differentiates else []),
            _TAIL.format(name=name, guard=guard),
        ]
    )


_HEAD = """\
/* {name}: made by graphc. It calls nothing, allocates nothing and starts no thread. */
#ifndef {guard}
#define {guard}

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

/* What a call returns. */
enum {{
    {upper}_OK = {ok},
    {upper}_INDEX = {index},   /* an index was out of bounds; outputs are unspecified */
    {upper}_INVALID = {invalid}  /* a null pointer or a negative size; nothing was written */
}};

/* Arrays are dense, in row-major (C) order. Outputs overlap neither inputs nor each other.
   A pointer may be null where its array has no elements, and gradients where only the value is
   asked for. */"""

_FUNCTIONS = """
/* The bytes of scratch memory that a call with these sizes needs. Only the sizes are read. */
size_t {name}_workspace(const {name}_args *args);

/* The value: writes the outputs. */
int32_t {name}(const {name}_args *args);
"""

_GRADIENT = """\
/* The value and the gradients. */
int32_t {name}_value_and_grad(const {name}_args *args);
"""

_TAIL = """\
/* All of this as JSON. */
extern const char {name}_graphc_info[];

#ifdef __cplusplus
}}
#endif

#endif /* {guard} */
"""


# -- the description -------------------------------------------------------------------------------


def to_json(interface: Interface, made_of: str) -> str:
    """The interface as one line of JSON; `made_of` tells builds apart."""
    return json.dumps(
        {
            "graphc_abi": ABI,
            "name": interface.name,
            "made_of": made_of,
            "fields": [
                [f.name, f.role, f.of, None if f.type is None else str(f.type)]
                for f in interface.fields
            ],
            "parameters": interface.parameters,
            "wrt": interface.wrt,
            "single": interface.single,
            "in_tree": _tree_to_json(interface.in_tree),
            "out_tree": _tree_to_json(interface.out_tree),
        },
        separators=(",", ":"),
    )


def from_json(text: str) -> Interface:
    """The inverse of `to_json`; a FormatError where the text is nothing that graphc wrote."""
    try:
        found = json.loads(text)
        if found["graphc_abi"] != ABI:
            raise FormatError(
                f"the library has version {found['graphc_abi']} of graphc's interface, not {ABI}"
            )
        fields = tuple(
            Field(n, role, of, None if ty is None else parse_type(ty))
            for n, role, of, ty in found["fields"]
        )
        return Interface(
            found["name"],
            fields,
            tuple(found["parameters"]),
            tuple((w, tuple(leaves)) for w, leaves in found["wrt"]),
            found["single"],
            _tree_from_json(found["in_tree"]),
            _tree_from_json(found["out_tree"]),
        )
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise FormatError(f"the library's description cannot be read: {error}") from error


def _tree_to_json(tree: Structure) -> Any:
    """Classes become dicts of their fields: a library knows nothing of Python classes."""
    if tree.kind == "leaf":
        return 0
    if tree.kind == "static":
        return {"static": tree.meta if isinstance(tree.meta, (str, type(None))) else None}
    children = [_tree_to_json(c) for c in tree.children]
    if tree.kind in ("tuple", "list"):
        return {tree.kind: children}
    return {"keys": list(_keys_of(tree)), "children": children}


def _keys_of(tree: Structure) -> Iterable[Any]:
    if tree.kind == "dict":
        return (k if isinstance(k, (str, int)) else str(k) for k in tree.meta[1])
    if tree.kind == "named":
        return tree.meta._fields
    return tree.meta.__dataclass_fields__


def _tree_from_json(found: Any) -> Structure:
    if not isinstance(found, Mapping):
        return LEAF
    if "static" in found:
        return Structure("static", found["static"])
    if "keys" in found:
        return Structure(
            "dict", (dict, tuple(found["keys"])), tuple(map(_tree_from_json, found["children"]))
        )
    ((kind, children),) = found.items()
    return Structure(kind, None, tuple(map(_tree_from_json, children)))
