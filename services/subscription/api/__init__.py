"""API: the registry's gRPC servers, and the conversion of their messages."""
