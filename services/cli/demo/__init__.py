"""Demo: the events of `hooktide demo`, its counters, and its display."""
