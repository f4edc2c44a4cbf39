"""RPC: gRPC servers and channels, and the limits that protect them."""
