"""Runtime: what every service's process has in common.

A process reads its settings at the start and freezes them; a reload replaces them as a whole. `ServiceProcess` starts and stops it. One
factory makes gRPC servers and channels, because it knows the transport's pitfalls. Errors, ids, page tokens, clock, logs and health
have one form.
"""
