"""The native side of the threads: the loop that workers wait in, and what gives them work.

In:   a part function and how often to call it, from native code of any kernel, through the address
      in a pool's structure: `parallel(pool, part, context, parts)`.
Out:  each of `part(context, index, worker)` for the indices 0 .. parts-1 has run, once, on some
      thread; the result is 1 if one of them gave something but 0.
Invariant: whoever calls works, too, and never waits for a worker that has not begun: a job holds
tickets, a worker takes one and by it its number, and the caller takes back those that are left.
Each number has a range of the indices to itself, until others are through with theirs: from loop to
loop and from call to call a thread finds in its own caches what it has written there.
Where the pool is busy, with another thread's job or one around this, the caller does it all alone.

Workers wait in a short spin, then on a condition of the system (POSIX threads, or Windows' slim
locks). No thread of these ever needs the GIL. The module is linked once and never freed.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from functools import cache
from typing import Any

from graphc.lower.parallel import MOST_PARTS, PARTS_PER_THREAD

# Bytes from the start of the structure that all pools share, words that threads fight for on lines
# of their own; what a job is stands beside its tickets, so that it comes with them.
BUSY, TICKETS, FINISHED = 0, 64, 192
PART, CONTEXT, PARTS, MODE, RANGES = 72, 80, 88, 96, 104
SLEEPERS, WAITING, STOP, WORKERS = 256, 260, 264, 268
FAILED = 320
LOCK, UNLOCK, SLEEP, WAKE, YIELD = 384, 392, 400, 408, 416
MUTEX, WORK, DONE = 448, 576, 704
NEXT, LINE, MOST_RANGES = 832, 64, 64  # how much of each range of parts is taken
SHARED_BYTES = NEXT + LINE * MOST_RANGES
# Of a pool: what kernels read (`codegen.parallel` has the same), the least nanoseconds of work that
# are shared, and where the shared structure is.
POOL_PARALLEL, POOL_THREADS, POOL_PORTION, POOL_FOLD, POOL_IN_ORDER, POOL_PAUSE = range(0, 48, 8)
POOL_LEAST, POOL_SHARED, POOL_BYTES = 48, 56, 64

EXPORTS = (
    "gc_parallel", "gc_in_order", "gc_portion", "gc_fold", "gc_pause", "gc_worker", "gc_stop"
)  # fmt: skip
# A thread that waits looks again and again, for some tens of microseconds; then it lets others run
# between its looks, as it may be in the way of the very thread it waits for; after some hundred
# microseconds, which are longer than what stands between two loops in most calls, it sleeps. To
# wake it takes 50 to 100, and on a virtual machine milliseconds, in which the caller would do all
# parts alone: so workers stay awake from one call to the next.
SPINS = 1000
LOOKS = 5000

_X86 = platform.machine().lower() in ("x86_64", "amd64")
_ARM = platform.machine().lower() in ("arm64", "aarch64")


def _fields(base: str, **offsets: int) -> str:
    """Addresses of fields."""
    return "\n".join(
        f"  %{name} = getelementptr i8, ptr {base}, i64 {at}" for name, at in offsets.items()
    )


def _text() -> str:
    pause, declared = "", ""
    read, write = "  %mode = add i32 0, 0", ""
    if _X86:
        pause = "  call void @llvm.x86.sse2.pause()"
        read = """  call void @llvm.x86.sse.stmxcsr(ptr %here)
  %mode = load i32, ptr %here"""
        write = "  call void @llvm.x86.sse.ldmxcsr(ptr %MODE)"
        declared = """declare void @llvm.x86.sse2.pause()
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)"""
    elif _ARM:
        pause = "  call void @llvm.aarch64.hint(i32 1)"
        read = """  %all = call i64 @llvm.aarch64.get.fpcr()
  %mode = trunc i64 %all to i32"""
        write = """  %narrow = load i32, ptr %MODE
  %wide = zext i32 %narrow to i64
  call void @llvm.aarch64.set.fpcr(i64 %wide)"""
        declared = """declare void @llvm.aarch64.hint(i32)
declare i64 @llvm.aarch64.get.fpcr()
declare void @llvm.aarch64.set.fpcr(i64)"""
    return f"""
{declared}

