"""Retention: old rows are deleted, their disk space comes back, and nothing that is still needed is deleted."""
