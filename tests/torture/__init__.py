"""Torture: runs the system under a seeded load while processes are killed, and checks invariants afterwards."""