; What a thread does after it has looked in vain so many times.
define internal void @between_looks(ptr %shared, i64 %looks) {{
start:
  %soon = icmp slt i64 %looks, {SPINS}
  br i1 %soon, label %short, label %long
short:
{pause}
  ret void
long:
{_fields("%shared", YIELD=YIELD)}
  %yield = load ptr, ptr %YIELD
  call i32 %yield()
  ret void
}}

; The same, for a part that waits for another one.
define void @gc_pause(ptr %pool, i64 %looks) {{
start:
{_fields("%pool", SHARED=POOL_SHARED)}
  %shared = load ptr, ptr %SHARED
  call void @between_looks(ptr %shared, i64 %looks)
  ret void
}}

; Parts of a job, one after the other, until none is left: those of its own range, then of others'.
define internal void @run(ptr %shared, i64 %worker) {{
start:
{_fields("%shared", PART=PART, CONTEXT=CONTEXT, PARTS=PARTS, RANGES=RANGES, FAILED=FAILED)}
{_fields("%shared", NEXT=NEXT)}
  %part = load ptr, ptr %PART
  %context = load ptr, ptr %CONTEXT
  %parts = load i64, ptr %PARTS
  %ranges = load i64, ptr %RANGES
  br label %range
range:
  %k = phi i64 [ 0, %start ], [ %another, %through ]
  %sum = add i64 %worker, %k
  %r = urem i64 %sum, %ranges
  %above = add i64 %r, 1
  %first = mul i64 %r, %parts
  %begin = udiv i64 %first, %ranges
  %last = mul i64 %above, %parts
  %end = udiv i64 %last, %ranges
  %line = mul i64 %r, {LINE}
  %next = getelementptr i8, ptr %NEXT, i64 %line
  br label %head
head:
  %taken = atomicrmw add ptr %next, i64 1 monotonic
  %index = add i64 %begin, %taken
  %some = icmp ult i64 %index, %end
  br i1 %some, label %body, label %through
body:
  %status = call i32 %part(ptr %context, i64 %index, i64 %worker)
  %good = icmp eq i32 %status, 0
  br i1 %good, label %head, label %bad
bad:
  store atomic i32 1, ptr %FAILED monotonic, align 4
  br label %head
through:
  %another = add i64 %k, 1
  %more = icmp ult i64 %another, %ranges
  br i1 %more, label %range, label %after
after:
  ret void
}}

define internal i32 @alone(ptr %part, ptr %context, i64 %parts) {{
start:
  br label %head
head:
  %index = phi i64 [ 0, %start ], [ %next, %body ]
  %some = icmp ult i64 %index, %parts
  br i1 %some, label %body, label %good
body:
  %next = add i64 %index, 1
  %status = call i32 %part(ptr %context, i64 %index, i64 0)
  %failed = icmp ne i32 %status, 0
  br i1 %failed, label %bad, label %head
good:
  ret i32 0
bad:
  ret i32 1
}}

define internal void @tell(ptr %shared, i64 %condition, i64 %times) {{
start:
{_fields("%shared", LOCK=LOCK, UNLOCK=UNLOCK, WAKE=WAKE, MUTEX=MUTEX)}
  %whom = getelementptr i8, ptr %shared, i64 %condition
  %lock = load ptr, ptr %LOCK
  %unlock = load ptr, ptr %UNLOCK
  %wake = load ptr, ptr %WAKE
  call i32 %lock(ptr %MUTEX)
  br label %head
head:
  %i = phi i64 [ 0, %start ], [ %next, %body ]
  %more = icmp slt i64 %i, %times
  br i1 %more, label %body, label %after
body:
  %next = add i64 %i, 1
  call i32 %wake(ptr %whom)
  br label %head
after:
  call i32 %unlock(ptr %MUTEX)
  ret void
}}

define i32 @gc_parallel(ptr %pool, ptr %part, ptr %context, i64 %parts) {{
start:
  %status = call i32 @job(ptr %pool, ptr %part, ptr %context, i64 %parts, i64 {MOST_RANGES})
  ret i32 %status
}}

