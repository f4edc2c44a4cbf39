"""Support: what tests of several folders share: the system as processes, receivers, certificates."""
