"""Serve: runs `python -m services` in a process that tests can kill at a failpoint or by an event, with a disk and a clock of its own.

`FAULTS_DIR` names the directory through which tests control the process: `failpoints.py` arms failpoints there, `poison.py` names the event
that kills, and `shim.py` keeps a control file for each service there.
"""

import os
import sys
from pathlib import Path

from services.__main__ import main
from services.runtime import failpoints
from tests.faults.failpoints import Armed
from tests.faults.poison import poison_routing
from tests.faults.shim import SHADOWED, attach

DIRECTORY = "FAULTS_DIR"

if __name__ == "__main__":
    directory = Path(os.environ[DIRECTORY])
    failpoints.reached = Armed(directory)
    poison_routing(directory)
    if os.environ.get(SHADOWED):
        service = sys.argv[sys.argv.index("serve") + 1]
        attach(directory, service)
    main()
