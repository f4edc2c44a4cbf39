"""Event log: the durable, partitioned record of accepted events, behind two Protocols.

emitter → ingest → [event log] → route → lane → attempt → ledger

`record.py` has the words, `protocols.py` the two Protocols, and one file each engine:
`sqlite.py` (embedded, writes and reads) and `remote.py` (reads through ingest's gRPC).
"""
