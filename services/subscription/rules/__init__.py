"""Rules: what a subscription may contain, and how a sink's consent changes its state."""