; The same, where parts wait for those before them: no part is begun before these are.
define i32 @gc_in_order(ptr %pool, ptr %part, ptr %context, i64 %parts) {{
start:
  %status = call i32 @job(ptr %pool, ptr %part, ptr %context, i64 %parts, i64 1)
  ret i32 %status
}}

define internal i32 @job(ptr %pool, ptr %part, ptr %context, i64 %parts, i64 %most) {{
start:
  %here = alloca i32
{_fields("%pool", THREADS=POOL_THREADS, SHARED=POOL_SHARED)}
  %shared = load ptr, ptr %SHARED
{_fields("%shared", BUSY=BUSY, TICKETS=TICKETS, FINISHED=FINISHED, SLEEPERS=SLEEPERS)}
{_fields("%shared", RANGES=RANGES, NEXT=NEXT)}
{_fields("%shared", WAITING=WAITING, WORKERS=WORKERS, PART=PART, CONTEXT=CONTEXT, PARTS=PARTS)}
{_fields("%shared", FAILED=FAILED, MODE=MODE, LOCK=LOCK, UNLOCK=UNLOCK, SLEEP=SLEEP)}
{_fields("%shared", MUTEX=MUTEX, DONE=DONE)}
  %threads = load i64, ptr %THREADS
  %started = load atomic i32, ptr %WORKERS acquire, align 4
  %workers = zext i32 %started to i64
  %asked = sub i64 %threads, 1
  %enough = icmp slt i64 %asked, %workers
  %upto = select i1 %enough, i64 %asked, i64 %workers
  %others = sub i64 %parts, 1
  %fewer = icmp slt i64 %others, %upto
  %tickets = select i1 %fewer, i64 %others, i64 %upto
  %shareable = icmp sgt i64 %tickets, 0
  br i1 %shareable, label %ask, label %alone
ask:
  %taken = cmpxchg ptr %BUSY, i32 0, i32 1 acquire monotonic
  %mine = extractvalue {{ i32, i1 }} %taken, 1
  br i1 %mine, label %give, label %alone
alone:
  %single = call i32 @alone(ptr %part, ptr %context, i64 %parts)
  ret i32 %single
give:
{read}
  store i32 %mode, ptr %MODE
  store ptr %part, ptr %PART
  store ptr %context, ptr %CONTEXT
  store i64 %parts, ptr %PARTS
  %all_threads = add i64 %tickets, 1
  %ranges = call i64 @llvm.smin.i64(i64 %all_threads, i64 %most)
  store i64 %ranges, ptr %RANGES
  store atomic i32 0, ptr %FAILED monotonic, align 4
  store atomic i64 0, ptr %FINISHED monotonic, align 8
  br label %clear
clear:
  %r = phi i64 [ 0, %give ], [ %r.after, %clear ]
  %line = mul i64 %r, {LINE}
  %next = getelementptr i8, ptr %NEXT, i64 %line
  store atomic i64 0, ptr %next monotonic, align 8
  %r.after = add i64 %r, 1
  %another = icmp slt i64 %r.after, %ranges
  br i1 %another, label %clear, label %open
open:
  store atomic i64 %tickets, ptr %TICKETS seq_cst, align 8
  %asleep = load atomic i32, ptr %SLEEPERS seq_cst, align 4
  %quiet = icmp eq i32 %asleep, 0
  br i1 %quiet, label %work, label %call
call:
  call void @tell(ptr %shared, i64 {WORK}, i64 %tickets)
  br label %work
work:
  call void @run(ptr %shared, i64 0)
  %left = atomicrmw xchg ptr %TICKETS, i64 0 seq_cst
  %claimed = sub i64 %tickets, %left
  br label %spin
spin:
  %looks = phi i64 [ 0, %work ], [ %more, %again ]
  %done = load atomic i64, ptr %FINISHED acquire, align 8
  %all = icmp eq i64 %done, %claimed
  br i1 %all, label %finished, label %again
again:
  call void @between_looks(ptr %shared, i64 %looks)
  %more = add i64 %looks, 1
  %longer = icmp slt i64 %more, {LOOKS}
  br i1 %longer, label %spin, label %rest
rest:
  %lock = load ptr, ptr %LOCK
  %unlock = load ptr, ptr %UNLOCK
  %sleep = load ptr, ptr %SLEEP
  call i32 %lock(ptr %MUTEX)
  store atomic i32 1, ptr %WAITING seq_cst, align 4
  br label %look
look:
  %now = load atomic i64, ptr %FINISHED seq_cst, align 8
  %through = icmp eq i64 %now, %claimed
  br i1 %through, label %awake, label %doze
doze:
  call i32 %sleep(ptr %DONE, ptr %MUTEX, i32 -1, i32 0)
  br label %look
awake:
  store atomic i32 0, ptr %WAITING seq_cst, align 4
  call i32 %unlock(ptr %MUTEX)
  br label %finished
finished:
  %status = load atomic i32, ptr %FAILED monotonic, align 4
  store atomic i32 0, ptr %BUSY release, align 4
  ret i32 %status
}}

