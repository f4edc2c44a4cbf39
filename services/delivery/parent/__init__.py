"""The parent of several delivery workers: it starts them, reads the log once for all of them, and is their one front door."""
