"""Event log: the durable, partitioned record of accepted events, behind Protocols.

emitter → ingest → [event log] → router → lane → attempt → ledger

`record.py`, `history.py` and `filtered_read.py` hold the values, `protocol.py` the Protocols. The engines are `sqlite/` (embedded; writes
and reads) and `grpc_client.py` (reads through ingest's gRPC).
"""
