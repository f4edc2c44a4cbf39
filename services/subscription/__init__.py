"""Subscription: the registry. It owns who wants what: subscriptions, catalogue, consumers, keys."""
