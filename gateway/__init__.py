"""Gateway: the public REST API, translated to gRPC. It has no database and no business rules of its own."""
