"""Ledger: the durable state of every delivery, behind one Protocol."""
