"""Sinks: requests to a sink outside event delivery: sink verification, and the test event."""
