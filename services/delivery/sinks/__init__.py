"""Sinks: talking to a sink without an event: the verification of its consent, and the test event."""
