"""Simulation: runs delivery in virtual time, in a seeded world where anything may fail."""
