"""Request: builds, signs and sends the request of an attempt."""
