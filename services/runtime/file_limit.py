"""File limit: how many files, connections included, this process may have open.

Without a free file descriptor, a process can neither accept a connection nor open a database or a certificate. So every service raises
its own limit at its start as far as the system permits (getrlimit(2): the soft limit up to the hard one), and keeps the number of its
connections below the limit.
"""

import contextlib
import resource

from services.runtime.logs import logger

FILES_WANTED = 65_536
# For databases, logs, the event loop, channels to other services, and connections that are just closing.
FILES_RESERVED = 128
_CONNECTIONS_MIN = 16


def raise_file_limit(wanted: int = FILES_WANTED) -> int:
    """Raise the limit of open files to `wanted`, or to the highest value that the system permits; return the limit in force.

    A limit above `wanted` stays as it is.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return files_max()
    raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    # Some systems report a hard limit and permit less. `connections_within` warns if the limit in force is too low.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    return files_max()


def files_max() -> int:
    """Return how many files this process may have open at most."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return FILES_WANTED if soft == resource.RLIM_INFINITY else soft


def connections_within(setting: str, wanted: int) -> int:
    """Return how many connections a service may hold: `wanted`, or what the file limit leaves if that is less.

    If the file limit is lower, a warning line shows both numbers; `setting` names the variable that asks for `wanted`.
    """
    room = max(_CONNECTIONS_MIN, files_max() - FILES_RESERVED)
    if wanted <= room:
        return wanted
    logger().warning("file_limit.too_low", setting=setting, wanted=wanted, used=room, files_max=files_max(), advice="raise `ulimit -n`")
    return room
