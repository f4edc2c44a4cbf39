"""Listings: what callers read of deliveries, including those that wait in the log and have no row."""
