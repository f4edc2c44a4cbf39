"""CLI: the `hooktide` command. It runs everything on a laptop or one service in production, and has tools for emitters and consumers."""
