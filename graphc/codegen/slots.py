"""How a kernel is called: `int32_t graphc_run(int64_t *slots)`, and what the first slots are.

The slots are a wrong index, the size it was held against, the arena, a pool of threads or 0, then the addresses of inputs
and outputs, and the named sizes. 0 is returned, or 1 if an index was out of bounds.
"""

ENTRY = "graphc_run"
ARENA = 2
POOL = 3  # of threads: 0 where one does it all
HEADER_SLOTS = 4
