"""Memory: how a service's process reuses freed memory and gives it back to the system.

Law: a service's own limits bound the memory that it holds. This file only decides what happens to memory that it has freed.
"""

import asyncio
import contextlib
import ctypes
import gc
from collections.abc import Iterator

# With Python's 700, the collector would scan a busy service's objects many times a second.
_COLLECT_AFTER_OBJECTS = 20_000
# mallopt(3): parameters and their values. If more than the trim threshold is free at the heap's end, it goes back to the system. A block
# larger than the mmap threshold is mapped by itself, and unmapped when it is freed. The top pad is the step by which the heap grows.
_M_TRIM_THRESHOLD, _TRIM_BYTES = -1, 256 * 1024 * 1024
_M_MMAP_THRESHOLD, _MMAP_BYTES = -3, 32 * 1024 * 1024
_M_TOP_PAD, _TOP_PAD_BYTES = -2, 1024 * 1024
FREE_BYTES_MAX = 32 * 1024 * 1024
"""How much free memory a process keeps for reuse; every `GIVE_BACK_EVERY_S` seconds it gives free memory back if it has more."""
GIVE_BACK_EVERY_S = 10.0


class _HeapUse(ctypes.Structure):
    """The result of mallinfo2(3): bytes, or counts of blocks."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    )


def spare_the_collector() -> None:
    """Collect reference cycles less often, and never scan the objects that were made during the start.

    Reference counts free nearly all of a service's objects. By default the collector would run after every 700 objects that survive for
    a while, which took a sixth of a busy service's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER_OBJECTS)


def keep_freed_memory() -> bool:
    """Make the C library keep freed memory for reuse, if it has such an option; return whether it accepted.

    Otherwise every message of half a megabyte would be mapped, cleared page by page and unmapped again, which took a twentieth of a
    busy system's time. Only glibc has this option; other C libraries stay as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wanted = ((_M_TRIM_THRESHOLD, _TRIM_BYTES), (_M_MMAP_THRESHOLD, _MMAP_BYTES), (_M_TOP_PAD, _TOP_PAD_BYTES))
    return [mallopt(parameter, value) for parameter, value in wanted] == [1] * len(wanted)


def give_back_free_memory() -> bool:
    """Give free memory back to the system if more than `FREE_BYTES_MAX` is free; return whether that was so.

    This works with glibc only. It takes about 7 ms for 100 MB, and memory that is needed again is cleared page by page, so it is done
    at intervals only.
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
    """Give free memory back at intervals while the body runs."""
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
