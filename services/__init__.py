"""Hooktide's services: subscription, ingest and delivery, and what they share."""

import os

# Before grpc is imported: its core would write a line of its own form for each TLS handshake that fails, as often as a client likes.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
