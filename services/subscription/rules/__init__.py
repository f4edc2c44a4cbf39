"""Rules: what callers may ask the registry to store, and how a sink's consent changes its state; no rule reads the database."""
