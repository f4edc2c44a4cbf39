"""Rules: what a subscription may say, and what a sink's consent means."""
