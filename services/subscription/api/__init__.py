"""API: the gRPC servers of the registry, and the forms of its messages."""
