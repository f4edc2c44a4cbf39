"""Memory: how a service's process keeps and frees it.

Law: what a service holds is bounded by its own limits; here it is only said what becomes of what it has let go.
"""

import asyncio
import contextlib
import ctypes
import gc
from collections.abc import Iterator

# With Python's 700, a busy service would look through its objects many times a second.
_COLLECT_AFTER_OBJECTS = 20_000
# mallopt(3): parameters and the values that they get. Beyond the first, free memory at the heap's end goes back to the system; what is
# larger than the second is mapped by itself, and unmapped when it is freed; by the third, the heap grows.
_M_TRIM_THRESHOLD, _TRIM_BYTES = -1, 256 * 1024 * 1024
_M_MMAP_THRESHOLD, _MMAP_BYTES = -3, 32 * 1024 * 1024
_M_TOP_PAD, _TOP_PAD_BYTES = -2, 1024 * 1024
FREE_BYTES_MAX = 32 * 1024 * 1024
"""How much free memory a process keeps for what it makes next, once `GIVE_BACK_EVERY_S` have passed."""
GIVE_BACK_EVERY_S = 10.0


class _HeapUse(ctypes.Structure):
    """What mallinfo2(3) returns, in bytes where the name does not say otherwise."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    )


def spare_the_collector() -> None:
    """Have cycles collected less often, and never among what was made to start.

    Nearly all that a service makes goes by its reference count; by its defaults the collector would look through it after
    each 700 objects that stay a while, which took a sixth of a busy service's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER_OBJECTS)


def keep_freed_memory() -> bool:
    """Have the C library keep what is freed for what is made next, where it can be told so; returns whether it was.

    Every message of half a megabyte would otherwise be mapped, cleared page by page and unmapped again, which took a twentieth of a
    busy system's time. Only glibc has this to be told; others are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wanted = ((_M_TRIM_THRESHOLD, _TRIM_BYTES), (_M_MMAP_THRESHOLD, _MMAP_BYTES), (_M_TOP_PAD, _TOP_PAD_BYTES))
    return [mallopt(parameter, value) for parameter, value in wanted] == [1] * len(wanted)


def give_back_free_memory() -> bool:
    """Give what is free back to the system if it is more than `FREE_BYTES_MAX`; returns whether it was.

    Only glibc is asked. It takes about 7 ms for 100 MB, and what is needed again is cleared page by page: hence at intervals only.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallinfo2"):
        return False
    library.mallinfo2.restype = _HeapUse
    if library.mallinfo2().fordblks <= FREE_BYTES_MAX:
        return False
    library.malloc_trim(ctypes.c_size_t(0))
    return True


@contextlib.contextmanager
def giving_back_free_memory(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Give free memory back at intervals, beside the body."""
    timer: asyncio.TimerHandle

    def give_back() -> None:
        nonlocal timer
        give_back_free_memory()
        timer = loop.call_later(GIVE_BACK_EVERY_S, give_back)

    timer = loop.call_later(GIVE_BACK_EVERY_S, give_back)
    try:
        yield
    finally:
        timer.cancel()
