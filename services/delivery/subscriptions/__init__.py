"""Subscriptions: delivery's copy of the subscriptions, how fresh the copy is, and which subscriptions an event is for."""
