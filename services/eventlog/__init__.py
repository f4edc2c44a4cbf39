"""Event log: the durable, partitioned record of accepted events, behind two Protocols."""
