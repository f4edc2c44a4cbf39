"""Hooktide's contract: the gRPC stubs and the emitter client."""
