"""Hooktide's services: subscription, ingest and delivery, and what they share."""
