"""Worker: the loops of one worker: from the log to the lanes, between the lanes and the ledger, and retention in both stores."""
