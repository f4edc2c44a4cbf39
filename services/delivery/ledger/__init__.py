"""Ledger: the durable state of every delivery."""
