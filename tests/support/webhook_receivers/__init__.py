"""Webhook receivers: a well-behaved one with behaviours, one that remembers only the order, and hostile ones below HTTP."""
