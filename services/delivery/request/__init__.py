"""Request: one signed request, made from a delivery."""
