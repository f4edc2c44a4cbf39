"""Subscriptions: what delivery knows of subscriptions, how fresh that is, and whom an event is for."""