; How many units of work a part takes: a power of two, or all of them; at least 1.
define i64 @gc_portion(ptr %pool, i64 %units, i64 %cost) {{
start:
{_fields("%pool", THREADS=POOL_THREADS, LEAST=POOL_LEAST)}
  %least = load i64, ptr %LEAST
  %small = icmp slt i64 %cost, %least
  %all = call i64 @llvm.smax.i64(i64 %units, i64 1)
  br i1 %small, label %together, label %shared
together:
  ret i64 %all
shared:
  %threads = load i64, ptr %THREADS
  %quarter = lshr i64 %least, 2
  %share = add i64 %quarter, 1
  %worth = udiv i64 %cost, %share
  %some = add i64 %worth, 1
  %most = mul i64 %threads, {PARTS_PER_THREAD}
  %upto = call i64 @llvm.smin.i64(i64 %most, i64 {MOST_PARTS})
  %parts = call i64 @llvm.smin.i64(i64 %upto, i64 %some)
  %below = sub i64 %parts, 1
  %up = add i64 %units, %below
  %each = udiv i64 %up, %parts
  %size = call i64 @llvm.smax.i64(i64 %each, i64 1)
  %last = sub i64 %size, 1
  %zeros = call i64 @llvm.ctlz.i64(i64 %last, i1 false)
  %level = sub i64 64, %zeros
  %taken = shl i64 1, %level
  ret i64 %taken
}}

; The sums of parts, rows of n elements: pairs of the `whole` ones become one, and so on, as in a
; binary counter; that of a last, shorter part is the smallest when what is left is folded.
define void @gc_fold(ptr %both, ptr %out, ptr %rows, i64 %stride, i64 %n, i64 %item,
                     i64 %whole, i64 %rest) {{
start:
  %end = mul i64 %whole, %stride
  %behind = getelementptr i8, ptr %rows, i64 %end
  %partial = icmp ne i64 %rest, 0
  %first = select i1 %partial, ptr %behind, ptr null
  br label %level
level:
  %left = phi i64 [ %whole, %start ], [ %half, %paired ]
  %total = phi ptr [ %first, %start ], [ %next, %paired ]
  %more = icmp sgt i64 %left, 0
  br i1 %more, label %look, label %copy
look:
  %odd = trunc i64 %left to i1
  br i1 %odd, label %single, label %pairs
single:
  %before = sub i64 %left, 1
  %place = mul i64 %before, %stride
  %row = getelementptr i8, ptr %rows, i64 %place
  %none = icmp eq ptr %total, null
  br i1 %none, label %pairs, label %join
join:
  call void %both(ptr %row, ptr %row, ptr %total, i64 %n)
  br label %pairs
pairs:
  %next = phi ptr [ %total, %look ], [ %row, %single ], [ %row, %join ]
  %half = lshr i64 %left, 1
  br label %pair
pair:
  %i = phi i64 [ 0, %pairs ], [ %following, %merge ]
  %again = icmp slt i64 %i, %half
  br i1 %again, label %merge, label %paired
merge:
  %to = mul i64 %i, %stride
  %from = shl i64 %to, 1
  %target = getelementptr i8, ptr %rows, i64 %to
  %one = getelementptr i8, ptr %rows, i64 %from
  %other = getelementptr i8, ptr %one, i64 %stride
  call void %both(ptr %target, ptr %one, ptr %other, i64 %n)
  %following = add i64 %i, 1
  br label %pair
paired:
  br label %level
copy:
  %same = icmp eq ptr %total, %out
  %bytes = mul i64 %n, %item
  %eight = and i64 %bytes, -8
  br i1 %same, label %after, label %words
words:
  %w = phi i64 [ 0, %copy ], [ %w8, %word ]
  %inside = icmp slt i64 %w, %eight
  br i1 %inside, label %word, label %tail
word:
  %w.from = getelementptr i8, ptr %total, i64 %w
  %w.value = load i64, ptr %w.from, align 1
  %w.to = getelementptr i8, ptr %out, i64 %w
  store i64 %w.value, ptr %w.to, align 1
  %w8 = add i64 %w, 8
  br label %words
tail:
  %b = phi i64 [ %eight, %words ], [ %b1, %byte ]
  %short = icmp slt i64 %b, %bytes
  br i1 %short, label %byte, label %after
byte:
  %b.from = getelementptr i8, ptr %total, i64 %b
  %b.value = load i8, ptr %b.from
  %b.to = getelementptr i8, ptr %out, i64 %b
  store i8 %b.value, ptr %b.to
  %b1 = add i64 %b, 1
  br label %tail
after:
  ret void
}}

