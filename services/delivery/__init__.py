"""Delivery: follows the log, routes each event, pushes it, and records what became of it."""
