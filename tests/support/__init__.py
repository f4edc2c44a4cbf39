"""Support: what tests of several folders use: the system as processes, receivers, certificates."""
