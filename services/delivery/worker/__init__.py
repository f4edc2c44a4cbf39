"""Worker: the loops of one worker: from the log to the lanes, between the lanes and the ledger, and the ageing of what is kept."""
