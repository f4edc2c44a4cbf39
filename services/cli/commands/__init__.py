"""Commands: the commands of `hooktide`, one module for each; `emit` is in `publish.py`, `subscribe` and `unsubscribe` share one."""
