"""Notices: tells owners of subscriptions, by events of Hooktide's own, what becomes of their deliveries."""
