"""TLS of listeners and of calls between services."""
