"""SQLite: the embedded engine of the ledger, in one file."""
