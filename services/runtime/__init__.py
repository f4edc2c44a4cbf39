"""Runtime: how a process lives, the same for every service.

Settings are read once and frozen; a lifecycle owns start and stop; one gRPC server and channel
factory knows the transport's pitfalls; errors, ids, page tokens, clock, logs and health have one form.
"""
