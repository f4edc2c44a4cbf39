"""Sinks: talks to a sink without an event of the log: verifies the sink, and sends it a test event."""
