"""SQLite: the embedded engine of the event log."""
