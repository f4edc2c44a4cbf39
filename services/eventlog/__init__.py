"""Event log: the durable, partitioned record of accepted events, behind two Protocols.

emitter → ingest → [event log] → route → lane → attempt → ledger

`record.py` has the words, `protocol.py` the two Protocols. The engines are `sqlite/` (embedded, writes and reads) and
`grpc_client.py` (reads through ingest's gRPC).
"""