declare i64 @llvm.smax.i64(i64, i64)
declare i64 @llvm.smin.i64(i64, i64)
declare i64 @llvm.ctlz.i64(i64, i1)

; What a worker's thread runs until the pool stops.
define void @gc_worker(ptr %shared) {{
start:
{_fields("%shared", TICKETS=TICKETS, FINISHED=FINISHED, SLEEPERS=SLEEPERS, WAITING=WAITING)}
{_fields("%shared", STOP=STOP, MODE=MODE, LOCK=LOCK, UNLOCK=UNLOCK, SLEEP=SLEEP)}
{_fields("%shared", MUTEX=MUTEX, WORK=WORK)}
  %lock = load ptr, ptr %LOCK
  %unlock = load ptr, ptr %UNLOCK
  %sleep = load ptr, ptr %SLEEP
  br label %idle
idle:
  %looks = phi i64 [ 0, %start ], [ %next, %again ], [ 0, %leave ], [ 0, %done ], [ 0, %report ]
  %ticket = load atomic i64, ptr %TICKETS acquire, align 8
  %open = icmp sgt i64 %ticket, 0
  br i1 %open, label %claim, label %closed
claim:
  %fewer = sub i64 %ticket, 1
  %pair = cmpxchg ptr %TICKETS, i64 %ticket, i64 %fewer seq_cst monotonic
  %won = extractvalue {{ i64, i1 }} %pair, 1
  br i1 %won, label %work, label %again
closed:
  %stop = load atomic i32, ptr %STOP acquire, align 4
  %on = icmp eq i32 %stop, 0
  br i1 %on, label %again, label %over
again:
  call void @between_looks(ptr %shared, i64 %looks)
  %next = add i64 %looks, 1
  %longer = icmp slt i64 %next, {LOOKS}
  br i1 %longer, label %idle, label %rest
rest:
  call i32 %lock(ptr %MUTEX)
  %before = atomicrmw add ptr %SLEEPERS, i32 1 seq_cst
  br label %look
look:
  %now = load atomic i64, ptr %TICKETS seq_cst, align 8
  %ended = load atomic i32, ptr %STOP seq_cst, align 4
  %none = icmp sle i64 %now, 0
  %lasts = icmp eq i32 %ended, 0
  %stay = and i1 %none, %lasts
  br i1 %stay, label %doze, label %leave
doze:
  call i32 %sleep(ptr %WORK, ptr %MUTEX, i32 -1, i32 0)
  br label %look
leave:
  %after = atomicrmw sub ptr %SLEEPERS, i32 1 seq_cst
  call i32 %unlock(ptr %MUTEX)
  br label %idle
work:
{write}
  call void @run(ptr %shared, i64 %ticket)
  %count = atomicrmw add ptr %FINISHED, i64 1 seq_cst
  br label %done
done:
  %waiting = load atomic i32, ptr %WAITING seq_cst, align 4
  %awaited = icmp ne i32 %waiting, 0
  br i1 %awaited, label %report, label %idle
report:
  call void @tell(ptr %shared, i64 {DONE}, i64 1)
  br label %idle
over:
  ret void
}}

