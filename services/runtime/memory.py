"""Memory: how a service's process keeps and frees it.

Law: what a service holds is bounded by its own limits; here it is only said what becomes of what it has let go.
"""

import ctypes
import gc

# With Python's 700, a busy service would look through its objects many times a second.
_COLLECT_AFTER_OBJECTS = 20_000
# mallopt(3): parameters and the values that they get. Beyond the first, free memory at the heap's end goes back to the system; what is
# larger than the second is mapped by itself, and unmapped when it is freed; by the third, the heap grows.
_M_TRIM_THRESHOLD, _TRIM_BYTES = -1, 256 * 1024 * 1024
_M_MMAP_THRESHOLD, _MMAP_BYTES = -3, 32 * 1024 * 1024
_M_TOP_PAD, _TOP_PAD_BYTES = -2, 1024 * 1024


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
