"""Demo: what `hooktide demo` shows, and what it counts."""