define void @gc_stop(ptr %shared) {{
start:
{_fields("%shared", STOP=STOP, WORKERS=WORKERS)}
  %workers = atomicrmw xchg ptr %WORKERS, i32 0 seq_cst
  %count = zext i32 %workers to i64
  store atomic i32 1, ptr %STOP seq_cst, align 4
  call void @tell(ptr %shared, i64 {WORK}, i64 %count)
  ret void
}}
"""


@cache
def _system() -> tuple[list[int], Any] | None:
    """Addresses of lock, unlock, sleep, wake and yield, and what makes a lock of zeros."""
    names = (
        ("AcquireSRWLockExclusive", "ReleaseSRWLockExclusive")
        + ("SleepConditionVariableSRW", "WakeConditionVariable", "SwitchToThread")
        if sys.platform == "win32"
        else ("pthread_mutex_lock", "pthread_mutex_unlock")
        + ("pthread_cond_wait", "pthread_cond_signal", "sched_yield")
    )
    try:
        library = ctypes.CDLL("kernel32" if sys.platform == "win32" else None)
        found = [ctypes.cast(getattr(library, name), ctypes.c_void_p).value for name in names]
    except (AttributeError, OSError):
        return None
    return [address or 0 for address in found], library


def available() -> bool:
    """Can threads wait for each other here?"""
    return _system() is not None


class Shared:
    """The structure that all pools share, and its code; one in a process.

    It is never freed: native code may hold its address.
    """

    def __init__(self) -> None:
        from graphc.runtime.routines import linked

        self.library = linked("workers", _text, EXPORTS, passes=False)
        self._memory = (ctypes.c_uint8 * (SHARED_BYTES + 64))()
        self.address = (ctypes.addressof(self._memory) + 63) & -64
        self.reset()

    def reset(self) -> None:
        """No workers and nothing under way, as at first and in a forked child."""
        system = _system()
        assert system is not None
        functions, library = system
        ctypes.memset(self.address, 0, SHARED_BYTES)
        for at, function in zip((LOCK, UNLOCK, SLEEP, WAKE, YIELD), functions, strict=True):
            ctypes.c_uint64.from_address(self.address + at).value = function
        if sys.platform != "win32":  # there, zeros are a lock and a condition
            for make, at in (("mutex", MUTEX), ("cond", WORK), ("cond", DONE)):
                field = ctypes.c_void_p(self.address + at)
                getattr(library, f"pthread_{make}_init")(field, None)

    def set_workers(self, count: int) -> None:
        ctypes.c_uint32.from_address(self.address + WORKERS).value = count

    def work(self) -> None:
        """What a worker's thread does until `stop`."""
        self._call("gc_worker")

    def stop(self) -> None:
        """Every worker leaves its loop; the one that works does so after its job."""
        self._call("gc_stop")

    def _call(self, name: str) -> None:
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self.library.address(name))(self.address)

    def pool(self, threads: int, least: int) -> tuple[object, int]:
        """A pool's structure, for at most so many threads and work of at least so many ns.

        What keeps it alive, and its address.
        """
        words = (ctypes.c_uint64 * (POOL_BYTES // 8))()
        words[POOL_PARALLEL // 8] = self.library.address("gc_parallel")
        words[POOL_PORTION // 8] = self.library.address("gc_portion")
        words[POOL_IN_ORDER // 8] = self.library.address("gc_in_order")
        words[POOL_FOLD // 8] = self.library.address("gc_fold")
        words[POOL_PAUSE // 8] = self.library.address("gc_pause")
        words[POOL_THREADS // 8] = threads
        words[POOL_LEAST // 8] = least
        words[POOL_SHARED // 8] = self.address
        return words, ctypes.addressof(words)


__all__ = ["Shared", "available"]
