"""Commands: the commands of `hooktide`, one module for each; `subscribe` and `unsubscribe` share one."""
