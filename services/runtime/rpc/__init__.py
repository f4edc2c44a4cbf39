"""RPC: gRPC servers and channels, and what guards them."""
