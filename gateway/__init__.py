"""Gateway: the public REST API, translated to gRPC. No database and no business rule of its own."""
