"""Serve: what `python -m services` does, by a process that can be told to die at a point, or on what disk and by what clock it runs.

`FAULTS_DIR` names the directory through which tests tell it: `failpoints.py` arms points there, and `shim.py` keeps a control file for each
service.
"""

import os
import sys
from pathlib import Path

from services.__main__ import main
from services.runtime import failpoints
from tests.faults.failpoints import Armed
from tests.faults.shim import SHADOWED, attach

DIRECTORY = "FAULTS_DIR"

if __name__ == "__main__":
    directory = Path(os.environ[DIRECTORY])
    failpoints.reached = Armed(directory)
    if os.environ.get(SHADOWED):
        service = sys.argv[sys.argv.index("serve") + 1]
        attach(directory, service)
    main()
