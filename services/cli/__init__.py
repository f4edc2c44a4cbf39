"""CLI: the `hooktide` command: everything on a laptop, one service in production, and tools for both sides."""
