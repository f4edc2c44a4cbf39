"""System: the four services as real processes, and real receivers, for tests that look at the whole."""
