"""Runs one service, like `python -m services`, on the one core that BENCH_CORE names."""

import os

from services.__main__ import main

if __name__ == "__main__":
    os.sched_setaffinity(0, {int(os.environ["BENCH_CORE"])})
    main()
