"""Retention: what is old goes, its disk space comes back, and nothing that is still needed goes with it."""
