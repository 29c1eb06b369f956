"""Native routines that serve a whole process: compiled once on a machine, if there is a cache.

In:   a name, the text of a module that graphc's source alone determines, and what it exports.
Out:  a `Library`.
Invariant: the code is the same whether it was found or made.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.runtime import cache
from graphc.runtime.jit import Jit, Library, code, object_image, routines_image


def linked(
    name: str, text: Callable[[], str], exports: tuple[str, ...], passes: bool, quick: bool = False
) -> Library:
    """A module's functions. With `passes`, its variables are moved from memory into registers."""
    key = cache.routines_key(name)
    image = None if key is None else cache.load_routines(key)
    if key is not None and image is not None:
        try:
            return Jit.load((image,), exports)
        except RuntimeError:  # it cannot be loaded
            cache.refuse_routines(key)
    object_ = routines_image(text(), quick) if passes else object_image(text())
    (made,) = code((object_,), exports)
    library = Jit.load((made,), exports)
    if key is not None:
        cache.keep_routines(key, name, made)
    return library
