"""TLS: the listeners, and the calls between services."""
